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
  value       = one(google_pubsub_subscription.events[*].id)
}

output "log_views" {
  description = "The log views that the bridge may read, for --resource-name; empty with log_role and with `pubsub`."
  value       = local.log_views
}

output "sink_filter" {
  description = "What the sink takes."
  value       = local.sink_filter
}

output "helm_values" {
  description = "What the chart has to know of this module, as YAML: `terraform output -raw helm_values > identity.yaml`, for a second `--values`."
  value = yamlencode({
    bridge         = "gke"
    serviceAccount = { name = var.service_account }
    # What is empty is said too, so that nothing of the file before stays.
    gke = {
      # Views that were named hold the clusters of many projects.
      projectId         = var.log_views == null ? var.project_id : "*"
      clusterName       = var.cluster_name
      resourceNames     = local.log_views
      location          = var.location == null ? "" : var.location
      includeDataAccess = var.include_data_access
      serviceAccount    = local.impersonates ? google_service_account.bridge[0].email : ""
      subscription      = local.makes_pubsub ? google_pubsub_subscription.events[0].id : ""
    }
  })
}
