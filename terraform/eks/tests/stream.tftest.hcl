# The stream, its filters, and who may write and read. The provider is mocked: no account, no network.

mock_provider "aws" {
  mock_data "aws_partition" {
    defaults = { partition = "aws", dns_suffix = "amazonaws.com" }
  }
  mock_data "aws_region" {
    defaults = { id = "eu-central-1" }
  }
  mock_data "aws_caller_identity" {
    defaults = { account_id = "111122223333" }
  }
  mock_data "aws_iam_openid_connect_provider" {
    defaults = { arn = "arn:aws:iam::111122223333:oidc-provider/oidc.eks.eu-central-1.amazonaws.com/id/0123456789ABCDEF0123456789ABCDEF" }
  }
  mock_resource "aws_iam_role" {
    defaults = { arn = "arn:aws:iam::111122223333:role/mocked" }
  }
  mock_resource "aws_kinesis_stream" {
    defaults = { arn = "arn:aws:kinesis:eu-central-1:111122223333:stream/eks-audit-production" }
  }
}

# The provider of a cluster in China, whose services have names of their own.
mock_provider "aws" {
  alias = "china"
  mock_data "aws_partition" {
    defaults = { partition = "aws-cn", dns_suffix = "amazonaws.com.cn" }
  }
  mock_data "aws_region" {
    defaults = { id = "cn-north-1" }
  }
  mock_data "aws_caller_identity" {
    defaults = { account_id = "111122223333" }
  }
  mock_data "aws_iam_openid_connect_provider" {
    defaults = { arn = "arn:aws-cn:iam::111122223333:oidc-provider/oidc.eks.cn-north-1.amazonaws.com.cn/id/0123456789ABCDEF0123456789ABCDEF" }
  }
}

variables {
  cluster_name    = "production"
  oidc_issuer_url = "https://oidc.eks.eu-central-1.amazonaws.com/id/0123456789ABCDEF0123456789ABCDEF"
}

run "without_a_stream_nothing_of_it" {
  command = plan

  assert {
    condition     = length(aws_kinesis_stream.events) + length(aws_iam_role.writer) + length(aws_cloudwatch_log_subscription_filter.events) == 0
    error_message = "a stream that nobody asked for"
  }
  assert {
    condition     = length(aws_iam_role_policy.read_stream) + length(aws_iam_role_policy.decrypt_stream) + length(aws_iam_role_policy.assume) == 0
    error_message = "permissions that nobody asked for"
  }
  assert {
    condition     = output.stream_name == null && output.stream_arn == null && output.writer_role_arn == null
    error_message = "there is no stream to tell of"
  }
}

