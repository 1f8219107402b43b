//! The calls to Google's APIs, each behind a narrow type. No other module of the bridge uses a
//! client library or HTTP.

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

/// User agent of the requests that we make without Google's client library.
const USER_AGENT: &str = concat!("gke-audit-bridge/", env!("CARGO_PKG_VERSION"));
