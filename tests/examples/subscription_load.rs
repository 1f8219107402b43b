//! Measures the processor time that the GKE bridge needs to read a Pub/Sub subscription:
//!
//! ```text
//! subscription_load ENTRIES [BYTES]
//! ```
//!
//! Before the bridge starts, the subscription holds all entries, of `BYTES` bytes (1,660) and one
//! per message, like those of a log sink. `CORES=0` pins the bridge to these cores (`taskset`). The
//! rate by processor time is least affected by other load on the machine.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a tool for the developer's terminal, which may stop at once"
)]

use audit_bridge_testkit::{PodEntry, PubSub, ScriptedWebhook};
use audit_bridge_tests::live::Running;
use audit_bridge_tests::load::{Load, argument, keep_to_cores};
use jiff::Timestamp;

const NAME: &str = "projects/p/subscriptions/audit";

#[tokio::main(flavor = "multi_thread")]
async fn main() {
    let (entries, size) = (argument(0, 200_000), argument(1, 1660));
    // Build it before the clock runs.
    let _ = audit_bridge_tests::binary("gke");
    let (pubsub, webhook) = (PubSub::start(NAME).await, ScriptedWebhook::start().await);
    let folder = tempfile::tempdir().unwrap();
    let now = Timestamp::now();
    let bare = PodEntry::new(0, now).text().len();
    let mut bytes = 0;
    for number in 0..entries {
        let entry = PodEntry {
            bytes: size.saturating_sub(bare),
            ..PodEntry::new(number, now)
        };
        let text = entry.text();
        bytes += text.len();
        pubsub.publish(text);
    }
    println!("{entries} entries of {} bytes", bytes / entries.max(1));
    let (endpoint, url) = (pubsub.url(), webhook.url());
    let state = folder.path().join("state");
    let args = [
        ["--subscription", NAME],
        ["--pubsub-endpoint", &endpoint],
        ["--webhook-url", &url],
        ["--state-dir", state.to_str().unwrap()],
    ];
    let load = Load::begin(entries, bytes);
    let bridge = Running::start("gke", &args.concat(), &[]);
    keep_to_cores(&bridge);
    load.measure(vec![bridge], &webhook).await;
    println!("acknowledged at its end: {}", pubsub.acked());
}