run "created" {
  command = apply

  variables {
    create_stream = true
    tags          = { team = "security" }
  }
  assert {
    condition = (
      aws_kinesis_stream.events[0].name == "eks-audit-production" &&
      aws_kinesis_stream.events[0].stream_mode_details[0].stream_mode == "ON_DEMAND" &&
      aws_kinesis_stream.events[0].encryption_type == "KMS" && aws_kinesis_stream.events[0].kms_key_id == "alias/aws/kinesis" &&
      aws_kinesis_stream.events[0].retention_period == 24 && aws_kinesis_stream.events[0].tags == tomap({ team = "security" })
    )
    error_message = "the stream is not on demand, encrypted and tagged"
  }
  assert {
    condition = jsondecode(aws_iam_role_policy.read_stream[0].policy) == {
      Version = "2012-10-17"
      Statement = [{
        Sid      = "ReadStream"
        Effect   = "Allow"
        Action   = ["kinesis:DescribeStreamSummary", "kinesis:GetRecords", "kinesis:GetShardIterator", "kinesis:ListShards"]
        Resource = "arn:aws:kinesis:eu-central-1:111122223333:stream/eks-audit-production"
      }]
    }
    error_message = "reading: ${aws_iam_role_policy.read_stream[0].policy}"
  }
  assert {
    condition = jsondecode(aws_iam_role_policy.write_stream[0].policy).Statement[0] == {
      Sid      = "WriteStream"
      Effect   = "Allow"
      Action   = "kinesis:PutRecord"
      Resource = "arn:aws:kinesis:eu-central-1:111122223333:stream/eks-audit-production"
    }
    error_message = "writing: ${aws_iam_role_policy.write_stream[0].policy}"
  }
  assert {
    condition = jsondecode(aws_iam_role.writer[0].assume_role_policy).Statement[0] == {
      Sid       = "CloudWatchLogs"
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "logs.eu-central-1.amazonaws.com" }
      Condition = { StringLike = { "aws:SourceArn" = "arn:aws:logs:eu-central-1:111122223333:*" } }
    }
    error_message = "CloudWatch's trust: ${aws_iam_role.writer[0].assume_role_policy}"
  }
  assert {
    condition     = length(aws_iam_role_policy.decrypt_stream) + length(aws_iam_role_policy.encrypt_stream) == 0
    error_message = "the key that AWS keeps needs no permission"
  }
  assert {
    condition = (
      toset(keys(aws_cloudwatch_log_subscription_filter.events)) == toset(["/aws/eks/production/cluster"]) &&
      aws_cloudwatch_log_subscription_filter.events["/aws/eks/production/cluster"].filter_pattern == "" &&
      aws_cloudwatch_log_subscription_filter.events["/aws/eks/production/cluster"].distribution == "ByLogStream" &&
      aws_cloudwatch_log_subscription_filter.events["/aws/eks/production/cluster"].destination_arn == output.stream_arn &&
      aws_cloudwatch_log_subscription_filter.events["/aws/eks/production/cluster"].role_arn == output.writer_role_arn
    )
    error_message = "the cluster's log group is not subscribed, whole and in order"
  }
  assert {
    condition     = length(aws_iam_role.writer[0].name) <= 64 && aws_iam_role.writer[0].name != aws_iam_role.bridge[0].name
    error_message = "name: ${aws_iam_role.writer[0].name}"
  }
  # Catching up on a gap of the stream reads the log group.
  assert {
    condition     = jsondecode(output.read_policy).Statement[0].Action == ["logs:FilterLogEvents"]
    error_message = "the log group cannot be read: ${output.read_policy}"
  }
  # A cluster's name would keep out what other clusters send.
  assert {
    condition = yamldecode(output.helm_values) == {
      bridge         = "eks"
      serviceAccount = { name = "eks-audit-bridge" }
      eks = {
        region       = "eu-central-1"
        clusterNames = []
        logGroups    = []
        stream       = "eks-audit-production"
        roleArn      = "arn:aws:iam::111122223333:role/mocked"
      }
    }
    error_message = "values: ${output.helm_values}"
  }
}

run "provisioned_with_a_customer_key" {
  command = plan

  variables {
    create_stream               = true
    stream_name                 = "audit"
    stream_shards               = 3
    stream_retention_hours      = 168
    stream_kms_key_arn          = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
    subscription_filter_name    = "to-the-bridge"
    subscription_filter_pattern = "\"audit.k8s.io/v1\""
    subscription_distribution   = "Random"
    writer_role_name            = "audit-writer"
    log_group_names             = ["/aws/eks/production/cluster", "/aws/eks/staging/cluster"]
  }
  assert {
    condition = (
      aws_kinesis_stream.events[0].name == "audit" && aws_kinesis_stream.events[0].shard_count == 3 &&
      aws_kinesis_stream.events[0].stream_mode_details[0].stream_mode == "PROVISIONED" &&
      aws_kinesis_stream.events[0].retention_period == 168 && aws_kinesis_stream.events[0].kms_key_id == var.stream_kms_key_arn
    )
    error_message = "an option of the stream is lost"
  }
  assert {
    condition = [
      for policy in [aws_iam_role_policy.decrypt_stream[0].policy, aws_iam_role_policy.encrypt_stream[0].policy] : jsondecode(policy).Statement[0]
      ] == [
      for action in ["kms:Decrypt", "kms:GenerateDataKey"] : {
        Sid       = "UseStreamKey"
        Effect    = "Allow"
        Action    = action
        Resource  = var.stream_kms_key_arn
        Condition = { StringEquals = { "kms:EncryptionContext:aws:kinesis:arn" = "arn:aws:kinesis:eu-central-1:111122223333:stream/audit" } }
      }
    ]
    error_message = "the key is not for this stream only: ${aws_iam_role_policy.decrypt_stream[0].policy} ${aws_iam_role_policy.encrypt_stream[0].policy}"
  }
  assert {
    condition = alltrue([
      for group in var.log_group_names :
      aws_cloudwatch_log_subscription_filter.events[group].name == "to-the-bridge" &&
      aws_cloudwatch_log_subscription_filter.events[group].filter_pattern == "\"audit.k8s.io/v1\"" &&
      aws_cloudwatch_log_subscription_filter.events[group].distribution == "Random"
    ])
    error_message = "an option of the filters is lost"
  }
  assert {
    condition     = aws_iam_role.writer[0].name == "audit-writer"
    error_message = "name: ${aws_iam_role.writer[0].name}"
  }
}

