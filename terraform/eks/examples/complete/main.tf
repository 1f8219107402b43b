# A role for one cluster, as the service account eks-audit-bridge in the namespace audit-bridge.

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

provider "aws" {
  region = var.region
}

data "aws_eks_cluster" "this" {
  name = var.cluster_name
}

module "audit_reader" {
  # In a configuration of yours: the path to this module in a clone of the repository, at a release.
  source = "../.."

  cluster_name    = var.cluster_name
  oidc_issuer_url = data.aws_eks_cluster.this.identity[0].oidc[0].issuer

  tags = {
    "app.kubernetes.io/part-of" = "audit-bridges"
  }
}

output "role_arn" {
  value = module.audit_reader.role_arn
}

output "helm_values" {
  value = module.audit_reader.helm_values
}
