//! Audit events of EKS clusters.
//!
//! EKS writes the API server's audit log to CloudWatch Logs. Each cluster has one log group,
//! `/aws/eks/<cluster>/cluster`. Its streams `kube-apiserver-audit-<hex>` hold the audit events,
//! one compact `audit.k8s.io/v1` Event per message; the other streams hold the logs of other
//! components (Amazon EKS User Guide, "Send control plane logs to CloudWatch Logs"). The message
//! *is* the event, so its bytes leave unchanged.

mod client;
pub mod config;
pub mod convert;
pub mod dump;
mod provider;
mod source;
mod wire;
