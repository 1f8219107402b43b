# What the module makes of good input. The provider is mocked: no account, no network.

mock_provider "google" {
  mock_data "google_project" {
    defaults = { number = "123456789012" }
  }
  mock_resource "google_service_account" {
    defaults = {
      email = "gke-audit-bridge@my-project.iam.gserviceaccount.com"
      name  = "projects/my-project/serviceAccounts/gke-audit-bridge@my-project.iam.gserviceaccount.com"
    }
  }
  mock_resource "google_pubsub_topic" {
    defaults = { id = "projects/my-project/topics/mocked" }
  }
  mock_resource "google_pubsub_subscription" {
    defaults = { id = "projects/my-project/subscriptions/mocked" }
  }
  mock_resource "google_logging_project_sink" {
    defaults = { writer_identity = "serviceAccount:writer@gcp-sa-logging.iam.gserviceaccount.com" }
  }
}

variables {
  project_id = "my-project"
}

run "default" {
  command = apply

  # Both ways of reading have the same default: every cluster of the project.
  assert {
    condition = yamldecode(output.helm_values) == {
      bridge         = "gke"
      serviceAccount = { name = "gke-audit-bridge" }
      gke = {
        projectId         = "my-project"
        clusterName       = "*"
        resourceNames     = ["projects/my-project/locations/global/buckets/_Required/views/_AllLogs"]
        location          = ""
        includeDataAccess = false
        serviceAccount    = "gke-audit-bridge@my-project.iam.gserviceaccount.com"
        subscription      = ""
      }
    }
    error_message = "values: ${output.helm_values}"
  }
  assert {
    condition = { for view, grant in google_project_iam_member.view : view => [grant.project, grant.role, grant.member, one(grant.condition).expression] } == {
      "projects/my-project/locations/global/buckets/_Required/views/_AllLogs" = [
        "my-project",
        "roles/logging.viewAccessor",
        "serviceAccount:gke-audit-bridge@my-project.iam.gserviceaccount.com",
        "resource.name == \"projects/my-project/locations/global/buckets/_Required/views/_AllLogs\"",
      ]
    }
    error_message = "more than the one view, or another one"
  }
  assert {
    condition     = length(google_project_iam_member.logs) + length(google_folder_iam_member.view) + length(google_organization_iam_member.view) + length(google_logging_log_view.data_access) == 0
    error_message = "nothing is granted on the whole project, or above it"
  }
  assert {
    condition     = google_service_account_iam_member.pod[0].member == "serviceAccount:my-project.svc.id.goog[audit-bridge/gke-audit-bridge]"
    error_message = "somebody else may impersonate: ${google_service_account_iam_member.pod[0].member}"
  }
  assert {
    condition     = google_service_account_iam_member.pod[0].role == "roles/iam.workloadIdentityUser"
    error_message = "role: ${google_service_account_iam_member.pod[0].role}"
  }
  assert {
    condition     = output.service_account_annotations["iam.gke.io/gcp-service-account"] == "gke-audit-bridge@my-project.iam.gserviceaccount.com"
    error_message = "the annotation is wrong"
  }
  assert {
    condition     = length(google_pubsub_topic.events) + length(google_logging_project_sink.events) + length(google_pubsub_subscription.events) == 0
    error_message = "reading Cloud Logging needs no Pub/Sub"
  }
}

run "data_access_has_a_view_of_its_own" {
  command = apply

  variables {
    include_data_access = true
  }
  assert {
    condition = (
      google_logging_log_view.data_access[0].filter == "resource.type = \"k8s_cluster\" AND LOG_ID(\"cloudaudit.googleapis.com/data_access\")" &&
      google_logging_log_view.data_access[0].bucket == "_Default" && google_logging_log_view.data_access[0].parent == "projects/my-project"
    )
    error_message = "the view shows something else"
  }
  assert {
    condition = keys(google_project_iam_member.view) == [
      "projects/my-project/locations/global/buckets/_Default/views/gke-audit",
      "projects/my-project/locations/global/buckets/_Required/views/_AllLogs",
    ]
    error_message = "views: ${join(", ", keys(google_project_iam_member.view))}"
  }
  assert {
    condition     = toset(yamldecode(output.helm_values).gke.resourceNames) == toset(keys(google_project_iam_member.view)) && toset(output.log_views) == toset(keys(google_project_iam_member.view))
    error_message = "what is read is not what is granted: ${output.helm_values}"
  }
}

