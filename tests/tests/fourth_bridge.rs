//! A fourth bridge (`tests/examples/toy.rs`) uses the same entry points, with its own reasons,
//! flags and dump shape, and no file under `crates/` knows it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test may stop at once"
)]

use audit_bridge_testkit::ScriptedWebhook;
use audit_bridge_tests::live::Running;
use audit_bridge_tests::{event, run_with};

const TOY: &str = "toy";

#[tokio::test(flavor = "multi_thread")]
async fn toy_bridge_run_delivers_counts_own_reasons_and_resumes() {
    let webhook = ScriptedWebhook::start().await;
    let state = tempfile::tempdir().unwrap();
    let folder = state.path().to_str().unwrap();
    let url = webhook.url();
    let start = |events: &str| {
        let args = ["--webhook-url", &url, "--state-dir", folder];
        let own = ["--events", events, "--batch-wait-max", "50ms"];
        Running::start(TOY, &[&args[..], &own[..]].concat(), &[])
    };
    let mut toy = start("3");
    toy.until_metric("audit_bridge_events_delivered_total", 3.0);
    let (_, metrics) = toy.get("/metrics");
    let lines: Vec<&str> = metrics.lines().collect();
    for line in [
        r#"audit_bridge_records_skipped_total{reason="chatter"} 3"#,
        r#"audit_bridge_records_dead_lettered_total{reason="smudged"} 1"#,
    ] {
        assert!(lines.contains(&line), "{line}\n{metrics}");
    }
    let (status, ready) = toy.get("/readyz");
    assert_eq!(status, 200, "{ready}");
    assert_eq!(toy.terminate(), 0);
    let dead = std::fs::read_to_string(state.path().join("dead-letter.jsonl")).unwrap();
    assert!(
        dead.contains(r#""provider":"toy","reason":"smudged""#),
        "{dead}"
    );

    let mut toy = start("4");
    toy.until_metric("audit_bridge_events_delivered_total", 1.0);
    drop(toy);
    assert_eq!(webhook.accepted_ids(), ["toy-0", "toy-1", "toy-2", "toy-3"]);
}

#[test]
fn toy_bridge_replay_reads_its_shape_and_its_dead_letter() {
    let text = [
        format!(r#"{{"toy":{}}}"#, event(0, 400)),
        r#"{"toy":"hello"}"#.to_owned(),
        r#"{"toy":7}"#.to_owned(),
    ];
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report.json");
    let report = report.to_str().unwrap();
    let dead = folder.path().join("dead.jsonl");
    let dead = dead.to_str().unwrap();
    let args = ["replay", "-", "--report", report, "--dead-letter", dead];
    let ran = run_with(TOY, &args, text.join("\n").as_bytes());
    assert_eq!(ran.status, 3, "{}", ran.stderr);
    assert_eq!(ran.events().len(), 1);
    let report: serde_json::Value =
        serde_json::from_slice(&std::fs::read(report).unwrap()).unwrap();
    assert_eq!(report["skipped"], serde_json::json!({"chatter": 1}));
    assert_eq!(report["rejected"], serde_json::json!({"smudged": 1}));

    let again = run_with(TOY, &["replay", dead], b"");
    assert_eq!(again.status, 3, "{}", again.stderr);
    assert!(again.stderr.contains("smudged"), "{}", again.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn toy_bridge_check_succeeds() {
    let webhook = ScriptedWebhook::start().await;
    let state = tempfile::tempdir().unwrap();
    let folder = state.path().to_str().unwrap();
    let url = webhook.url();
    let args = ["check", "--webhook-url", &url, "--state-dir", folder];
    let ran = run_with(TOY, &args, b"");
    assert_eq!(ran.status, 0, "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains("memory can be read"), "{}", ran.stdout);
}
