# The event hub that the cluster's audit log goes to, and the identity with which the bridge reads it.

locals {
  cluster_name = reverse(split("/", var.cluster_id))[0]
  # At most 6 + 34 + 1 + 8 = 49 characters; a cluster's name may have underscores, a namespace's not.
  namespace_name = coalesce(
    var.event_hub_namespace_name,
    "audit-${trim(substr(replace(local.cluster_name, "_", "-"), 0, 34), "-")}-${substr(sha256(lower(var.cluster_id)), 0, 8)}",
  )
  # The issuer's slash is part of its name: Azure compares it letter by letter with the token's.
  oidc_issuer = "${trimsuffix(var.oidc_issuer_url, "/")}/"
  grows       = var.sku == "Standard" && var.capacity_max != null
}

resource "azurerm_eventhub_namespace" "audit" {
  name                     = local.namespace_name
  resource_group_name      = var.resource_group_name
  location                 = var.location
  sku                      = var.sku
  capacity                 = var.capacity
  auto_inflate_enabled     = local.grows
  maximum_throughput_units = local.grows ? max(var.capacity, var.capacity_max) : null
  minimum_tls_version      = "1.2"
  tags                     = var.tags
}

resource "azurerm_eventhub" "audit" {
  name              = var.event_hub_name
  namespace_id      = azurerm_eventhub_namespace.audit.id
  partition_count   = var.partition_count
  message_retention = var.retention_days
}

resource "azurerm_eventhub_consumer_group" "bridge" {
  name                = var.consumer_group_name
  namespace_name      = azurerm_eventhub_namespace.audit.name
  eventhub_name       = azurerm_eventhub.audit.name
  resource_group_name = var.resource_group_name
}

# Azure itself writes with this rule; it demands Manage of it. The bridge never sees it.
resource "azurerm_eventhub_namespace_authorization_rule" "diagnostics" {
  name                = "diagnostics"
  namespace_name      = azurerm_eventhub_namespace.audit.name
  resource_group_name = var.resource_group_name
  listen              = true
  send                = true
  manage              = true
}

resource "azurerm_monitor_diagnostic_setting" "audit" {
  name                           = "audit-bridge"
  target_resource_id             = var.cluster_id
  eventhub_name                  = azurerm_eventhub.audit.name
  eventhub_authorization_rule_id = azurerm_eventhub_namespace_authorization_rule.diagnostics.id

  enabled_log {
    category = var.category
  }
}

resource "azurerm_user_assigned_identity" "bridge" {
  name                = var.identity_name
  resource_group_name = var.resource_group_name
  location            = var.location
  tags                = var.tags
}

resource "azurerm_federated_identity_credential" "bridge" {
  name                = "${var.namespace}-${substr(sha256("${local.oidc_issuer}${var.namespace}/${var.service_account}"), 0, 8)}"
  resource_group_name = var.resource_group_name
  parent_id           = azurerm_user_assigned_identity.bridge.id
  issuer              = local.oidc_issuer
  subject             = "system:serviceaccount:${var.namespace}:${var.service_account}"
  audience            = ["api://AzureADTokenExchange"]
}

# On the hub, not on the namespace.
resource "azurerm_role_assignment" "receive" {
  scope                = azurerm_eventhub.audit.id
  role_definition_name = "Azure Event Hubs Data Receiver"
  principal_id         = azurerm_user_assigned_identity.bridge.principal_id
  principal_type       = "ServicePrincipal"
}
