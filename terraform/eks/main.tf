# The role with which the bridge reads the audit log of an EKS cluster, and nothing else.
#
# The policy documents are templates with values only, no logic: they read as what AWS gets, and the
# tests compare them with the CloudFormation template also where Terraform is not at hand.

data "aws_partition" "current" {}
data "aws_region" "current" {}
data "aws_caller_identity" "current" {}

# Fails in the plan where the issuer is not registered: the role would be created and stay dead.
data "aws_iam_openid_connect_provider" "cluster" {
  count = var.create && local.irsa && !var.create_oidc_provider ? 1 : 0
  url   = "https://${local.oidc_issuer}"

  lifecycle {
    precondition {
      condition     = var.oidc_issuer_url != null
      error_message = "identity \"irsa\" needs oidc_issuer_url: write what `aws eks describe-cluster --name ${var.cluster_name} --query cluster.identity.oidc.issuer --output text` prints."
    }
  }
}

resource "aws_iam_openid_connect_provider" "cluster" {
  count          = var.create && local.irsa && var.create_oidc_provider ? 1 : 0
  url            = "https://${local.oidc_issuer}"
  client_id_list = ["sts.amazonaws.com"]
  tags           = var.tags

  lifecycle {
    precondition {
      condition     = var.oidc_issuer_url != null
      error_message = "create_oidc_provider needs oidc_issuer_url: write what `aws eks describe-cluster --name ${var.cluster_name} --query cluster.identity.oidc.issuer --output text` prints."
    }
  }
}

locals {
  irsa       = var.identity == "irsa"
  partition  = data.aws_partition.current.partition
  account_id = data.aws_caller_identity.current.account_id
  # `id` is the region's name in every version of the provider; `name` is going away.
  region = data.aws_region.current.id

  oidc_issuer = trimsuffix(trimprefix(coalesce(var.oidc_issuer_url, "none"), "https://"), "/")
  oidc_provider_arn = one(concat(
    data.aws_iam_openid_connect_provider.cluster[*].arn,
    aws_iam_openid_connect_provider.cluster[*].arn,
  ))

  log_group_names = length(var.log_group_names) > 0 ? distinct(var.log_group_names) : ["/aws/eks/${var.cluster_name}/cluster"]
  # AWS has been seen to check FilterLogEvents against either form (the second covers the streams).
  log_group_arns = flatten([
    for name in local.log_group_names : [
      "arn:${local.partition}:logs:${local.region}:${local.account_id}:log-group:${name}",
      "arn:${local.partition}:logs:${local.region}:${local.account_id}:log-group:${name}:*",
    ]
  ])

  # At most 10 + 28 + 1 + 16 + 1 + 8 = 64 characters. IAM is global, so the region is part of the
  # name; the hash keeps clusters with the same beginning, and two bridges of one cluster, apart.
  identity_hash = substr(sha256(join("/", [local.region, var.cluster_name, var.namespace, var.service_account])), 0, 8)
  default_role  = "eks-audit-${substr(var.cluster_name, 0, 28)}-${substr(local.region, 0, 16)}-${local.identity_hash}"

  read_policy = templatefile("${path.module}/policies/read.json.tftpl", {
    log_group_arns = local.log_group_arns
  })
  trust_policy = local.irsa ? templatefile("${path.module}/policies/trust-irsa.json.tftpl", {
    # Empty only when a precondition above fails anyway, or nothing is created.
    oidc_provider_arn = coalesce(local.oidc_provider_arn, "none")
    oidc_issuer       = local.oidc_issuer
    namespace         = var.namespace
    service_account   = var.service_account
    }) : templatefile("${path.module}/policies/trust-pod-identity.json.tftpl", {
    cluster_arn     = "arn:${local.partition}:eks:${local.region}:${local.account_id}:cluster/${var.cluster_name}"
    namespace       = var.namespace
    service_account = var.service_account
  })
}

resource "aws_iam_role" "bridge" {
  count                = var.create ? 1 : 0
  name                 = coalesce(var.role_name, local.default_role)
  path                 = var.role_path
  description          = "Reads the audit log of the EKS cluster ${var.cluster_name} for the audit bridge"
  assume_role_policy   = local.trust_policy
  permissions_boundary = var.permissions_boundary
  tags                 = var.tags
}

resource "aws_iam_role_policy" "read" {
  count  = var.create ? 1 : 0
  name   = "read-audit-log"
  role   = aws_iam_role.bridge[0].id
  policy = local.read_policy
}

resource "aws_eks_pod_identity_association" "bridge" {
  count           = var.create && !local.irsa ? 1 : 0
  cluster_name    = var.cluster_name
  namespace       = var.namespace
  service_account = var.service_account
  role_arn        = aws_iam_role.bridge[0].arn
  tags            = var.tags
}
