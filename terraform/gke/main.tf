# Who the bridge is, and that it may read: the log by Cloud Logging's API, or one subscription.

data "google_project" "pool" {
  count      = var.create && !local.impersonates ? 1 : 0
  project_id = local.pool_project
}

locals {
  pubsub       = var.source_of_events == "pubsub"
  impersonates = var.create && var.identity == "service_account"
  pool_project = coalesce(var.workload_identity_project_id, var.project_id)
  pool         = "${local.pool_project}.svc.id.goog"

  principal = local.impersonates || !var.create ? "" : "principal://iam.googleapis.com/projects/${one(data.google_project.pool[*].number)}/locations/global/workloadIdentityPools/${local.pool}/subject/ns/${var.namespace}/sa/${var.service_account}"
  member    = local.impersonates ? "serviceAccount:${google_service_account.bridge[0].email}" : local.principal

  # What the bridge calls, and nothing else. Google's own viewers may also list buckets, sinks and views.
  own_role    = var.create && !local.pubsub && var.log_role == null
  permissions = concat(["logging.logEntries.list"], var.include_data_access ? ["logging.privateLogEntries.list"] : [])
  log_role    = local.own_role ? google_project_iam_custom_role.reader[0].name : var.log_role
}

resource "google_project_iam_custom_role" "reader" {
  count       = local.own_role ? 1 : 0
  project     = var.project_id
  role_id     = var.custom_role_id
  title       = "Audit bridge"
  description = "Reads log entries${var.include_data_access ? ", those of Data Access too" : ""}, and nothing else"
  permissions = local.permissions
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
  count   = var.create && !local.pubsub ? 1 : 0
  project = var.project_id
  role    = local.log_role
  member  = local.member
}
