# The role with which the bridge reads the audit log of an EKS cluster, and nothing else. The stream, for more
# than one bridge can read by FilterLogEvents, is in stream.tf.
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
  own_log_group_arns = [
    for name in local.log_group_names : "arn:${local.partition}:logs:${local.region}:${local.account_id}:log-group:${name}"
  ]
  # Groups of accounts with a role are read by that role; the others by ours, as a monitoring account reads them.
  role_accounts          = [for arn in var.assume_role_arns : try(split(":", arn)[4], "")]
  foreign_log_group_arns = distinct(var.log_group_arns)
  read_by_us             = [for arn in local.foreign_log_group_arns : arn if !contains(local.role_accounts, try(split(":", arn)[4], ""))]
  # AWS has been seen to check FilterLogEvents against either form (the second covers the streams).
  log_group_arns = flatten([for arn in concat(local.own_log_group_arns, local.read_by_us) : [arn, "${arn}:*"]])

  # A stream is read whole: the bridge takes no log group beside it, and a cluster's name would keep out the others.
  all_log_groups = local.has_stream ? [] : concat(local.log_group_names, local.foreign_log_group_arns)
  settings_roles = local.has_stream ? local.stream_role_arns : var.assume_role_arns
  # Further flags of the bridge, by name.
  settings = merge(
    length(local.settings_roles) > 0 ? { role-arn = join(",", local.settings_roles) } : {},
    length(local.settings_roles) > 0 && var.assume_role_external_id != null ? { role-external-id = var.assume_role_external_id } : {},
    var.unmask ? { unmask = "true" } : {},
  )

  # At most 10 + 28 + 1 + 16 + 1 + 8 = 64 characters. IAM is global, so the region is part of the
  # name; the hash keeps clusters with the same beginning, and two bridges of one cluster, apart.
  identity_hash = substr(sha256(join("/", [local.region, var.cluster_name, var.namespace, var.service_account])), 0, 8)
  default_role  = "eks-audit-${substr(var.cluster_name, 0, 28)}-${substr(local.region, 0, 16)}-${local.identity_hash}"

  read_policy = !var.read_log_groups ? null : templatefile("${path.module}/policies/read.json.tftpl", {
    actions        = concat(["logs:FilterLogEvents"], var.unmask ? ["logs:Unmask"] : [])
    log_group_arns = local.log_group_arns
  })
  # Pod Identity gives its credentials session tags that pass on to the next role: without sts:TagSession AWS refuses
  # the AssumeRole.
  assume_policy = templatefile("${path.module}/policies/assume.json.tftpl", {
    actions   = concat(["sts:AssumeRole"], local.irsa ? [] : ["sts:TagSession"])
    role_arns = var.assume_role_arns
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

  # What follows would make a role that the bridge cannot use, or refuses to.
  lifecycle {
    precondition {
      condition     = var.read_log_groups || local.has_stream
      error_message = "read_log_groups is false and there is no stream, so the role could read nothing: set create_stream = true, or name the stream in stream_arn."
    }
    precondition {
      condition     = var.read_log_groups || length(var.log_group_arns) == 0
      error_message = "log_group_arns are read as log groups, which read_log_groups = false rules out: leave one of the two out."
    }
    precondition {
      condition     = !var.unmask || !local.has_stream
      error_message = "unmask does nothing for a stream, whose events were masked on their way into it, and the bridge refuses it: leave it out, or read the log group without a stream."
    }
    precondition {
      condition = alltrue([
        for account in local.role_accounts :
        contains(concat([for arn in var.log_group_arns : try(split(":", arn)[4], "")], [local.stream_place[4]]), account)
      ])
      error_message = "assume_role_arns names a role of an account of which there is nothing to read, and the bridge would refuse it: add arn:aws:logs:REGION:ACCOUNT:log-group:NAME of that account to log_group_arns, or leave the role out."
    }
    precondition {
      condition     = var.assume_role_external_id == null || length(var.assume_role_arns) > 0
      error_message = "assume_role_external_id is what the trust of other roles asks for: name them in assume_role_arns, or leave it out."
    }
    precondition {
      condition     = !var.create_stream || var.stream_arn == null
      error_message = "create_stream makes a stream and stream_arn names another: leave one of the two out."
    }
    precondition {
      condition     = var.create_stream || var.stream_name == null && var.stream_shards == null && var.stream_retention_hours == 24
      error_message = "stream_name, stream_shards and stream_retention_hours are of a stream that the module makes: set create_stream = true, or leave them out."
    }
    precondition {
      condition     = local.has_stream || var.stream_kms_key_arn == null
      error_message = "stream_kms_key_arn is the key of a stream, and there is none: set create_stream = true, or name the stream in stream_arn."
    }
    precondition {
      condition     = !local.has_stream || !local.encrypted || try(split(":", var.stream_kms_key_arn)[3] == local.stream_place[3], false)
      error_message = "stream_kms_key_arn is a key of another region than the stream, which cannot be encrypted with it: write a key of ${local.stream_place[3]}."
    }
  }
}

resource "aws_iam_role_policy" "read" {
  count  = var.create && var.read_log_groups ? 1 : 0
  name   = "read-audit-log"
  role   = aws_iam_role.bridge[0].id
  policy = local.read_policy
}

resource "aws_iam_role_policy" "assume" {
  count  = var.create && length(var.assume_role_arns) > 0 ? 1 : 0
  name   = "assume-readers"
  role   = aws_iam_role.bridge[0].id
  policy = local.assume_policy
}

resource "aws_eks_pod_identity_association" "bridge" {
  count           = var.create && !local.irsa ? 1 : 0
  cluster_name    = var.cluster_name
  namespace       = var.namespace
  service_account = var.service_account
  role_arn        = aws_iam_role.bridge[0].arn
  tags            = var.tags
}
