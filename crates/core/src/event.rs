//! The vocabulary of Kubernetes auditing: pure, no clock, no I/O, nothing of any provider.

pub mod conformance;
pub mod embedded;
pub mod json;
pub mod list;
pub mod request_info;
pub mod time;

pub use conformance::Event;
