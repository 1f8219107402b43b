//! Repeated `kill -9` at random while the log and the webhook fail: nothing is lost, and what is
//! repeated is limited.
//!
//! A kill repeats what was delivered after the checkpoint, never what the checkpoint covers. The
//! test counts that from the receiver's requests and the checkpoint's file. That it is a second's
//! worth is asserted with simulated time: `crates/core/tests/run`.
//!
//! `KILLS=1000` makes it longer, `SEED=n` repeats the choices of a run that failed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use audit_bridge_testkit::cloud_watch::CloudWatchFault;
use audit_bridge_testkit::repeat::{number, times};
use audit_bridge_tests::live::{Running, trouble, wait};
use audit_bridge_tests::{audit_id, event};
use jiff::Timestamp;

use super::{GROUP, STREAM, World, checkpoints, now_ms};

/// Events per second in the log.
const RATE: u64 = 60;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn killed_at_random_loses_nothing() {
    let kills = times("KILLS", 200);
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
    let filed = Arc::new(Mutex::new(BTreeMap::new()));
    let issuing = Arc::new(AtomicBool::new(true));
    let issuer = {
        let (world, issued, issuing) = (world.clone(), issued.clone(), issuing.clone());
        let times = filed.clone();
        let mut dice = dice.fork();
        std::thread::spawn(move || {
            while issuing.load(Ordering::Relaxed) {
                let n = issued.fetch_add(1, Ordering::Relaxed);
                let stream = format!("kube-apiserver-audit-{}", dice.u32(0..3));
                // Most visible at once, some late, some with a time that others have.
                let late = match dice.u32(0..10) {
                    0 => dice.u64(0..1500),
                    _ => dice.u64(0..60),
                };
                let filed = now_ms() / 10 * 10;
                let late = Duration::from_millis(late);
                times.lock().unwrap().insert(audit_id(n), filed);
                world
                    .cloud
                    .put_late(GROUP, &stream, filed, &event(n, 500), late);
                std::thread::sleep(Duration::from_millis(1000 / RATE));
            }
        })
    };

    let start = format!("--start=-{}s", 60);
    let mut account = Account::default();
    for kill in 0..kills {
        world.webhook.script(trouble(&mut dice));
        let bridge = world.start(&[&start]);
        std::thread::sleep(Duration::from_millis(dice.u64(10..350)));
        bridge.kill();
        account.life(&world, &filed.lock().unwrap());
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
    account.check(&world, &filed.lock().unwrap());
    let dead = world.state().join("dead-letter.jsonl");
    assert_eq!(std::fs::read_to_string(dead).unwrap_or_default(), "");
}

/// The state at the last kill: accepted events, and the checkpoint.
#[derive(Default)]
struct Account {
    /// All events with earlier times are covered: every cursor has passed them.
    covered: i64,
    /// Number of events accepted by then.
    accepted: usize,
}

impl Account {
    /// A process ended, and left a checkpoint.
    fn life(&mut self, world: &World, filed: &BTreeMap<String, i64>) {
        self.check(world, filed);
        let covered = read_to(world).into_values().min().unwrap_or(0);
        assert!(covered >= self.covered, "the checkpoint went back");
        self.covered = covered;
        self.accepted = world.webhook.accepted_ids().len();
    }

    /// Checks that nothing was repeated that the checkpoint covered.
    fn check(&self, world: &World, filed: &BTreeMap<String, i64>) {
        let accepted = world.webhook.accepted_ids();
        let before: BTreeSet<_> = accepted[..self.accepted].iter().collect();
        for id in &accepted[self.accepted..] {
            let covered = filed[id] < self.covered && before.contains(id);
            assert!(!covered, "{id} was covered, and came again");
        }
    }
}

/// The time up to which each cursor has read, by the checkpoint; cursor 0 is the edge.
fn read_to(world: &World) -> BTreeMap<u32, i64> {
    let files = checkpoints(&world.state());
    let text = files.first().map(std::fs::read_to_string);
    let text = text.and_then(Result::ok).unwrap_or_default();
    let checkpoint: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    let positions = checkpoint["position"].as_object().into_iter().flatten();
    let positions = positions.map(|(cursor, position)| {
        let read_to: Timestamp = position["read_to"].as_str().unwrap().parse().unwrap();
        (cursor.parse().unwrap(), read_to.as_millisecond())
    });
    positions.collect()
}

/// Writes events, and waits until they are accepted and the checkpoint's edge has passed them.
fn deliver(world: &World, bridge: &Running, events: std::ops::Range<usize>) {
    let filed = now_ms();
    for n in events.clone() {
        world.cloud.put(GROUP, STREAM, filed, &event(n, 500));
    }
    world.until_accepted(events, bridge);
    let passed = || (read_to(world).get(&0) > Some(&filed)).then_some(());
    assert!(wait(passed).is_some(), "{}", bridge.log());
}

/// Only the edge's cursor has passed these events. Others read them again; the identities kept with
/// the checkpoint prevent that they are sent again.
#[tokio::test(flavor = "multi_thread")]
async fn kill_repeats_only_what_was_delivered_since_the_last_checkpoint() {
    let world = World::new().await;
    let (mut next, mut may_repeat) = (0, BTreeSet::new());
    for _ in 0..6 {
        let bridge = world.start(&["--start=-1m"]);
        deliver(&world, &bridge, next..next + 40);
        next += 40;
        // Identities are saved after the checkpoint, and before the next one.
        let since = next;
        deliver(&world, &bridge, next..next + 1);
        next += 1;
        for n in next..next + 40 {
            world.put(n, 0);
        }
        next += 40;
        world.until_accepted(since..next, &bridge);
        bridge.kill();
        may_repeat.extend((since..next).map(audit_id));
    }
    let bridge = world.start(&[]);
    world.put(next, 0);
    world.until_accepted(0..next + 1, &bridge);
    assert_eq!(bridge.terminate(), 0);
    for (id, times) in world.accepted() {
        let most = if may_repeat.contains(&id) { 2 } else { 1 };
        assert!(times <= most, "{id} was accepted {times} times");
    }
}