run "a_stream_that_is_there" {
  command = plan

  variables {
    stream_arn      = "arn:aws:kinesis:eu-central-1:111122223333:stream/audit"
    read_log_groups = false
  }
  assert {
    condition     = length(aws_kinesis_stream.events) == 0 && output.stream_name == "audit"
    error_message = "the stream is there already"
  }
  assert {
    condition     = aws_cloudwatch_log_subscription_filter.events["/aws/eks/production/cluster"].destination_arn == var.stream_arn
    error_message = "the filter does not write to the stream"
  }
  assert {
    condition     = length(aws_iam_role_policy.read) == 0 && output.read_policy == null
    error_message = "the log group may be read, though it need not be"
  }
}

run "a_stream_of_another_account_and_region_is_only_read" {
  command = apply

  variables {
    stream_arn = "arn:aws:kinesis:us-east-1:444455556666:stream/audit"
    subscribe  = false
  }
  assert {
    condition     = length(aws_iam_role.writer) + length(aws_cloudwatch_log_subscription_filter.events) == 0
    error_message = "a filter cannot write there"
  }
  assert {
    condition     = jsondecode(aws_iam_role_policy.read_stream[0].policy).Statement[0].Resource == var.stream_arn
    error_message = "reading: ${aws_iam_role_policy.read_stream[0].policy}"
  }
  assert {
    condition     = yamldecode(output.helm_values).eks.stream == var.stream_arn && !can(yamldecode(output.helm_values).settings)
    error_message = "values: ${output.helm_values}"
  }
}

run "a_stream_of_another_account_by_a_role_there" {
  command = apply

  variables {
    stream_arn              = "arn:aws:kinesis:eu-central-1:444455556666:stream/audit"
    subscribe               = false
    assume_role_arns        = ["arn:aws:iam::444455556666:role/audit"]
    assume_role_external_id = "ours"
  }
  assert {
    condition     = length(aws_iam_role_policy.read_stream) == 0 && length(aws_iam_role_policy.assume) == 1
    error_message = "the role there reads it, ours need not"
  }
  assert {
    condition = yamldecode(output.helm_values).eks.stream == var.stream_arn && yamldecode(output.helm_values).settings == {
      role-arn         = "arn:aws:iam::444455556666:role/audit"
      role-external-id = "ours"
    }
    error_message = "values: ${output.helm_values}"
  }
}

run "roles_for_catching_up_are_no_setting_of_the_stream" {
  command = apply

  variables {
    create_stream    = true
    log_group_names  = ["/aws/eks/production/cluster", "/aws/eks/staging/cluster"]
    log_group_arns   = ["arn:aws:logs:eu-central-1:444455556666:log-group:/aws/eks/far/cluster"]
    assume_role_arns = ["arn:aws:iam::444455556666:role/audit"]
  }
  assert {
    condition     = length(aws_iam_role_policy.read_stream) == 1 && length(aws_iam_role_policy.assume) == 1
    error_message = "a permission is missing"
  }
  assert {
    condition     = yamldecode(output.helm_values).eks.stream == "eks-audit-production" && !can(yamldecode(output.helm_values).settings) && length(yamldecode(output.helm_values).eks.logGroups) == 0
    error_message = "values: ${output.helm_values}"
  }
}

run "partition" {
  command   = plan
  providers = { aws = aws.china }

  variables {
    oidc_issuer_url = "https://oidc.eks.cn-north-1.amazonaws.com.cn/id/0123456789ABCDEF0123456789ABCDEF"
    create_stream   = true
  }
  assert {
    condition = jsondecode(aws_iam_role.writer[0].assume_role_policy).Statement[0].Principal == {
      Service = "logs.cn-north-1.amazonaws.com.cn"
    }
    error_message = "CloudWatch Logs is called otherwise there: ${aws_iam_role.writer[0].assume_role_policy}"
  }
  assert {
    condition     = output.stream_arn == "arn:aws-cn:kinesis:cn-north-1:111122223333:stream/eks-audit-production"
    error_message = "the partition is wrong: ${output.stream_arn}"
  }
}

