output "role_arn" {
  description = "ARN of the role."
  value       = aws_iam_role.bridge.arn
}

output "role_name" {
  description = "Name of the role."
  value       = aws_iam_role.bridge.name
}

output "service_account_annotations" {
  description = "What the service account has to carry; empty with Pod Identity, which needs nothing there."
  value       = local.irsa ? { "eks.amazonaws.com/role-arn" = aws_iam_role.bridge.arn } : {}
}

output "settings" {
  description = "Settings of the bridge that follow from this module, for the values of the chart (deploy/eks)."
  value = {
    AWS_REGION = local.region
    # The bridge wants one group per cluster; for several, the groups alone say what to read.
    AUDIT_BRIDGE_CLUSTER_NAME = length(local.log_group_names) == 1 ? var.cluster_name : ""
    AUDIT_BRIDGE_LOG_GROUP    = join(",", local.log_group_names)
  }
}

output "log_group_names" {
  description = "The log groups that may be read."
  value       = local.log_group_names
}

output "read_policy" {
  description = "The permissions, as JSON."
  value       = local.read_policy
}

output "trust_policy" {
  description = "Who may assume the role, as JSON."
  value       = local.trust_policy
}
