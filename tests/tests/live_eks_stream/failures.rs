//! Failures around a stream: the bridge holds, reports them, and continues by itself.

use std::ops::Range;

use audit_bridge_testkit::kinesis::{
    CloudWatchFault, access_denied, kms_faults, throughput_exceeded,
};
use audit_bridge_tests::run;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stream_denied_is_held_with_remedy() {
    let stage = Stage::new(1).await;
    stage
        .kinesis
        .refuse("GetRecords", access_denied("GetRecords"));
    let mut bridge = stage.start(&["--start=earliest"]);
    let why = bridge.until_not_ready("source", "kinesis:GetShardIterator");
    assert!(why.contains("stream/audit"), "{why}");
    for fault in kms_faults().into_iter().take(4) {
        stage.kinesis.refuse("GetRecords", fault);
        let why = bridge.until_not_ready("source", "KMS");
        assert!(why.contains("encrypted"), "{why}");
    }
    stage.put(0..3);
    stage.kinesis.clear_faults();
    stage.until_accepted(&bridge, 0..3);
    bridge.until_ready();
    assert_eq!(bridge.terminate(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stream_missing_is_named_with_flag_and_region() {
    let stage = Stage::new(1).await;
    let mut bridge = stage.start(&["--stream=other"]);
    let why = bridge.until_not_ready("source", "Stream other");
    assert!(why.contains("--stream (AUDIT_BRIDGE_STREAM)"), "{why}");
    assert!(why.contains("eu-central-1"), "{why}");
    stage.kinesis.create_stream("other", 1);
    bridge.until_ready();
    assert_eq!(bridge.terminate(), 0);
    let arn = "--stream=arn:aws:kinesis:eu-central-1:123456789012:stream/audit";
    let bridge = stage.start(&[
        arn,
        "--start=earliest",
        "--state-dir",
        &stage.path("b").display().to_string(),
    ]);
    stage.put(0..3);
    stage.until_accepted(&bridge, 0..3);
    assert_eq!(bridge.terminate(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stream_throttled_by_others_is_read_and_stays_ready() {
    let stage = Stage::new(1).await;
    let mut bridge = stage.start(&["--start=earliest"]);
    stage.put(0..3);
    stage.until_accepted(&bridge, 0..3);
    bridge.until_ready();
    stage
        .kinesis
        .script("GetRecords", vec![throughput_exceeded(); 3]);
    stage.put(3..6);
    stage.until_accepted(&bridge, 0..6);
    assert_eq!(bridge.metric("audit_bridge_source_throttled_total"), 3.0);
    assert_eq!(bridge.terminate(), 0);
    stage.assert_no_duplicates();
}

/// A proxy answers 200 with its own object.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answer_without_iterator_is_not_the_end_of_a_shard() {
    let stage = Stage::new(1).await;
    let answer = CloudWatchFault::Error(200, "", "welcome");
    stage.kinesis.script("GetRecords", [answer]);
    let mut bridge = stage.start(&["--start=earliest"]);
    stage.put(0..3);
    stage.until_accepted(&bridge, 0..3);
    bridge.until_ready();
    assert_eq!(bridge.terminate(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shard_trimmed_while_away_is_reported_as_a_gap() {
    let stage = Stage::new(1).await;
    let bridge = stage.start(&["--start=earliest"]);
    stage.put(0..3);
    stage.until_accepted(&bridge, 0..3);
    assert_eq!(bridge.terminate(), 0);
    // Away for longer than the stream's retention, by the position's own time.
    let path = stage.path("state").join("checkpoint.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let mut document: serde_json::Value = serde_json::from_str(&text).unwrap();
    document["position"]["0"]["read_to"] = "2026-01-01T00:00:00Z".into();
    std::fs::write(&path, document.to_string()).unwrap();
    stage.put(3..6);
    stage.kinesis.trim(STREAM, stage.kinesis.now_ms() + 1);
    tokio::time::sleep(Duration::from_millis(5)).await;
    stage.put(6..9);
    let mut bridge = stage.start(&[]);
    stage.until_accepted(&bridge, 6..9);
    bridge.until_metric("audit_bridge_records_expired_total", 1.0);
    let log = bridge.log();
    assert!(log.contains("increase-stream-retention-period"), "{log}");
    assert_eq!(bridge.terminate(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_of_stream_says_what_it_holds_or_the_remedy() {
    let stage = Stage::new(2).await;
    let (status, said) = stage.check(&[]);
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("describe-subscription-filters"), "{said}");
    stage.put_of(
        &SubscriptionOrigin::of_cluster("111122223333", "prod"),
        0..2,
    );
    stage
        .kinesis
        .encrypt(STREAM, "arn:aws:kms:eu-central-1:123456789012:key/0a1b");
    let (status, said) = stage.check(&[]);
    assert_eq!(status, Some(0), "{said}");
    assert!(
        said.contains("/aws/eks/prod/cluster (111122223333)"),
        "{said}"
    );
    assert!(said.contains("key/0a1b"), "{said}");
    stage.kinesis.refuse(
        "DescribeStreamSummary",
        access_denied("DescribeStreamSummary"),
    );
    let (status, said) = stage.check(&[]);
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("kinesis:DescribeStreamSummary"), "{said}");
}

/// Writes an event per second; the first has this age.
fn put_each_second(stage: &Stage, ids: Range<usize>, oldest_ms: i64) {
    let subscription = SubscriptionOrigin::of_cluster("111122223333", "prod");
    let first = stage.kinesis.now_ms() - oldest_ms;
    for (filed, id) in (first..).step_by(1000).zip(ids) {
        let event = SubscribedEvent::new(id, filed, event(id, 600));
        stage.kinesis.deliver(STREAM, &subscription, &[event]);
    }
}

/// The filter was off while the bridge was away, and its shard was split.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn minutes_that_a_filter_skipped_are_told_over_a_restart_and_a_split() {
    let stage = Stage::new(1).await;
    put_each_second(&stage, 0..40, 540_000);
    let bridge = stage.start(&["--start=earliest"]);
    stage.until_accepted(&bridge, 0..40);
    assert_eq!(bridge.terminate(), 0);
    stage.kinesis.split(STREAM, "shardId-000000000000");
    put_each_second(&stage, 40..60, 60_000);
    let mut bridge = stage.start(&["--start=earliest"]);
    stage.until_accepted(&bridge, 0..60);
    bridge.until_metric("audit_bridge_gaps_suspected_total", 1.0);
    assert_eq!(bridge.terminate(), 0);
    stage.assert_no_duplicates();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn minutes_that_a_filter_skipped_are_told_with_the_way_to_get_them() {
    let stage = Stage::new(1).await;
    put_each_second(&stage, 0..40, 540_000);
    put_each_second(&stage, 40..60, 60_000);
    let mut bridge = stage.start(&["--start=earliest"]);
    stage.until_accepted(&bridge, 0..60);
    bridge.until_metric("audit_bridge_gaps_suspected_total", 1.0);
    let (status, ready) = bridge.get("/readyz");
    let gaps = serde_json::from_str::<serde_json::Value>(&ready).unwrap()["gaps_suspected"].clone();
    let told = gaps["/aws/eks/prod/cluster (111122223333)"].as_str();
    assert!(
        told.is_some_and(|it| it.contains("--catch-up 20")),
        "{ready}"
    );
    assert_eq!(status, 200, "it is read well all the same: {ready}");
    let log = bridge.log();
    assert!(
        log.contains("/aws/eks/prod/cluster (111122223333)"),
        "{log}"
    );
    assert!(
        log.contains("run --stream audit --log-group GROUP --catch-up 20"),
        "{log}"
    );
    assert_eq!(bridge.terminate(), 0);
}

#[test]
fn settings_contradicting_a_stream_are_all_named() {
    let ran = run(
        "eks",
        &[
            "run",
            "--webhook-url=http://127.0.0.1:1",
            "--stream=no stream",
            "--log-group=/g",
            "--cluster-name=a b",
            "--unmask",
            "--revisit-after=1m",
            "--poll-interval=1s",
            "--requests-per-second=1",
            "--role-arn=x",
            "--share-partitions",
        ],
    );
    assert_eq!(ran.status, 2);
    for said in [
        "--stream (AUDIT_BRIDGE_STREAM): is neither a name",
        "--log-group (AUDIT_BRIDGE_LOG_GROUP): cannot be combined",
        "--cluster-name (AUDIT_BRIDGE_CLUSTER_NAME): is no name",
        "--unmask (AUDIT_BRIDGE_UNMASK): cannot be combined",
        "--revisit-after",
        "--poll-interval",
        "--requests-per-second",
        "--role-arn (AUDIT_BRIDGE_ROLE_ARN): is no ARN",
        "--share-partitions (AUDIT_BRIDGE_SHARE_PARTITIONS): needs --checkpoint-store kubernetes",
    ] {
        assert!(ran.stderr.contains(said), "{said}: {}", ran.stderr);
    }
    let ran = run(
        "eks",
        &[
            "run",
            "--webhook-url=http://127.0.0.1:1",
            "--cluster-name=a",
            "--share-partitions",
        ],
    );
    assert_eq!(ran.status, 2);
    assert!(ran.stderr.contains("needs --stream"), "{}", ran.stderr);
}
