//! Audit events of AKS clusters.
//!
//! A diagnostic setting of the cluster sends the API server's audit log to Event Hubs (or to a
//! storage account) as records. In each, `properties.log` is one `audit.k8s.io/v1` Event as a JSON
//! string (Azure Kubernetes Service, "Monitoring AKS data reference", resource logs). The bytes of
//! that string leave unchanged.

pub mod client;
pub mod config;
pub mod convert;
pub mod dump;
mod provider;
pub mod source;
mod wire;