run "views_of_a_central_bucket" {
  command = apply

  variables {
    log_views = [
      "projects/central/locations/europe-west3/buckets/audit/views/gke",
      "folders/42/locations/global/buckets/audit/views/_AllLogs",
      "organizations/7/locations/global/buckets/audit/views/gke",
    ]
    include_data_access = true
  }
  assert {
    condition = alltrue([
      google_project_iam_member.view["projects/central/locations/europe-west3/buckets/audit/views/gke"].project == "central",
      one(google_folder_iam_member.view["folders/42/locations/global/buckets/audit/views/_AllLogs"].condition).expression == "resource.name == \"folders/42/locations/global/buckets/audit/views/_AllLogs\"",
      google_folder_iam_member.view["folders/42/locations/global/buckets/audit/views/_AllLogs"].folder == "folders/42",
      google_organization_iam_member.view["organizations/7/locations/global/buckets/audit/views/gke"].org_id == "7",
      one(google_organization_iam_member.view["organizations/7/locations/global/buckets/audit/views/gke"].condition).expression == "resource.name == \"organizations/7/locations/global/buckets/audit/views/gke\"",
    ])
    error_message = "a view is not granted where it is, or more than it"
  }
  assert {
    condition     = length(google_project_iam_member.view) == 1 && length(google_logging_log_view.data_access) == 0
    error_message = "more than what was named"
  }
  assert {
    condition     = yamldecode(output.helm_values).gke.projectId == "*" && length(yamldecode(output.helm_values).gke.resourceNames) == 3
    error_message = "values: ${output.helm_values}"
  }
}

run "a_role_for_the_project" {
  command = apply

  variables {
    log_role            = "roles/logging.privateLogViewer"
    include_data_access = true
  }
  assert {
    condition     = google_project_iam_member.logs[0].role == "roles/logging.privateLogViewer" && length(google_project_iam_member.view) + length(google_logging_log_view.data_access) == 0
    error_message = "role: ${google_project_iam_member.logs[0].role}"
  }
  assert {
    condition     = length(yamldecode(output.helm_values).gke.resourceNames) == 0
    error_message = "values: ${output.helm_values}"
  }
}

run "nothing" {
  command = apply

  variables {
    create           = false
    source_of_events = "pubsub"
  }
  assert {
    condition = (
      length(google_service_account.bridge) + length(google_project_iam_member.logs) + length(google_project_iam_member.view) +
      length(google_pubsub_topic.events) + length(google_logging_project_sink.events) == 0
    )
    error_message = "create = false creates something"
  }
}

run "principal" {
  command = apply

  variables {
    identity = "principal"
  }
  assert {
    condition     = one(values(google_project_iam_member.view)).member == "principal://iam.googleapis.com/projects/123456789012/locations/global/workloadIdentityPools/my-project.svc.id.goog/subject/ns/audit-bridge/sa/gke-audit-bridge"
    error_message = "member: ${one(values(google_project_iam_member.view)).member}"
  }
  assert {
    condition     = length(google_service_account.bridge) == 0 && length(google_service_account_iam_member.pod) == 0 && length(output.service_account_annotations) == 0
    error_message = "a principal needs no Google service account"
  }
}

run "cluster_in_another_project" {
  command = apply

  variables {
    workload_identity_project_id = "run-project"
  }
  assert {
    condition     = google_service_account_iam_member.pod[0].member == "serviceAccount:run-project.svc.id.goog[audit-bridge/gke-audit-bridge]"
    error_message = "member: ${google_service_account_iam_member.pod[0].member}"
  }
}

run "pubsub" {
  command = apply

  variables {
    source_of_events = "pubsub"
    cluster_name     = "production"
    location         = "europe-west3"
  }
  assert {
    condition     = length(google_project_iam_member.logs) + length(google_project_iam_member.view) == 0
    error_message = "who reads a subscription needs nothing of the project"
  }
  assert {
    condition     = google_pubsub_subscription_iam_member.bridge[0].role == "roles/pubsub.subscriber" && google_pubsub_subscription_iam_member.bridge[0].subscription == "gke-audit"
    error_message = "the subscriber role is for that one subscription"
  }
  assert {
    condition     = google_logging_project_sink.events[0].filter == "resource.type=\"k8s_cluster\" AND protoPayload.serviceName=\"k8s.io\" AND (log_id(\"cloudaudit.googleapis.com/activity\")) AND resource.labels.cluster_name=\"production\" AND resource.labels.location=\"europe-west3\""
    error_message = "filter: ${google_logging_project_sink.events[0].filter}"
  }
  assert {
    condition     = google_logging_project_sink.events[0].unique_writer_identity && google_pubsub_topic_iam_member.sink[0].member == "serviceAccount:writer@gcp-sa-logging.iam.gserviceaccount.com" && google_pubsub_topic_iam_member.sink[0].role == "roles/pubsub.publisher"
    error_message = "the sink may not publish"
  }
  assert {
    condition     = google_pubsub_subscription.events[0].expiration_policy[0].ttl == ""
    error_message = "an idle subscription would be deleted"
  }
  assert {
    condition     = length(google_pubsub_subscription.events[0].dead_letter_policy) == 0
    error_message = "what a bridge gives back at a shutdown would be put aside"
  }
  assert {
    condition     = yamldecode(output.helm_values).gke.subscription == "projects/my-project/subscriptions/mocked" && yamldecode(output.helm_values).gke.clusterName == "production"
    error_message = "values: ${output.helm_values}"
  }
}

run "pubsub_with_data_access" {
  command = apply

  variables {
    source_of_events    = "pubsub"
    include_data_access = true
  }
  assert {
    condition     = output.sink_filter == "resource.type=\"k8s_cluster\" AND protoPayload.serviceName=\"k8s.io\" AND (log_id(\"cloudaudit.googleapis.com/activity\") OR log_id(\"cloudaudit.googleapis.com/data_access\"))"
    error_message = "filter: ${output.sink_filter}"
  }
}
