//! Outages of Pub/Sub.

use std::path::PathBuf;

use audit_bridge_testkit::{PodEntry, ScriptedWebhook};
use audit_bridge_tests::live::Running;
use audit_bridge_tests::outage::{OutageRun, Trail, everywhere};
use jiff::Timestamp;
use tonic::Code;

use crate::pubsub::Scene;

impl Trail for Scene {
    fn start(&self, flags: &[&str]) -> Running {
        self.run("one", flags)
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("one")
    }

    fn webhook(&self) -> &ScriptedWebhook {
        &self.webhook
    }

    fn put(&self, event: usize) {
        let entry = PodEntry::new(event, Timestamp::now());
        self.pubsub.publish(entry.text());
    }

    fn audit_id(&self, event: usize) -> String {
        PodEntry::audit_id(event)
    }

    fn put_garbage(&self, text: &str) {
        self.pubsub.publish(text);
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
    let mut outage = OutageRun::of(&scene, &["--silence-max=25s"]);
    scene.pubsub.permit(false);
    scene.pubsub.cut_streams();
    outage
        .bridge
        .until_not_ready("source", "roles/pubsub.subscriber");
    outage.put();
    outage.until_still("told neither more nor that there is nothing more");
    outage.observe("audit_bridge_source_requests_total", 1.0, |_| {});
    let silent = outage.bridge.metric("audit_bridge_silence_seconds");
    assert!(silent < 25.0, "nobody knows whether it is silent: {silent}");
    scene.pubsub.permit(true);
    outage.passes(&[
        "AuditBridgeLagging",
        "AuditBridgeNotReady",
        "AuditBridgeSourceFailing",
    ]);
}

/// Streams are refused, and every other request is answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn source_throttled_is_reported_and_recovers() {
    let scene = Scene::new().await;
    let mut outage = OutageRun::of(&scene, &[]);
    scene.pubsub.refuse_always(Some(Code::ResourceExhausted));
    scene.pubsub.cut_streams();
    outage.put();
    outage.until_still("told neither more");
    outage.observe("audit_bridge_lag_seconds", 3.0, |_| {});
    scene.pubsub.refuse_always(None);
    outage.passes(&["AuditBridgeLagging", "AuditBridgeNotReady"]);
}

/// The network silently swallows everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn network_hanging_is_reported_and_recovers() {
    let scene = Scene::new().await;
    let mut outage = OutageRun::of(&scene, &[]);
    scene.pubsub.hang(true);
    outage.put();
    outage.bridge.until_not_ready("source", "cannot be reached");
    outage.until_still("told neither more");
    outage.observe("audit_bridge_lag_seconds", 3.0, |_| {});
    scene.pubsub.hang(false);
    outage.passes(&["AuditBridgeLagging", "AuditBridgeNotReady"]);
}

/// The service answers, but its stream brings nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn stream_hanging_is_reported_and_recovers() {
    let scene = Scene::new().await;
    let mut outage = OutageRun::of(&scene, &[]);
    scene.pubsub.set_silent(true);
    outage.put();
    outage.until_still("told neither more");
    outage.observe("audit_bridge_lag_seconds", 3.0, |_| {});
    scene.pubsub.set_silent(false);
    outage.passes(&["AuditBridgeLagging", "AuditBridgeNotReady"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn stream_forgotten_is_replaced() {
    let scene = Scene::new().await;
    let mut outage = OutageRun::of(&scene, &[]);
    scene.pubsub.forget_streams();
    outage.put();
    outage.until_accepted();
    assert_eq!(outage.bridge.terminate(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn log_switched_off_is_reported_also_after_restart() {
    let scene = Scene::new().await;
    let other = || {
        let entry = PodEntry::new(0, Timestamp::now()).text();
        let other = entry.replace("\"k8s.io\"", "\"container.googleapis.com\"");
        scene.pubsub.publish(other);
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
