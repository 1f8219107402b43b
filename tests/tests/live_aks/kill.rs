//! Repeated `kill -9` at random while the hub and the receiver fail: nothing is lost, and what is
//! repeated is limited.
//!
//! A kill repeats what was delivered after the checkpoint, never what the checkpoint covers. How
//! long that is (a second's worth) is asserted with simulated time: `crates/core/tests/run`.
//!
//! `KILLS=1000` makes it longer, `SEED=n` repeats the choices of a run that failed.

use audit_bridge_testkit::repeat::{number, times};
use audit_bridge_tests::live::trouble;
use tokio::sync::Mutex as AsyncMutex;

use super::*;

/// Partitions of the hub.
const PARTITIONS: usize = 5;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn killed_at_random_loses_nothing() {
    let kills = times("KILLS", 100);
    let seed = number("SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("SEED={seed} KILLS={kills}");
    let mut dice = fastrand::Rng::with_seed(seed);
    let stage = Arc::new(Stage::new(PARTITIONS).await);
    let going = Arc::new(AtomicBool::new(true));
    // While this is locked, nothing fails.
    let fair = Arc::new(AsyncMutex::new(()));
    let issuer = Issuer::start(&stage, PARTITIONS, Duration::from_millis(10), dice.fork());
    let weather = {
        let (stage, going, fair) = (stage.clone(), going.clone(), fair.clone());
        let mut dice = dice.fork();
        tokio::spawn(async move {
            while going.load(Ordering::Relaxed) {
                tokio::time::sleep(Duration::from_millis(dice.u64(20..300))).await;
                let _foul = fair.lock().await;
                match dice.u32(0..8) {
                    0 => stage.hubs.cut(),
                    1 => {
                        stage.hubs.expire_tokens();
                    }
                    2 => {
                        stage.hubs.stop_listening().await;
                        tokio::time::sleep(Duration::from_millis(dice.u64(20..400))).await;
                        stage.hubs.come_back().await;
                    }
                    3 => stage.hubs.latency(Duration::from_millis(dice.u64(1..20))),
                    _ => {
                        stage.hubs.detach(HUB, dice.usize(0..PARTITIONS));
                    }
                }
            }
            stage.hubs.latency(Duration::from_millis(1));
        })
    };

    let checkpoint = stage.path("state").join("checkpoint.json");
    let kept_now = || kept(&std::fs::read_to_string(&checkpoint).unwrap_or_default());
    let mut account = Account::default();
    for kill in 0..kills {
        stage.webhook.script(trouble(&mut dice));
        // On a busy machine hardly any process would get far under constant failures.
        let fair = match kill % 5 {
            4 => Some(fair.lock().await),
            _ => None,
        };
        let before = stage.webhook.accepted_ids().len();
        let bridge = stage.start(&["--start", "earliest"]);
        tokio::time::sleep(Duration::from_millis(dice.u64(20..1200))).await;
        if fair.is_some() {
            let came = || (stage.webhook.accepted_ids().len() > before).then_some(());
            assert!(wait(came).is_some(), "SEED={seed}\n{}", bridge.log());
        }
        bridge.kill();
        account.life(&stage, &issuer, kept_now());
    }
    going.store(false, Ordering::Relaxed);
    weather.await.unwrap();
    let published = issuer.published.clone();
    let issued = issuer.stop().await;

    let bridge = stage.start(&["--start", "earliest"]);
    stage.until_accepted(&bridge, 0..issued);
    assert_eq!(bridge.terminate(), 0);
    let accepted = stage.webhook.accepted_ids();
    account.check(&accepted, &published.lock().unwrap());
    println!(
        "{issued} issued, {} accepted, at most {} behind a checkpoint at a kill",
        accepted.len(),
        account.behind_max
    );
    assert!(stage.dead_letter().is_empty());
    let once: BTreeSet<_> = accepted.into_iter().collect();
    assert_eq!(once.len(), issued, "and nothing that was never issued");
}

/// The state at the last kill: accepted events, and the checkpoint.
#[derive(Default)]
struct Account {
    kept: BTreeMap<usize, i64>,
    /// Number of events accepted by then.
    accepted: usize,
    /// The largest number of accepted events that no checkpoint covered.
    behind_max: usize,
}

impl Account {
    /// A process ended, and left this checkpoint.
    fn life(&mut self, stage: &Stage, issuer: &Issuer, kept: BTreeMap<usize, i64>) {
        let accepted = stage.webhook.accepted_ids();
        let published = issuer.published.lock().unwrap();
        self.check(&accepted, &published);
        let behind: BTreeSet<_> = accepted
            .iter()
            .filter(|id| !is_kept(&kept, published[*id]))
            .collect();
        self.behind_max = self.behind_max.max(behind.len());
        self.accepted = accepted.len();
        for (partition, last) in &self.kept {
            assert!(kept.get(partition) >= Some(last), "{partition} went back");
        }
        self.kept = kept;
    }

    /// Checks that nothing was repeated that the checkpoint covered.
    fn check(&self, accepted: &[String], published: &BTreeMap<String, (usize, i64)>) {
        for id in &accepted[self.accepted..] {
            let place = published[id];
            assert!(!is_kept(&self.kept, place), "{id} of {place:?} came again");
        }
    }
}

fn is_kept(kept: &BTreeMap<usize, i64>, (partition, sequence): (usize, i64)) -> bool {
    kept.get(&partition).is_some_and(|&last| sequence <= last)
}
