//! Stand-ins that fail on cue, for the tests of the audit bridges. Development only: they panic
//! where a test should fail.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a stand-in that cannot work must fail its test"
)]

pub mod arbitrary;
pub mod cloud_logging;
pub mod cloud_watch;
pub mod event_hubs;
pub mod generate;
mod http_date;
pub mod kinesis;
pub mod kubernetes;
pub mod log_entry;
pub mod pubsub;
pub mod repeat;
pub mod tls;
pub mod webhook;

pub use cloud_watch::CloudWatch;
pub use event_hubs::EventHubs;
pub use generate::Generator;
pub use kinesis::Kinesis;
pub use log_entry::PodEntry;
pub use pubsub::PubSub;
pub use tls::Pki;
pub use webhook::{Received, ScriptedWebhook, WebhookAnswer};
