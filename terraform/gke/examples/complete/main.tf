# Reading one project's clusters through Pub/Sub, as the service account gke-audit-bridge in the
# namespace audit-bridge.

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

  project_id       = var.project_id
  source_of_events = "pubsub"
  labels           = { part-of = "audit-bridges" }
}

output "service_account_annotations" {
  value = module.audit_reader.service_account_annotations
}

output "helm_values" {
  value = module.audit_reader.helm_values
}
