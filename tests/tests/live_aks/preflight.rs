//! Errors are reported with their remedy: by `check` at once, by `run` on `/readyz`.

use audit_bridge_tests::{Ran, run};

use super::*;

fn check(stage: &Stage, more: &[&str]) -> Ran {
    let mut args = vec!["check".to_owned()];
    args.extend(stage.args(more));
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    // Keep this runtime's other threads free for the stand-in.
    tokio::task::block_in_place(|| run("aks", &args))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn check_all_well_succeeds() {
    let stage = Stage::new(3).await;
    stage.publish(0..3, 3);
    let ran = check(&stage, &[]);
    assert_eq!(ran.status, 0, "{}\n{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains("partitions: 3"), "{}", ran.stdout);
    let ran = check(&stage, &["--json"]);
    let report: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(report["ok"], true);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn check_names_what_is_missing() {
    let stage = Stage::new(1).await;
    let fails = |more: &[&str], says: &[&str]| {
        let ran = check(&stage, more);
        assert_eq!(ran.status, 1, "{}\n{}", ran.stdout, ran.stderr);
        for word in says {
            assert!(ran.stdout.contains(word), "{word}: {}", ran.stdout);
        }
        assert!(!ran.stdout.contains("c2VjcmV0") && !ran.stderr.contains("c2VjcmV0"));
    };
    fails(&[], &["holds no message", "diagnostic setting"]);
    stage.publish(0..1, 1);
    fails(
        &["--consumer-group", "bridge"],
        &["not-found", "--consumer-group (bridge)"],
    );
    stage.hubs.deny_listen(true);
    fails(&[], &["401", "shared access policy with Listen"]);
    stage.hubs.deny_listen(false);
    let string = stage.hubs.connection_string("other");
    std::fs::write(stage.path("connection-string"), string).unwrap();
    fails(&[], &["404", "--event-hub (other)"]);
    stage.hubs.stop_listening().await;
    fails(&[], &["refused", "something listens at"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn connection_string_of_wrong_entity_is_refused() {
    let stage = Stage::new(1).await;
    let ran = check(&stage, &["--event-hub", "mine"]);
    assert_eq!(ran.status, 2, "{}", ran.stderr);
    assert!(ran.stderr.contains("EntityPath"), "{}", ran.stderr);
    assert!(!ran.stderr.contains("c2VjcmV0"), "{}", ran.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn run_reports_what_it_waits_for_and_continues() {
    let stage = Stage::new(2).await;
    stage.publish(0..4, 2);
    let mut bridge = stage.start(&["--start", "earliest", "--consumer-group", "bridge"]);
    bridge.until_not_ready("source", "--consumer-group (bridge)");
    stage.hubs.add_consumer_group(HUB, "bridge");
    stage.until_accepted(&bridge, 0..4);
    bridge.until_ready();

    // The role is removed, and restored.
    stage.hubs.deny_listen(true);
    stage.hubs.cut();
    bridge.until_not_ready("source", "Listen");
    stage.publish(4..8, 2);
    stage.hubs.deny_listen(false);
    stage.until_accepted(&bridge, 0..8);
    bridge.until_ready();
    stage.assert_no_duplicates();
    let log = bridge.log();
    assert!(!log.contains("c2VjcmV0"), "{log}");
}
