//! Scripted outages: each is seen in the lag, on `/readyz` and by an alert, and ends by itself with
//! nothing lost once its cause is gone. What the alerts see are the metrics of the real binary, judged by
//! Prometheus' own promtool (`tests/infra/alerts.py`).

use std::io::Write as _;
use std::process::Command;
use std::time::{Duration, Instant};

use audit_bridge_testkit::WebhookAnswer;
use audit_bridge_testkit::cloud_watch::CloudWatchFault;
use audit_bridge_tests::live::{Running, wait};
use audit_bridge_tests::python::python;
use audit_bridge_tests::{audit_id, root};
use serde_json::json;

use super::{GROUP, STREAM, World, now_ms};

/// A trail that stands still for so long is not ready.
const STALL: &str = "--stall-max=2s";

/// `alerts.py` ends so where promtool cannot be had.
const SKIPPED: i32 = 77;

fn metrics(bridge: &mut Running) -> String {
    bridge.get("/metrics").1
}

/// Waits until the lag is longer than this, in seconds.
fn until_lag(bridge: &mut Running, seconds: f64) {
    let grown = wait(|| (bridge.metric("audit_bridge_lag_seconds") > seconds).then_some(()));
    assert!(grown.is_some(), "no lag\n{}", bridge.log());
}

/// Waits until a metric, summed over its labels, is larger by so much than it is now. Meanwhile `go_on`.
fn until_grown(bridge: &mut Running, name: &str, by: f64, mut go_on: impl FnMut()) {
    let before = bridge.metric(name);
    let grown = wait(|| {
        go_on();
        (bridge.metric(name) >= before + by).then_some(())
    });
    assert!(grown.is_some(), "{name} does not grow\n{}", bridge.log());
}

/// What a bridge showed.
struct Record {
    healthy: String,
    outage: Vec<(f64, String)>,
    began: Instant,
}

impl Record {
    /// Begins with what it shows while all is well.
    fn begin(bridge: &mut Running) -> Record {
        Record {
            healthy: metrics(bridge),
            outage: Vec::new(),
            began: Instant::now(),
        }
    }

    fn add(&mut self, bridge: &mut Running) {
        let at = self.began.elapsed().as_secs_f64();
        self.outage.push((at, metrics(bridge)));
    }

    /// All of these alerts fire in the outage, and none before it.
    fn fires(&self, alerts: &[&str]) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("outage.json");
        let text = json!({"healthy": self.healthy, "outage": self.outage, "fires": alerts});
        std::fs::write(&file, text.to_string()).unwrap();
        let judged = Command::new(python("tests/requirements-infra.txt"))
            .arg(root().join("tests/infra/alerts.py"))
            .arg(&file)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&judged.stderr);
        if judged.status.code() == Some(SKIPPED) {
            // Past the test harness, which would keep it to itself.
            let mut stderr = std::io::stderr();
            writeln!(stderr, "skipped: the alerts {alerts:?}: {said}").unwrap();
            return;
        }
        assert!(
            judged.status.success(),
            "{alerts:?}: {said}\n{}",
            self.outage[1].1
        );
    }
}

/// A bridge that has delivered events 0 to 4 and is well.
async fn healthy(flags: &[&str]) -> (World, Running, Record) {
    let world = World::new().await;
    let mut all = vec!["--start=-1m", STALL];
    all.extend(flags);
    let mut bridge = world.start(&all);
    for n in 0..5 {
        world.put(n, 0);
    }
    world.until_accepted(0..5, &bridge);
    bridge.until_ready();
    bridge.until_metric("audit_bridge_lag_seconds", 0.0);
    let record = Record::begin(&mut bridge);
    (world, bridge, record)
}

