# What the module makes of good input. The provider is mocked: no account, no network.

mock_provider "azurerm" {
  mock_resource "azurerm_eventhub_namespace" {
    defaults = { id = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/audit/providers/Microsoft.EventHub/namespaces/mocked" }
  }
  mock_resource "azurerm_eventhub" {
    defaults = { id = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/audit/providers/Microsoft.EventHub/namespaces/mocked/eventhubs/mocked" }
  }
  mock_resource "azurerm_eventhub_namespace_authorization_rule" {
    defaults = { id = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/audit/providers/Microsoft.EventHub/namespaces/mocked/authorizationRules/diagnostics" }
  }
  mock_resource "azurerm_user_assigned_identity" {
    defaults = {
      id           = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/audit/providers/Microsoft.ManagedIdentity/userAssignedIdentities/mocked"
      client_id    = "00000000-0000-0000-0000-00000000000c"
      principal_id = "00000000-0000-0000-0000-00000000000b"
    }
  }
}

variables {
  resource_group_name = "audit"
  location            = "westeurope"
  cluster_ids         = ["/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/production/providers/Microsoft.ContainerService/managedClusters/prod_cluster"]
  oidc_issuer_url     = "https://westeurope.oic.prod-aks.azure.com/00000000-0000-0000-0000-000000000002/00000000-0000-0000-0000-000000000003/"
}

run "default" {
  command = apply

  assert {
    condition     = azurerm_role_assignment.receive[0].role_definition_name == "Azure Event Hubs Data Receiver" && azurerm_role_assignment.receive[0].scope == azurerm_eventhub.audit[0].id
    error_message = "the role is not for receiving from this hub alone"
  }
  assert {
    condition     = azurerm_role_assignment.receive[0].principal_id == "00000000-0000-0000-0000-00000000000b"
    error_message = "somebody else has the role"
  }
  assert {
    condition     = azurerm_federated_identity_credential.bridge[0].subject == "system:serviceaccount:audit-bridge:aks-audit-bridge" && azurerm_federated_identity_credential.bridge[0].audience == tolist(["api://AzureADTokenExchange"])
    error_message = "the trust is not for exactly one service account"
  }
  assert {
    condition     = azurerm_federated_identity_credential.bridge[0].issuer == var.oidc_issuer_url
    error_message = "issuer: ${azurerm_federated_identity_credential.bridge[0].issuer}"
  }
  assert {
    condition     = can(regex("^audit-prod-cluster-[0-9a-f]{8}$", azurerm_eventhub_namespace.audit[0].name))
    error_message = "name: ${azurerm_eventhub_namespace.audit[0].name}"
  }
  assert {
    condition     = azurerm_eventhub_namespace.audit[0].sku == "Standard" && azurerm_eventhub_namespace.audit[0].auto_inflate_enabled && azurerm_eventhub_namespace.audit[0].maximum_throughput_units == 4
    error_message = "the namespace does not grow"
  }
  assert {
    condition     = azurerm_eventhub.audit[0].message_retention == 7
    error_message = "the hub forgets too early"
  }
  assert {
    condition     = one(azurerm_monitor_diagnostic_setting.audit[var.cluster_ids[0]].enabled_log[*].category) == "kube-audit-admin" && azurerm_monitor_diagnostic_setting.audit[var.cluster_ids[0]].target_resource_id == var.cluster_ids[0] && azurerm_monitor_diagnostic_setting.audit[var.cluster_ids[0]].eventhub_name == "insights-logs-kube-audit"
    error_message = "the cluster does not send its audit log here"
  }
  assert {
    condition = yamldecode(output.helm_values) == {
      bridge         = "aks"
      serviceAccount = { name = "aks-audit-bridge" }
      aks = {
        eventHubNamespace = "${azurerm_eventhub_namespace.audit[0].name}.servicebus.windows.net"
        eventHub          = "insights-logs-kube-audit"
        consumerGroup     = "audit-bridge"
        categories        = ["kube-audit-admin"]
        clientId          = "00000000-0000-0000-0000-00000000000c"
      }
    }
    error_message = "values: ${output.helm_values}"
  }
  assert {
    condition     = azurerm_eventhub_namespace.audit[0].public_network_access_enabled && length(azurerm_private_endpoint.hub) == 0
    error_message = "private networking was not asked for"
  }
  assert {
    condition     = output.service_account_annotations["azure.workload.identity/client-id"] == "00000000-0000-0000-0000-00000000000c"
    error_message = "the annotation is wrong"
  }
}

run "issuer_without_its_slash" {
  command = apply

  variables {
    oidc_issuer_url = "https://westeurope.oic.prod-aks.azure.com/00000000-0000-0000-0000-000000000002/00000000-0000-0000-0000-000000000003"
  }
  assert {
    condition     = endswith(azurerm_federated_identity_credential.bridge[0].issuer, "3/") && !endswith(azurerm_federated_identity_credential.bridge[0].issuer, "//")
    error_message = "Azure would not know this issuer: ${azurerm_federated_identity_credential.bridge[0].issuer}"
  }
}

run "everything" {
  command = apply

  variables {
    category            = "kube-audit"
    consumer_group_name = "falco"
    namespace           = "falco"
    service_account     = "bridge"
  }
  assert {
    condition     = one(azurerm_monitor_diagnostic_setting.audit[var.cluster_ids[0]].enabled_log[*].category) == "kube-audit"
    error_message = "the category is lost"
  }
  assert {
    condition     = yamldecode(output.helm_values).aks.consumerGroup == "falco" && azurerm_federated_identity_credential.bridge[0].subject == "system:serviceaccount:falco:bridge"
    error_message = "an option is lost"
  }
}

run "long_cluster_name" {
  command = apply

  variables {
    cluster_ids = ["/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/production/providers/Microsoft.ContainerService/managedClusters/a-cluster-name-of-sixty-three-characters-is-the-longest-allowed1"]
  }
  assert {
    condition     = length(azurerm_eventhub_namespace.audit[0].name) <= 50 && can(regex("^[A-Za-z][0-9A-Za-z-]*[0-9A-Za-z]$", azurerm_eventhub_namespace.audit[0].name))
    error_message = "Azure refuses this name: ${azurerm_eventhub_namespace.audit[0].name}"
  }
}

run "premium_does_not_inflate" {
  command = apply

  variables {
    sku = "Premium"
  }
  assert {
    condition     = !azurerm_eventhub_namespace.audit[0].auto_inflate_enabled
    error_message = "Azure refuses auto-inflate on Premium"
  }
}

run "premium_keeps_longer" {
  command = apply

  variables {
    sku             = "Premium"
    retention_days  = 90
    partition_count = 100
    capacity        = 2
  }
  assert {
    condition     = azurerm_eventhub.audit[0].message_retention == 90 && azurerm_eventhub.audit[0].partition_count == 100
    error_message = "Premium is capped"
  }
}

run "several_clusters" {
  command = apply

  variables {
    cluster_ids = [
      "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/production/providers/Microsoft.ContainerService/managedClusters/a",
      "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/production/providers/Microsoft.ContainerService/managedClusters/b",
    ]
  }
  assert {
    condition     = length(azurerm_monitor_diagnostic_setting.audit) == 2 && toset([for setting in azurerm_monitor_diagnostic_setting.audit : setting.target_resource_id]) == toset(var.cluster_ids)
    error_message = "each cluster sends its log"
  }
  assert {
    condition     = yamldecode(output.helm_values).settings["annotate-cluster"]
    error_message = "their events cannot be told apart: ${output.helm_values}"
  }
}

run "private" {
  command = apply

  variables {
    private_endpoint_subnet_id = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/net/providers/Microsoft.Network/virtualNetworks/hub/subnets/endpoints"
    private_dns_zone_id        = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/net/providers/Microsoft.Network/privateDnsZones/privatelink.servicebus.windows.net"
  }
  assert {
    condition     = !azurerm_eventhub_namespace.audit[0].public_network_access_enabled && one(azurerm_eventhub_namespace.audit[0].network_rulesets).default_action == "Deny"
    error_message = "the public network still reaches it"
  }
  assert {
    condition     = one(azurerm_eventhub_namespace.audit[0].network_rulesets).trusted_service_access_enabled
    error_message = "the diagnostic setting could not write"
  }
  assert {
    condition     = one(azurerm_private_endpoint.hub[0].private_service_connection).subresource_names == tolist(["namespace"]) && one(one(azurerm_private_endpoint.hub[0].private_dns_zone_group).private_dns_zone_ids) == var.private_dns_zone_id
    error_message = "the endpoint leads elsewhere"
  }
}

run "some_addresses" {
  command = apply

  variables {
    allowed_ip_ranges = ["203.0.113.7", "198.51.100.0/24"]
  }
  assert {
    condition     = azurerm_eventhub_namespace.audit[0].public_network_access_enabled && one(azurerm_eventhub_namespace.audit[0].network_rulesets).default_action == "Deny" && length(one(azurerm_eventhub_namespace.audit[0].network_rulesets).ip_rule) == 2
    error_message = "the firewall is open, or closed to those who may"
  }
}

run "no_role" {
  command = apply

  variables {
    create_role_assignment = false
  }
  assert {
    condition     = length(azurerm_role_assignment.receive) == 0 && output.principal_id == "00000000-0000-0000-0000-00000000000b"
    error_message = "somebody else assigns roles"
  }
}

run "nothing" {
  command = apply

  variables {
    create = false
  }
  assert {
    condition = (
      length(azurerm_eventhub_namespace.audit) + length(azurerm_eventhub.audit) + length(azurerm_monitor_diagnostic_setting.audit) +
      length(azurerm_user_assigned_identity.bridge) + length(azurerm_role_assignment.receive) == 0
    )
    error_message = "create = false creates something"
  }
}
