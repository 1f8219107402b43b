# A cluster of another account, read without a stream: the bridge assumes a role there (--role-arn), which only it may
# become, and only with the external ID.

terraform {
  required_version = ">= 1.5"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.81"
    }
  }
}

variable "region" {
  type    = string
  default = "eu-central-1"
}

variable "cluster_name" {
  type    = string
  default = "production"
}

variable "other_account" {
  description = "The account of the other cluster."
  type        = string
  default     = "444455556666"
}

variable "other_cluster_name" {
  type    = string
  default = "far"
}

variable "external_id" {
  description = "What both accounts have agreed on; no secret."
  type        = string
  default     = "audit-bridge"
}

provider "aws" {
  region = var.region
}

# The other account. Here by a role; how you reach it is yours to say.
provider "aws" {
  alias  = "other"
  region = var.region

  assume_role {
    role_arn = "arn:${local.partition}:iam::${var.other_account}:role/administrator"
  }
}

data "aws_partition" "this" {}

data "aws_eks_cluster" "this" {
  name = var.cluster_name
}

locals {
  partition       = data.aws_partition.this.partition
  other_role_name = "eks-audit-reader"
  other_log_group = "arn:${local.partition}:logs:${var.region}:${var.other_account}:log-group:/aws/eks/${var.other_cluster_name}/cluster"
}

module "audit_reader" {
  # In a configuration of yours: the path to this module in a clone of the repository, at a release.
  source = "../.."

  cluster_name    = var.cluster_name
  oidc_issuer_url = data.aws_eks_cluster.this.identity[0].oidc[0].issuer

  log_group_arns          = [local.other_log_group]
  assume_role_arns        = ["arn:${local.partition}:iam::${var.other_account}:role/${local.other_role_name}"]
  assume_role_external_id = var.external_id
}

# With identity = "pod_identity" the bridge's session carries tags, and the trust has to allow sts:TagSession too.
resource "aws_iam_role" "other" {
  provider    = aws.other
  name        = local.other_role_name
  description = "Reads the audit log of the EKS cluster ${var.other_cluster_name} for the audit bridge of another account"

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "BridgeOfAnotherAccount"
      Effect    = "Allow"
      Action    = ["sts:AssumeRole"]
      Principal = { AWS = module.audit_reader.role_arn }
      Condition = { StringEquals = { "sts:ExternalId" = var.external_id } }
    }]
  })
}

resource "aws_iam_role_policy" "other" {
  provider = aws.other
  name     = "read-audit-log"
  role     = aws_iam_role.other.id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid      = "ReadAuditLog"
      Effect   = "Allow"
      Action   = ["logs:FilterLogEvents"]
      Resource = [local.other_log_group, "${local.other_log_group}:*"]
    }]
  })
}

output "helm_values" {
  value = module.audit_reader.helm_values
}
