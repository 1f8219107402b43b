//! Scripted outages of AKS: see [`audit_bridge_tests::outage`].

use audit_bridge_tests::outage::{OutageRun, Trail, everywhere};

use super::*;

const PARTITIONS: usize = 2;

impl Trail for Stage {
    fn start(&self, flags: &[&str]) -> Running {
        Stage::start(self, &[&["--start", "earliest"], flags].concat())
    }

    fn state(&self) -> PathBuf {
        self.path("state")
    }

    fn webhook(&self) -> &ScriptedWebhook {
        &self.webhook
    }

    fn put(&self, event: usize) {
        self.publish(event..event + 1, PARTITIONS);
    }

    fn audit_id(&self, event: usize) -> String {
        audit_id(event)
    }

    fn put_garbage(&self, text: &str) {
        let record = record_of("kube-audit", "prod", text);
        self.hubs.publish(HUB, 0, message(&[record]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn receiver_down_is_reported_and_recovers() {
    everywhere::receiver_is_down(&Stage::new(PARTITIONS).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn event_answered_500_for_ever_is_reported_while_others_arrive() {
    everywhere::one_event_is_answered_500(&Stage::new(PARTITIONS).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn source_denied_is_reported_without_silence() {
    let stage = Stage::new(PARTITIONS).await;
    let mut outage = OutageRun::of(&stage, &["--silence-max=25s"]);
    stage.hubs.deny_listen(true);
    // A revoked role is noticed with the next token.
    stage.hubs.expire_tokens();
    outage.bridge.until_not_ready("source", "Listen");
    outage.put();
    outage.until_still("told neither more nor that there is nothing more");
    outage.observe("audit_bridge_source_requests_total", 2.0, |_| {});
    let silent = outage.bridge.metric("audit_bridge_silence_seconds");
    assert!(silent < 25.0, "nobody knows whether it is silent: {silent}");
    stage.hubs.deny_listen(false);
    outage.passes(&[
        "AuditBridgeLagging",
        "AuditBridgeNotReady",
        "AuditBridgeSourceFailing",
    ]);
}

#[tokio::test(flavor = "multi_thread")]
async fn source_throttled_is_reported_and_recovers() {
    let stage = Stage::new(PARTITIONS).await;
    let mut outage = OutageRun::of(&stage, &[]);
    let busy = "The request was terminated because the namespace is being throttled.";
    stage.hubs.answer_management(Some((503, busy)));
    stage.hubs.cut();
    outage.put();
    outage.bridge.until_not_ready("source", "throughput units");
    outage.until_still("told neither more");
    outage.observe("audit_bridge_source_throttled_total", 2.0, |_| {});
    stage.hubs.answer_management(None);
    outage.passes(&[
        "AuditBridgeLagging",
        "AuditBridgeNotReady",
        "AuditBridgeThrottled",
    ]);
}

/// Event Hubs answers queries, but one partition sends nothing.
#[tokio::test(flavor = "multi_thread")]
async fn link_hanging_is_reported_and_recovers() {
    let stage = Stage::new(PARTITIONS).await;
    let mut outage = OutageRun::of(&stage, &[]);
    for partition in 0..PARTITIONS {
        stage.hubs.silence(HUB, partition, true);
    }
    outage.put();
    outage.until_still("told neither more");
    outage.observe("audit_bridge_lag_seconds", 3.0, |_| {});
    for partition in 0..PARTITIONS {
        stage.hubs.silence(HUB, partition, false);
    }
    outage.passes(&["AuditBridgeLagging", "AuditBridgeNotReady"]);
}

/// The network silently swallows everything.
#[tokio::test(flavor = "multi_thread")]
async fn network_hanging_is_reported_and_recovers() {
    let stage = Stage::new(PARTITIONS).await;
    let mut outage = OutageRun::of(&stage, &[]);
    stage.hubs.latency(Duration::from_secs(3600));
    outage.put();
    outage.until_still("told neither more");
    outage.observe("audit_bridge_lag_seconds", 3.0, |_| {});
    // What is in flight now stays lost.
    stage.hubs.latency(Duration::from_millis(1));
    outage.passes(&["AuditBridgeLagging", "AuditBridgeNotReady"]);
}

/// One cluster of a hub, or all of them: other records of the hub continue.
#[tokio::test(flavor = "multi_thread")]
async fn log_switched_off_is_reported_also_after_restart() {
    let stage = Stage::new(PARTITIONS).await;
    let other = || {
        let record = record_of("kube-scheduler", "prod", "I1121 hello");
        for partition in 0..PARTITIONS {
            let message = message(std::slice::from_ref(&record));
            stage.hubs.publish(HUB, partition, message);
        }
    };
    everywhere::log_is_switched_off(&stage, other, "az monitor diagnostic-settings list");
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letter_full_is_reported_and_delivery_continues() {
    everywhere::dead_letter_is_full(&Stage::new(PARTITIONS).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letter_full_on_hold_is_reported_and_recovers() {
    everywhere::dead_letter_is_full_and_holds(&Stage::new(PARTITIONS).await);
}
