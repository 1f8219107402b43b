//! The vocabulary of Kubernetes auditing: no clock, no I/O, nothing specific to a provider.

pub mod conformance;
pub mod embedded;
pub mod json;
pub mod list;
pub mod request_info;
pub mod time;

pub use conformance::Event;
