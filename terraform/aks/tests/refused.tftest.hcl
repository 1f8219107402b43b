# What the module refuses: each would give an identity or a source that does not work, later and in
# silence.

mock_provider "azurerm" {}

variables {
  resource_group_name = "audit"
  location            = "westeurope"
  cluster_ids         = ["/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/production/providers/Microsoft.ContainerService/managedClusters/production"]
  oidc_issuer_url     = "https://westeurope.oic.prod-aks.azure.com/00000000-0000-0000-0000-000000000002/00000000-0000-0000-0000-000000000003/"
}

run "resource_group_name_an_id" {
  command         = plan
  expect_failures = [var.resource_group_name]
  variables {
    resource_group_name = "/subscriptions/x/resourceGroups/audit"
  }
}

run "resource_group_name_a_full_stop_at_the_end" {
  command         = plan
  expect_failures = [var.resource_group_name]
  variables {
    resource_group_name = "audit."
  }
}

run "location_a_display_name" {
  command         = plan
  expect_failures = [var.location]
  variables {
    location = "West Europe"
  }
}

run "cluster_ids_a_name" {
  command         = plan
  expect_failures = [var.cluster_ids]
  variables {
    cluster_ids = ["production"]
  }
}

run "cluster_ids_a_trailing_slash" {
  command         = plan
  expect_failures = [var.cluster_ids]
  variables {
    cluster_ids = ["/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/production/providers/Microsoft.ContainerService/managedClusters/production/"]
  }
}

run "oidc_issuer_url_no_scheme" {
  command         = plan
  expect_failures = [var.oidc_issuer_url]
  variables {
    oidc_issuer_url = "westeurope.oic.prod-aks.azure.com/00000000-0000-0000-0000-000000000002/00000000-0000-0000-0000-000000000003/"
  }
}

run "oidc_issuer_url_plain_http" {
  command         = plan
  expect_failures = [var.oidc_issuer_url]
  variables {
    oidc_issuer_url = "http://westeurope.oic.prod-aks.azure.com/00000000-0000-0000-0000-000000000002/00000000-0000-0000-0000-000000000003/"
  }
}

run "oidc_issuer_url_the_api_server" {
  command         = plan
  expect_failures = [var.oidc_issuer_url]
  variables {
    oidc_issuer_url = "https://production-abcdef.hcp.westeurope.azmk8s.io:443"
  }
}

run "namespace_a_wildcard" {
  command         = plan
  expect_failures = [var.namespace]
  variables {
    namespace = "*"
  }
}

run "service_account_a_whole_subject" {
  command         = plan
  expect_failures = [var.service_account]
  variables {
    service_account = "system:serviceaccount:audit-bridge:aks-audit-bridge"
  }
}

run "identity_name_too_short" {
  command         = plan
  expect_failures = [var.identity_name]
  variables {
    identity_name = "ab"
  }
}

run "event_hub_namespace_name_too_short" {
  command         = plan
  expect_failures = [var.event_hub_namespace_name]
  variables {
    event_hub_namespace_name = "short"
  }
}

run "event_hub_namespace_name_a_host_name" {
  command         = plan
  expect_failures = [var.event_hub_namespace_name]
  variables {
    event_hub_namespace_name = "audit.servicebus.windows.net"
  }
}

run "event_hub_namespace_name_a_dash_at_the_end" {
  command         = plan
  expect_failures = [var.event_hub_namespace_name]
  variables {
    event_hub_namespace_name = "a-name-that-ends-in-a-dash-"
  }
}

run "event_hub_name_a_path" {
  command         = plan
  expect_failures = [var.event_hub_name]
  variables {
    event_hub_name = "a/b"
  }
}

run "endpoint_suffix_unknown" {
  command         = plan
  expect_failures = [var.endpoint_suffix]
  variables {
    endpoint_suffix = "eventhubs.azure.net"
  }
}

run "capacity_max_zero" {
  command         = plan
  expect_failures = [var.capacity_max]
  variables {
    capacity_max = 0
  }
}

run "consumer_group_name_the_shared_one" {
  command         = plan
  expect_failures = [var.consumer_group_name]
  variables {
    consumer_group_name = "$Default"
  }
}

run "category_no_audit" {
  command         = plan
  expect_failures = [var.category]
  variables {
    category = "kube-apiserver"
  }
}

run "sku_one_consumer_group_only" {
  command         = plan
  expect_failures = [var.sku]
  variables {
    sku = "Basic"
  }
}

run "capacity_zero" {
  command         = plan
  expect_failures = [var.capacity]
  variables {
    capacity = 0
  }
}

run "partition_count_too_many" {
  command         = plan
  expect_failures = [var.partition_count]
  variables {
    partition_count = 101
  }
}

run "retention_days_too_many" {
  command         = plan
  expect_failures = [var.retention_days]
  variables {
    retention_days = 91
  }
}

run "tags_a_slash" {
  command         = plan
  expect_failures = [var.tags]
  variables {
    tags = { "a/b" = "c" }
  }
}

run "partition_count_too_many_for_standard" {
  command         = plan
  expect_failures = [azurerm_eventhub_namespace.audit]
  variables {
    partition_count = 33
  }
}

run "retention_days_too_many_for_standard" {
  command         = plan
  expect_failures = [azurerm_eventhub_namespace.audit]
  variables {
    retention_days = 8
  }
}

run "capacity_not_of_premium" {
  command         = plan
  expect_failures = [azurerm_eventhub_namespace.audit]
  variables {
    sku      = "Premium"
    capacity = 3
  }
}

run "cluster_ids_none" {
  command         = plan
  expect_failures = [var.cluster_ids]
  variables {
    cluster_ids = []
  }
}

run "cluster_ids_twice" {
  command         = plan
  expect_failures = [var.cluster_ids]
  variables {
    cluster_ids = [
      "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/production/providers/Microsoft.ContainerService/managedClusters/a",
      "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/production/providers/Microsoft.ContainerService/managedClusters/a",
    ]
  }
}

run "private_endpoint_subnet_id_a_name" {
  command         = plan
  expect_failures = [var.private_endpoint_subnet_id]
  variables {
    private_endpoint_subnet_id = "endpoints"
  }
}

run "private_dns_zone_id_of_something_else" {
  command         = plan
  expect_failures = [var.private_dns_zone_id]
  variables {
    private_dns_zone_id = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/net/providers/Microsoft.Network/privateDnsZones/privatelink.blob.core.windows.net"
  }
}

run "allowed_ip_ranges_a_name" {
  command         = plan
  expect_failures = [var.allowed_ip_ranges]
  variables {
    allowed_ip_ranges = ["office"]
  }
}

run "allowed_ip_ranges_out_of_range" {
  command         = plan
  expect_failures = [var.allowed_ip_ranges]
  variables {
    allowed_ip_ranges = ["300.1.1.1"]
  }
}
