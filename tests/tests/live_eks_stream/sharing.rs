//! Replicas that share the shards: each is read by one replica, in order, and nothing is lost when
//! replicas come, leave, hang or die while shards are split and merged.

use audit_bridge_testkit::kinesis::internal_failure;
use audit_bridge_testkit::kubernetes::{FakeKubernetes, KubernetesServer};
use audit_bridge_tests::replicas::{NAMESPACE, RandomTest, serve_api};

use super::*;

/// A stream, a receiver and a cluster with replicas.
struct Cluster {
    stage: Arc<Stage>,
    api: FakeKubernetes,
    _serving: KubernetesServer,
}

impl Cluster {
    async fn new(shards: u32) -> Cluster {
        let stage = Stage::new(shards).await;
        let (api, serving) = serve_api(&stage.path("kubeconfig")).await;
        Cluster {
            stage: Arc::new(stage),
            api,
            _serving: serving,
        }
    }

    /// A replica, with its own volume.
    fn start(&self, name: &str, more: &[&str]) -> Running {
        let kubeconfig = self.stage.path("kubeconfig").display().to_string();
        let state = self.stage.path(name).display().to_string();
        let mut args = vec!["--checkpoint-store=kubernetes", "--state-dir", &state];
        args.extend(more);
        self.stage.start_as(&args, &[("KUBECONFIG", &kubeconfig)])
    }

    /// The shard of each slot.
    fn slots(&self) -> BTreeMap<usize, String> {
        let table = self
            .api
            .object("configmaps", NAMESPACE, "eks-audit-bridge-slots");
        let table = table.unwrap()["data"]["slots.json"].clone();
        let table: serde_json::Value = serde_json::from_str(table.as_str().unwrap()).unwrap();
        serde_json::from_value(table["slots"].clone()).unwrap()
    }

    /// A replica that shares shards.
    fn replica(&self, name: &str) -> Running {
        self.start(name, &["--share-partitions", "--start=earliest"])
    }
}

