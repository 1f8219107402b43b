//! Replicas that share a log, for each provider that allows it: the API server that they use, and
//! random schedules of their starts and ends.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "it serves tests")]

use std::path::Path;
use std::time::Duration;

use audit_bridge_testkit::ScriptedWebhook;
use audit_bridge_testkit::kubernetes::{FakeKubernetes, KubernetesFault, KubernetesServer};
use tokio::time::{Instant, sleep};

use crate::live::{Running, trouble};
use audit_bridge_testkit::repeat::number;

/// The replicas' namespace.
pub const NAMESPACE: &str = "audit";

/// Serves an API server until the second value is dropped, and writes a kubeconfig for it.
///
/// # Panics
/// It cannot be served, or the file cannot be written.
pub async fn serve_api(kubeconfig: &Path) -> (FakeKubernetes, KubernetesServer) {
    let api = FakeKubernetes::new();
    let serving = api.serve().await.unwrap();
    std::fs::write(kubeconfig, serving.kubeconfig(NAMESPACE, "token")).unwrap();
    (api, serving)
}

/// A random test: its duration, and the seed that repeats it.
#[derive(Debug)]
pub struct RandomTest {
    seconds: u64,
    seed: u64,
    /// The source of all random choices.
    pub dice: fastrand::Rng,
}

impl RandomTest {
    /// Duration and seed from `SECONDS` and `SEED`; by default 40 seconds and a random seed.
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

    /// Up to three replicas start, leave, hang and are killed, while the API server and the
    /// receiver fail, and `disturb` now and then does what the provider can do. The remaining
    /// replicas run until they are dropped.
    ///
    /// # Panics
    /// One that leaves does not end with status 0.
    pub async fn run(
        &mut self,
        api: &FakeKubernetes,
        webhook: &ScriptedWebhook,
        start: impl Fn(&str) -> Running,
        mut disturb: impl FnMut(),
    ) -> Vec<Running> {
        let (seed, dice) = (self.seed, &mut self.dice);
        // The time starts with the first replica: the bridge may have to be built before.
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
                        // A replica that has just started does not handle the signal yet.
                        leaving.admin();
                        leaving.terminate()
                    });
                    assert_eq!(left.await.unwrap(), 0, "SEED={seed}");
                    leaves += 1;
                }
                (6, Some(one)) => {
                    // Either too short to lose a Lease, or long enough.
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
