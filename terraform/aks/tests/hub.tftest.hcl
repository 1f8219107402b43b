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
  cluster_id          = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/production/providers/Microsoft.ContainerService/managedClusters/prod_cluster"
  oidc_issuer_url     = "https://westeurope.oic.prod-aks.azure.com/00000000-0000-0000-0000-000000000002/00000000-0000-0000-0000-000000000003/"
}

run "default" {
  command = apply

  assert {
    condition     = azurerm_role_assignment.receive.role_definition_name == "Azure Event Hubs Data Receiver" && azurerm_role_assignment.receive.scope == azurerm_eventhub.audit.id
    error_message = "the role is not for receiving from this hub alone"
  }
  assert {
    condition     = azurerm_role_assignment.receive.principal_id == "00000000-0000-0000-0000-00000000000b"
    error_message = "somebody else has the role"
  }
  assert {
    condition     = azurerm_federated_identity_credential.bridge.subject == "system:serviceaccount:audit-bridge:aks-audit-bridge" && azurerm_federated_identity_credential.bridge.audience == tolist(["api://AzureADTokenExchange"])
    error_message = "the trust is not for exactly one service account"
  }
  assert {
    condition     = azurerm_federated_identity_credential.bridge.issuer == var.oidc_issuer_url
    error_message = "issuer: ${azurerm_federated_identity_credential.bridge.issuer}"
  }
  assert {
    condition     = can(regex("^audit-prod-cluster-[0-9a-f]{8}$", azurerm_eventhub_namespace.audit.name))
    error_message = "name: ${azurerm_eventhub_namespace.audit.name}"
  }
  assert {
    condition     = azurerm_eventhub_namespace.audit.sku == "Standard" && azurerm_eventhub_namespace.audit.auto_inflate_enabled && azurerm_eventhub_namespace.audit.maximum_throughput_units == 4
    error_message = "the namespace does not grow"
  }
  assert {
    condition     = azurerm_eventhub.audit.message_retention == 7
    error_message = "the hub forgets too early"
  }
  assert {
    condition     = one(azurerm_monitor_diagnostic_setting.audit.enabled_log[*].category) == "kube-audit-admin" && azurerm_monitor_diagnostic_setting.audit.target_resource_id == var.cluster_id && azurerm_monitor_diagnostic_setting.audit.eventhub_name == "insights-logs-kube-audit"
    error_message = "the cluster does not send its audit log here"
  }
  assert {
    condition     = output.settings.AUDIT_BRIDGE_EVENT_HUB_NAMESPACE == "${azurerm_eventhub_namespace.audit.name}.servicebus.windows.net"
    error_message = "settings: ${output.settings.AUDIT_BRIDGE_EVENT_HUB_NAMESPACE}"
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
    condition     = endswith(azurerm_federated_identity_credential.bridge.issuer, "3/") && !endswith(azurerm_federated_identity_credential.bridge.issuer, "//")
    error_message = "Azure would not know this issuer: ${azurerm_federated_identity_credential.bridge.issuer}"
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
    condition     = one(azurerm_monitor_diagnostic_setting.audit.enabled_log[*].category) == "kube-audit"
    error_message = "the category is lost"
  }
  assert {
    condition     = output.settings.AUDIT_BRIDGE_CONSUMER_GROUP == "falco" && azurerm_federated_identity_credential.bridge.subject == "system:serviceaccount:falco:bridge"
    error_message = "an option is lost"
  }
}

run "long_cluster_name" {
  command = apply

  variables {
    cluster_id = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/production/providers/Microsoft.ContainerService/managedClusters/a-cluster-name-of-sixty-three-characters-is-the-longest-allowed1"
  }
  assert {
    condition     = length(azurerm_eventhub_namespace.audit.name) <= 50 && can(regex("^[A-Za-z][0-9A-Za-z-]*[0-9A-Za-z]$", azurerm_eventhub_namespace.audit.name))
    error_message = "Azure refuses this name: ${azurerm_eventhub_namespace.audit.name}"
  }
}

run "premium_does_not_inflate" {
  command = apply

  variables {
    sku = "Premium"
  }
  assert {
    condition     = !azurerm_eventhub_namespace.audit.auto_inflate_enabled
    error_message = "Azure refuses auto-inflate on Premium"
  }
}
