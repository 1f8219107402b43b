# A hub for two clusters that only the cluster's network reaches, on Premium.

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

variable "resource_group_name" {
  type    = string
  default = "production"
}

variable "cluster_names" {
  type    = list(string)
  default = ["production", "staging"]
}

variable "subnet_id" {
  description = "Subnet for the private endpoint."
  type        = string
}

variable "private_dns_zone_id" {
  description = "Zone privatelink.servicebus.windows.net, linked to the clusters' network."
  type        = string
}

provider "azurerm" {
  features {}
  subscription_id = var.subscription_id
}

data "azurerm_kubernetes_cluster" "these" {
  for_each            = toset(var.cluster_names)
  name                = each.value
  resource_group_name = var.resource_group_name
}

module "audit_hub" {
  # In a configuration of yours: the path to this module in a clone of the repository, at a release.
  source = "../.."

  resource_group_name = var.resource_group_name
  location            = data.azurerm_kubernetes_cluster.these[var.cluster_names[0]].location
  cluster_ids         = [for name in var.cluster_names : data.azurerm_kubernetes_cluster.these[name].id]
  oidc_issuer_url     = data.azurerm_kubernetes_cluster.these[var.cluster_names[0]].oidc_issuer_url

  sku                        = "Premium"
  retention_days             = 30
  private_endpoint_subnet_id = var.subnet_id
  private_dns_zone_id        = var.private_dns_zone_id
}

output "helm_values" {
  value = module.audit_hub.helm_values
}
