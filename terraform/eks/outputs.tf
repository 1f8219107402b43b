output "role_arn" {
  description = "ARN of the role."
  value       = one(aws_iam_role.bridge[*].arn)
}

output "role_name" {
  description = "Name of the role."
  value       = one(aws_iam_role.bridge[*].name)
}

output "service_account_annotations" {
  description = "What the service account has to carry; empty with Pod Identity, which needs nothing there."
  value       = var.create && local.irsa ? { "eks.amazonaws.com/role-arn" = aws_iam_role.bridge[0].arn } : {}
}

output "helm_values" {
  description = "What the chart has to know of this module, as YAML: `terraform output -raw helm_values > identity.yaml`, for a second `--values`."
  value = yamlencode(merge(
    {
      bridge         = "eks"
      serviceAccount = { name = var.service_account }
      # What is empty is said too, so that nothing of the file before stays.
      eks = {
        region = local.region
        # The bridge wants one group per cluster; for several, the groups alone say what to read.
        clusterNames = length(local.all_log_groups) == 1 ? [var.cluster_name] : []
        logGroups    = length(local.all_log_groups) > 1 || length(var.log_group_names) > 0 ? local.all_log_groups : []
        stream       = !local.reads_stream ? "" : local.stream_is_ours ? local.stream_name : local.stream_arn
        roleArn      = var.create && local.irsa ? aws_iam_role.bridge[0].arn : ""
      }
    },
    length(local.settings) == 0 ? {} : { settings = local.settings },
  ))
}

output "log_group_names" {
  description = "The log groups of this account and region that may be read, and are subscribed where there is a stream."
  value       = local.log_group_names
}

output "stream_name" {
  description = "The stream to read, for --stream; null without one."
  value       = local.reads_stream ? local.stream_name : null
}

output "stream_arn" {
  description = "ARN of the stream; null without one."
  value       = local.reads_stream ? local.stream_arn : null
}

output "writer_role_arn" {
  description = "ARN of the role with which CloudWatch Logs writes to the stream; null where nothing is subscribed."
  value       = one(aws_iam_role.writer[*].arn)
}

output "read_policy" {
  description = "The permissions on the log groups, as JSON; null with read_log_groups = false."
  value       = local.read_policy
}

output "trust_policy" {
  description = "Who may assume the role, as JSON."
  value       = local.trust_policy
}
