terraform {
  # The module itself; its tests use mocked providers and need 1.7.
  required_version = ">= 1.5"

  required_providers {
    azurerm = {
      source = "hashicorp/azurerm"
      # 4.12: a hub by the id of its namespace.
      version = ">= 4.12, < 5.0"
    }
  }
}
