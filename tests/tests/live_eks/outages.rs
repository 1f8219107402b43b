//! Scripted outages of EKS: see [`audit_bridge_tests::outage`].

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use audit_bridge_testkit::ScriptedWebhook;
use audit_bridge_testkit::cloud_watch::CloudWatchFault;
use audit_bridge_tests::audit_id;
use audit_bridge_tests::live::Running;
use audit_bridge_tests::outage::{OutageRun, STALL, Trail, everywhere};

use super::{GROUP, STREAM, World, now_ms};

impl Trail for World {
    fn start(&self, flags: &[&str]) -> Running {
        World::start(self, &[&["--start=-1m"], flags].concat())
    }

    fn state(&self) -> PathBuf {
        World::state(self)
    }

    fn webhook(&self) -> &ScriptedWebhook {
        &self.webhook
    }

    fn put(&self, event: usize) {
        World::put(self, event, 0);
    }

    fn audit_id(&self, event: usize) -> String {
        audit_id(event)
    }

    fn put_garbage(&self, text: &str) {
        self.cloud.put(GROUP, STREAM, now_ms(), text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn receiver_down_is_reported_and_recovers() {
    everywhere::receiver_is_down(&World::new().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn event_answered_500_for_ever_is_reported_while_others_arrive() {
    everywhere::one_event_is_answered_500(&World::new().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn source_denied_is_reported_without_silence() {
    let world = World::new().await;
    let mut outage = OutageRun::of(&world, &["--silence-max=2s"]);
    world.cloud.choose(|_| Some(CloudWatchFault::denied()));
    outage
        .bridge
        .until_not_ready("source", "logs:FilterLogEvents");
    outage.until_still("told neither more nor that there is nothing more");
    outage.observe("audit_bridge_source_requests_total", 2.0, |_| {});
    world.cloud.clear_faults();
    outage.passes(&[
        "AuditBridgeLagging",
        "AuditBridgeNotReady",
        "AuditBridgeSourceFailing",
    ]);
}

#[tokio::test(flavor = "multi_thread")]
async fn source_throttled_is_reported_and_recovers() {
    let world = World::new().await;
    let mut outage = OutageRun::of(&world, &[]);
    world.cloud.choose(|_| Some(CloudWatchFault::throttled()));
    outage.put();
    outage.until_still("told neither more");
    outage.observe("audit_bridge_source_throttled_total", 2.0, |_| {});
    world.cloud.clear_faults();
    outage.passes(&[
        "AuditBridgeLagging",
        "AuditBridgeNotReady",
        "AuditBridgeThrottled",
    ]);
}

#[tokio::test(flavor = "multi_thread")]
async fn log_switched_off_is_reported_also_after_restart() {
    let world = World::new().await;
    let other = || {
        let stream = "kube-scheduler-1a2b";
        world.cloud.put(GROUP, stream, now_ms(), "I1121 hello");
    };
    everywhere::log_is_switched_off(&world, other, "aws eks describe-cluster");
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letter_full_is_reported_and_delivery_continues() {
    everywhere::dead_letter_is_full(&World::new().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letter_full_on_hold_is_reported_and_recovers() {
    everywhere::dead_letter_is_full_and_holds(&World::new().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn source_hanging_is_reported_and_recovers() {
    let world = World::new().await;
    let mut outage = OutageRun::of(&world, &[]);
    let hour = Duration::from_secs(3600);
    world
        .cloud
        .choose(move |_| Some(CloudWatchFault::Slow(hour)));
    outage.put();
    outage.until_still("told neither more");
    outage.observe("audit_bridge_lag_seconds", 3.0, |_| {});
    world.cloud.clear_faults();
    outage.passes(&["AuditBridgeLagging", "AuditBridgeNotReady"]);
}

/// A disk that blocks without failing, like a network file system that is away: here a pipe without
/// a reader.
#[tokio::test(flavor = "multi_thread")]
async fn disk_hanging_stops_neither_other_events_nor_the_process() {
    let world = World::new().await;
    let pipe = world.folder.path().join("pipe");
    let made = Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    let mut reader = std::fs::OpenOptions::new();
    // Open both ends, as opening one would wait for the other.
    let reader = reader.read(true).write(true).open(&pipe).unwrap();
    let flag = format!("--dead-letter={}", pipe.display());
    let mut bridge = world.start(&["--start=-1m", STALL, &flag]);
    bridge.until_ready();
    everywhere::put_garbage(&world);
    bridge.until_not_ready("progress", "a record is read and not settled");
    for n in 0..5 {
        world.put(n, 0);
    }
    world.until_accepted(0..5, &bridge);
    bridge.until_above("audit_bridge_lag_seconds", 3.0);
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
    bridge.until_above("audit_bridge_lag_seconds", 3.0);
    world.cloud.clear_faults();
    world.put(2, 0);
    world.until_accepted(1..3, &bridge);
    bridge.until_ready();
    assert_eq!(bridge.terminate(), 0);
}
