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
pub mod kinesis;
pub mod kubernetes;
pub mod log_entry;
pub mod pubsub;
pub mod tls;
pub mod webhook;

use axum::http::HeaderValue;
pub use cloud_watch::CloudWatch;
pub use event_hubs::EventHubs;
pub use generate::Generator;
use jiff::fmt::rfc2822::DateTimePrinter;
use jiff::{SignedDuration, Timestamp};
pub use kinesis::Kinesis;
pub use log_entry::PodEntry;
pub use pubsub::PubSub;
pub use tls::Pki;
pub use webhook::{Received, ScriptedWebhook, WebhookAnswer};

/// The `Date` header of a server whose clock is so far ahead of this machine's: whole seconds, as
/// in any HTTP server.
fn http_date(ahead: SignedDuration) -> HeaderValue {
    let now = Timestamp::now() + ahead;
    let date = DateTimePrinter::new().timestamp_to_rfc9110_string(&now);
    date.expect("a time").parse().expect("a header")
}
