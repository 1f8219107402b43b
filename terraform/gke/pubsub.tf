# source_of_events = "pubsub": Cloud Logging writes the audit log to a topic, the bridge reads one
# subscription of it.

data "google_project" "logs" {
  count      = local.puts_aside ? 1 : 0
  project_id = var.project_id
}

locals {
  makes_pubsub  = var.create && local.pubsub
  puts_aside    = local.makes_pubsub && var.dead_letter_topic
  every_cluster = var.cluster_name == null || var.cluster_name == "*"
  logs = concat(
    ["projects/${var.project_id}/logs/cloudaudit.googleapis.com%2Factivity"],
    var.include_data_access ? ["projects/${var.project_id}/logs/cloudaudit.googleapis.com%2Fdata_access"] : [],
  )
  sink_filter = join(" AND ", compact([
    "resource.type=\"k8s_cluster\"",
    "protoPayload.serviceName=\"k8s.io\"",
    "logName=(${join(" OR ", [for log in local.logs : "\"${log}\""])})",
    local.every_cluster ? "" : "resource.labels.cluster_name=\"${coalesce(var.cluster_name, "-")}\"",
    var.location == null ? "" : "resource.labels.location=\"${coalesce(var.location, "-")}\"",
  ]))

  # Pub/Sub itself moves messages to the dead-letter topic, as this account.
  pubsub_agent = local.puts_aside ? "serviceAccount:service-${data.google_project.logs[0].number}@gcp-sa-pubsub.iam.gserviceaccount.com" : ""
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

  lifecycle {
    precondition {
      condition     = var.cluster_name != null
      error_message = "pubsub needs cluster_name: write the cluster whose log the sink sends, or \"*\" for every cluster of the project."
    }
  }
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

  # The bridge keeps what it cannot convert in its own dead letter; Pub/Sub would put aside what it could still deliver.
  dynamic "dead_letter_policy" {
    for_each = local.puts_aside ? [1] : []
    content {
      dead_letter_topic     = google_pubsub_topic.dead_letter[0].id
      max_delivery_attempts = var.delivery_attempts_max
    }
  }
}

# Only this subscription, not the project.
resource "google_pubsub_subscription_iam_member" "bridge" {
  count        = local.makes_pubsub ? 1 : 0
  project      = var.project_id
  subscription = google_pubsub_subscription.events[0].name
  role         = "roles/pubsub.subscriber"
  member       = local.member
}

resource "google_pubsub_topic" "dead_letter" {
  count   = local.puts_aside ? 1 : 0
  project = var.project_id
  name    = "${var.name}-dead-letter"
  labels  = var.labels
}

# Without a subscription, what is put aside would be gone.
resource "google_pubsub_subscription" "dead_letter" {
  count                      = local.puts_aside ? 1 : 0
  project                    = var.project_id
  name                       = "${var.name}-dead-letter"
  topic                      = google_pubsub_topic.dead_letter[0].id
  message_retention_duration = var.message_retention
  labels                     = var.labels

  expiration_policy {
    ttl = ""
  }
}

resource "google_pubsub_topic_iam_member" "dead_letter" {
  count   = local.puts_aside ? 1 : 0
  project = var.project_id
  topic   = google_pubsub_topic.dead_letter[0].name
  role    = "roles/pubsub.publisher"
  member  = local.pubsub_agent
}

resource "google_pubsub_subscription_iam_member" "dead_letter" {
  count        = local.puts_aside ? 1 : 0
  project      = var.project_id
  subscription = google_pubsub_subscription.events[0].name
  role         = "roles/pubsub.subscriber"
  member       = local.pubsub_agent
}
