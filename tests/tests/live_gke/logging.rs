//! Cloud Logging's API: what arrives, how often, and whether it is the same as from a dump.

use std::collections::BTreeSet;
use std::time::Duration;

use audit_bridge_testkit::LogEntry;
use audit_bridge_testkit::cloud_logging::Fault;
use audit_bridge_tests::live::Running;
use audit_bridge_tests::{root, run};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{Scene, ago, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_entry_arrives_once_however_it_shows() {
    let scene = Scene::new().await;
    scene.logging.pages_of(150);
    // Many under one time, across the pages' borders.
    let (one, other) = (ago(120), ago(60));
    for number in 0..1000 {
        let time = if number < 500 { one } else { other };
        scene.logging.put(LogEntry::new(number, time).text());
    }
    // The log itself may hold an entry twice.
    for number in [3, 499, 777] {
        let time = if number < 500 { one } else { other };
        scene.logging.put(LogEntry::new(number, time).text());
    }
    let mut bridge = scene.run(&["--start", "-10m"]);
    scene.until_accepted(0..1000);
    bridge.until_ready();
    // Late: filed two seconds back, and behind the edge by then.
    for number in 1000..1100 {
        let entry = LogEntry::new(number, ago(2)).text();
        scene.logging.put_late(entry, Duration::from_millis(500));
    }
    // And what is new.
    scene.put(1100..1200, Timestamp::now());
    scene.until_accepted(0..1200);
    assert!(bridge.metric("audit_bridge_late_records_total") >= 100.0);
    until("nothing is behind", || {
        bridge.metric("audit_bridge_lag_seconds") == 0.0
    });
    // All cursors have passed by now: what they met again was known.
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(scene.webhook.accepted_ids().len(), 1200, "each just once");
    assert_eq!(bridge.terminate(), 0);
    let sizes: BTreeSet<_> = scene
        .logging
        .requests()
        .iter()
        .map(|it| it.page_size)
        .collect();
    assert_eq!(sizes, [Some(1000)].into());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_filter_selects_cluster_and_logs() {
    let scene = Scene::new().await;
    let entry = |number: usize, change: &dyn Fn(&mut LogEntry)| {
        let mut entry = LogEntry::new(number, ago(30));
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
    assert_eq!(bridge.metric("audit_bridge_records_received_total"), 1.0);
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

/// The entry in two parts: each has a half of its request.
fn parts(number: usize, time: Timestamp) -> [String; 2] {
    let entry = LogEntry {
        bytes: 100,
        ..LogEntry::new(number, time)
    };
    let entry: Value = serde_json::from_str(&entry.text()).unwrap();
    [0, 1].map(|index| {
        let mut part = entry.clone();
        part["split"] = json!({"uid": format!("u{number}"), "index": index, "totalSplits": 2});
        part["insertId"] = format!("{}-{index}", part["insertId"].as_str().unwrap()).into();
        let half = ["x".repeat(70), "y".repeat(30)][index].clone();
        part["protoPayload"]["request"]["metadata"]["annotations"]["filling"] = half.into();
        if index == 1 {
            // What came whole is in one part only.
            part["protoPayload"]["request"]["metadata"]["name"] = "".into();
        }
        part.to_string()
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn split_entries_come_together_across_pages_and_polls() {
    let scene = Scene::new().await;
    scene.logging.pages_of(1);
    let [first, second] = parts(0, ago(60));
    scene.logging.put(first);
    scene.logging.put(LogEntry::new(1, ago(50)).text());
    scene.logging.put(second);
    // The other half of this one is late, and comes first.
    let [first, second] = parts(2, ago(2));
    scene.logging.put_late(first, Duration::from_secs(2));
    scene.logging.put(second);
    let mut bridge = scene.run(&["--start", "-5m"]);
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
        let id = LogEntry::audit_id(number);
        let event = events.iter().find(|event| event["auditID"] == id).unwrap();
        let filling = &event["requestObject"]["metadata"]["annotations"]["filling"];
        assert_eq!(*filling, "x".repeat(70) + &"y".repeat(30));
        assert_eq!(event["annotations"]["audit.k8s.io/truncated"], Value::Null);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn live_and_replay_give_the_same_events() {
    let scene = Scene::new().await;
    let folder = root().join("bridges/gke/fixtures/examples");
    let mut dump = String::new();
    let mut entries = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let entry: Value = serde_json::from_str(&text).unwrap();
        // One was cut by whoever saved it: no log would find it.
        let whole = entry["resource"]["type"] == "k8s_cluster"
            && entry["protoPayload"]["serviceName"] == "k8s.io"
            && entry["insertId"].is_string();
        if whole {
            scene.logging.put(text.trim());
            dump.push_str(&text);
            entries += 1;
        }
    }
    assert!(entries > 20, "{entries}");
    let path = scene.folder.path().join("dump.json");
    std::fs::write(&path, dump).unwrap();
    let live_file = scene.folder.path().join("live.jsonl");
    let endpoint = scene.logging.url();
    let args = [
        ["--output", live_file.to_str().unwrap()],
        ["--format", "events"],
        ["--project-id", "acme-prod"],
        ["--cluster-name", "blue"],
        ["--include-data-access", "true"],
        ["--annotate", "a=b"],
        ["--logging-endpoint", &endpoint],
        ["--start", "2024-06-01T00:00:00Z"],
        ["--until", "2024-06-04T00:00:00Z"],
        ["--requests-per-minute", "6000"],
    ];
    let state = scene.folder.path().join("state");
    let state = ["--state-dir", state.to_str().unwrap()];
    let mut bridge = Running::start("gke", &[args.concat().as_slice(), &state].concat(), &[]);
    assert_eq!(bridge.until_end(), 0, "{}", bridge.log());
    let replay_file = scene.folder.path().join("replay.jsonl");
    let ran = run(
        "gke",
        &[
            ["replay", path.to_str().unwrap()],
            ["--output", replay_file.to_str().unwrap()],
            ["--format", "events"],
            ["--include-data-access", "true"],
            ["--annotate", "a=b"],
        ]
        .concat(),
    );
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    let lines = |path: &std::path::Path| {
        let text = std::fs::read_to_string(path).unwrap();
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let (live, replay) = (lines(&live_file), lines(&replay_file));
    assert!(live.len() >= entries);
    assert_eq!(live, replay);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn requests_keep_to_the_pace_and_throttling_is_told() {
    let scene = Scene::new().await;
    scene.put(0..10, ago(30));
    scene.logging.fail_next(Fault::RetryAfter("1"));
    // As paced as it goes: two requests a second, whatever the cursors would like.
    let mut bridge = scene.run(&["--start", "-1m", "--requests-per-minute", "120"]);
    scene.until_accepted(0..10);
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(bridge.metric("audit_bridge_source_throttled_total"), 1.0);
    let times: Vec<_> = scene.logging.requests().iter().map(|it| it.at).collect();
    let span = times.last().unwrap().duration_since(times[0]).as_secs_f64();
    let pace = (times.len() - 1) as f64 / span;
    assert!(pace < 2.2, "{} requests in {span} s", times.len());
    assert_eq!(bridge.terminate(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn pages_that_are_too_large_come_in_smaller_ones() {
    let scene = Scene::new().await;
    // 24 MiB in one page: more than is held of one.
    for number in 0..48 {
        let entry = LogEntry {
            bytes: 512 << 10,
            ..LogEntry::new(number, ago(60))
        };
        scene.logging.put(entry.text());
    }
    let mut bridge = scene.run(&["--start", "-5m"]);
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
