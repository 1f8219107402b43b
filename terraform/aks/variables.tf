variable "create" {
  description = "Whether to create anything; false, for a configuration that has the module only in some places."
  type        = bool
  default     = true
  nullable    = false
}

variable "resource_group_name" {
  description = "Resource group for everything that the module creates. It must exist."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[0-9A-Za-z_().-]{0,89}[0-9A-Za-z_()-]$", var.resource_group_name))
    error_message = "resource_group_name must be a plain name of at most 90 letters, digits, - _ . ( ), not ending in a full stop; not an id."
  }
}

variable "location" {
  description = "Azure region; the cluster's, as a diagnostic setting needs an Event Hub in the same one."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-z][a-z0-9]+$", var.location))
    error_message = "location must be a region's short name such as westeurope, as `az account list-locations --query [].name` prints it."
  }
}

variable "cluster_ids" {
  description = "Resource ids of the AKS clusters whose log is sent, all in `location`: `az aks show --resource-group GROUP --name CLUSTER --query id --output tsv`."
  type        = list(string)
  nullable    = false

  validation {
    condition     = length(var.cluster_ids) > 0 && length(distinct(var.cluster_ids)) == length(var.cluster_ids)
    error_message = "cluster_ids: give at least one cluster, and each once."
  }
  validation {
    condition     = alltrue([for id in var.cluster_ids : can(regex("(?i)^/subscriptions/[0-9a-f-]{36}/resourceGroups/[^/]+/providers/Microsoft.ContainerService/managedClusters/[0-9A-Za-z][0-9A-Za-z_-]*$", id))])
    error_message = "cluster_ids must be the clusters' resource ids, /subscriptions/…/managedClusters/NAME without a trailing slash, as `az aks show --query id --output tsv` prints them; not their names."
  }
}

variable "oidc_issuer_url" {
  description = "OIDC issuer of the cluster that the bridge runs in: `az aks show --resource-group GROUP --name CLUSTER --query oidcIssuerProfile.issuerUrl --output tsv`. The cluster needs --enable-oidc-issuer and --enable-workload-identity."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^https://([a-z0-9-]+[.])*oic[.][a-z0-9.-]+/[0-9a-f-]{36}/[0-9a-f-]{36}/?$", var.oidc_issuer_url))
    error_message = "oidc_issuer_url must look like https://REGION.oic.prod-aks.azure.com/TENANT/ID/, as `az aks show --query oidcIssuerProfile.issuerUrl --output tsv` prints it; not the API server's address."
  }
}

variable "namespace" {
  description = "Kubernetes namespace of the bridge."
  type        = string
  default     = "audit-bridge"
  nullable    = false

  validation {
    condition     = can(regex("^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", var.namespace))
    error_message = "namespace must be a Kubernetes namespace's name: at most 63 lower-case letters, digits and -; wildcards are not known here."
  }
}

variable "service_account" {
  description = "Kubernetes service account of the bridge."
  type        = string
  default     = "aks-audit-bridge"
  nullable    = false

  validation {
    condition     = can(regex("^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$", var.service_account))
    error_message = "service_account must be a service account's plain name: lower-case letters, digits, - and .; without system:serviceaccount:."
  }
}

variable "identity_name" {
  description = "Name of the user-assigned identity."
  type        = string
  default     = "aks-audit-bridge"
  nullable    = false

  validation {
    condition     = can(regex("^[0-9A-Za-z][0-9A-Za-z_-]{2,127}$", var.identity_name))
    error_message = "identity_name must have 3 to 128 letters, digits, - and _, a letter or digit first."
  }
}

variable "event_hub_namespace_name" {
  description = "Name of the Event Hubs namespace, unique in all of Azure. Default: made of the cluster's name and a hash of its id."
  type        = string
  default     = null

  validation {
    condition     = var.event_hub_namespace_name == null || can(regex("^[A-Za-z][0-9A-Za-z-]{4,48}[0-9A-Za-z]$", var.event_hub_namespace_name))
    error_message = "event_hub_namespace_name must have 6 to 50 letters, digits and -, begin with a letter and end with a letter or digit; without .servicebus.windows.net."
  }
}

variable "endpoint_suffix" {
  description = "Domain of Event Hubs: servicebus.windows.net, or that of Azure's other clouds."
  type        = string
  default     = "servicebus.windows.net"
  nullable    = false

  validation {
    condition     = contains(["servicebus.windows.net", "servicebus.usgovcloudapi.net", "servicebus.chinacloudapi.cn"], var.endpoint_suffix)
    error_message = "endpoint_suffix must be servicebus.windows.net, servicebus.usgovcloudapi.net or servicebus.chinacloudapi.cn."
  }
}

variable "event_hub_name" {
  description = "Name of the event hub."
  type        = string
  default     = "insights-logs-kube-audit"
  nullable    = false

  validation {
    condition     = can(regex("^[0-9A-Za-z]([0-9A-Za-z._-]{0,254}[0-9A-Za-z])?$", var.event_hub_name))
    error_message = "event_hub_name must have 1 to 256 letters, digits, . - and _, with a letter or digit at both ends."
  }
}

