output "client_id" {
  description = "Client id of the identity."
  value       = one(azurerm_user_assigned_identity.bridge[*].client_id)
}

output "principal_id" {
  description = "Object id of the identity, for a role assignment of your own."
  value       = one(azurerm_user_assigned_identity.bridge[*].principal_id)
}

output "service_account_annotations" {
  description = "What the Kubernetes service account has to carry."
  value       = var.create ? { "azure.workload.identity/client-id" = azurerm_user_assigned_identity.bridge[0].client_id } : {}
}

output "event_hub_id" {
  description = "Resource id of the hub."
  value       = one(azurerm_eventhub.audit[*].id)
}

output "helm_values" {
  description = "What the chart has to know of this module, as YAML: `terraform output -raw helm_values > identity.yaml`, for a second `--values`."
  value = yamlencode(merge(
    {
      bridge         = "aks"
      serviceAccount = { name = var.service_account }
      aks = merge(
        {
          eventHubNamespace = "${local.namespace_name}.${var.endpoint_suffix}"
          eventHub          = var.event_hub_name
          consumerGroup     = var.consumer_group_name
          categories        = [var.category]
        },
        var.create ? { clientId = azurerm_user_assigned_identity.bridge[0].client_id } : {},
      )
    },
    # Which of several an event is of.
    length(var.cluster_ids) > 1 ? { settings = { "annotate-cluster" = true } } : {},
  ))
}
