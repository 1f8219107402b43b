//! Audit events of EKS clusters.
//!
//! EKS writes the API server's audit log to CloudWatch Logs: one log group for each cluster,
//! `/aws/eks/<cluster>/cluster`, in which the streams `kube-apiserver-audit-<hex>` hold the audit
//! events, one compact `audit.k8s.io/v1` Event a message, and other streams hold the logs of other
//! components (Amazon EKS User Guide, "Send control plane logs to CloudWatch Logs"). The message
//! *is* the event, so it leaves as it came, byte for byte.

mod client;
pub mod config;
pub mod convert;
pub mod dump;
mod provider;
mod source;
mod wire;
