# create_stream or stream_arn: CloudWatch Logs writes the log groups to a Kinesis data stream by subscription filters,
# and the bridge reads the stream.

locals {
  # What follows from the variables alone, so that a plan shows it.
  made_stream_name = coalesce(var.stream_name, "eks-audit-${var.cluster_name}")
  made_stream_arn  = "arn:${local.partition}:kinesis:${local.region}:${local.account_id}:stream/${local.made_stream_name}"

  has_stream     = var.create_stream || var.stream_arn != null
  stream_arn     = var.create_stream ? local.made_stream_arn : var.stream_arn
  stream_place   = split(":", "${coalesce(local.stream_arn, "none")}:::::")
  stream_name    = trimprefix(local.stream_place[5], "stream/")
  stream_is_ours = local.stream_place[3] == local.region && local.stream_place[4] == local.account_id

  # A stream of another account is read by a role there, where one is named; else by ours, if the stream's own policy lets it.
  stream_role_arns = local.stream_place[4] == local.account_id ? [] : [
    for arn in var.assume_role_arns : arn if try(split(":", arn)[4], "") == local.stream_place[4]
  ]

  makes_stream = var.create && var.create_stream
  reads_stream = var.create && local.has_stream
  by_us        = local.reads_stream && length(local.stream_role_arns) == 0
  subscribes   = local.reads_stream && var.subscribe
  encrypted    = var.stream_kms_key_arn != null

  # At most 14 + 24 + 1 + 16 + 1 + 8 = 64 characters.
  default_writer = "eks-audit-cwl-${substr(var.cluster_name, 0, 24)}-${substr(local.region, 0, 16)}-${local.identity_hash}"

  read_stream_policy = templatefile("${path.module}/policies/read-stream.json.tftpl", {
    stream_arn = coalesce(local.stream_arn, "none")
  })
  write_stream_policy = templatefile("${path.module}/policies/write-stream.json.tftpl", {
    stream_arn = coalesce(local.stream_arn, "none")
  })
  key_policies = {
    for action in ["kms:Decrypt", "kms:GenerateDataKey"] :
    action => templatefile("${path.module}/policies/key.json.tftpl", {
      action     = action
      key_arn    = coalesce(var.stream_kms_key_arn, "none")
      stream_arn = coalesce(local.stream_arn, "none")
    })
  }
  writer_trust_policy = templatefile("${path.module}/policies/trust-logs.json.tftpl", {
    partition  = local.partition
    dns_suffix = data.aws_partition.current.dns_suffix
    region     = local.region
    account_id = local.account_id
  })
}

resource "aws_kinesis_stream" "events" {
  count            = local.makes_stream ? 1 : 0
  name             = local.made_stream_name
  shard_count      = var.stream_shards
  retention_period = var.stream_retention_hours
  encryption_type  = "KMS"
  kms_key_id       = coalesce(var.stream_kms_key_arn, "alias/aws/kinesis")
  tags             = var.tags

  stream_mode_details {
    stream_mode = var.stream_shards == null ? "ON_DEMAND" : "PROVISIONED"
  }
}

resource "aws_iam_role_policy" "read_stream" {
  count  = local.by_us ? 1 : 0
  name   = "read-stream"
  role   = aws_iam_role.bridge[0].id
  policy = local.read_stream_policy
}

# Kinesis asks the key on behalf of who reads and writes.
resource "aws_iam_role_policy" "decrypt_stream" {
  count  = local.by_us && local.encrypted ? 1 : 0
  name   = "decrypt-stream"
  role   = aws_iam_role.bridge[0].id
  policy = local.key_policies["kms:Decrypt"]
}

resource "aws_iam_role" "writer" {
  count                = local.subscribes ? 1 : 0
  name                 = coalesce(var.writer_role_name, local.default_writer)
  path                 = var.role_path
  description          = "CloudWatch Logs writes the audit log of the EKS cluster ${var.cluster_name} to ${local.stream_name}"
  assume_role_policy   = local.writer_trust_policy
  permissions_boundary = var.permissions_boundary
  tags                 = var.tags

  lifecycle {
    precondition {
      condition     = local.stream_is_ours
      error_message = "a subscription filter writes to a stream of its own account and region only (${local.account_id}, ${local.region}), and stream_arn is another's: set subscribe = false, and subscribe the log groups to a destination in ${local.region}, as in examples/fleet."
    }
  }
}

resource "aws_iam_role_policy" "write_stream" {
  count  = local.subscribes ? 1 : 0
  name   = "write-stream"
  role   = aws_iam_role.writer[0].id
  policy = local.write_stream_policy
}

resource "aws_iam_role_policy" "encrypt_stream" {
  count  = local.subscribes && local.encrypted ? 1 : 0
  name   = "encrypt-stream"
  role   = aws_iam_role.writer[0].id
  policy = local.key_policies["kms:GenerateDataKey"]
}

resource "aws_cloudwatch_log_subscription_filter" "events" {
  for_each        = toset(local.subscribes ? local.log_group_names : [])
  name            = var.subscription_filter_name
  log_group_name  = each.value
  filter_pattern  = var.subscription_filter_pattern
  distribution    = var.subscription_distribution
  destination_arn = var.create_stream ? aws_kinesis_stream.events[0].arn : local.stream_arn
  role_arn        = aws_iam_role.writer[0].arn

  # CloudWatch Logs writes a test message first. Where it may not write later, it skips the events of up to ten minutes.
  depends_on = [aws_iam_role_policy.write_stream, aws_iam_role_policy.encrypt_stream]
}
