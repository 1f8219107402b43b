//! Applies constant load for some minutes, and measures memory, file descriptors and lag:
//!
//! `cargo run --release -p audit-bridge-tests --example soak -- MINUTES [EVENTS_PER_SECOND]`
//!
//! A stand-in of CloudWatch Logs emits events, one in twenty late; the EKS bridge reads them and
//! POSTs them to a receiver that fails now and then. Every ten seconds a line is printed; at the
//! end the first and the last third are compared.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a tool for the developer's terminal, which may stop at once"
)]

use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use audit_bridge_testkit::{CloudWatch, ScriptedWebhook, WebhookAnswer};
use audit_bridge_tests::event;
use audit_bridge_tests::live::{Running, wait};

const GROUP: &str = "/aws/eks/soak/cluster";

/// A measurement of the process.
struct Sample {
    resident_kib: u64,
    descriptors: usize,
    lag_seconds: f64,
}

fn sample(bridge: &mut Running) -> Sample {
    let proc = format!("/proc/{}", bridge.pid());
    let status = std::fs::read_to_string(Path::new(&proc).join("status")).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let resident = resident.and_then(|text| text.trim().split(' ').next()?.parse().ok());
    Sample {
        resident_kib: resident.unwrap(),
        descriptors: bridge.open_files(),
        lag_seconds: bridge.metric("audit_bridge_lag_seconds"),
    }
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}

#[tokio::main(flavor = "multi_thread")]
async fn main() {
    let mut args = std::env::args()
        .skip(1)
        .map(|text| text.parse::<u64>().unwrap());
    let minutes = args.next().unwrap_or(5);
    let rate = args.next().unwrap_or(200);
    let cloud = CloudWatch::start().await;
    cloud.group(GROUP);
    let webhook = ScriptedWebhook::start().await;
    let folder = tempfile::tempdir().unwrap();
    let url = webhook.url();
    let endpoint = cloud.url();
    let mut bridge = Running::start(
        "eks",
        &[
            "--cluster-name=soak",
            "--poll-interval=1s",
            "--revisit-after=5s,20s",
            "--requests-per-second=20",
            "--state-dir",
            folder.path().join("state").to_str().unwrap(),
            "--webhook-url",
            &url,
        ],
        &[
            ("AWS_ENDPOINT_URL", &endpoint),
            ("AWS_REGION", "eu-central-1"),
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
        ],
    );
    bridge.until_ready();
    let begun = Instant::now();
    let end = begun + Duration::from_secs(minutes * 60);
    let (mut issued, mut samples, mut next) = (0_usize, Vec::new(), begun);
    println!(
        "{:>8} {:>10} {:>12} {:>6} {:>8}",
        "seconds", "issued", "resident KiB", "files", "lag s"
    );
    while Instant::now() < end {
        for _ in 0..rate / 10 {
            let late = if issued.is_multiple_of(20) { 8 } else { 0 };
            let text = event(issued, 1600);
            let late = Duration::from_secs(late);
            cloud.put_late(GROUP, "kube-apiserver-audit-1", now_ms(), &text, late);
            issued += 1;
        }
        if issued.is_multiple_of(1000) {
            webhook.script([
                WebhookAnswer::status(503),
                WebhookAnswer::reset_before_reading(),
            ]);
        }
        // Remove what every cursor has passed; otherwise the stand-in would grow.
        cloud.trim(now_ms() - 60_000);
        webhook.forget_bodies();
        std::thread::sleep(Duration::from_millis(100));
        if Instant::now() >= next {
            next += Duration::from_secs(10);
            let sample = sample(&mut bridge);
            println!(
                "{:>8} {issued:>10} {:>12} {:>6} {:>8.1}",
                begun.elapsed().as_secs(),
                sample.resident_kib,
                sample.descriptors,
                sample.lag_seconds
            );
            samples.push(sample);
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52 events")]
    let wanted = issued as f64;
    let all =
        wait(|| (bridge.metric("audit_bridge_events_delivered_total") >= wanted).then_some(()));
    assert!(
        all.is_some(),
        "not all of {issued} events arrived:\n{}",
        bridge.log()
    );
    assert_eq!(bridge.terminate(), 0);
    let third = samples.len() / 3;
    let most = |part: &[Sample]| {
        let resident = part.iter().map(|it| it.resident_kib).max();
        let files = part.iter().map(|it| it.descriptors).max();
        (resident.unwrap_or(0), files.unwrap_or(0))
    };
    let (first, last) = (
        most(&samples[..third]),
        most(&samples[samples.len() - third..]),
    );
    println!("most KiB and files, first third: {first:?}, last third: {last:?}");
}