variable "consumer_group_name" {
  description = "Consumer group of the bridge, for it alone."
  type        = string
  default     = "audit-bridge"
  nullable    = false

  validation {
    condition     = can(regex("^[0-9A-Za-z]([0-9A-Za-z._-]{0,48}[0-9A-Za-z])?$", var.consumer_group_name))
    error_message = "consumer_group_name must have 1 to 50 letters, digits, . - and _; not $Default, which others read too and would take the partitions away."
  }
}

variable "category" {
  description = "Which log is sent: `kube-audit-admin` (without get and list, much smaller) or `kube-audit` (all)."
  type        = string
  default     = "kube-audit-admin"
  nullable    = false

  validation {
    condition     = contains(["kube-audit-admin", "kube-audit"], var.category)
    error_message = "category must be \"kube-audit-admin\" or \"kube-audit\"; the second contains the first, so both would cost twice."
  }
}

variable "sku" {
  description = "Tier of the Event Hubs namespace."
  type        = string
  default     = "Standard"
  nullable    = false

  validation {
    condition     = contains(["Standard", "Premium"], var.sku)
    error_message = "sku must be \"Standard\" or \"Premium\": Basic has no consumer group beside $Default, keeps events for a day, and refuses messages above 256 KB."
  }
}

variable "capacity" {
  description = "Throughput units (Standard: 1 MB/s in, 2 MB/s out each) or processing units (Premium: 1, 2, 4, 8 or 16) to begin with."
  type        = number
  default     = 1
  nullable    = false

  validation {
    condition     = var.capacity >= 1 && var.capacity <= 40 && floor(var.capacity) == var.capacity
    error_message = "capacity must be a whole number from 1 to 40."
  }
}

variable "capacity_max" {
  description = "Throughput units to grow to by itself (Standard); null: no growth, and Azure drops what is above."
  type        = number
  default     = 4

  validation {
    condition     = var.capacity_max == null ? true : var.capacity_max >= 1 && var.capacity_max <= 40 && floor(var.capacity_max) == var.capacity_max
    error_message = "capacity_max must be a whole number from 1 to 40, or null."
  }
}

variable "partition_count" {
  description = "Partitions of the hub: up to 32, on Premium up to 100. They cannot be changed later on Standard."
  type        = number
  default     = 4
  nullable    = false

  validation {
    condition     = var.partition_count >= 1 && var.partition_count <= 100 && floor(var.partition_count) == var.partition_count
    error_message = "partition_count must be a whole number from 1 to 32, on Premium to 100."
  }
}

variable "retention_days" {
  description = "How long the hub keeps events: the longest time that the bridge may be away without loss. Up to 7, on Premium up to 90."
  type        = number
  default     = 7
  nullable    = false

  validation {
    condition     = var.retention_days >= 1 && var.retention_days <= 90 && floor(var.retention_days) == var.retention_days
    error_message = "retention_days must be a whole number from 1 to 7, on Premium to 90."
  }
}

variable "private_endpoint_subnet_id" {
  description = "Resource id of a subnet: the namespace gets a private endpoint there, and is closed to the public network but for allowed_ip_ranges. Left out: open to whoever has an identity or a key."
  type        = string
  default     = null

  validation {
    condition     = var.private_endpoint_subnet_id == null || can(regex("(?i)^/subscriptions/[0-9a-f-]{36}/resourceGroups/[^/]+/providers/Microsoft.Network/virtualNetworks/[^/]+/subnets/[^/]+$", var.private_endpoint_subnet_id))
    error_message = "private_endpoint_subnet_id must be a subnet's resource id, /subscriptions/…/virtualNetworks/NAME/subnets/NAME."
  }
}

variable "private_dns_zone_id" {
  description = "Resource id of the zone privatelink.servicebus.windows.net that the cluster's network resolves, in which the endpoint gets its name. Left out: you see to the name."
  type        = string
  default     = null

  validation {
    condition     = var.private_dns_zone_id == null || can(regex("(?i)^/subscriptions/[0-9a-f-]{36}/resourceGroups/[^/]+/providers/Microsoft.Network/privateDnsZones/privatelink[.]servicebus[.][a-z.]+$", var.private_dns_zone_id))
    error_message = "private_dns_zone_id must be the resource id of a zone privatelink.servicebus.…, as `az network private-dns zone show --query id` prints it."
  }
}

variable "allowed_ip_ranges" {
  description = "Public IPv4 addresses or ranges that may reach the namespace, such as the cluster's outgoing addresses; all others may not. Empty, and without a private endpoint: everybody."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for range in var.allowed_ip_ranges : can(regex("^([0-9]{1,3}[.]){3}[0-9]{1,3}(/([0-9]|[12][0-9]|3[0-2]))?$", range)) && can(cidrhost(strcontains(range, "/") ? range : "${range}/32", 0))])
    error_message = "allowed_ip_ranges must be IPv4 addresses or ranges: 203.0.113.7 or 203.0.113.0/24."
  }
}

variable "create_role_assignment" {
  description = "Whether to give the identity its role on the hub. False where somebody else assigns roles: see principal_id."
  type        = bool
  default     = true
  nullable    = false
}

variable "tags" {
  description = "Tags of what the module creates."
  type        = map(string)
  default     = {}
  nullable    = false

  validation {
    condition     = alltrue([for key, value in var.tags : can(regex("^[^<>%&\\\\?/]{1,512}$", key)) && length(value) <= 256])
    error_message = "tags: a key has at most 512 characters and none of < > % & \\ ? /; a value has at most 256."
  }
}
