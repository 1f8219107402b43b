# source_of_events = "pubsub": Cloud Logging writes the audit log to a topic, the bridge reads one
# subscription of it.

locals {
  makes_pubsub = var.create && local.pubsub
  log_ids = concat(
    ["log_id(\"cloudaudit.googleapis.com/activity\")"],
    var.include_data_access ? ["log_id(\"cloudaudit.googleapis.com/data_access\")"] : [],
  )
  sink_filter = join(" AND ", compact([
    "resource.type=\"k8s_cluster\"",
    "protoPayload.serviceName=\"k8s.io\"",
    "(${join(" OR ", local.log_ids)})",
    var.cluster_name == "*" ? "" : "resource.labels.cluster_name=\"${var.cluster_name}\"",
    var.location == null ? "" : "resource.labels.location=\"${coalesce(var.location, "-")}\"",
  ]))
}

resource "google_pubsub_topic" "events" {
  count   = local.makes_pubsub ? 1 : 0
  project = var.project_id
  name    = var.name
  labels  = var.labels
}

resource "google_logging_project_sink" "events" {
  count                  = local.makes_pubsub ? 1 : 0
  project                = var.project_id
  name                   = var.name
  description            = "Kubernetes audit log for the audit bridge"
  destination            = "pubsub.googleapis.com/${google_pubsub_topic.events[0].id}"
  filter                 = local.sink_filter
  unique_writer_identity = true
}

resource "google_pubsub_topic_iam_member" "sink" {
  count   = local.makes_pubsub ? 1 : 0
  project = var.project_id
  topic   = google_pubsub_topic.events[0].name
  role    = "roles/pubsub.publisher"
  member  = google_logging_project_sink.events[0].writer_identity
}

resource "google_pubsub_subscription" "events" {
  count                      = local.makes_pubsub ? 1 : 0
  project                    = var.project_id
  name                       = var.name
  topic                      = google_pubsub_topic.events[0].id
  ack_deadline_seconds       = 60
  message_retention_duration = var.message_retention
  labels                     = var.labels

  # A subscription that nobody reads for a month would be deleted, with what it holds.
  expiration_policy {
    ttl = ""
  }

  retry_policy {
    minimum_backoff = "10s"
    maximum_backoff = "600s"
  }

  # No dead-letter policy, on purpose: what the bridge gives back at each shutdown counts as a delivery attempt, so
  # Pub/Sub would put aside what the bridge can still deliver. What it cannot convert is in its own dead letter.
}

# Only this subscription, not the project.
resource "google_pubsub_subscription_iam_member" "bridge" {
  count        = local.makes_pubsub ? 1 : 0
  project      = var.project_id
  subscription = google_pubsub_subscription.events[0].name
  role         = "roles/pubsub.subscriber"
  member       = local.member
}
