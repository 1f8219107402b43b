output "member" {
  description = "The bridge as IAM knows it."
  value       = local.member
}

output "service_account_email" {
  description = "The Google service account; null with identity `principal`."
  value       = local.impersonates ? google_service_account.bridge[0].email : null
}

output "service_account_annotations" {
  description = "What the Kubernetes service account has to carry; empty with identity `principal`."
  value       = local.impersonates ? { "iam.gke.io/gcp-service-account" = google_service_account.bridge[0].email } : {}
}

output "subscription" {
  description = "The subscription to read, for --subscription; null when the bridge reads Cloud Logging."
  value       = local.pubsub ? google_pubsub_subscription.events[0].id : null
}

output "dead_letter_subscription" {
  description = "Where Pub/Sub puts aside what could not be delivered; null when the bridge reads Cloud Logging."
  value       = local.pubsub ? google_pubsub_subscription.dead_letter[0].id : null
}

output "sink_filter" {
  description = "What the sink takes."
  value       = local.sink_filter
}

output "settings" {
  description = "Settings of the bridge that follow from this module, for the values of the chart (deploy/gke)."
  value = {
    AUDIT_BRIDGE_PROJECT_ID          = var.project_id
    AUDIT_BRIDGE_CLUSTER_NAME        = var.cluster_name == null ? "" : var.cluster_name
    AUDIT_BRIDGE_LOCATION            = var.location == null ? "" : var.location
    AUDIT_BRIDGE_INCLUDE_DATA_ACCESS = tostring(var.include_data_access)
    AUDIT_BRIDGE_SUBSCRIPTION        = local.pubsub ? google_pubsub_subscription.events[0].id : ""
  }
}
