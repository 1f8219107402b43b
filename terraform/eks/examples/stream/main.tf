# More events than FilterLogEvents gives: the cluster's log group is subscribed to an on-demand Kinesis data stream, which
# the bridge reads with --stream.

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

  create_stream          = true
  stream_retention_hours = 72
}

output "stream_name" {
  value = module.audit_reader.stream_name
}

output "helm_values" {
  value = module.audit_reader.helm_values
}