/// It recovers: everything up to event `end` arrives, nothing lags, and it is ready.
fn recovers(world: &World, bridge: &mut Running, end: usize) {
    world.until_accepted(0..end, bridge);
    bridge.until_ready();
    bridge.until_metric("audit_bridge_lag_seconds", 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn receiver_down_is_reported_and_recovers() {
    let (world, mut bridge, mut record) = healthy(&[]).await;
    world.webhook.set_answer(WebhookAnswer::status(503));
    world.put(5, 0);
    bridge.until_not_ready("webhook", "503");
    let why = bridge.until_not_ready("progress", "a record is read and not settled");
    assert!(why.contains("stands still"), "{why}");
    until_lag(&mut bridge, 3.0);
    record.add(&mut bridge);
    until_grown(
        &mut bridge,
        "audit_bridge_webhook_requests_total",
        2.0,
        || {},
    );
    record.add(&mut bridge);
    record.fires(&[
        "AuditBridgeLagging",
        "AuditBridgeNotReady",
        "AuditBridgeWebhookFailing",
    ]);
    world.webhook.accept();
    recovers(&world, &mut bridge, 6);
    assert_eq!(bridge.terminate(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn event_answered_500_for_ever_is_reported_while_others_arrive() {
    let (world, mut bridge, mut record) = healthy(&["--batch-events-max=2"]).await;
    world.webhook.poison(&audit_id(5), 500);
    let mut next = 5;
    let mut put = || {
        world.put(next, 0);
        next += 1;
    };
    put();
    let parked = wait(|| {
        put();
        (bridge.metric("audit_bridge_parked_events") > 0.0).then_some(())
    });
    assert!(parked.is_some(), "{}", bridge.log());
    let why = bridge.until_not_ready("progress", "read and not settled");
    assert!(why.contains("events that the webhook fails on"), "{why}");
    until_lag(&mut bridge, 3.0);
    record.add(&mut bridge);
    until_grown(
        &mut bridge,
        "audit_bridge_events_delivered_total",
        3.0,
        &mut put,
    );
    record.add(&mut bridge);
    record.fires(&[
        "AuditBridgeLagging",
        "AuditBridgeNotReady",
        "AuditBridgeEventsParked",
    ]);
    world.webhook.accept_event(&audit_id(5));
    recovers(&world, &mut bridge, next);
    assert_eq!(bridge.terminate(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn source_denied_is_reported_without_silence() {
    let (world, mut bridge, mut record) = healthy(&["--silence-max=1s"]).await;
    // Before it can be silent.
    world.put(5, 0);
    world.until_accepted(5..6, &bridge);
    world.cloud.choose(|_| Some(CloudWatchFault::denied()));
    bridge.until_not_ready("source", "logs:FilterLogEvents");
    bridge.until_not_ready(
        "progress",
        "told neither more nor that there is nothing more",
    );
    until_lag(&mut bridge, 3.0);
    record.add(&mut bridge);
    until_grown(
        &mut bridge,
        "audit_bridge_source_requests_total",
        2.0,
        || {},
    );
    record.add(&mut bridge);
    record.fires(&[
        "AuditBridgeLagging",
        "AuditBridgeNotReady",
        "AuditBridgeSourceFailing",
    ]);
    world.put(6, 0);
    world.cloud.clear_faults();
    recovers(&world, &mut bridge, 7);
    assert_eq!(bridge.terminate(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn source_throttled_is_reported_and_recovers() {
    let (world, mut bridge, mut record) = healthy(&[]).await;
    world.put(5, 0);
    world.cloud.choose(|_| Some(CloudWatchFault::throttled()));
    bridge.until_not_ready("progress", "told neither more");
    until_lag(&mut bridge, 3.0);
    record.add(&mut bridge);
    until_grown(
        &mut bridge,
        "audit_bridge_source_throttled_total",
        2.0,
        || {},
    );
    record.add(&mut bridge);
    record.fires(&[
        "AuditBridgeLagging",
        "AuditBridgeNotReady",
        "AuditBridgeThrottled",
    ]);
    world.cloud.clear_faults();
    recovers(&world, &mut bridge, 6);
    assert_eq!(bridge.terminate(), 0);
}

/// Waits until the silence is longer than this, in seconds.
fn until_silent(bridge: &mut Running, seconds: f64) {
    let grown = wait(|| (bridge.metric("audit_bridge_silence_seconds") > seconds).then_some(()));
    assert!(grown.is_some(), "no silence\n{}", bridge.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn log_switched_off_is_reported_also_after_restart() {
    let (world, mut bridge, _) = healthy(&["--silence-max=4s"]).await;
    // The machine may be slow: it is healthy while it is not silent.
    let mut next = 5;
    let heard = wait(|| {
        world.put(next, 0);
        world.until_accepted(next..next + 1, &bridge);
        next += 1;
        let record = Record::begin(&mut bridge);
        (bridge.metric("audit_bridge_silence_seconds") < 3.0).then_some(record)
    });
    let mut record = heard.unwrap();
    // Other logs of the group go on.
    let other = |n: i64| {
        world
            .cloud
            .put(GROUP, "kube-scheduler-1a2b", now_ms() - n, "I1121 hello");
    };
    other(0);
    until_silent(&mut bridge, 4.0);
    record.add(&mut bridge);
    until_grown(&mut bridge, "audit_bridge_silence_seconds", 2.0, || {
        other(1);
    });
    record.add(&mut bridge);
    record.fires(&["AuditBridgeSilent"]);
    let (status, body) = bridge.get("/readyz");
    assert_eq!(
        status, 200,
        "a quiet log is no reason to be restarted: {body}"
    );
    assert!(body.contains("aws eks describe-cluster"), "{body}");
    bridge.until_metric("audit_bridge_lag_seconds", 0.0);
    let log = bridge.log();
    assert_eq!(log.matches("no audit record arrives").count(), 1, "{log}");
    bridge.kill();

    let mut bridge = world.start(&["--silence-max=4s", STALL]);
    bridge.until_ready();
    let said = wait(|| bridge.get("/readyz").1.contains("silent").then_some(()));
    assert!(said.is_some(), "{}", bridge.log());
    assert!(bridge.metric("audit_bridge_silence_seconds") > 4.0);
    world.put(next, 0);
    world.until_accepted(next..next + 1, &bridge);
    let over = wait(|| (!bridge.get("/readyz").1.contains("silent")).then_some(()));
    assert!(over.is_some(), "{}", bridge.log());
    assert_eq!(bridge.terminate(), 0);
}

/// Puts a record that is no event, of 200 kB that cannot be packed.
fn put_garbage(world: &World) {
    let text: String = std::iter::repeat_with(fastrand::alphanumeric)
        .take(200_000)
        .collect();
    world.cloud.put(GROUP, STREAM, now_ms(), &text);
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letter_full_is_reported_and_delivery_continues() {
    let (world, mut bridge, mut record) = healthy(&["--dead-letter-bytes-max=1MiB"]).await;
    let mut garbage = || put_garbage(&world);
    until_grown(
        &mut bridge,
        "audit_bridge_dead_letter_payloads_dropped_total",
        1.0,
        &mut garbage,
    );
    record.add(&mut bridge);
    until_grown(
        &mut bridge,
        "audit_bridge_dead_letter_payloads_dropped_total",
        1.0,
        &mut garbage,
    );
    record.add(&mut bridge);
    record.fires(&["AuditBridgeDeadLetterFull", "AuditBridgeDeadLetters"]);
    world.put(5, 0);
    recovers(&world, &mut bridge, 6);
    assert_eq!(bridge.terminate(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letter_full_on_hold_shows_in_lag_and_readiness() {
    let flags = ["--dead-letter-bytes-max=1MiB", "--dead-letter-full=hold"];
    let (world, mut bridge, mut record) = healthy(&flags).await;
    for _ in 0..8 {
        put_garbage(&world);
    }
    bridge.until_not_ready("checkpoint", "--dead-letter-bytes-max");
    world.put(5, 0);
    bridge.until_not_ready("progress", "stands still");
    until_lag(&mut bridge, 3.0);
    record.add(&mut bridge);
    until_lag(&mut bridge, 6.0);
    record.add(&mut bridge);
    record.fires(&["AuditBridgeLagging", "AuditBridgeNotReady"]);
    assert_eq!(bridge.get("/livez").0, 200);
}

/// A disk that takes nothing and does not fail, as a network file system that is away: a pipe that
/// nobody reads.
#[tokio::test(flavor = "multi_thread")]
async fn disk_hanging_stops_neither_other_events_nor_the_process() {
    let world = World::new().await;
    let pipe = world.folder.path().join("pipe");
    let made = Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    let mut reader = std::fs::OpenOptions::new();
    // For both: opening one end alone would wait for the other.
    let reader = reader.read(true).write(true).open(&pipe).unwrap();
    let flag = format!("--dead-letter={}", pipe.display());
    let mut bridge = world.start(&["--start=-1m", STALL, &flag]);
    bridge.until_ready();
    put_garbage(&world);
    bridge.until_not_ready("progress", "a record is read and not settled");
    for n in 0..5 {
        world.put(n, 0);
    }
    world.until_accepted(0..5, &bridge);
    until_lag(&mut bridge, 3.0);
    assert_eq!(bridge.get("/livez").0, 200);
    let drained = std::thread::spawn(move || std::io::copy(&mut { reader }, &mut std::io::sink()));
    bridge.until_ready();
    bridge.until_metric("audit_bridge_lag_seconds", 0.0);
    assert!(!drained.is_finished());
    assert_eq!(bridge.terminate(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn log_hanging_does_not_stop_another() {
    let world = World::new().await;
    let other = "/aws/eks/other/cluster";
    world.cloud.group(other);
    world.cloud.choose(|request| {
        let hangs = request.body["logGroupName"] == GROUP;
        hangs.then_some(CloudWatchFault::Slow(Duration::from_secs(3600)))
    });
    let mut bridge = world.start(&["--cluster-name=other", "--start=-1m", STALL]);
    world
        .cloud
        .put(other, STREAM, now_ms(), &audit_bridge_tests::event(1, 600));
    world.until_accepted(1..2, &bridge);
    let why = bridge.until_not_ready("progress", GROUP);
    assert!(!why.contains(other), "{why}");
    until_lag(&mut bridge, 3.0);
    world.cloud.clear_faults();
    drop(bridge);
}
