terraform {
  # The module itself; its tests use mocked providers and need 1.7.
  required_version = ">= 1.5"

  required_providers {
    aws = {
      source = "hashicorp/aws"
      # 5.81: an OIDC provider without a thumbprint.
      version = ">= 5.81"
    }
  }
}
