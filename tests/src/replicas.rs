//! Replicas that share what is read, for each provider that can: the API server through which they
//! agree, and their lives at random.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "it serves tests")]

use std::path::Path;
use std::time::Duration;

use audit_bridge_testkit::ScriptedWebhook;
use audit_bridge_testkit::kubernetes::{FakeKubernetes, KubernetesFault, KubernetesServer};
use tokio::time::{Instant, sleep};

use crate::live::{Running, number, trouble};

/// Where the replicas live.
pub const NAMESPACE: &str = "audit";

/// Serves an API server until the second part is dropped, and writes a kubeconfig for it.
///
/// # Panics
/// When it cannot be served, or the file cannot be written.
pub async fn serve_api(kubeconfig: &Path) -> (FakeKubernetes, KubernetesServer) {
    let api = FakeKubernetes::new();
    let serving = api.serve().await.unwrap();
    std::fs::write(kubeconfig, serving.kubeconfig(NAMESPACE, "token")).unwrap();
    (api, serving)
}

/// A test of random lives: how long it is, and what repeats its choices.
#[derive(Debug)]
pub struct RandomTest {
    seconds: u64,
    seed: u64,
    /// All choices.
    pub dice: fastrand::Rng,
}

impl RandomTest {
    /// As `SECONDS` and `SEED` say, else 40 seconds and anything.
    pub fn from_environment() -> RandomTest {
        let seconds = number("SECONDS").unwrap_or(40);
        let seed = number("SEED").unwrap_or_else(|| fastrand::u64(..));
        println!("SEED={seed} SECONDS={seconds}");
        RandomTest {
            seconds,
            seed,
            dice: fastrand::Rng::with_seed(seed),
        }
    }

    /// Up to three replicas start, leave, hang and are killed, while the API server and the receiver
    /// fail, and now and then `disturb` does what the provider can do. Those that are left go on until
    /// they are dropped.
    ///
    /// # Panics
    /// When one that leaves does not end in good order.
    pub async fn run(
        &mut self,
        api: &FakeKubernetes,
        webhook: &ScriptedWebhook,
        start: impl Fn(&str) -> Running,
        mut disturb: impl FnMut(),
    ) -> Vec<Running> {
        let (seed, dice) = (self.seed, &mut self.dice);
        // The time counts from the first: the bridge may have to be built before.
        let mut replicas = vec![start("replica-0")];
        let mut names = 1..;
        let (mut kills, mut leaves, mut hangs) = (0, 0, 0);
        let end = Instant::now() + Duration::from_secs(self.seconds);
        while Instant::now() < end {
            let one = (!replicas.is_empty()).then(|| dice.usize(0..replicas.len()));
            match (dice.u32(0..10), one) {
                (0..4, _) if replicas.len() < 3 => {
                    replicas.push(start(&format!("replica-{}", names.next().unwrap())));
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
                    assert_eq!(left.await.unwrap(), 0, "SEED={seed}");
                    leaves += 1;
                }
                (6, Some(one)) => {
                    // Too short to lose a Lease, or long enough.
                    replicas[one].signal("STOP");
                    let pause = dice.u64(100..16_000).min(dice.u64(100..16_000));
                    sleep(Duration::from_millis(pause)).await;
                    replicas[one].signal("CONT");
                    hangs += 1;
                }
                (7, _) => disturb(),
                (8, _) => {
                    let mut dice = dice.fork();
                    api.fail_by(move |_| match dice.u32(0..12) {
                        0 => Some(KubernetesFault::Status(500)),
                        1 => Some(KubernetesFault::Status(409)),
                        2 => Some(KubernetesFault::NoAnswer),
                        3 => Some(KubernetesFault::Late(Duration::from_secs(3))),
                        _ => None,
                    });
                }
                _ => api.fail_by(|_| None),
            }
            webhook.script(trouble(dice));
            sleep(Duration::from_millis(dice.u64(100..3000))).await;
        }
        api.fail_by(|_| None);
        println!("{kills} killed, {leaves} left, {hangs} hung");
        replicas
    }
}
