# Who the bridge is, and that it may read: the log by Cloud Logging's API, or one subscription.

data "google_project" "pool" {
  project_id = local.pool_project
}

locals {
  pubsub       = var.source_of_events == "pubsub"
  impersonates = var.identity == "service_account"
  pool_project = coalesce(var.workload_identity_project_id, var.project_id)
  pool         = "${local.pool_project}.svc.id.goog"

  principal = "principal://iam.googleapis.com/projects/${data.google_project.pool.number}/locations/global/workloadIdentityPools/${local.pool}/subject/ns/${var.namespace}/sa/${var.service_account}"
  member    = local.impersonates ? "serviceAccount:${google_service_account.bridge[0].email}" : local.principal

  # The viewer sees all logs but Data Access; the private log viewer sees those too. Neither is needed
  # to read a subscription.
  log_role = var.include_data_access ? "roles/logging.privateLogViewer" : "roles/logging.viewer"
}

resource "google_service_account" "bridge" {
  count        = local.impersonates ? 1 : 0
  project      = var.project_id
  account_id   = var.service_account_id
  display_name = "GKE audit bridge"
  description  = "Reads the Kubernetes audit log for the audit bridge"
}

resource "google_service_account_iam_member" "pod" {
  count              = local.impersonates ? 1 : 0
  service_account_id = google_service_account.bridge[0].name
  role               = "roles/iam.workloadIdentityUser"
  member             = "serviceAccount:${local.pool}[${var.namespace}/${var.service_account}]"
}

resource "google_project_iam_member" "logs" {
  count   = local.pubsub ? 0 : 1
  project = var.project_id
  role    = local.log_role
  member  = local.member
}
