# The event hub that the clusters' audit log goes to, and the identity with which the bridge reads it.

locals {
  cluster_name = reverse(split("/", var.cluster_ids[0]))[0]
  # At most 6 + 34 + 1 + 8 = 49 characters; a cluster's name may have underscores, a namespace's not.
  namespace_name = coalesce(
    var.event_hub_namespace_name,
    "audit-${trim(substr(replace(local.cluster_name, "_", "-"), 0, 34), "-")}-${substr(sha256(lower(var.cluster_ids[0])), 0, 8)}",
  )
  # The issuer's slash is part of its name: Azure compares it letter by letter with the token's.
  oidc_issuer = "${trimsuffix(var.oidc_issuer_url, "/")}/"
  grows       = var.sku == "Standard" && var.capacity_max != null
  private     = var.private_endpoint_subnet_id != null
  restricted  = local.private || length(var.allowed_ip_ranges) > 0
  # Without what a private endpoint replaces, or what the firewall lets in: everybody who has an identity or a key.
  public = !local.private || length(var.allowed_ip_ranges) > 0
}

resource "azurerm_eventhub_namespace" "audit" {
  count                         = var.create ? 1 : 0
  name                          = local.namespace_name
  resource_group_name           = var.resource_group_name
  location                      = var.location
  sku                           = var.sku
  capacity                      = var.capacity
  auto_inflate_enabled          = local.grows
  maximum_throughput_units      = local.grows ? max(var.capacity, var.capacity_max) : null
  minimum_tls_version           = "1.2"
  public_network_access_enabled = local.public
  # Azure writes to the hub with a shared key (see below), so this stays on; the bridge does not use one.
  local_authentication_enabled = true
  tags                         = var.tags

  # Diagnostic settings come from Azure Monitor, which is one of the trusted services.
  network_rulesets = local.restricted ? [{
    default_action                 = "Deny"
    public_network_access_enabled  = local.public
    trusted_service_access_enabled = true
    virtual_network_rule           = []
    ip_rule                        = [for range in var.allowed_ip_ranges : { ip_mask = range, action = "Allow" }]
  }] : null

  lifecycle {
    precondition {
      condition     = var.sku == "Premium" || var.partition_count <= 32
      error_message = "partition_count: Standard has at most 32 partitions; write 32 or fewer, or sku = \"Premium\"."
    }
    precondition {
      condition     = var.sku == "Premium" || var.retention_days <= 7
      error_message = "retention_days: Standard keeps events for at most 7 days; write 7 or fewer, or sku = \"Premium\"."
    }
    precondition {
      condition     = var.sku != "Premium" || contains([1, 2, 4, 8, 16], var.capacity)
      error_message = "capacity: Premium has 1, 2, 4, 8 or 16 processing units."
    }
  }
}

resource "azurerm_private_endpoint" "hub" {
  count               = var.create && local.private ? 1 : 0
  name                = "${local.namespace_name}-endpoint"
  resource_group_name = var.resource_group_name
  location            = var.location
  subnet_id           = var.private_endpoint_subnet_id
  tags                = var.tags

  private_service_connection {
    name                           = "event-hubs"
    is_manual_connection           = false
    private_connection_resource_id = azurerm_eventhub_namespace.audit[0].id
    subresource_names              = ["namespace"]
  }

  # So that the namespace's own name leads there.
  dynamic "private_dns_zone_group" {
    for_each = var.private_dns_zone_id == null ? [] : [var.private_dns_zone_id]
    content {
      name                 = "event-hubs"
      private_dns_zone_ids = [private_dns_zone_group.value]
    }
  }
}

resource "azurerm_eventhub" "audit" {
  count             = var.create ? 1 : 0
  name              = var.event_hub_name
  namespace_id      = azurerm_eventhub_namespace.audit[0].id
  partition_count   = var.partition_count
  message_retention = var.retention_days
}

resource "azurerm_eventhub_consumer_group" "bridge" {
  count               = var.create ? 1 : 0
  name                = var.consumer_group_name
  namespace_name      = azurerm_eventhub_namespace.audit[0].name
  eventhub_name       = azurerm_eventhub.audit[0].name
  resource_group_name = var.resource_group_name
}

# Azure itself writes with this rule; it demands Manage of it. The bridge never sees it.
resource "azurerm_eventhub_namespace_authorization_rule" "diagnostics" {
  count               = var.create ? 1 : 0
  name                = "diagnostics"
  namespace_name      = azurerm_eventhub_namespace.audit[0].name
  resource_group_name = var.resource_group_name
  listen              = true
  send                = true
  manage              = true
}

resource "azurerm_monitor_diagnostic_setting" "audit" {
  for_each                       = var.create ? toset(var.cluster_ids) : toset([])
  name                           = "audit-bridge"
  target_resource_id             = each.value
  eventhub_name                  = azurerm_eventhub.audit[0].name
  eventhub_authorization_rule_id = azurerm_eventhub_namespace_authorization_rule.diagnostics[0].id

  enabled_log {
    category = var.category
  }
}

resource "azurerm_user_assigned_identity" "bridge" {
  count               = var.create ? 1 : 0
  name                = var.identity_name
  resource_group_name = var.resource_group_name
  location            = var.location
  tags                = var.tags
}

resource "azurerm_federated_identity_credential" "bridge" {
  count               = var.create ? 1 : 0
  name                = "${var.namespace}-${substr(sha256("${local.oidc_issuer}${var.namespace}/${var.service_account}"), 0, 8)}"
  resource_group_name = var.resource_group_name
  parent_id           = azurerm_user_assigned_identity.bridge[0].id
  issuer              = local.oidc_issuer
  subject             = "system:serviceaccount:${var.namespace}:${var.service_account}"
  audience            = ["api://AzureADTokenExchange"]
}

# On the hub, not on the namespace.
resource "azurerm_role_assignment" "receive" {
  count                = var.create && var.create_role_assignment ? 1 : 0
  scope                = azurerm_eventhub.audit[0].id
  role_definition_name = "Azure Event Hubs Data Receiver"
  principal_id         = azurerm_user_assigned_identity.bridge[0].principal_id
  principal_type       = "ServicePrincipal"
}
