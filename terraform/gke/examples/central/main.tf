# Reading the clusters of many projects from one log view of a central bucket, which an aggregated sink fills.

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
  default = "my-logging-project"
}

variable "log_view" {
  type    = string
  default = "projects/my-logging-project/locations/global/buckets/audit/views/gke"
}

provider "google" {
  project = var.project_id
}

module "audit_reader" {
  # In a configuration of yours: the path to this module in a clone of the repository, at a release.
  source = "../.."

  # Where the bridge runs, and its service account is made.
  project_id = var.project_id
  log_views  = [var.log_view]
}

output "helm_values" {
  value = module.audit_reader.helm_values
}
