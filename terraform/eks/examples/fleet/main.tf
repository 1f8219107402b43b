# A fleet: clusters of other accounts send their audit log to one stream, which one bridge reads. A subscription filter
# reaches a stream of another account by a destination, of which each account has one here, with a role of its own that
# writes for that account only.

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

variable "member_account" {
  description = "An account whose clusters send. For further ones repeat what is marked, or make a module of it."
  type        = string
  default     = "444455556666"
}

variable "member_cluster_names" {
  description = "Its clusters; their audit log is on."
  type        = set(string)
  default     = ["far"]
}

provider "aws" {
  region = var.region
}

# The member. Here by a role; how you reach it is yours to say.
provider "aws" {
  alias  = "member"
  region = var.region

  assume_role {
    role_arn = "arn:${local.partition}:iam::${var.member_account}:role/administrator"
  }
}

data "aws_caller_identity" "this" {}
data "aws_partition" "this" {}

data "aws_eks_cluster" "this" {
  name = var.cluster_name
}

locals {
  partition       = data.aws_partition.this.partition
  account         = data.aws_caller_identity.this.account_id
  destination     = "audit-bridge-${var.member_account}"
  destination_arn = "arn:${local.partition}:logs:${var.region}:${local.account}:destination:${local.destination}"
}

module "audit_reader" {
  # In a configuration of yours: the path to this module in a clone of the repository, at a release.
  source = "../.."

  cluster_name    = var.cluster_name
  oidc_issuer_url = data.aws_eks_cluster.this.identity[0].oidc[0].issuer
  create_stream   = true
}

# --- For each member: what writes for it.
resource "aws_iam_role" "writer" {
  name        = local.destination
  description = "CloudWatch Logs of the account ${var.member_account} writes audit logs to ${module.audit_reader.stream_name}"

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "CloudWatchLogs"
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "logs.${var.region}.${data.aws_partition.this.dns_suffix}" }
      # The test message is sent for this account, the events for the member.
      Condition = {
        StringLike = {
          "aws:SourceArn" = [for account in [local.account, var.member_account] : "arn:${local.partition}:logs:${var.region}:${account}:*"]
        }
      }
    }]
  })
}

resource "aws_iam_role_policy" "writer" {
  name = "write-stream"
  role = aws_iam_role.writer.id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid      = "WriteStream"
      Effect   = "Allow"
      Action   = "kinesis:PutRecord"
      Resource = module.audit_reader.stream_arn
    }]
  })
}

resource "aws_cloudwatch_log_destination" "member" {
  name       = local.destination
  role_arn   = aws_iam_role.writer.arn
  target_arn = module.audit_reader.stream_arn

  # It sends a test message: the stream has to be there, and the role has to be allowed to write.
  depends_on = [aws_iam_role_policy.writer, module.audit_reader]
}

resource "aws_cloudwatch_log_destination_policy" "member" {
  destination_name = aws_cloudwatch_log_destination.member.name

  access_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "Member"
      Effect    = "Allow"
      Action    = "logs:PutSubscriptionFilter"
      Principal = { AWS = var.member_account }
      Resource  = local.destination_arn
    }]
  })
}

# --- In the member: no role, as the destination has one.
resource "aws_cloudwatch_log_subscription_filter" "member" {
  for_each = var.member_cluster_names
  provider = aws.member

  name            = "audit-bridge"
  log_group_name  = "/aws/eks/${each.value}/cluster"
  filter_pattern  = ""
  distribution    = "ByLogStream"
  destination_arn = local.destination_arn

  depends_on = [aws_cloudwatch_log_destination_policy.member]
}

output "stream_name" {
  value = module.audit_reader.stream_name
}

output "helm_values" {
  value = module.audit_reader.helm_values
}
