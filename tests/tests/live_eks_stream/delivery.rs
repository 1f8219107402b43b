//! A stream's records are delivered: with their clusters, in order, and without foreign records.

use audit_bridge_testkit::kinesis::subscription::{
    broken_records, control_message, foreign_records,
};
use audit_bridge_tests::run;

use super::*;

/// The annotations of each accepted event, by `auditID`.
fn annotations(stage: &Stage) -> BTreeMap<String, serde_json::Value> {
    let mut all = BTreeMap::new();
    for request in stage.webhook.received().iter().filter(|it| it.accepted) {
        let list: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
        for item in list["items"].as_array().into_iter().flatten() {
            let id = item["auditID"].as_str().unwrap().to_owned();
            all.insert(id, item["annotations"].clone());
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fleet_in_one_stream_is_annotated_and_clusters_are_chosen() {
    let stage = Stage::new(2).await;
    let clusters = [
        ("111122223333", "prod"),
        ("444455556666", "prod"),
        ("111122223333", "dev"),
    ];
    for (n, (account, cluster)) in clusters.into_iter().enumerate() {
        let subscription = SubscriptionOrigin::of_cluster(account, cluster);
        stage.put_of(&subscription, n * 10..n * 10 + 10);
    }
    stage.kinesis.put(STREAM, "x", control_message(1));
    let mut bridge = stage.start(&["--start=earliest", "--annotate-cluster"]);
    stage.until_accepted(&bridge, 0..30);
    bridge.until_ready();
    let skipped = "audit_bridge_records_skipped_total{reason=\"control_message\"} 1";
    bridge.until_sample(skipped);
    bridge.until_metric("audit_bridge_lag_seconds", 0.0);
    assert_eq!(bridge.terminate(), 0);
    let annotations = annotations(&stage);
    for (n, (account, cluster)) in clusters.into_iter().enumerate() {
        let of_it = &annotations[&audit_id(n * 10)];
        assert_eq!(of_it["audit-bridge/cluster"], cluster);
        assert_eq!(of_it["audit-bridge/account"], account);
    }

    let chosen = Stage::new(1).await;
    for (n, (account, cluster)) in clusters.into_iter().enumerate() {
        let subscription = SubscriptionOrigin::of_cluster(account, cluster);
        chosen.put_of(&subscription, n * 10..n * 10 + 10);
    }
    let names = ["--cluster-name=444455556666/prod", "--cluster-name=dev"];
    let bridge = chosen.start(&["--start=earliest", names[0], names[1]]);
    chosen.until_accepted(&bridge, 10..30);
    assert_eq!(bridge.terminate(), 0);
    assert_eq!(chosen.accepted().len(), 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn shards_split_and_merged_under_load_lose_and_repeat_nothing() {
    let stage = Arc::new(Stage::new(3).await);
    stage.kinesis.read_quotas(true);
    stage.kinesis.end_apart(true);
    let bridge = stage.start(&["--start=earliest"]);
    let issuer = Issuer::start(&stage, 6, fastrand::Rng::with_seed(7));
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        stage.kinesis.expire_iterators();
    }
    let issued = issuer.stop().await;
    stage.until_accepted(&bridge, 0..issued);
    let log = bridge.log();
    assert_eq!(bridge.terminate(), 0);
    assert!(log.contains("shard started"), "{log}");
    stage.assert_no_duplicates();
    stage.assert_order();
    // After a clean stop, a restart repeats nothing.
    let mut again = stage.start(&[]);
    again.until_ready();
    stage.put(issued..issued + 10);
    stage.until_accepted(&again, 0..issued + 10);
    assert_eq!(again.terminate(), 0);
    stage.assert_no_duplicates();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn record_that_is_no_log_event_is_kept_and_other_producers_are_skipped() {
    let stage = Stage::new(1).await;
    for (_, data) in foreign_records().into_iter().chain(broken_records()) {
        stage.kinesis.put(STREAM, "x", data);
    }
    stage.put(0..3);
    let mut bridge = stage.start(&["--start=earliest"]);
    stage.until_accepted(&bridge, 0..3);
    bridge.until_ready();
    bridge.until_sample("audit_bridge_records_dead_lettered_total{reason=\"unparsable\"} 12");
    bridge.until_sample("audit_bridge_records_skipped_total{reason=\"not_audit\"} 5");
    assert_eq!(bridge.terminate(), 0);
    let dead = stage.path("state").join("dead-letter.jsonl");
    let text = std::fs::read_to_string(&dead).unwrap();
    assert!(
        text.contains("the subscription's data is no gzip"),
        "{text}"
    );
    assert!(text.contains("audit/shardId-000000000000"), "{text}");
    // The dead letter is a dump: replay reports the same reasons.
    let ran = run("eks", &["replay", "--output=-", dead.to_str().unwrap()]);
    assert_eq!(ran.status, 3, "{}", ran.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn job_with_an_end_delivers_what_arrived_before_it_over_split_shards() {
    let stage = Stage::new(2).await;
    stage.put(0..50);
    stage.kinesis.split(STREAM, "shardId-000000000000");
    stage.put(50..100);
    tokio::time::sleep(Duration::from_millis(20)).await;
    let mut job = stage.start(&["--start=earliest", "--until=now"]);
    assert_eq!(job.until_end(), 0, "{}", job.log());
    assert_eq!(stage.accepted().len(), 100);
    stage.assert_order();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stream_read_from_now_delivers_what_comes_from_then_on() {
    let stage = Stage::new(2).await;
    stage.put(0..20);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut bridge = stage.start(&[]);
    bridge.until_ready();
    stage.put(20..40);
    stage.until_accepted(&bridge, 20..40);
    bridge.kill();
    let bridge = stage.start(&[]);
    stage.put(40..60);
    stage.until_accepted(&bridge, 20..60);
    assert_eq!(bridge.terminate(), 0);
    let accepted: BTreeSet<_> = stage.accepted().into_iter().collect();
    assert_eq!(accepted.len(), 40, "nothing of before");
}
