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
  value = yamlencode({
    bridge         = "eks"
    serviceAccount = { name = var.service_account }
    eks = merge(
      { region = local.region },
      # The bridge wants one group per cluster; for several, the groups alone say what to read.
      length(local.log_group_names) == 1 ? { clusterNames = [var.cluster_name] } : {},
      length(var.log_group_names) == 0 ? {} : { logGroups = local.log_group_names },
      var.create && local.irsa ? { roleArn = aws_iam_role.bridge[0].arn } : {},
    )
  })
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
