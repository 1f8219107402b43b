# A hub for one cluster, read by the service account aks-audit-bridge in the namespace audit-bridge of the
# same cluster.

terraform {
  required_version = ">= 1.5"

  required_providers {
    azurerm = {
      source  = "hashicorp/azurerm"
      version = ">= 4.12, < 5.0"
    }
  }
}

variable "subscription_id" {
  type = string
}

variable "cluster_name" {
  type    = string
  default = "production"
}

variable "resource_group_name" {
  type    = string
  default = "production"
}

provider "azurerm" {
  features {}
  subscription_id = var.subscription_id
}

data "azurerm_kubernetes_cluster" "this" {
  name                = var.cluster_name
  resource_group_name = var.resource_group_name
}

module "audit_hub" {
  # In a configuration of yours: the path to this module in a clone of the repository, at a release.
  source = "../.."

  resource_group_name = var.resource_group_name
  location            = data.azurerm_kubernetes_cluster.this.location
  cluster_ids         = [data.azurerm_kubernetes_cluster.this.id]
  oidc_issuer_url     = data.azurerm_kubernetes_cluster.this.oidc_issuer_url
}

output "service_account_annotations" {
  value = module.audit_hub.service_account_annotations
}

output "helm_values" {
  value = module.audit_hub.helm_values
}
