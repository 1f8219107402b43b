//! Audit events of AKS clusters.
//!
//! A diagnostic setting of the cluster sends the API server's audit log to Event Hubs (or to a
//! storage account) as records; in each, `properties.log` is one `audit.k8s.io/v1` Event as a JSON
//! string (Azure Kubernetes Service, "Monitoring AKS data reference", resource logs). That string
//! leaves as it came, byte for byte.

pub mod client;
pub mod config;
pub mod convert;
pub mod dump;
mod provider;
pub mod source;
mod wire;
