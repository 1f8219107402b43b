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
  mock_resource "google_project_iam_custom_role" {
    defaults = { name = "projects/my-project/roles/auditBridgeReader" }
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

  assert {
    condition     = google_project_iam_member.logs[0].role == "projects/my-project/roles/auditBridgeReader" && google_project_iam_custom_role.reader[0].permissions == toset(["logging.logEntries.list"])
    error_message = "more than the one call: ${google_project_iam_member.logs[0].role}"
  }
  assert {
    condition = yamldecode(output.helm_values) == {
      bridge         = "gke"
      serviceAccount = { name = "gke-audit-bridge" }
      gke = {
        projectId      = "my-project"
        serviceAccount = "gke-audit-bridge@my-project.iam.gserviceaccount.com"
      }
    }
    error_message = "values: ${output.helm_values}"
  }
  assert {
    condition     = google_project_iam_member.logs[0].member == "serviceAccount:gke-audit-bridge@my-project.iam.gserviceaccount.com"
    error_message = "member: ${google_project_iam_member.logs[0].member}"
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

run "data_access_needs_one_more_permission" {
  command = apply

  variables {
    include_data_access = true
  }
  assert {
    condition     = google_project_iam_custom_role.reader[0].permissions == toset(["logging.logEntries.list", "logging.privateLogEntries.list"])
    error_message = "permissions: ${join(", ", google_project_iam_custom_role.reader[0].permissions)}"
  }
}

run "a_role_that_is_there" {
  command = apply

  variables {
    log_role = "roles/logging.viewer"
  }
  assert {
    condition     = google_project_iam_member.logs[0].role == "roles/logging.viewer" && length(google_project_iam_custom_role.reader) == 0
    error_message = "role: ${google_project_iam_member.logs[0].role}"
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
      length(google_service_account.bridge) + length(google_project_iam_member.logs) + length(google_project_iam_custom_role.reader) +
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
    condition     = google_project_iam_member.logs[0].member == "principal://iam.googleapis.com/projects/123456789012/locations/global/workloadIdentityPools/my-project.svc.id.goog/subject/ns/audit-bridge/sa/gke-audit-bridge"
    error_message = "member: ${google_project_iam_member.logs[0].member}"
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
    condition     = length(google_project_iam_member.logs) == 0
    error_message = "who reads a subscription needs nothing of the project"
  }
  assert {
    condition     = google_pubsub_subscription_iam_member.bridge[0].role == "roles/pubsub.subscriber" && google_pubsub_subscription_iam_member.bridge[0].subscription == "gke-audit"
    error_message = "the subscriber role is for that one subscription"
  }
  assert {
    condition     = google_logging_project_sink.events[0].filter == "resource.type=\"k8s_cluster\" AND protoPayload.serviceName=\"k8s.io\" AND logName=(\"projects/my-project/logs/cloudaudit.googleapis.com%2Factivity\") AND resource.labels.cluster_name=\"production\" AND resource.labels.location=\"europe-west3\""
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
    condition     = length(google_pubsub_subscription.events[0].dead_letter_policy) == 0 && length(google_pubsub_topic.dead_letter) == 0
    error_message = "the bridge needs no dead-letter topic"
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
    cluster_name        = "*"
  }
  assert {
    condition     = strcontains(output.sink_filter, "logName=(\"projects/my-project/logs/cloudaudit.googleapis.com%2Factivity\" OR \"projects/my-project/logs/cloudaudit.googleapis.com%2Fdata_access\")")
    error_message = "filter: ${output.sink_filter}"
  }
}

run "pubsub_with_a_dead_letter_topic" {
  command = apply

  variables {
    source_of_events  = "pubsub"
    cluster_name      = "*"
    dead_letter_topic = true
  }
  assert {
    condition     = google_pubsub_subscription.events[0].dead_letter_policy[0].max_delivery_attempts == 100 && google_pubsub_subscription.dead_letter[0].expiration_policy[0].ttl == ""
    error_message = "messages are put aside too early, or lost there"
  }
  assert {
    condition = alltrue([
      for grant in [google_pubsub_topic_iam_member.dead_letter[0].member, google_pubsub_subscription_iam_member.dead_letter[0].member] :
      grant == "serviceAccount:service-123456789012@gcp-sa-pubsub.iam.gserviceaccount.com"
    ])
    error_message = "Pub/Sub itself could not put messages aside"
  }
  assert {
    condition     = !strcontains(output.sink_filter, "cluster_name")
    error_message = "filter: ${output.sink_filter}"
  }
}
