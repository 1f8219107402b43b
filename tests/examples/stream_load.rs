//! What reading a Kinesis stream costs the EKS bridge, and how late its events are:
//!
//! ```text
//! cargo run --release -p audit-bridge-tests --example stream_load -- rate SHARDS EVENTS [REPLICAS]
//! cargo run --release -p audit-bridge-tests --example stream_load -- latency SHARDS SECONDS
//! ```
//!
//! `rate`: the stream holds all events, of 1.66 KB, before the bridges start, in records as CloudWatch
//! Logs packs them, so they are read as fast as can be. `CORES=0` keeps the bridges to these cores
//! (`taskset`). Other work on the machine changes the rate by the clock, and the rate by processor
//! time least. `latency`: 100 events a second, from when each is in the stream to when the webhook has
//! it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a tool for the developer's terminal, which may stop at once"
)]

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use audit_bridge_testkit::kinesis::subscription::{SubscribedEvent, SubscriptionOrigin};
use audit_bridge_testkit::{Kinesis, ScriptedWebhook};
use audit_bridge_tests::live::Running;
use audit_bridge_tests::replicas::serve_api;
use audit_bridge_tests::{audit_id, event};

const STREAM: &str = "audit";
/// Log events of a record of the stream.
const PER_RECORD: usize = 20;
/// Ticks of `/proc/PID/stat` a second, on every Linux that we know.
const TICKS: f64 = 100.0;

#[tokio::main(flavor = "multi_thread")]
async fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, otherwise: usize| {
        args.get(at)
            .map_or(otherwise, |text| text.parse().expect("a number"))
    };
    match args.first().map(String::as_str) {
        Some("latency") => latency(number(1, 3), number(2, 60)).await,
        _ => rate(number(1, 32), number(2, 400_000), number(3, 1)).await,
    }
}

/// A stream, a receiver, and how the bridge is started.
struct Bench {
    kinesis: Kinesis,
    webhook: ScriptedWebhook,
    folder: tempfile::TempDir,
    begun: Instant,
}

impl Bench {
    async fn new(shards: usize) -> Bench {
        // Built before the clock runs.
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

    /// Writes these events as one record of a log stream; its bytes.
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
        if let Ok(cores) = std::env::var("CORES") {
            let pid = bridge.pid().to_string();
            let mut taskset = std::process::Command::new("taskset");
            let set = taskset.args(["-a", "-c", "-p", &cores, &pid]).output();
            assert!(set.unwrap().status.success(), "taskset");
        }
        bridge
    }

    fn check_time(&self, bridge: &Running) {
        let is_long = self.begun.elapsed() > Duration::from_secs(900);
        assert!(!is_long, "{}", bridge.log());
    }
}

async fn rate(shards: usize, events: usize, replicas: usize) {
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
    let more: &[&str] = if replicas > 1 { &shared } else { &[] };
    let begun = Instant::now();
    let mut bridges: Vec<Running> = (0..replicas)
        .map(|n| bench.start(&format!("state-{n}"), more))
        .collect();
    let delivered = |bridges: &mut Vec<Running>| -> f64 {
        let all = bridges.iter_mut();
        all.map(|it| it.metric("audit_bridge_events_delivered_total"))
            .sum()
    };
    while delivered(&mut bridges) < events as f64 {
        bench.webhook.forget_bodies();
        tokio::time::sleep(Duration::from_millis(50)).await;
        bench.check_time(&bridges[0]);
    }
    let clock = begun.elapsed().as_secs_f64();
    let pids: Vec<u32> = bridges.iter().map(Running::pid).collect();
    let processor: f64 = pids.iter().map(|&pid| processor_seconds(pid)).sum();
    let memory = pids.iter().map(|&pid| status(pid, "VmHWM:")).max();
    println!(
        "{:.0} events/s by the clock, {:.0} by processor time; at most {:.1} MiB a replica",
        events as f64 / clock,
        events as f64 / processor,
        memory.unwrap_or_default() as f64 / 1024.0
    );
    if std::env::var_os("METRICS").is_some() {
        println!("{}\n{}", bridges[0].get("/metrics").1, bridges[0].log());
    }
    for bridge in bridges {
        assert_eq!(bridge.terminate(), 0);
    }
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
        bench.check_time(&bridge);
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

/// A number of kilobytes of `/proc/PID/status`.
fn status(pid: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|text| text.trim().split(' ').next()?.parse().ok());
    number.unwrap()
}

/// Seconds of processor time.
fn processor_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let behind = stat.rsplit(')').next().unwrap();
    let fields: Vec<&str> = behind.split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    ticks / TICKS
}
