//! Replicas that start, leave, hang and are killed at random, while the hub, the receiver and the
//! API server fail: what is lost?
//!
//! `SECONDS=600` makes it longer, `SEED=n` repeats the choices of a run that failed.

use audit_bridge_testkit::kubernetes::KubernetesFault;
use audit_bridge_tests::live::{number, trouble};

use super::*;

const PARTITIONS: usize = 7;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn replicas_random_faults_lose_nothing() {
    let seconds = number("SECONDS").unwrap_or(40);
    let seed = number("SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("SEED={seed} SECONDS={seconds}");
    let mut dice = fastrand::Rng::with_seed(seed);
    let cluster = Cluster::new(PARTITIONS).await;
    let stage = &cluster.stage;
    let issuer = Issuer::start(stage, PARTITIONS, Duration::from_millis(20), dice.fork());

    let mut replicas: Vec<Running> = Vec::new();
    let mut names = 0..;
    let end = tokio::time::Instant::now() + Duration::from_secs(seconds);
    let (mut kills, mut leaves, mut hangs) = (0, 0, 0);
    while tokio::time::Instant::now() < end {
        let one = (!replicas.is_empty()).then(|| dice.usize(0..replicas.len()));
        match (dice.u32(0..10), one) {
            (0..4, _) if replicas.len() < 3 => {
                let name = format!("replica-{}", names.next().unwrap());
                replicas.push(cluster.replica(&name));
            }
            (4, Some(one)) => {
                replicas.remove(one).kill();
                kills += 1;
            }
            (5, Some(one)) => {
                let mut leaving = replicas.remove(one);
                let left = tokio::task::spawn_blocking(move || {
                    // One that has only just begun does not hear the signal yet.
                    leaving.admin();
                    leaving.terminate()
                });
                let left = left.await;
                assert_eq!(left.unwrap(), 0, "SEED={seed}");
                leaves += 1;
            }
            (6, Some(one)) => {
                // Too short to lose a Lease, or long enough.
                replicas[one].signal("STOP");
                let pause = dice.u64(100..16_000).min(dice.u64(100..16_000));
                tokio::time::sleep(Duration::from_millis(pause)).await;
                replicas[one].signal("CONT");
                hangs += 1;
            }
            (7, _) => cluster.stage.hubs.cut(),
            (8, _) => {
                let mut dice = dice.fork();
                cluster.api.fail_by(move |_| match dice.u32(0..12) {
                    0 => Some(KubernetesFault::Status(500)),
                    1 => Some(KubernetesFault::Status(409)),
                    2 => Some(KubernetesFault::NoAnswer),
                    3 => Some(KubernetesFault::Late(Duration::from_secs(3))),
                    _ => None,
                });
            }
            _ => cluster.api.fail_by(|_| None),
        }
        cluster.stage.webhook.script(trouble(&mut dice));
        tokio::time::sleep(Duration::from_millis(dice.u64(100..3000))).await;
    }
    let issued = issuer.stop().await;
    cluster.api.fail_by(|_| None);

    let last = cluster.replica("last");
    cluster.stage.until_accepted(&last, 0..issued);
    let accepted = cluster.stage.webhook.accepted_ids();
    println!(
        "{issued} events, {kills} killed, {leaves} left, {hangs} hung, none lost, {} sent again",
        accepted.len() - issued
    );
    let once: BTreeSet<_> = accepted.into_iter().collect();
    assert_eq!(once.len(), issued, "and nothing that was never issued");
}
