//! Entries that arrive later than the oldest age are found by their time of receipt.

use std::time::Duration;

use audit_bridge_testkit::PodEntry;
use jiff::Timestamp;

use crate::{Scene, ago, sample, until};

impl Scene {
    /// Writes an entry with a time a minute ago that was received now.
    fn put_late(&self, number: usize) {
        let entry = PodEntry::new(number, ago(60)).text();
        let (before, after) = entry.split_once("\"receiveTimestamp\":\"").unwrap();
        let (_, after) = after.split_once('"').unwrap();
        let received = Timestamp::now();
        self.logging.put(format!(
            "{before}\"receiveTimestamp\":\"{received}\"{after}"
        ));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn entry_later_than_the_oldest_age_is_found_by_its_receipt() {
    let scene = Scene::new().await;
    scene.put(0..10, ago(30));
    let flags = ["--start", "-5m", "--late-interval", "1s"];
    let mut bridge = scene.run(&flags);
    scene.until_accepted(0..10);
    // By now each cursor has passed that time.
    std::thread::sleep(Duration::from_secs(7));
    scene.put_late(10);
    scene.put(11..13, Timestamp::now());
    scene.until_accepted(0..13);
    until("it is counted", || {
        sample(&mut bridge, "audit_bridge_late_records_total", "arrival") >= 1.0
    });
    bridge.until_metric("audit_bridge_lag_seconds", 0.0);
    bridge.until_ready();
    assert_eq!(bridge.terminate(), 0);
    // A restart does not repeat it, and finds the next one.
    scene.put_late(13);
    let bridge = scene.run(&flags);
    scene.until_accepted(0..14);
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(bridge.terminate(), 0);
    assert_eq!(scene.webhook.accepted_ids().len(), 14, "each just once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn entry_late_is_not_asked_for_where_that_is_off_or_the_job_ends() {
    let scene = Scene::new().await;
    scene.put(0..3, ago(30));
    let bridge = scene.run(&["--start", "-5m", "--late-interval", "off"]);
    scene.until_accepted(0..3);
    assert_eq!(bridge.terminate(), 0);
    let mut job = scene.run(&["--until", "now", "--late-interval", "1s"]);
    assert_eq!(job.until_end(), 0, "{}", job.log());
    let requests = scene.logging.requests();
    assert!(!requests.is_empty());
    assert!(
        requests
            .iter()
            .all(|it| !it.filter.contains("receiveTimestamp"))
    );
}
