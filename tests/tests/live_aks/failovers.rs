//! A hub that was replaced, for the real binary: nothing is skipped, not days are repeated, and the
//! log reports what may be missing.

use super::*;

/// Day-old events that were delivered long ago.
const OLD: std::ops::Range<usize> = 0..40;
const GAPS: &str = "audit_bridge_gaps_suspected_total";

impl Stage {
    /// Publishes day-old events and as many new ones, and has them delivered. Returns the settled
    /// checkpoint's text.
    async fn delivered_before(&self) -> String {
        for n in OLD {
            let body = message(&[record(n)]).into();
            let day = Duration::from_secs(24 * 3600);
            self.hubs.publish_at(HUB, 0, vec![body], day);
        }
        self.publish(40..60, 1);
        let bridge = self.start(&["--start", "earliest"]);
        self.until_accepted(&bridge, 0..60);
        self.until_settled(60);
        bridge.terminate();
        let path = self.path("state").join("checkpoint.json");
        std::fs::read_to_string(path).unwrap()
    }

    fn assert_old_came_once(&self) {
        let accepted = self.webhook.accepted_ids();
        for n in OLD {
            let times = accepted.iter().filter(|id| **id == audit_id(n)).count();
            assert_eq!(times, 1, "event {n}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hub_created_again_is_delivered_from_its_first_message() {
    // With lower numbers than the checkpoint, and with higher ones.
    for count in [7, 90] {
        let stage = Stage::new(1).await;
        stage.delivered_before().await;
        stage.hubs.add_hub(HUB, 1);
        stage.publish(100..100 + count, 1);
        let mut bridge = stage.start(&[]);
        stage.until_accepted(&bridge, 100..100 + count);
        stage.assert_no_duplicates();
        bridge.until_metric(GAPS, 1.0);
        assert!(bridge.metric("audit_bridge_records_expired_total") < 0.5);
        let log = bridge.log();
        for words in ["it was created again", "\"position\":59", "failover: what"] {
            assert!(log.contains(words), "{words}: {log}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replica_promoted_is_continued() {
    let stage = Stage::new(1).await;
    stage.hubs.replicate(HUB);
    let checkpoint = stage.delivered_before().await;
    assert!(checkpoint.contains("\"offset\":\"1:"), "{checkpoint}");
    stage.hubs.promote(HUB, 0);
    stage.publish(100..110, 1);
    let bridge = stage.start(&[]);
    stage.until_accepted(&bridge, 100..110);
    stage.assert_no_duplicates();

    // The promoted hub lacks the newest messages, and reuses their sequence numbers.
    stage.until_settled(70);
    stage.hubs.promote(HUB, 5);
    stage.publish(200..220, 1);
    stage.until_accepted(&bridge, 200..220);
    stage.assert_old_came_once();
    assert!(bridge.log().contains("a replica was promoted"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alias_pointing_elsewhere_and_back_skips_nothing() {
    let stage = Stage::new(1).await;
    stage.delivered_before().await;
    stage.hubs.fail_over();
    stage.publish(100..110, 1);
    let mut bridge = stage.start(&[]);
    stage.until_accepted(&bridge, 100..110);
    stage.assert_no_duplicates();
    bridge.until_metric(GAPS, 1.0);

    stage.hubs.fail_back();
    stage.hubs.cut();
    stage.publish(200..210, 1);
    stage.until_accepted(&bridge, 200..210);
    stage.assert_old_came_once();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checkpoint_of_an_earlier_version_is_continued() {
    for replicated in [false, true] {
        let stage = Stage::new(1).await;
        let written = stage.delivered_before().await;
        let mut earlier: serde_json::Value = serde_json::from_str(&written).unwrap();
        earlier["position"]["0"] = json!({"sequence_number": 59});
        let path = stage.path("state").join("checkpoint.json");
        std::fs::write(&path, earlier.to_string()).unwrap();
        if replicated {
            stage.hubs.replicate(HUB);
        }
        stage.publish(100..110, 1);
        let mut bridge = stage.start(&[]);
        stage.until_accepted(&bridge, 100..110);
        stage.assert_no_duplicates();
        assert!(bridge.metric(GAPS) < 0.5);
    }
}
