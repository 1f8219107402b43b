//! What reading a Kinesis stream costs the EKS bridge, in processor time and memory:
//!
//! `cargo run --release -p audit-bridge-tests --example stream_load -- SHARDS EVENTS [PER_RECORD]`
//!
//! The stream holds all events before the bridge starts, in records of so many log events as
//! CloudWatch Logs packs them, so it reads as fast as it can. Other work on the machine changes the
//! rate by the clock, and the rate by processor time least.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a tool for the developer's terminal, which may stop at once"
)]

use std::time::{Duration, Instant};

use audit_bridge_testkit::kinesis::subscription::{SubscribedEvent, SubscriptionOrigin};
use audit_bridge_testkit::{Kinesis, ScriptedWebhook};
use audit_bridge_tests::event;
use audit_bridge_tests::live::Running;

const STREAM: &str = "audit";
/// Ticks of `/proc/PID/stat` a second, on every Linux that we know.
const TICKS: f64 = 100.0;

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

#[tokio::main(flavor = "multi_thread")]
async fn main() {
    let numbers: Vec<usize> = std::env::args()
        .skip(1)
        .map(|text| text.parse().unwrap())
        .collect();
    let shards = numbers.first().copied().unwrap_or(32);
    let events = numbers.get(1).copied().unwrap_or(200_000);
    let per_record = numbers.get(2).copied().unwrap_or(20);
    let kinesis = Kinesis::start().await;
    kinesis.create_stream(STREAM, u32::try_from(shards).unwrap());
    let webhook = ScriptedWebhook::start().await;
    let mut bytes = 0;
    for from in (0..events).step_by(per_record) {
        let subscription = SubscriptionOrigin {
            log_stream: format!("kube-apiserver-audit-{}", from / per_record % (shards * 8)),
            ..SubscriptionOrigin::of_cluster("111122223333", "prod")
        };
        let all: Vec<_> = (from..(from + per_record).min(events))
            .map(|n| SubscribedEvent::new(n, kinesis.now_ms(), event(n, 1600)))
            .collect();
        let record = subscription.record(&all);
        bytes += record.len();
        kinesis.put(STREAM, &subscription.log_stream, record);
    }
    println!(
        "{events} events in {} records of {} bytes, {shards} shards",
        events.div_ceil(per_record),
        bytes / events.div_ceil(per_record)
    );
    let folder = tempfile::tempdir().unwrap();
    let begun = Instant::now();
    let mut bridge = Running::start(
        "eks",
        &[
            "--stream=audit",
            "--start=earliest",
            "--state-dir",
            folder.path().join("state").to_str().unwrap(),
            "--webhook-url",
            &webhook.url(),
        ],
        &[
            ("AWS_ENDPOINT_URL_KINESIS", &kinesis.url()),
            ("AWS_REGION", "eu-central-1"),
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
        ],
    );
    let pid = bridge.pid();
    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52 events")]
    let wanted = events as f64;
    while bridge.metric("audit_bridge_events_delivered_total") < wanted {
        webhook.forget_bodies();
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(
            begun.elapsed() < Duration::from_secs(600),
            "{}",
            bridge.log()
        );
    }
    let (clock, processor) = (begun.elapsed().as_secs_f64(), processor_seconds(pid));
    println!(
        "{:.0} events/s by the clock, {:.0} by processor time; at most {:.1} MiB",
        wanted / clock,
        wanted / processor,
        f64::from(u32::try_from(status(pid, "VmHWM:")).unwrap()) / 1024.0
    );
    if std::env::var_os("METRICS").is_some() {
        println!("{}\n{}", bridge.get("/metrics").1, bridge.log());
    }
    assert_eq!(bridge.terminate(), 0);
}
