//! API faults, strays and crashes must not cost an entry.

use std::time::Duration;

use audit_bridge_testkit::cloud_logging::CloudLoggingFault;
use audit_bridge_testkit::{PodEntry, WebhookAnswer};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::{Scene, ago, sample, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn api_faults_lose_nothing() {
    let scene = Scene::new().await;
    scene.logging.pages_of(40);
    scene.put(0..400, ago(60));
    let faults = [
        CloudLoggingFault::Status(503, "The service is currently unavailable."),
        CloudLoggingFault::Status(429, "Quota exceeded for quota metric 'Read requests'"),
        CloudLoggingFault::Cut,
        CloudLoggingFault::Status(500, "Internal error encountered."),
        CloudLoggingFault::Body("<html>a proxy's greeting</html>"),
        CloudLoggingFault::Body(r#"{"error":{"code":503}}"#),
        CloudLoggingFault::Slow(Duration::from_millis(700)),
        CloudLoggingFault::Status(504, "Deadline expired"),
    ];
    for fault in faults {
        scene.logging.fail_next(fault);
    }
    let mut bridge = scene.run(&["--start", "-5m"]);
    until("some pages", || scene.accepted().len() >= 80);
    scene.logging.expire_tokens();
    scene.until_accepted(0..400);
    bridge.until_ready();
    assert!(sample(&mut bridge, "audit_bridge_source_requests_total", "error") >= 5.0);
    assert_eq!(
        sample(
            &mut bridge,
            "audit_bridge_source_requests_total",
            "throttled"
        ),
        1.0
    );
    assert_eq!(bridge.terminate(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn entry_invalid_goes_to_dead_letter_and_blocks_nothing() {
    let scene = Scene::new().await;
    scene.put(0..20, ago(60));
    let mut no_time: Value = serde_json::from_str(&PodEntry::new(100, ago(60)).text()).unwrap();
    no_time["timestamp"] = json!("then");
    no_time["receiveTimestamp"] = json!(7);
    let mut no_id: Value = serde_json::from_str(&PodEntry::new(101, ago(60)).text()).unwrap();
    no_id["operation"] = json!(["io.k8s"]);
    no_id["insertId"] = json!("");
    let no_time = no_time.to_string();
    let strays = [
        "7",
        "null",
        r#"{"protoPayload":tru}"#,
        r#"{"a" 1}"#,
        &no_time,
    ];
    for stray in strays {
        scene.logging.put_stray(ago(60), stray);
    }
    scene.logging.put(no_id.to_string());
    let bridge = scene.run(&["--start", "-5m"]);
    scene.until_accepted(0..20);
    until("dead letters", || scene.dead_letters().len() >= 6);
    // The entries after it are read as usual.
    scene.put(20..40, Timestamp::now());
    scene.until_accepted(0..40);
    // Older cursors read the strays again, and recognise them.
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(bridge.terminate(), 0);
    let letters = scene.dead_letters();
    let mut payloads: Vec<String> = letters
        .iter()
        .map(|letter| match &letter["payload"] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        })
        .collect();
    payloads.sort();
    let mut want: Vec<String> = strays.map(str::to_owned).into();
    want.push(no_id.to_string());
    want.sort();
    assert_eq!(payloads, want);
    for letter in &letters {
        assert_eq!(letter["reason"], "unparsable");
        assert_eq!(letter["provider"], "gke");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn killed_repeatedly_loses_nothing() {
    let scene = Scene::new().await;
    scene.logging.pages_of(50);
    scene
        .webhook
        .set_answer(WebhookAnswer::status(200).after(Duration::from_millis(20)));
    scene.put(0..2000, ago(120));
    let small = [
        "--start",
        "-10m",
        "--batch-events-max",
        "20",
        "--in-flight-bytes-max",
        "200KiB",
    ];
    let mut fed = 2000;
    for life in 1..=4 {
        let bridge = scene.run(&small);
        until("progress", || scene.accepted().len() >= life * 350);
        bridge.kill();
        // The log continues while the bridge is down.
        scene.put(fed..fed + 50, Timestamp::now());
        fed += 50;
    }
    let bridge = scene.run(&small);
    scene.until_accepted(0..fed);
    assert_eq!(bridge.terminate(), 0);
    let twice = scene.webhook.accepted_ids().len() - fed;
    // Each process may repeat what it delivered after its last checkpoint, a second's worth or two.
    assert!(twice < 4 * 1500, "{twice} duplicates");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn restart_repeats_nothing_and_continues() {
    let scene = Scene::new().await;
    scene.put(0..300, ago(60));
    let bridge = scene.run(&["--start", "-5m"]);
    scene.until_accepted(0..300);
    assert_eq!(bridge.terminate(), 0);
    scene.put(300..400, Timestamp::now());
    // `--start` only applies without a checkpoint.
    let bridge = scene.run(&["--start", "latest"]);
    scene.until_accepted(0..400);
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(bridge.terminate(), 0);
    assert_eq!(scene.webhook.accepted_ids().len(), 400);
    // Another cluster's checkpoint must not be used.
    let mut other = scene.run_with(&["--project-id", "p", "--cluster-name", "else"], &[]);
    assert_eq!(other.until_end(), 1);
    assert!(other.log().contains("clusters/else"), "{}", other.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn webhook_down_stops_the_reading_and_loses_nothing() {
    let scene = Scene::new().await;
    scene.logging.pages_of(100);
    for number in 0..2000 {
        let entry = PodEntry {
            bytes: 5000,
            ..PodEntry::new(number, ago(60))
        };
        scene.logging.put(entry.text());
    }
    scene.webhook.set_answer(WebhookAnswer::status(503));
    let mut bridge = scene.run(&["--start", "-5m", "--in-flight-bytes-max", "1MiB"]);
    until("it reads", || {
        bridge.metric("audit_bridge_records_received_total") > 0.0
    });
    std::thread::sleep(Duration::from_secs(2));
    let read = bridge.metric("audit_bridge_records_received_total");
    assert!(read < 1000.0, "{read} records are held");
    bridge.until_not_ready("webhook", "");
    assert_eq!(bridge.get("/livez").0, 200);
    scene.webhook.accept();
    scene.until_accepted(0..2000);
    bridge.until_ready();
    assert_eq!(bridge.terminate(), 0);
}

/// Google's clock is an hour behind the node's. Without correction, the edge would be an hour ahead
/// of what is written, and no cursor would return there.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn clock_of_the_node_ahead_loses_nothing() {
    let scene = Scene::new().await;
    let hour = SignedDuration::from_hours(1);
    scene.logging.set_clock_ahead(-hour);
    let there = || Timestamp::now() - hour;
    let mut bridge = scene.run(&["--start", "latest"]);
    bridge.until_ready();
    for round in 0..5 {
        scene.put(round * 10..(round + 1) * 10, there());
        scene.until_accepted(0..(round + 1) * 10);
    }
    assert!(bridge.log().contains("clock is ahead"), "{}", bridge.log());
    assert_eq!(bridge.terminate(), 0);
    let requests = scene.logging.requests();
    let ends = requests.iter().skip(4).filter_map(|request| {
        let (_, end) = request.filter.rsplit_once("timestamp<\"")?;
        end.trim_end_matches('"').parse::<Timestamp>().ok()
    });
    assert!(ends.clone().count() > 5);
    let latest = ends.max().unwrap();
    assert!(latest < there() + SignedDuration::from_secs(5), "{latest}");
    let checked =
        crate::identity::check(&scene, &["--project-id", "p", "--cluster-name", "*"], &[]);
    assert_eq!(checked.status, 1);
    assert!(checked.stdout.contains("chrony"), "{}", checked.stdout);
}
