//! Measures the processor time that the EKS bridge needs to read a Kinesis stream, and the latency
//! of its events:
//!
//! ```text
//! stream_load rate SHARDS EVENTS [REPLICAS]
//! stream_load share SHARDS EVENTS [REPLICAS]
//! stream_load latency SHARDS SECONDS
//! ```
//!
//! `rate`: before the bridges start, the stream holds all events, of 1.66 KB each, packed like
//! CloudWatch Logs' records, so they are read at full speed. `share`: the same with shared shards,
//! even with one replica. `CORES=0` pins the bridges to these cores (`taskset`). Other load on the
//! machine affects the wall-clock rate, and the rate by processor time least. `latency`: 100 events
//! a second, each measured from its arrival in the stream to that at the webhook.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a tool for the developer's terminal, which may stop at once"
)]

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use audit_bridge_testkit::kinesis::subscription::{SubscribedEvent, SubscriptionOrigin};
use audit_bridge_testkit::{Kinesis, ScriptedWebhook};
use audit_bridge_tests::live::Running;
use audit_bridge_tests::load::{Load, argument, check_time, keep_to_cores};
use audit_bridge_tests::replicas::serve_api;
use audit_bridge_tests::{audit_id, event};

const STREAM: &str = "audit";
/// Log events per record of the stream.
const PER_RECORD: usize = 20;

#[tokio::main(flavor = "multi_thread")]
async fn main() {
    let mode = std::env::args().nth(1);
    let mode = mode.as_deref().unwrap_or("rate");
    let (shards, replicas) = (argument(1, 32), argument(3, 1));
    match mode {
        "latency" => latency(argument(1, 3), argument(2, 60)).await,
        "rate" => rate(shards, argument(2, 400_000), replicas, replicas > 1).await,
        "share" => rate(shards, argument(2, 400_000), replicas, true).await,
        other => panic!("{other} is none of rate, share, latency"),
    }
}

/// A stream, a receiver, and how to start the bridge.
struct Bench {
    kinesis: Kinesis,
    webhook: ScriptedWebhook,
    folder: tempfile::TempDir,
    begun: Instant,
}

impl Bench {
    async fn new(shards: usize) -> Bench {
        // Build it before the clock runs.
        let _ = audit_bridge_tests::binary("eks");
        let kinesis = Kinesis::start().await;
        kinesis.create_stream(STREAM, u32::try_from(shards).unwrap());
        Bench {
            kinesis,
            webhook: ScriptedWebhook::start().await,
            folder: tempfile::tempdir().unwrap(),
            begun: Instant::now(),
        }
    }

    /// Writes these events as one record of a log stream. Returns its bytes.
    fn put(&self, log_stream: usize, events: std::ops::Range<usize>) -> usize {
        let subscription = SubscriptionOrigin {
            log_stream: format!("kube-apiserver-audit-{log_stream}"),
            ..SubscriptionOrigin::of_cluster("111122223333", "prod")
        };
        let now = self.kinesis.now_ms();
        let all: Vec<_> = events
            .map(|n| SubscribedEvent::new(n, now, event(n, 1660)))
            .collect();
        let record = subscription.record(&all);
        let bytes = record.len();
        self.kinesis.put(STREAM, &subscription.log_stream, record);
        bytes
    }

    fn start(&self, name: &str, more: &[&str]) -> Running {
        let path = |name: &str| self.folder.path().join(name).display().to_string();
        let (state, kubeconfig) = (path(name), path("kubeconfig"));
        let url = self.webhook.url();
        let mut args = vec!["--stream=audit", "--start=earliest", "--state-dir", &state];
        args.extend(["--webhook-url", &url]);
        args.extend(more);
        let bridge = Running::start(
            "eks",
            &args,
            &[
                ("AWS_ENDPOINT_URL_KINESIS", &self.kinesis.url()),
                ("AWS_REGION", "eu-central-1"),
                ("AWS_ACCESS_KEY_ID", "test"),
                ("AWS_SECRET_ACCESS_KEY", "test"),
                ("KUBECONFIG", &kubeconfig),
            ],
        );
        keep_to_cores(&bridge);
        bridge
    }
}

async fn rate(shards: usize, events: usize, replicas: usize, share: bool) {
    let bench = Bench::new(shards).await;
    let mut bytes = 0;
    for from in (0..events).step_by(PER_RECORD) {
        let log_stream = from / PER_RECORD % (shards * 8);
        bytes += bench.put(log_stream, from..(from + PER_RECORD).min(events));
    }
    let records = events.div_ceil(PER_RECORD);
    println!(
        "{events} events in {records} records of {} bytes, {shards} shards, replicas: {replicas}",
        bytes / records
    );
    let (_api, _serving) = serve_api(Path::new(&bench.folder.path().join("kubeconfig"))).await;
    let shared = ["--checkpoint-store=kubernetes", "--share-partitions"];
    let more: &[&str] = if share { &shared } else { &[] };
    let load = Load::begin(events, bytes);
    let bridges = (0..replicas).map(|n| bench.start(&format!("state-{n}"), more));
    load.measure(bridges.collect(), &bench.webhook).await;
}

async fn latency(shards: usize, seconds: usize) {
    let bench = Bench::new(shards).await;
    let mut bridge = bench.start("state", &[]);
    bridge.until_ready();
    let events = seconds * 100;
    let mut written = HashMap::new();
    let mut late = Vec::new();
    let mut seen = 0;
    let mut tick = tokio::time::interval(Duration::from_millis(10));
    let mut n = 0;
    while late.len() < events {
        tick.tick().await;
        if n < events {
            bench.put(n % 3, n..n + 1);
            written.insert(audit_id(n), Instant::now());
            n += 1;
        }
        let accepted = bench.webhook.accepted_ids();
        let now = Instant::now();
        for id in accepted.iter().skip(seen) {
            if let Some(at) = written.get(id) {
                late.push(now - *at);
            }
        }
        seen = accepted.len();
        check_time(bench.begun, &bridge);
    }
    late.sort();
    let at = |percent: usize| late[(late.len() - 1) * percent / 100].as_secs_f64();
    println!(
        "{events} events at 100 a second, {shards} shards: p50 {:.2} s, p99 {:.2} s, at most {:.2} s",
        at(50),
        at(99),
        at(100)
    );
    assert_eq!(bridge.terminate(), 0);
}
