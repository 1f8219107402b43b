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

variable "log_group_arns" {
  description = "Log groups of other accounts or regions to read besides, by ARN: by a role of `assume_role_arns` for their account, else by the bridge's own role, as a monitoring account does."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for arn in var.log_group_arns : can(regex("^arn:aws[a-z-]*:logs:[a-z]+(-[a-z]+)+-[0-9]+:[0-9]{12}:log-group:[0-9A-Za-z_/.#-]{1,512}$", arn)) && !endswith(arn, "/")])
    error_message = "log_group_arns must be ARNs like arn:aws:logs:REGION:ACCOUNT:log-group:/aws/eks/CLUSTER/cluster, without \":*\" at the end and without wildcards; groups of this account and region go into log_group_names."
  }
}

variable "read_log_groups" {
  description = "Whether the bridge may read the log groups themselves (`logs:FilterLogEvents`). False where it reads a stream only, and never what a filter has skipped."
  type        = bool
  default     = true
  nullable    = false
}

variable "unmask" {
  description = "Whether the bridge may read what a data protection policy masks (`logs:Unmask`), for --unmask. Not with a stream, which carries it masked."
  type        = bool
  default     = false
  nullable    = false
}

variable "assume_role_arns" {
  description = "Roles of other accounts that read the log groups (or the stream) there, for --role-arn: one for each account, whose trust names the bridge's role."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for arn in var.assume_role_arns : can(regex("^arn:aws[a-z-]*:iam::[0-9]{12}:role/[0-9A-Za-z+=.@_/-]*[0-9A-Za-z+=.@_-]$", arn))])
    error_message = "assume_role_arns must be ARNs like arn:aws:iam::ACCOUNT:role/NAME, without wildcards, and without commas, at which the bridge would part them."
  }
  validation {
    condition     = length(distinct([for arn in var.assume_role_arns : split(":", "${arn}:::::")[4]])) == length(var.assume_role_arns)
    error_message = "assume_role_arns must name one role for each account: the bridge takes no second one."
  }
}

variable "assume_role_external_id" {
  description = "The external ID that the trust of these roles asks for, for --role-external-id."
  type        = string
  default     = null

  validation {
    condition     = var.assume_role_external_id == null || can(regex("^[0-9A-Za-z_+=,.@:/-]{2,1000}$", var.assume_role_external_id))
    error_message = "assume_role_external_id must have 2 to 1000 letters, digits or _ + = , . @ : / -."
  }
}

variable "create_stream" {
  description = "Whether to make a Kinesis data stream that the log groups are subscribed to and the bridge reads, for more events than `logs:FilterLogEvents` gives (about 500 a second)."
  type        = bool
  default     = false
  nullable    = false
}

variable "stream_arn" {
  description = "A stream that is there already, instead of create_stream."
  type        = string
  default     = null

  validation {
    condition     = var.stream_arn == null || can(regex("^arn:aws[a-z-]*:kinesis:[a-z]+(-[a-z]+)+-[0-9]+:[0-9]{12}:stream/[0-9A-Za-z_.-]{1,128}$", var.stream_arn))
    error_message = "stream_arn must be a data stream's ARN: arn:aws:kinesis:REGION:ACCOUNT:stream/NAME, as `aws kinesis describe-stream-summary --stream-name NAME` prints it; no consumer, no delivery stream."
  }
}

variable "stream_name" {
  description = "Name of the stream that is made. Default: made of the cluster's."
  type        = string
  default     = null

  validation {
    condition     = var.stream_name == null || can(regex("^[0-9A-Za-z_.-]{1,128}$", var.stream_name))
    error_message = "stream_name must have 1 to 128 letters, digits or _ . -; a stream that is there already goes into stream_arn."
  }
}

variable "stream_shards" {
  description = "Shards of the stream that is made: each takes 1 MB (packed) and 1,000 records a second. Left out: on demand, which scales and splits by itself."
  type        = number
  default     = null

  validation {
    condition     = var.stream_shards == null || try(var.stream_shards >= 1 && var.stream_shards <= 10000 && floor(var.stream_shards) == var.stream_shards, false)
    error_message = "stream_shards must be a whole number from 1 to 10000; leave it out for an on-demand stream."
  }
}

variable "stream_retention_hours" {
  description = "How long the stream that is made keeps events: the longest time that the bridge may be away without loss."
  type        = number
  default     = 24
  nullable    = false

  validation {
    condition     = var.stream_retention_hours >= 24 && var.stream_retention_hours <= 8760 && floor(var.stream_retention_hours) == var.stream_retention_hours
    error_message = "stream_retention_hours must be a whole number from 24 to 8760 (a year)."
  }
}

variable "stream_kms_key_arn" {
  description = "The customer key that encrypts the stream. Left out: the key that AWS keeps for Kinesis. The key's policy must let IAM decide, as the default one does."
  type        = string
  default     = null

  validation {
    condition     = var.stream_kms_key_arn == null || can(regex("^arn:aws[a-z-]*:kms:[a-z]+(-[a-z]+)+-[0-9]+:[0-9]{12}:key/[0-9A-Za-z-]+$", var.stream_kms_key_arn))
    error_message = "stream_kms_key_arn must be a key's ARN, arn:aws:kms:REGION:ACCOUNT:key/ID: a policy that names an alias grants nothing. For the key that AWS keeps (alias/aws/kinesis) leave it out."
  }
}

variable "subscribe" {
  description = "Whether the log groups are subscribed to the stream. False where something else does; CloudWatch Logs takes two filters a group."
  type        = bool
  default     = true
  nullable    = false
}

variable "subscription_filter_name" {
  description = "Name of the subscription filters."
  type        = string
  default     = "audit-bridge"
  nullable    = false

  validation {
    condition     = can(regex("^[^:*]{1,512}$", var.subscription_filter_name))
    error_message = "subscription_filter_name must have 1 to 512 characters, without : and *."
  }
}

variable "subscription_filter_pattern" {
  description = "Which events the stream gets. Empty: all of the group. `\"audit.k8s.io/v1\"` (with its quotes): those that name the audit API, for a group that other logs go to as well; CloudWatch Logs cannot choose by stream."
  type        = string
  default     = ""
  nullable    = false

  validation {
    condition     = can(regex("^([^{\\[[:space:]].*)?$", var.subscription_filter_pattern)) && length(var.subscription_filter_pattern) <= 1024
    error_message = "subscription_filter_pattern must be empty or a pattern of terms such as \"audit.k8s.io/v1\" with its quotes, at most 1024 characters: a JSON pattern ({ … }) drops every event that AWS has cut, because it is JSON no more, and a pattern of columns ([ … ]) finds none."
  }
}

variable "subscription_distribution" {
  description = "How events spread over the shards: `ByLogStream` (in order, each API server of the cluster on one shard) or `Random` (evenly, without order)."
  type        = string
  default     = "ByLogStream"
  nullable    = false

  validation {
    condition     = contains(["ByLogStream", "Random"], var.subscription_distribution)
    error_message = "subscription_distribution must be \"ByLogStream\" or \"Random\"."
  }
}

variable "writer_role_name" {
  description = "Name of the role with which CloudWatch Logs writes to the stream. Default: made as the other role's."
  type        = string
  default     = null

  validation {
    condition     = var.writer_role_name == null || can(regex("^[0-9A-Za-z+=,.@_-]{1,64}$", var.writer_role_name))
    error_message = "writer_role_name must have 1 to 64 letters, digits or + = , . @ _ -; leave it out to get one that fits."
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
