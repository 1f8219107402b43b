variable "create" {
  description = "Whether to create anything; false, for a configuration that has the module only in some places."
  type        = bool
  default     = true
  nullable    = false
}

variable "project_id" {
  description = "Id of the project whose clusters' audit log is read."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^([a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.project_id))
    error_message = "project_id must be the project's id (6 to 30 lower-case letters, digits and -), as `gcloud projects list` prints it; not its number and not its display name."
  }
}

variable "identity" {
  description = "How the pod is known to Google: `service_account` (a Google service account that the pod impersonates) or `principal` (the Kubernetes service account itself; nothing to annotate)."
  type        = string
  default     = "service_account"
  nullable    = false

  validation {
    condition     = contains(["service_account", "principal"], var.identity)
    error_message = "identity must be \"service_account\" or \"principal\"."
  }
}

variable "service_account_id" {
  description = "Id of the Google service account to create."
  type        = string
  default     = "gke-audit-bridge"
  nullable    = false

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.service_account_id))
    error_message = "service_account_id must have 6 to 30 lower-case letters, digits and -; it is the part of the e-mail address before the @."
  }
}

variable "workload_identity_project_id" {
  description = "Project of the cluster that the bridge runs in, when it is another one than project_id: its Workload Identity pool names the pod."
  type        = string
  default     = null

  validation {
    condition     = var.workload_identity_project_id == null || can(regex("^([a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.workload_identity_project_id))
    error_message = "workload_identity_project_id must be a project's id, without .svc.id.goog; not its number."
  }
}

variable "namespace" {
  description = "Kubernetes namespace of the bridge."
  type        = string
  default     = "audit-bridge"
  nullable    = false

  validation {
    condition     = can(regex("^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", var.namespace))
    error_message = "namespace must be a Kubernetes namespace's name: at most 63 lower-case letters, digits and -; wildcards are not known here."
  }
}

variable "service_account" {
  description = "Kubernetes service account of the bridge."
  type        = string
  default     = "gke-audit-bridge"
  nullable    = false

  validation {
    condition     = can(regex("^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$", var.service_account))
    error_message = "service_account must be a Kubernetes service account's plain name: lower-case letters, digits, - and .; not the Google service account's e-mail address."
  }
}

variable "source_of_events" {
  description = "Where the bridge reads: `logging` (Cloud Logging's API; nothing else to create) or `pubsub` (a sink, a topic and a subscription; for many events, or several bridges)."
  type        = string
  default     = "logging"
  nullable    = false

  validation {
    condition     = contains(["logging", "pubsub"], var.source_of_events)
    error_message = "source_of_events must be \"logging\" or \"pubsub\"."
  }
}

variable "include_data_access" {
  description = "Whether Data Access audit logs (reads) are read too. They must be switched on for the Kubernetes Engine API. With `logging` this makes a log view of them in the bucket _Default."
  type        = bool
  default     = false
  nullable    = false
}

variable "cluster_name" {
  description = "Only this cluster; `*`: every cluster of the project."
  type        = string
  default     = "*"
  nullable    = false

  validation {
    condition     = can(regex("^([*]|[a-z]([a-z0-9-]{0,38}[a-z0-9])?)$", var.cluster_name))
    error_message = "cluster_name must be a GKE cluster's plain name (at most 40 lower-case letters, digits and -) or \"*\"; not projects/…/clusters/…."
  }
}

variable "location" {
  description = "Region or zone of the cluster, where its name alone is not unique in the project."
  type        = string
  default     = null

  validation {
    condition     = var.location == null || can(regex("^[a-z]+-[a-z]+[0-9]+(-[a-z])?$", var.location))
    error_message = "location must be a region or a zone: europe-west3 or europe-west3-a."
  }
}

variable "log_views" {
  description = "Log views that are read (`logging`), such as those of a central bucket: `projects/P/locations/L/buckets/B/views/V`, also of folders and organizations. The bridge then reads every project's clusters in them. Left out: the project's own Admin Activity (`_Required`), and its Data Access with include_data_access."
  type        = list(string)
  default     = null

  validation {
    condition = var.log_views == null || alltrue([
      for view in coalesce(var.log_views, []) :
      can(regex("^(projects/[a-z0-9.:-]+|(folders|organizations)/[0-9]+)/locations/[a-z0-9-]+/buckets/[A-Za-z0-9_.-]+/views/[A-Za-z0-9_-]+$", view))
    ])
    error_message = "log_views must be full names of log views: projects/PROJECT/locations/LOCATION/buckets/BUCKET/views/VIEW, or with folders/NUMBER or organizations/NUMBER in front; `gcloud logging views list` prints them."
  }

  validation {
    condition     = var.log_views == null || length(coalesce(var.log_views, [])) > 0
    error_message = "log_views must name at least one log view, or be left out."
  }
}

variable "log_role" {
  description = "Role for the whole project in place of the one for log views (`logging`): `roles/logging.viewer`, with Data Access `roles/logging.privateLogViewer`. Wider than what the bridge reads."
  type        = string
  default     = null

  validation {
    condition     = var.log_role == null || can(regex("^(roles/logging[.](viewer|privateLogViewer)|(projects|organizations)/[^/]+/roles/[A-Za-z0-9_.]+)$", var.log_role))
    error_message = "log_role must be roles/logging.viewer, roles/logging.privateLogViewer, or a role of yours as projects/PROJECT/roles/ID or organizations/NUMBER/roles/ID."
  }
}

variable "name" {
  description = "Name of the sink, the topic and the subscription (`pubsub`), and of the log view of Data Access (`logging`)."
  type        = string
  default     = "gke-audit"
  nullable    = false

  validation {
    condition     = can(regex("^[A-Za-z][A-Za-z0-9._-]{2,85}$", var.name)) && !startswith(lower(var.name), "goog")
    error_message = "name must begin with a letter, have 3 to 86 letters, digits, - _ or ., and must not begin with goog, which Pub/Sub keeps for itself."
  }
}

variable "message_retention" {
  description = "How long Pub/Sub keeps what is not acknowledged: the longest time that the bridge may be away without loss. In seconds."
  type        = string
  default     = "604800s"
  nullable    = false

  validation {
    condition     = can(regex("^[0-9]+s$", var.message_retention)) && try(tonumber(trimsuffix(var.message_retention, "s")) >= 86400 && tonumber(trimsuffix(var.message_retention, "s")) <= 2678400, false)
    error_message = "message_retention must be seconds with an s, from a day (86400s) to 31 days (2678400s)."
  }
}

variable "labels" {
  description = "Labels of the topics and subscriptions."
  type        = map(string)
  default     = {}
  nullable    = false

  validation {
    condition     = alltrue([for key, value in var.labels : can(regex("^[a-z][a-z0-9_-]{0,62}$", key)) && can(regex("^[a-z0-9_-]{0,63}$", value))])
    error_message = "labels: keys and values have at most 63 lower-case letters, digits, - and _; a key begins with a letter."
  }
}
