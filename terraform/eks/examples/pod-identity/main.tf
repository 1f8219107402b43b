# A role by EKS Pod Identity, for two clusters that one bridge reads: no issuer, nothing at the service account. The
# cluster that the bridge runs in has the add-on eks-pod-identity-agent.

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

variable "cluster_names" {
  type    = list(string)
  default = ["production", "staging"]
}

provider "aws" {
  region = var.region
}

module "audit_reader" {
  # In a configuration of yours: the path to this module in a clone of the repository, at a release.
  source = "../.."

  cluster_name    = var.cluster_names[0]
  identity        = "pod_identity"
  log_group_names = [for name in var.cluster_names : "/aws/eks/${name}/cluster"]
}

output "role_arn" {
  value = module.audit_reader.role_arn
}

output "helm_values" {
  value = module.audit_reader.helm_values
}
