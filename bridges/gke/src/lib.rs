//! Kubernetes audit events of GKE clusters, from Cloud Logging.
//!
//! GKE does not export the API server's audit events. It translates them to Cloud Audit Logs
//! (`google.cloud.audit.AuditLog` inside a `LogEntry`), and this bridge translates them back:
//!
//! - [`dump`]: converts saved entries of all shapes to plain `LogEntry` JSON;
//! - `wire`: decodes the members that matter in one pass over an entry, and the bodies (`object`);
//! - [`convert`]: selects the Kubernetes entries and writes the events, with the help of `method`
//!   (verb and object), `uri` (`requestURI`), `level` (how much was logged), `status` (the answer)
//!   and `stamp` (times). In `split`, parts of an entry that Cloud Logging cut wait for the others;
//! - `provider`: reads the log from Cloud Logging's API or a Pub/Sub subscription (`client`),
//!   limited by `filter`.
//!
//! What the translation lost is left out, except for what follows from Kubernetes' own rules
//! ([`convert::Derive`] switches that off).

mod client;
pub mod config;
pub mod convert;
pub mod dump;
mod provider;
mod wire;
