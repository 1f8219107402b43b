//! Replicas that start, leave, hang and are killed at random, while the hub, the receiver and the
//! API server fail: nothing is lost.
//!
//! `SECONDS=600` makes it longer, `SEED=n` repeats the choices of a run that failed.

use audit_bridge_tests::replicas::RandomTest;

use super::*;

const PARTITIONS: usize = 7;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn replicas_random_faults_lose_nothing() {
    let mut test = RandomTest::from_environment();
    let cluster = Cluster::new(PARTITIONS).await;
    let stage = &cluster.stage;
    let issuer = Issuer::start(
        stage,
        PARTITIONS,
        Duration::from_millis(20),
        test.dice.fork(),
    );
    let start = |name: &str| cluster.replica(name);
    let disturb = || stage.hubs.cut();
    let _replicas = test.run(&cluster.api, &stage.webhook, start, disturb).await;
    let issued = issuer.stop().await;

    let last = cluster.replica("last");
    stage.until_accepted(&last, 0..issued);
    let accepted = stage.webhook.accepted_ids();
    println!(
        "{issued} events, none lost, {} sent again",
        accepted.len() - issued
    );
    let once: BTreeSet<_> = accepted.into_iter().collect();
    assert_eq!(once.len(), issued, "and nothing that was never issued");
}
