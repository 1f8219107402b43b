# Reading one cluster through Cloud Logging's API, reads too, with the Kubernetes service account itself as the identity: no
# Google service account, nothing to annotate.

terraform {
  required_version = ">= 1.5"

  required_providers {
    google = {
      source  = "hashicorp/google"
      version = ">= 5.0"
    }
  }
}

variable "project_id" {
  type    = string
  default = "my-project"
}

provider "google" {
  project = var.project_id
}

module "audit_reader" {
  # In a configuration of yours: the path to this module in a clone of the repository, at a release.
  source = "../.."

  project_id          = var.project_id
  cluster_name        = "production"
  identity            = "principal"
  include_data_access = true
}

output "helm_values" {
  value = module.audit_reader.helm_values
}
