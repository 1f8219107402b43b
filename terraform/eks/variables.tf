variable "create" {
  description = "Whether to create anything; false, for a configuration that has the module only in some places."
  type        = bool
  default     = true
  nullable    = false
}

variable "cluster_name" {
  description = "Name of the EKS cluster whose audit log is read. It names the default log group and the role."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[0-9A-Za-z][0-9A-Za-z_-]{0,99}$", var.cluster_name))
    error_message = "cluster_name must be the cluster's plain name (letters, digits, - and _, at most 100), as `aws eks list-clusters` prints it; not its ARN."
  }
}

variable "identity" {
  description = "How the pod becomes the role: `irsa` (IAM roles for service accounts) or `pod_identity` (EKS Pod Identity; the cluster needs the add-on eks-pod-identity-agent)."
  type        = string
  default     = "irsa"
  nullable    = false

  validation {
    condition     = contains(["irsa", "pod_identity"], var.identity)
    error_message = "identity must be \"irsa\" or \"pod_identity\"."
  }
}

variable "oidc_issuer_url" {
  description = "The cluster's OIDC issuer, needed for `irsa`: `aws eks describe-cluster --name CLUSTER --query cluster.identity.oidc.issuer --output text`. With or without https:// and a trailing slash."
  type        = string
  default     = null

  # A wrong issuer gives a role that AWS creates and nobody can assume, so only EKS's form is taken.
  validation {
    condition     = var.oidc_issuer_url == null || can(regex("^(https://)?oidc[.-]eks[.][a-z0-9.-]+/id/[0-9A-F]{32}/?$", var.oidc_issuer_url))
    error_message = "oidc_issuer_url must look like https://oidc.eks.REGION.amazonaws.com/id/32_HEX_DIGITS: write what `aws eks describe-cluster --name CLUSTER --query cluster.identity.oidc.issuer --output text` prints; not the provider's ARN, and not the API server's endpoint."
  }
}

variable "create_oidc_provider" {
  description = "Whether to register the issuer with IAM. Leave false where it is registered already (eksctl, terraform-aws-eks do so): IAM allows it once per account."
  type        = bool
  default     = false
  nullable    = false
}

variable "namespace" {
  description = "Kubernetes namespace of the bridge."
  type        = string
  default     = "audit-bridge"
  nullable    = false

  validation {
    condition     = can(regex("^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", var.namespace))
    error_message = "namespace must be a Kubernetes namespace's name: at most 63 lower-case letters, digits and -; wildcards would let other pods in."
  }
}

variable "service_account" {
  description = "Kubernetes service account of the bridge."
  type        = string
  default     = "eks-audit-bridge"
  nullable    = false

  validation {
    condition     = can(regex("^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$", var.service_account))
    error_message = "service_account must be a service account's plain name: lower-case letters, digits, - and .; without system:serviceaccount: and without wildcards."
  }
}

variable "log_group_names" {
  description = "CloudWatch log groups to read, in this account and the provider's region. Empty: the one EKS writes to, /aws/eks/CLUSTER/cluster."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for name in var.log_group_names : can(regex("^[0-9A-Za-z_/.#-]{1,512}$", name)) && !endswith(name, "/")])
    error_message = "log_group_names must be plain names such as /aws/eks/CLUSTER/cluster, without a trailing slash; not ARNs, no \":*\" at the end, no wildcards."
  }
}

variable "role_name" {
  description = "Name of the role. Default: made of cluster, region and a hash, so that it fits IAM's 64 characters and is unique in the account."
  type        = string
  default     = null

  validation {
    condition     = var.role_name == null || can(regex("^[0-9A-Za-z+=,.@_-]{1,64}$", var.role_name))
    error_message = "role_name must have 1 to 64 letters, digits or + = , . @ _ -; leave it out to get one that fits."
  }
}

variable "role_path" {
  description = "IAM path of the role."
  type        = string
  default     = "/"
  nullable    = false

  validation {
    condition     = can(regex("^/([0-9A-Za-z+=,.@_-]+/)*$", var.role_path)) && length(var.role_path) <= 512
    error_message = "role_path must begin and end with a slash: / or /audit/."
  }
}

variable "permissions_boundary" {
  description = "ARN of the policy that bounds the role, where the account demands one."
  type        = string
  default     = null

  validation {
    condition     = var.permissions_boundary == null || can(regex("^arn:aws[a-z-]*:iam::([0-9]{12}|aws):policy/.*[0-9A-Za-z+=,.@_-]$", var.permissions_boundary))
    error_message = "permissions_boundary must be a policy's ARN: arn:aws:iam::ACCOUNT:policy/NAME."
  }
}

variable "tags" {
  description = "Tags of everything that the module creates."
  type        = map(string)
  default     = {}
  nullable    = false

  validation {
    condition     = alltrue([for key in keys(var.tags) : length(key) <= 128 && !startswith(lower(key), "aws:")])
    error_message = "tags: a key has at most 128 characters and must not begin with aws:, which AWS keeps for itself."
  }
}
