//! What is read, and that it is delivered once.

use std::process::Command;
use std::time::Duration;

use audit_bridge_testkit::webhook::WebhookAnswer;
use audit_bridge_tests::live::wait;
use audit_bridge_tests::python::python;
use audit_bridge_tests::{audit_id, event};
use jiff::SignedDuration;

use super::{GROUP, STREAM, World, checkpoints, now_ms};

#[tokio::test(flavor = "multi_thread")]
async fn events_over_pages_lateness_and_restart_arrive_once() {
    let world = World::new().await;
    world.cloud.page_events_max(7);
    world.cloud.empty_pages(2);
    // A backlog with many events per millisecond.
    for n in 0..60 {
        world.put(n, 600_000 + i64::try_from(n / 20).unwrap());
    }
    let mut bridge = world.start(&["--start", "-1h"]);
    world.until_accepted(0..60, &bridge);
    bridge.until_ready();
    assert_eq!(bridge.get("/livez").0, 200);

    // New events, on a stream that was rotated in.
    for n in 60..70 {
        world
            .cloud
            .put(GROUP, "kube-apiserver-audit-ffff", now_ms(), &event(n, 600));
        std::thread::sleep(Duration::from_millis(30));
    }
    world.until_accepted(60..70, &bridge);
    // Later than the edge's last look, but within the oldest age.
    for n in 70..80 {
        let late = Duration::from_millis(1200);
        world
            .cloud
            .put_late(GROUP, STREAM, now_ms(), &event(n, 600), late);
    }
    world.until_accepted(70..80, &bridge);
    let late = wait(|| (bridge.metric("audit_bridge_late_records_total") >= 10.0).then_some(()));
    assert!(late.is_some(), "{}", bridge.log());
    // With times ahead of now, which the API allows.
    for n in 80..83 {
        world
            .cloud
            .put(GROUP, STREAM, now_ms() + 900, &event(n, 600));
    }
    world.until_accepted(80..83, &bridge);
    bridge.until_metric("audit_bridge_events_delivered_total", 83.0);
    bridge.until_metric("audit_bridge_lag_seconds", 0.0);
    assert_eq!(bridge.terminate(), 0);

    let mut bridge = world.start(&[]);
    for n in 83..90 {
        world.put(n, 100);
    }
    world.until_accepted(83..90, &bridge);
    // Long enough for the oldest cursor to read everything again.
    std::thread::sleep(Duration::from_secs(5));
    let accepted = world.accepted();
    assert_eq!(accepted.len(), 90);
    let twice: Vec<_> = accepted.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
    bridge.until_metric("audit_bridge_events_delivered_total", 7.0);
    assert_eq!(bridge.terminate(), 0);

    for request in world.cloud.recorded() {
        assert_eq!(request.action, "logs:FilterLogEvents");
        assert_eq!(request.body["logGroupName"], GROUP);
        assert_eq!(request.body["logStreamNamePrefix"], "kube-apiserver-audit-");
        let time = |name: &str| request.body[name].as_i64().unwrap();
        assert!(time("startTime") <= time("endTime") && time("endTime") <= now_ms());
    }
    let checkpoint = checkpoints(&world.state());
    let [checkpoint] = checkpoint.as_slice() else {
        panic!("{checkpoint:?}")
    };
    let text = std::fs::read_to_string(checkpoint).unwrap();
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(document["version"], 1);
    assert_eq!(document["provider"], "eks");
    assert_eq!(document["source"], format!("eu-central-1:{GROUP}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn api_ignoring_the_prefix_delivers_no_foreign_line() {
    let world = World::new().await;
    // For an empty prefix the stand-in returns every stream, like services that ignore the prefix.
    world
        .cloud
        .put(GROUP, "authenticator-1", now_ms(), "time=now msg=hello");
    world.put(1, 0);
    let mut bridge = world.start(&[
        "--start=-1m",
        "--log-stream-prefix=kube-apiserver-audit-1a2b",
    ]);
    world.until_accepted(1..2, &bridge);
    assert_eq!(
        bridge.metric("audit_bridge_records_dead_lettered_total"),
        0.0
    );
    assert_eq!(bridge.terminate(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn record_invalid_is_kept_and_the_rest_delivered() {
    let world = World::new().await;
    let whole = event(3, 4000);
    let truncated = format!("{}[Truncated...]", &whole[..3000]);
    world.cloud.put(
        GROUP,
        STREAM,
        now_ms(),
        "{\"kind\":\"Event\",\"auditID\":\"x\"}",
    );
    world.cloud.put(GROUP, STREAM, now_ms(), &truncated);
    world.put(4, 0);
    let mut bridge = world.start(&["--start=-1m"]);
    world.until_accepted(3..5, &bridge);
    let dead = world.state().join("dead-letter.jsonl");
    let line = wait(|| {
        std::fs::read_to_string(&dead)
            .ok()
            .filter(|it| !it.is_empty())
    })
    .unwrap();
    let line: serde_json::Value = serde_json::from_str(line.trim()).unwrap();
    assert_eq!(line["provider"], "eks");
    assert_eq!(line["source"]["stream"], STREAM);
    assert_eq!(line["payload"]["logStreamName"], STREAM);
    bridge.until_metric("audit_bridge_events_truncated_total", 1.0);
    bridge.until_metric("audit_bridge_records_dead_lettered_total", 1.0);
    assert_eq!(bridge.terminate(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn clusters_in_one_process_keep_positions_and_names() {
    let world = World::new().await;
    let other = "/aws/eks/stage_2/cluster";
    world.put(1, 0);
    world.cloud.put(other, STREAM, now_ms(), &event(2, 600));
    let more = [
        "--cluster-name=stage_2",
        "--annotate-cluster",
        "--start=-1m",
    ];
    let mut bridge = world.start(&more);
    world.until_accepted(1..3, &bridge);
    bridge.until_ready();
    let cluster = |id: &str| {
        let received = world.webhook.received();
        let list = received.iter().find(|it| it.ids.iter().any(|it| it == id));
        let list: serde_json::Value = serde_json::from_slice(&list.unwrap().body).unwrap();
        let items = list["items"].as_array().unwrap().clone();
        let event = items.into_iter().find(|event| event["auditID"] == *id);
        event.unwrap()["annotations"]["audit-bridge/cluster"].clone()
    };
    assert_eq!(cluster(&audit_id(1)), "prod");
    assert_eq!(cluster(&audit_id(2)), "stage_2");
    assert_eq!(bridge.terminate(), 0);
    assert_eq!(checkpoints(&world.state()).len(), 2);

    // The other group continues alone where it was.
    world.cloud.put(other, STREAM, now_ms(), &event(3, 600));
    let bridge = world.start(&more);
    world.until_accepted(3..4, &bridge);
    assert_eq!(bridge.terminate(), 0);
    assert!(world.accepted().values().all(|times| *times == 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn job_until_a_time_ends_when_its_window_is_delivered() {
    let world = World::new().await;
    for n in 0..30 {
        world.put(n, 3_600_000 + i64::try_from(n).unwrap() * 1000);
    }
    world.put(99, 0);
    let mut bridge = world.start(&["--start=-2h", "--until=-30m"]);
    assert_eq!(bridge.until_end(), 0, "{}", bridge.log());
    let accepted = world.accepted();
    assert_eq!(accepted.len(), 30, "{accepted:?}");
    assert!(!accepted.contains_key(&audit_id(99)), "behind the end");
}

/// CloudWatch's clock is an hour behind the node's. By the node's clock, the edge would be an hour
/// ahead of all events, and the oldest age would be too young for them.
#[tokio::test(flavor = "multi_thread")]
async fn clock_of_the_node_ahead_loses_nothing() {
    const HOUR_MS: i64 = 3_600_000;
    let world = World::new().await;
    world.cloud.set_clock_ahead(SignedDuration::from_hours(-1));
    let mut bridge = world.start(&["--start=latest"]);
    bridge.until_ready();
    for round in 0..3 {
        for n in round * 10..(round + 1) * 10 {
            world.put(n, HOUR_MS);
        }
        world.until_accepted(0..(round + 1) * 10, &bridge);
    }
    assert!(bridge.log().contains("clock is ahead"), "{}", bridge.log());
    assert_eq!(bridge.terminate(), 0);
    // A new process goes on there.
    let bridge = world.start(&[]);
    for n in 30..40 {
        world.put(n, HOUR_MS);
    }
    world.until_accepted(0..40, &bridge);
    assert_eq!(bridge.terminate(), 0);
}

/// A Job whose node is drained has not succeeded.
#[tokio::test(flavor = "multi_thread")]
async fn job_stopped_before_its_end_has_failed() {
    let world = World::new().await;
    world.put(1, 3_600_000);
    world.webhook.set_answer(WebhookAnswer::status(503));
    let job = ["--start=-2h", "--until=-30m", "--shutdown-grace=1s"];
    let bridge = world.start(&job);
    let tried = wait(|| (world.webhook.requests() > 0).then_some(()));
    assert!(tried.is_some(), "{}", bridge.log());
    assert_eq!(bridge.terminate(), 1);
    world.webhook.accept();
    let mut bridge = world.start(&job);
    assert_eq!(bridge.until_end(), 0, "{}", bridge.log());
    assert_eq!(world.accepted().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn start_earliest_takes_few_requests() {
    let world = World::new().await;
    world.put(1, 300 * 86_400_000);
    world.put(2, 1000);
    let bridge = world.start(&["--start=earliest"]);
    world.until_accepted(1..3, &bridge);
    let requests = world.cloud.recorded().len();
    assert!(requests < 200, "{requests}");
    assert_eq!(bridge.terminate(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn api_calls_made_are_documented_and_allowed_by_the_role() {
    let world = World::new().await;
    world.put(1, 0);
    let bridge = world.start(&["--start=-1m"]);
    world.until_accepted(1..2, &bridge);
    assert_eq!(bridge.terminate(), 0);
    let calls: Vec<String> = world
        .cloud
        .recorded()
        .iter()
        .map(|call| serde_json::json!({"action": call.action, "body": call.body}).to_string())
        .collect();
    let file = world.folder.path().join("calls.jsonl");
    std::fs::write(&file, calls.join("\n")).unwrap();
    // The script knows the policies of terraform/ and cloudformation/, and bridges/eks/actions.txt.
    let judged = Command::new(python("tests/requirements-infra.txt"))
        .arg("tests/infra/recorded.py")
        .arg(&file)
        .arg(GROUP)
        .current_dir(audit_bridge_tests::root())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&judged.stderr);
    assert!(judged.status.success(), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_a_megabyte_use_little_memory() {
    let world = World::new().await;
    // 60 MB in pages of 1 MB, with events of nearly the largest size.
    for n in 0..300 {
        let text = event(n, 200_000);
        world.cloud.put(GROUP, STREAM, now_ms() - 60_000, &text);
    }
    let bridge = world.start(&["--start=-5m"]);
    world.until_accepted(0..300, &bridge);
    let status = std::fs::read_to_string(format!("/proc/{}/status", bridge.pid())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak: u64 = peak
        .unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap();
    assert!(peak < 128 << 10, "{peak} KiB at most");
    assert_eq!(bridge.terminate(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn log_group_of_another_account_and_region_is_read_by_its_arn() {
    let world = World::new().await;
    let far = "/aws/eks/far/cluster";
    let arn = format!("arn:aws:logs:us-east-2:123456789012:log-group:{far}");
    world.cloud.group(far);
    world.cloud.put(far, STREAM, now_ms(), &event(7, 600));
    world.put(1, 0);
    let groups = format!("--log-group={GROUP},{arn}:*");
    let mut bridge = world.start(&["--cluster-name=far", &groups, "--start=-1m"]);
    world.until_accepted(7..8, &bridge);
    world.until_accepted(1..2, &bridge);
    bridge.until_ready();
    assert_eq!(bridge.terminate(), 0);
    let asked = world.cloud.recorded();
    let by = |member: &str, value: &str| asked.iter().any(|it| it.body[member] == value);
    assert!(by("logGroupIdentifier", &arn) && by("logGroupName", GROUP));
}
