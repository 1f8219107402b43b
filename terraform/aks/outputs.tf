output "client_id" {
  description = "Client id of the identity."
  value       = azurerm_user_assigned_identity.bridge.client_id
}

output "service_account_annotations" {
  description = "What the Kubernetes service account has to carry."
  value       = { "azure.workload.identity/client-id" = azurerm_user_assigned_identity.bridge.client_id }
}

output "event_hub_id" {
  description = "Resource id of the hub."
  value       = azurerm_eventhub.audit.id
}

output "settings" {
  description = "Settings of the bridge that follow from this module, for the values of the chart (deploy/aks)."
  value = {
    AUDIT_BRIDGE_EVENT_HUB_NAMESPACE = "${azurerm_eventhub_namespace.audit.name}.${var.endpoint_suffix}"
    AUDIT_BRIDGE_EVENT_HUB           = azurerm_eventhub.audit.name
    AUDIT_BRIDGE_CONSUMER_GROUP      = azurerm_eventhub_consumer_group.bridge.name
  }
}