/// Waits until each replica reads this many shards.
fn until_shares(replicas: &mut [&mut Running], want: &[f64]) {
    for (replica, share) in replicas.iter_mut().zip(want) {
        replica.until_metric("audit_bridge_active_logs", *share);
        replica.until_ready();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_joining_and_leaving_deliver_each_event_once() {
    let cluster = Cluster::new(6).await;
    let stage = &cluster.stage;
    stage.put(0..80);
    let mut one = cluster.replica("one");
    stage.until_accepted(&one, 0..80);
    until_shares(&mut [&mut one], &[6.0]);
    let mut two = cluster.replica("two");
    stage.put(80..400);
    until_shares(&mut [&mut one, &mut two], &[3.0, 3.0]);
    let mut three = cluster.replica("three");
    stage.put(400..800);
    until_shares(&mut [&mut one, &mut two, &mut three], &[2.0, 2.0, 2.0]);
    stage.put(800..900);
    stage.until_accepted(&two, 0..900);
    assert_eq!(one.terminate(), 0);
    until_shares(&mut [&mut two, &mut three], &[3.0, 3.0]);
    stage.put(900..1000);
    assert_eq!(three.terminate(), 0);
    until_shares(&mut [&mut two], &[6.0]);
    stage.until_accepted(&two, 0..1000);
    assert_eq!(two.terminate(), 0);
    stage.assert_no_duplicates();
    stage.assert_order();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shards_split_and_merged_are_redistributed_in_order() {
    let cluster = Cluster::new(4).await;
    let stage = &cluster.stage;
    let mut one = cluster.replica("one");
    let mut two = cluster.replica("two");
    until_shares(&mut [&mut one, &mut two], &[2.0, 2.0]);
    stage.put(0..200);
    let open = stage.kinesis.open_shards(STREAM);
    for shard in &open {
        stage.kinesis.split(STREAM, shard);
    }
    stage.put(200..400);
    stage.until_accepted(&one, 0..400);
    // Closed shards are in no replica's share.
    until_shares(&mut [&mut one, &mut two], &[4.0, 4.0]);
    let open = stage.kinesis.open_shards(STREAM);
    for pair in open.chunks(2) {
        stage.kinesis.merge(STREAM, &pair[0], &pair[1]);
    }
    stage.put(400..600);
    stage.until_accepted(&one, 0..600);
    until_shares(&mut [&mut one, &mut two], &[2.0, 2.0]);
    stage.assert_no_duplicates();
    stage.assert_order();
    // Of 16 shards only open ones have a slot, and slots are reused.
    let open: BTreeSet<_> = stage.kinesis.open_shards(STREAM).into_iter().collect();
    let reused = wait(|| {
        let shards = cluster.slots().into_values();
        let shards: BTreeSet<_> = shards
            .map(|log| log.rsplit('/').next().unwrap().to_owned())
            .collect();
        (shards == open).then_some(())
    });
    assert!(reused.is_some(), "{:?}, not {open:?}", cluster.slots());
    let names = cluster.api.names("configmaps", NAMESPACE);
    let slots = names.iter().filter(|name| name.contains("-slot-")).count();
    assert!(slots <= 12, "{names:?}");
    one.kill();
    stage.put(600..700);
    stage.until_accepted(&two, 0..700);
    until_shares(&mut [&mut two], &[4.0]);
    assert_eq!(two.terminate(), 0);
    stage.assert_order();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reader_count_changed_keeps_positions() {
    let cluster = Cluster::new(2).await;
    let stage = &cluster.stage;
    stage.put(0..40);
    let one = cluster.start("one", &["--start=earliest"]);
    stage.until_accepted(&one, 0..40);
    stage.kinesis.split(STREAM, "shardId-000000000000");
    stage.put(40..80);
    stage.until_accepted(&one, 0..80);
    assert_eq!(one.terminate(), 0);
    // Several replicas continue where the single one stopped, and know which shards it read to
    // their ends.
    stage.put(80..120);
    let mut two = cluster.replica("two");
    let mut three = cluster.replica("three");
    stage.until_accepted(&two, 0..120);
    let shares = wait(|| {
        let all = [&mut two, &mut three].map(|it| it.metric("audit_bridge_active_logs"));
        (all.iter().sum::<f64>() == 3.0 && all.iter().all(|share| *share > 0.0)).then_some(())
    });
    assert!(shares.is_some(), "{}", two.log());
    assert_eq!(two.terminate(), 0);
    assert_eq!(three.terminate(), 0);
    stage.assert_no_duplicates();
    stage.assert_order();
    // The single one continues where it stopped itself: nothing is lost, and what the several
    // delivered is repeated.
    stage.put(120..130);
    let one = cluster.start("one", &[]);
    stage.until_accepted(&one, 0..130);
    assert_eq!(one.terminate(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn replicas_and_shards_random_faults_lose_nothing() {
    let mut test = RandomTest::from_environment();
    let cluster = Cluster::new(3).await;
    let stage = &cluster.stage;
    let issuer = Issuer::start(stage, 6, test.dice.fork());
    let start = |name: &str| cluster.replica(name);
    let disturb = || stage.kinesis.expire_iterators();
    let _replicas = test.run(&cluster.api, &stage.webhook, start, disturb).await;
    let issued = issuer.stop().await;

    let last = cluster.replica("last");
    stage.until_accepted(&last, 0..issued);
    let accepted = stage.accepted();
    println!(
        "{issued} events, {} shards, none lost, {} sent again",
        stage.kinesis.shards(STREAM).len(),
        accepted.len() - issued
    );
    assert_eq!(stage.kinesis.order_breaches(STREAM), []);
    let once: BTreeSet<_> = accepted.into_iter().collect();
    assert_eq!(once.len(), issued, "and nothing that was never written");
}

/// New shards are found by lists only, and no reader fails where they are not found.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_whose_lists_fail_are_not_ready_until_one_succeeds() {
    let cluster = Cluster::new(2).await;
    let mut one = cluster.replica("one");
    until_shares(&mut [&mut one], &[2.0]);
    let kinesis = &cluster.stage.kinesis;
    kinesis.refuse("ListShards", internal_failure());
    one.until_not_ready("source", "list of logs");
    kinesis.clear_faults();
    one.until_ready();
    assert_eq!(one.terminate(), 0);
}

/// A Lease that no replica holds keeps its shard from all of them, which must not look like a quiet shard.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shard_whose_lease_a_stranger_holds_shows_in_lag_until_it_is_read() {
    let cluster = Cluster::new(2).await;
    let stage = &cluster.stage;
    let spec = serde_json::json!({"holderIdentity": "stranger", "leaseDurationSeconds": 3600});
    let lease = serde_json::json!({"spec": spec});
    let first = "eks-audit-bridge-slot-0";
    cluster.api.put("leases", NAMESPACE, first, lease);
    let sharing = [
        "--share-partitions",
        "--start=earliest",
        "--shutdown-grace=5s",
    ];
    let mut one = cluster.start("one", &sharing);
    stage.put(0..20);
    one.until_not_ready("checkpoint", "slot-0 is held by stranger");
    assert_eq!(one.metric("audit_bridge_active_logs"), 1.0);
    let grows = wait(|| (one.metric("audit_bridge_lag_seconds") > 2.0).then_some(()));
    assert!(grows.is_some(), "{}", one.log());
    cluster.api.remove("leases", NAMESPACE, first);
    stage.until_accepted(&one, 0..20);
    one.until_ready();
    // The shard's state is the reader's from now on.
    for _ in 0..5 {
        until_shares(&mut [&mut one], &[2.0]);
        std::thread::sleep(Duration::from_secs(1));
    }
    assert_eq!(one.metric("audit_bridge_active_logs"), 2.0);
    assert_eq!(one.terminate(), 0);
    stage.assert_no_duplicates();
}
