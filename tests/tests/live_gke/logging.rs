//! Cloud Logging's API: what arrives, how often, and that it equals a replay.

use std::collections::BTreeSet;
use std::time::Duration;

use audit_bridge_testkit::PodEntry;
use audit_bridge_testkit::cloud_logging::CloudLoggingFault;
use audit_bridge_tests::live::Running;
use jiff::Timestamp;
use serde_json::Value;

use crate::{Scene, ago, examples, parts, sorted_lines, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn entries_late_or_repeated_arrive_once() {
    let scene = Scene::new().await;
    scene.logging.pages_of(150);
    // Many entries with the same time, on several pages.
    let (one, other) = (ago(120), ago(60));
    for number in 0..1000 {
        let time = if number < 500 { one } else { other };
        scene.logging.put(PodEntry::new(number, time).text());
    }
    // The log itself may have an entry twice.
    for number in [3, 499, 777] {
        let time = if number < 500 { one } else { other };
        scene.logging.put(PodEntry::new(number, time).text());
    }
    let mut bridge = scene.run(&["--start", "-10m"]);
    scene.until_accepted(0..1000);
    bridge.until_ready();
    // Late: with a time two seconds ago, behind the edge by then.
    for number in 1000..1100 {
        let entry = PodEntry::new(number, ago(2)).text();
        scene.logging.put_late(entry, Duration::from_millis(500));
    }
    // New entries.
    scene.put(1100..1200, Timestamp::now());
    scene.until_accepted(0..1200);
    until("the late are counted", || {
        bridge.metric("audit_bridge_late_records_total") >= 100.0
    });
    bridge.until_metric("audit_bridge_lag_seconds", 0.0);
    // By now all cursors have passed; they recognised what they read again.
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(scene.webhook.accepted_ids().len(), 1200, "each just once");
    assert_eq!(bridge.terminate(), 0);
    let sizes: BTreeSet<_> = scene
        .logging
        .requests()
        .iter()
        .map(|it| it.page_size)
        // Requests for one entry only test whether there is any.
        .filter(|size| *size != Some(1))
        .collect();
    assert_eq!(sizes, [Some(1000)].into());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn filter_selects_cluster_and_logs() {
    let scene = Scene::new().await;
    let entry = |number: usize, change: &dyn Fn(&mut PodEntry)| {
        let mut entry = PodEntry::new(number, ago(30));
        change(&mut entry);
        scene.logging.put(entry.text());
    };
    entry(0, &|_| {});
    entry(1, &|it| it.cluster = "other".to_owned());
    entry(2, &|it| it.location = "other".to_owned());
    entry(3, &|it| it.log = "data_access".to_owned());
    entry(4, &|it| it.project = "other".to_owned());
    let flags = [
        "--project-id",
        "p",
        "--cluster-name",
        "c",
        "--location",
        "l",
        "--start",
        "-1m",
    ];
    let mut bridge = scene.run_with(&flags, &[]);
    scene.until_accepted(0..1);
    bridge.until_metric("audit_bridge_records_received_total", 1.0);
    assert_eq!(bridge.terminate(), 0);
    let requests = scene.logging.requests();
    assert!(
        requests
            .iter()
            .all(|it| it.resource_names == ["projects/p"])
    );
    assert!(
        requests.iter().all(|it| it.authorization.is_none()),
        "plain, and no server named"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn split_entries_across_pages_and_polls_are_joined() {
    let scene = Scene::new().await;
    scene.logging.pages_of(1);
    let [first, second] = parts(0, ago(60));
    scene.logging.put(first);
    scene.logging.put(PodEntry::new(1, ago(50)).text());
    scene.logging.put(second);
    // The other part is late, and comes first.
    let [first, second] = parts(2, ago(2));
    scene.logging.put_late(first, Duration::from_secs(2));
    scene.logging.put(second);
    let bridge = scene.run(&["--start", "-5m"]);
    scene.until_accepted(0..3);
    assert_eq!(bridge.terminate(), 0);
    let bodies = scene.webhook.received();
    let events: Vec<Value> = bodies
        .iter()
        .flat_map(|it| {
            serde_json::from_slice::<Value>(&it.body).unwrap()["items"]
                .as_array()
                .cloned()
        })
        .flatten()
        .collect();
    assert_eq!(events.len(), 3);
    for number in [0, 2] {
        let id = PodEntry::audit_id(number);
        let event = events.iter().find(|event| event["auditID"] == id).unwrap();
        let filling = &event["requestObject"]["metadata"]["annotations"]["filling"];
        assert_eq!(*filling, "x".repeat(70) + &"y".repeat(30));
        assert_eq!(event["annotations"]["audit.k8s.io/truncated"], Value::Null);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn live_and_replay_give_the_same_events() {
    let scene = Scene::new().await;
    let same = [
        "--format",
        "events",
        "--include-data-access",
        "true",
        "--annotate",
        "a=b",
    ];
    let (entries, events) = examples(scene.folder.path(), &same);
    for entry in entries {
        scene.logging.put(entry);
    }
    let output = scene.folder.path().join("live.jsonl");
    let state = scene.folder.path().join("state");
    let endpoint = scene.logging.url();
    let args = [
        ["--output", output.to_str().unwrap()],
        ["--state-dir", state.to_str().unwrap()],
        ["--logging-endpoint", &endpoint],
        ["--project-id", "acme-prod"],
        ["--cluster-name", "blue"],
        ["--start", "2024-06-01T00:00:00Z"],
        ["--until", "2024-06-04T00:00:00Z"],
        ["--requests-per-minute", "6000"],
    ];
    let mut bridge = Running::start("gke", &[args.concat().as_slice(), &same].concat(), &[]);
    assert_eq!(bridge.until_end(), 0, "{}", bridge.log());
    assert_eq!(sorted_lines(&output), events);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn requests_keep_their_rate_and_throttling_is_reported() {
    let scene = Scene::new().await;
    scene.put(0..10, ago(30));
    scene.logging.fail_next(CloudLoggingFault::RetryAfter("1"));
    // As paced: two requests a second, however much the cursors want to read.
    let mut bridge = scene.run(&["--start", "-1m", "--requests-per-minute", "120"]);
    scene.until_accepted(0..10);
    std::thread::sleep(Duration::from_secs(4));
    bridge.until_metric("audit_bridge_source_throttled_total", 1.0);
    let times: Vec<_> = scene.logging.requests().iter().map(|it| it.at).collect();
    let span = times.last().unwrap().duration_since(times[0]).as_secs_f64();
    let pace = (times.len() - 1) as f64 / span;
    assert!(pace < 2.2, "{} requests in {span} s", times.len());
    assert_eq!(bridge.terminate(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn pages_too_large_are_asked_for_smaller() {
    let scene = Scene::new().await;
    // 24 MiB in one page, more than the limit of a page.
    for number in 0..48 {
        let entry = PodEntry {
            bytes: 512 << 10,
            ..PodEntry::new(number, ago(60))
        };
        scene.logging.put(entry.text());
    }
    let bridge = scene.run(&["--start", "-5m"]);
    scene.until_accepted(0..48);
    assert_eq!(bridge.terminate(), 0);
    let sizes: BTreeSet<_> = scene
        .logging
        .requests()
        .iter()
        .map(|it| it.page_size)
        .collect();
    assert!(sizes.len() > 1, "{sizes:?}");
}
