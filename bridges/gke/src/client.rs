//! The few calls that are made to Google, each behind a narrow type. Nothing else of the bridge
//! names a client library or speaks HTTP.

pub(crate) mod endpoint;
pub(crate) mod filter;
pub(crate) mod late;
pub(crate) mod logging;
pub(crate) mod metadata;
mod page;
mod principal;
pub(crate) mod pubsub;
pub(crate) mod resource_name;
pub(crate) mod token_source;

/// Who asks, in requests that we make ourselves.
const USER_AGENT: &str = concat!("gke-audit-bridge/", env!("CARGO_PKG_VERSION"));
