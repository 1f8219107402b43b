//! Outages of Cloud Logging's API.

use std::path::PathBuf;

use audit_bridge_testkit::cloud_logging::CloudLoggingFault;
use audit_bridge_testkit::{PodEntry, ScriptedWebhook};
use audit_bridge_tests::live::Running;
use audit_bridge_tests::outage::{OutageRun, Trail, everywhere};
use jiff::Timestamp;

use crate::Scene;

impl Trail for Scene {
    fn start(&self, flags: &[&str]) -> Running {
        self.run(&[&["--start", "-1m"], flags].concat())
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    fn webhook(&self) -> &ScriptedWebhook {
        &self.webhook
    }

    fn put(&self, event: usize) {
        Scene::put(self, event..event + 1, Timestamp::now());
    }

    fn audit_id(&self, event: usize) -> String {
        PodEntry::audit_id(event)
    }

    fn put_garbage(&self, text: &str) {
        let text = format!("\"{text}\"");
        self.logging.put_stray(Timestamp::now(), &text);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn receiver_down_is_reported_and_recovers() {
    everywhere::receiver_is_down(&Scene::new().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn event_answered_500_for_ever_is_reported_while_others_arrive() {
    everywhere::one_event_is_answered_500(&Scene::new().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn source_denied_is_reported_without_silence() {
    let scene = Scene::new().await;
    let mut outage = OutageRun::of(&scene, &["--silence-max=2s"]);
    let denied = "Permission denied for all log views";
    scene
        .logging
        .fail_always(Some(CloudLoggingFault::Status(403, denied)));
    outage
        .bridge
        .until_not_ready("source", "roles/logging.viewer");
    outage.put();
    outage.until_still("told neither more nor that there is nothing more");
    outage.observe("audit_bridge_source_requests_total", 2.0, |_| {});
    scene.logging.fail_always(None);
    outage.passes(&[
        "AuditBridgeLagging",
        "AuditBridgeNotReady",
        "AuditBridgeSourceFailing",
    ]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn source_throttled_is_reported_and_recovers() {
    let scene = Scene::new().await;
    let mut outage = OutageRun::of(&scene, &[]);
    let throttled = "Quota exceeded for quota metric 'Read requests'";
    scene
        .logging
        .fail_always(Some(CloudLoggingFault::Status(429, throttled)));
    outage.put();
    outage.until_still("told neither more");
    outage.observe("audit_bridge_source_throttled_total", 2.0, |_| {});
    scene.logging.fail_always(None);
    outage.passes(&[
        "AuditBridgeLagging",
        "AuditBridgeNotReady",
        "AuditBridgeThrottled",
    ]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn source_hanging_is_reported_and_recovers() {
    let scene = Scene::new().await;
    let mut outage = OutageRun::of(&scene, &[]);
    scene.logging.fail_always(Some(CloudLoggingFault::Silence));
    outage.put();
    outage.until_still("told neither more");
    outage.observe("audit_bridge_lag_seconds", 3.0, |_| {});
    scene.logging.fail_always(None);
    outage.passes(&["AuditBridgeLagging", "AuditBridgeNotReady"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn log_switched_off_is_reported_also_after_restart() {
    let scene = Scene::new().await;
    let other = || {
        let entry = PodEntry::new(0, Timestamp::now()).text();
        let other = entry.replace("\"k8s.io\"", "\"container.googleapis.com\"");
        scene.logging.put(other);
    };
    everywhere::log_is_switched_off(&scene, other, "gcloud logging sinks list");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn dead_letter_full_is_reported_and_delivery_continues() {
    everywhere::dead_letter_is_full(&Scene::new().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn dead_letter_full_on_hold_is_reported_and_recovers() {
    everywhere::dead_letter_is_full_and_holds(&Scene::new().await);
}