run "long_cluster_name" {
  command = plan

  variables {
    cluster_name  = "a-cluster-name-of-one-hundred-characters-a-cluster-name-of-one-hundred-characters-a-cluster-name-one"
    create_stream = true
  }
  assert {
    condition     = length(aws_iam_role.writer[0].name) <= 64 && length(aws_kinesis_stream.events[0].name) <= 128
    error_message = "AWS refuses one of the names: ${aws_iam_role.writer[0].name}, ${aws_kinesis_stream.events[0].name}"
  }
}

run "other_accounts" {
  command = apply

  variables {
    log_group_arns = [
      "arn:aws:logs:us-east-2:444455556666:log-group:/aws/eks/far/cluster",
      "arn:aws:logs:eu-central-1:777788889999:log-group:/aws/eks/observed/cluster",
    ]
    assume_role_arns        = ["arn:aws:iam::444455556666:role/readers/audit"]
    assume_role_external_id = "ours"
    unmask                  = true
  }
  assert {
    condition = jsondecode(aws_iam_role_policy.assume[0].policy) == {
      Version = "2012-10-17"
      Statement = [{
        Sid      = "AssumeReaders"
        Effect   = "Allow"
        Action   = ["sts:AssumeRole"]
        Resource = ["arn:aws:iam::444455556666:role/readers/audit"]
      }]
    }
    error_message = "assuming: ${aws_iam_role_policy.assume[0].policy}"
  }
  # What the other role reads, ours need not.
  assert {
    condition = jsondecode(output.read_policy).Statement[0] == {
      Sid    = "ReadAuditLog"
      Effect = "Allow"
      Action = ["logs:FilterLogEvents", "logs:Unmask"]
      Resource = [
        "arn:aws:logs:eu-central-1:111122223333:log-group:/aws/eks/production/cluster",
        "arn:aws:logs:eu-central-1:111122223333:log-group:/aws/eks/production/cluster:*",
        "arn:aws:logs:eu-central-1:777788889999:log-group:/aws/eks/observed/cluster",
        "arn:aws:logs:eu-central-1:777788889999:log-group:/aws/eks/observed/cluster:*",
      ]
    }
    error_message = "reading: ${output.read_policy}"
  }
  assert {
    condition     = yamldecode(output.helm_values).eks.logGroups == concat(["/aws/eks/production/cluster"], var.log_group_arns)
    error_message = "values: ${output.helm_values}"
  }
  assert {
    condition = yamldecode(output.helm_values).settings == {
      role-arn         = "arn:aws:iam::444455556666:role/readers/audit"
      role-external-id = "ours"
      unmask           = "true"
    }
    error_message = "values: ${output.helm_values}"
  }
}

run "pod_identity_passes_its_tags_on" {
  command = plan

  variables {
    identity         = "pod_identity"
    oidc_issuer_url  = null
    log_group_arns   = ["arn:aws:logs:us-east-2:444455556666:log-group:/aws/eks/far/cluster"]
    assume_role_arns = ["arn:aws:iam::444455556666:role/audit"]
  }
  assert {
    condition     = jsondecode(aws_iam_role_policy.assume[0].policy).Statement[0].Action == ["sts:AssumeRole", "sts:TagSession"]
    error_message = "assuming: ${aws_iam_role_policy.assume[0].policy}"
  }
}

run "nothing" {
  command = apply

  variables {
    create           = false
    create_stream    = true
    log_group_arns   = ["arn:aws:logs:us-east-2:444455556666:log-group:/aws/eks/far/cluster"]
    assume_role_arns = ["arn:aws:iam::444455556666:role/audit"]
  }
  assert {
    condition = (
      length(aws_kinesis_stream.events) + length(aws_iam_role.writer) + length(aws_cloudwatch_log_subscription_filter.events) +
      length(aws_iam_role_policy.read_stream) + length(aws_iam_role_policy.write_stream) + length(aws_iam_role_policy.assume)
    ) == 0
    error_message = "create = false creates something"
  }
  assert {
    condition     = output.stream_name == null && output.stream_arn == null && output.writer_role_arn == null
    error_message = "there is no stream to tell of"
  }
}
