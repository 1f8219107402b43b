# What the module refuses: each would give an identity or a source that does not work, later and in
# silence.

mock_provider "google" {}

variables {
  project_id = "my-project"
}

run "project_id_a_number" {
  command         = plan
  expect_failures = [var.project_id]
  variables {
    project_id = "123456789012"
  }
}

run "project_id_a_display_name" {
  command         = plan
  expect_failures = [var.project_id]
  variables {
    project_id = "My Project"
  }
}

run "project_id_a_path" {
  command         = plan
  expect_failures = [var.project_id]
  variables {
    project_id = "projects/my-project"
  }
}

run "identity_unknown" {
  command         = plan
  expect_failures = [var.identity]
  variables {
    identity = "key"
  }
}

run "service_account_id_an_e_mail_address" {
  command         = plan
  expect_failures = [var.service_account_id]
  variables {
    service_account_id = "gke-audit-bridge@my-project.iam.gserviceaccount.com"
  }
}

run "service_account_id_too_short" {
  command         = plan
  expect_failures = [var.service_account_id]
  variables {
    service_account_id = "abc"
  }
}

run "service_account_id_too_long" {
  command         = plan
  expect_failures = [var.service_account_id]
  variables {
    service_account_id = "a-service-account-id-of-31-chars"
  }
}

run "workload_identity_project_id_a_pool" {
  command         = plan
  expect_failures = [var.workload_identity_project_id]
  variables {
    workload_identity_project_id = "my-project.svc.id.goog"
  }
}

run "namespace_a_wildcard" {
  command         = plan
  expect_failures = [var.namespace]
  variables {
    namespace = "*"
  }
}

run "namespace_capitals" {
  command         = plan
  expect_failures = [var.namespace]
  variables {
    namespace = "Audit"
  }
}

run "service_account_with_its_namespace" {
  command         = plan
  expect_failures = [var.service_account]
  variables {
    service_account = "audit-bridge/gke-audit-bridge"
  }
}

run "service_account_an_e_mail_address" {
  command         = plan
  expect_failures = [var.service_account]
  variables {
    service_account = "bridge@my-project.iam.gserviceaccount.com"
  }
}

run "source_of_events_unknown" {
  command         = plan
  expect_failures = [var.source_of_events]
  variables {
    source_of_events = "storage"
  }
}

run "cluster_name_a_path" {
  command         = plan
  expect_failures = [var.cluster_name]
  variables {
    cluster_name = "projects/p/locations/l/clusters/production"
  }
}

run "location_a_city" {
  command         = plan
  expect_failures = [var.location]
  variables {
    location = "Frankfurt"
  }
}

run "name_reserved" {
  command         = plan
  expect_failures = [var.name]
  variables {
    name = "goog-audit"
  }
}

run "name_too_short" {
  command         = plan
  expect_failures = [var.name]
  variables {
    name = "ab"
  }
}

run "message_retention_days" {
  command         = plan
  expect_failures = [var.message_retention]
  variables {
    message_retention = "7d"
  }
}

run "message_retention_ten_minutes" {
  command         = plan
  expect_failures = [var.message_retention]
  variables {
    message_retention = "600s"
  }
}

run "message_retention_too_long" {
  command         = plan
  expect_failures = [var.message_retention]
  variables {
    message_retention = "9999999s"
  }
}

run "labels_a_capital" {
  command         = plan
  expect_failures = [var.labels]
  variables {
    labels = { Team = "x" }
  }
}

run "log_role_of_something_else" {
  command         = plan
  expect_failures = [var.log_role]
  variables {
    log_role = "roles/owner"
  }
}

run "log_views_a_bucket" {
  command         = plan
  expect_failures = [var.log_views]
  variables {
    log_views = ["projects/central/locations/global/buckets/audit"]
  }
}

run "log_views_a_folder_by_name" {
  command         = plan
  expect_failures = [var.log_views]
  variables {
    log_views = ["folders/audit/locations/global/buckets/audit/views/gke"]
  }
}

run "log_views_none" {
  command         = plan
  expect_failures = [var.log_views]
  variables {
    log_views = []
  }
}
