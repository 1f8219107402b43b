//! `kill -9` at random, again and again, while the log and the webhook fail: what is lost?
//!
//! `KILLS=1000` makes it longer, `SEED=n` repeats the choices of a run that failed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use audit_bridge_testkit::cloud_watch::CloudWatchFault;
use audit_bridge_tests::live::{number, trouble};
use audit_bridge_tests::{audit_id, event};

use super::{GROUP, World, now_ms};

/// Events that the log issues, a second.
const RATE: u64 = 60;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn killed_at_random_loses_nothing() {
    let kills = number("KILLS").unwrap_or(200);
    let seed = number("SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("SEED={seed} KILLS={kills}");
    let mut dice = fastrand::Rng::with_seed(seed);
    let world = Arc::new(World::new().await);
    world.cloud.page_events_max(20);

    let mut faults = dice.fork();
    world.cloud.choose(move |_| match faults.u32(0..40) {
        0 => Some(CloudWatchFault::throttled()),
        1 => Some(CloudWatchFault::Error(500, "InternalFailure", "no")),
        2 => Some(CloudWatchFault::Cut),
        3 => Some(CloudWatchFault::Garbage),
        4 => Some(CloudWatchFault::Slow(Duration::from_millis(120))),
        _ => None,
    });
    let issued = Arc::new(AtomicUsize::new(0));
    let issuing = Arc::new(AtomicBool::new(true));
    let issuer = {
        let (world, issued, issuing) = (world.clone(), issued.clone(), issuing.clone());
        let mut dice = dice.fork();
        std::thread::spawn(move || {
            while issuing.load(Ordering::Relaxed) {
                let n = issued.fetch_add(1, Ordering::Relaxed);
                let stream = format!("kube-apiserver-audit-{}", dice.u32(0..3));
                // Most at once, some late, some filed under a time of others.
                let late = match dice.u32(0..10) {
                    0 => dice.u64(0..1500),
                    _ => dice.u64(0..60),
                };
                let filed = now_ms() / 10 * 10;
                let late = Duration::from_millis(late);
                world
                    .cloud
                    .put_late(GROUP, &stream, filed, &event(n, 500), late);
                std::thread::sleep(Duration::from_millis(1000 / RATE));
            }
        })
    };

    let start = format!("--start=-{}s", 60);
    for kill in 0..kills {
        world.webhook.script(trouble(&mut dice));
        let bridge = world.start(&[&start]);
        std::thread::sleep(Duration::from_millis(dice.u64(10..350)));
        bridge.kill();
        if kill % 50 == 49 {
            println!(
                "{} killed, {} issued",
                kill + 1,
                issued.load(Ordering::Relaxed)
            );
        }
    }
    issuing.store(false, Ordering::Relaxed);
    issuer.join().unwrap();
    world.cloud.clear_faults();
    let issued = issued.load(Ordering::Relaxed);
    let bridge = world.start(&[&start]);
    world.until_accepted(0..issued, &bridge);
    assert_eq!(bridge.terminate(), 0);

    let accepted = world.accepted();
    assert_eq!(accepted.len(), issued, "only what was issued (SEED={seed})");
    assert!((0..issued).all(|n| accepted.contains_key(&audit_id(n))));
    let twice: usize = accepted.values().map(|times| times - 1).sum();
    println!("{issued} events, {kills} kills, none lost, {twice} sent again");
    // What a crash may repeat: what came since the last checkpoint, which is at most a second
    // old, and what a lost answer repeats.
    let most = usize::try_from(kills * RATE * 2).unwrap();
    assert!(twice <= most, "{twice} duplicates (SEED={seed})");
    let dead = world.state().join("dead-letter.jsonl");
    assert_eq!(std::fs::read_to_string(dead).unwrap_or_default(), "");
}
