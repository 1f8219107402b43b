//! Kubernetes audit events of GKE clusters, out of Cloud Logging.
//!
//! GKE does not hand out the API server's audit events. It translates them into Cloud Audit Logs
//! (`google.cloud.audit.AuditLog` inside a `LogEntry`), and this bridge translates them back:
//!
//! - [`dump`]: saved entries in all their shapes become plain `LogEntry` JSON;
//! - `wire`: one pass over an entry's text finds the members that count, and the bodies (`object`);
//! - [`convert`]: selects the Kubernetes ones and writes the event, with the help of
//!   `method` (what was asked of which object), `uri` (where), `level` (how much was logged),
//!   `status` (what was answered) and `stamp` (when); entries that Cloud Logging cut into parts wait
//!   in `split` for the others;
//! - `provider`: the log itself, read through Cloud Logging's API or from a Pub/Sub subscription
//!   (`client`), as its `filter` selects it.
//!
//! What the translation lost is left out, except what Kubernetes' own rules determine
//! ([`convert::Derive`] switches that off).

mod client;
pub mod config;
pub mod convert;
pub mod dump;
mod provider;
mod wire;
