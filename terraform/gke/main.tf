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

  # What the bridge reads, and nothing else: Google keeps Admin Activity in the bucket _Required, and Data Access in
  # _Default, of which a view of our own shows the clusters' entries only.
  reads_views   = var.create && !local.pubsub && var.log_role == null
  makes_view    = local.reads_views && var.log_views == null && var.include_data_access
  required_view = "projects/${var.project_id}/locations/global/buckets/_Required/views/_AllLogs"
  own_view      = "projects/${var.project_id}/locations/global/buckets/_Default/views/${local.view_id}"
  view_id       = replace(var.name, ".", "-")
  own_views     = concat([local.required_view], var.include_data_access ? [local.own_view] : [])
  log_views     = local.reads_views ? coalesce(var.log_views, local.own_views) : []
}

resource "google_logging_log_view" "data_access" {
  count       = local.makes_view ? 1 : 0
  parent      = "projects/${var.project_id}"
  location    = "global"
  bucket      = "_Default"
  name        = local.view_id
  description = "Data Access log of GKE clusters, for the audit bridge"
  filter      = "resource.type = \"k8s_cluster\" AND LOG_ID(\"cloudaudit.googleapis.com/data_access\")"
}

# The role is for these views, by a condition: without one it would be for every view of every bucket.
resource "google_project_iam_member" "view" {
  for_each = toset([for view in local.log_views : view if startswith(view, "projects/")])
  project  = split("/", each.value)[1]
  role     = "roles/logging.viewAccessor"
  member   = local.member

  condition {
    title      = "${var.name}: this log view"
    expression = "resource.name == \"${each.value}\""
  }

  depends_on = [google_logging_log_view.data_access]
}

resource "google_folder_iam_member" "view" {
  for_each = toset([for view in local.log_views : view if startswith(view, "folders/")])
  folder   = "folders/${split("/", each.value)[1]}"
  role     = "roles/logging.viewAccessor"
  member   = local.member

  condition {
    title      = "${var.name}: this log view"
    expression = "resource.name == \"${each.value}\""
  }
}

resource "google_organization_iam_member" "view" {
  for_each = toset([for view in local.log_views : view if startswith(view, "organizations/")])
  org_id   = split("/", each.value)[1]
  role     = "roles/logging.viewAccessor"
  member   = local.member

  condition {
    title      = "${var.name}: this log view"
    expression = "resource.name == \"${each.value}\""
  }
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

# Only where a role is named: it is for the whole project.
resource "google_project_iam_member" "logs" {
  count   = var.create && !local.pubsub && var.log_role != null ? 1 : 0
  project = var.project_id
  role    = var.log_role
  member  = local.member
}
