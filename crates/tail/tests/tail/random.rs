//! Random logs, faults, page sizes, settlements and restarts, checked against invariants.
//!
//! `SEED=7` runs one seed, `SCHEDULES=5000` this many.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use audit_bridge_core::source::{Source as _, StoredPositions};
use audit_bridge_tail::{Clock, Limiter, Tail, TailSettings};
use audit_bridge_testkit::repeat;
use fastrand::Rng;
use jiff::Timestamp;

use crate::at;
use crate::memory_log::MemoryLog;
use crate::pipeline::Pipeline;

/// For how many milliseconds records arrive.
const LOG_MS: i64 = 400_000;

/// A log and the settings of its tail.
struct World {
    random: Rng,
    log: MemoryLog,
    settings: TailSettings,
    oldest: Duration,
    requests_per_second: f64,
}

impl World {
    fn new(seed: u64, folder: &std::path::Path) -> World {
        let mut random = Rng::with_seed(seed);
        let nanos = random.bool();
        let log = match nanos {
            true => MemoryLog::new(Duration::from_nanos(1)),
            false => MemoryLog::millis(),
        };
        let ages: Vec<Duration> = [10, 45, 120]
            .into_iter()
            .filter(|_| random.u32(0..4) > 0)
            .map(Duration::from_secs)
            .collect();
        let oldest = ages.last().copied().unwrap_or_default();
        let oldest_ms = oldest.as_millis() as i64;
        for _ in 0..random.usize(1..1_500) {
            // Many with the same time, many a little late, some as late as allowed, some later.
            let time = match random.bool() {
                true => random.i64(0..LOG_MS),
                false => random.i64(0..LOG_MS / 5_000) * 5_000,
            };
            let late = match random.u32(0..20) {
                0 => -random.i64(0..60_000),
                1 => oldest_ms + random.i64(0..100_000),
                2 => oldest_ms,
                3..8 => random.i64(0..=oldest_ms),
                _ => random.i64(0..1_000).min(oldest_ms),
            };
            log.put_ms(time, time + late);
        }
        log.pages_of(random.usize(1..80));
        log.slow(random.u64(0..900));
        log.faulty([0, 3, 10, 50][random.usize(0..4)], seed);
        let settings = TailSettings {
            poll_interval: Duration::from_millis(random.u64(200..8_000)),
            revisit_after: ages,
            start: at(random.i64(-5_000..20_000)),
            until: Some(at(LOG_MS)),
            seen_dir: Some(folder.join("seen")),
            ..TailSettings::default()
        };
        let requests_per_second = [2.0, 5.0, 50.0][random.usize(0..3)];
        World {
            random,
            log,
            settings,
            oldest,
            requests_per_second,
        }
    }

    fn tail(&mut self, positions: StoredPositions) -> Pipeline {
        let limiter = Limiter::seeded(self.requests_per_second, self.random.u64(..));
        let clock = Arc::new(self.log.clock());
        let settings = self.settings.clone();
        let tail = Tail::new(
            self.log.clone(),
            settings,
            &positions,
            Arc::new(limiter),
            clock,
        );
        Pipeline::new(tail.expect("positions of our own"), positions)
    }

    /// Reads and settles at random, for this many steps or to the end.
    async fn work(&mut self, tail: &mut Pipeline, steps: usize) {
        let share = self.random.f64();
        for _ in 0..steps {
            let wait = Duration::from_millis(self.random.u64(0..3_000));
            tail.step(wait).await;
            if tail.ended {
                break;
            }
            if self.random.u32(0..4) == 0 {
                tail.settle(|_| self.random.f64() < share);
            }
        }
    }

    /// The records that became visible before the oldest cursor was due.
    fn promised(&self) -> impl Iterator<Item = u64> {
        let oldest = i128::try_from(self.oldest.as_nanos()).expect("short");
        let in_time = move |time: Timestamp, visible: Timestamp| {
            visible.as_nanosecond() <= time.as_nanosecond() + oldest
        };
        let start = self.settings.start;
        self.log
            .records()
            .into_iter()
            .filter(move |stored| stored.time >= start && in_time(stored.time, stored.visible))
            .map(|stored| stored.id)
    }

    fn assert_nothing_before_the_start(&self, tail: &Pipeline, seed: u64) {
        for stored in self.log.records() {
            let asked = stored.time >= self.settings.start;
            assert!(
                asked || !tail.given.contains_key(&stored.id),
                "seed {seed}: {stored:?}"
            );
        }
    }
}

const STEPS_MAX: usize = 2_000_000;

#[tokio::test(start_paused = true)]
async fn tail_random_without_crash_delivers_exactly_once() {
    for seed in repeat::schedules(150) {
        let folder = tempfile::tempdir().unwrap();
        let mut world = World::new(seed, folder.path());
        // The paused clock continues from world to world; this world started with its log.
        let mut tail = world.tail(StoredPositions::new());
        world.work(&mut tail, STEPS_MAX).await;
        assert!(
            tail.ended,
            "seed {seed}: not done at {}",
            world.log.clock().now()
        );
        tail.settle(|_| true);
        for id in world.promised() {
            assert_eq!(tail.settled.get(&id), Some(&1), "seed {seed}: record {id}");
        }
        let twice: Vec<_> = tail.given.iter().filter(|(_, times)| **times > 1).collect();
        assert!(twice.is_empty(), "seed {seed}: {twice:?}");
        world.assert_nothing_before_the_start(&tail, seed);
        // The positions match what was delivered.
        for position in tail.positions.values() {
            assert_eq!(position["read_to"], at(LOG_MS).to_string(), "seed {seed}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn tail_random_with_crashes_settles_at_least_once() {
    let (mut records, mut repeated) = (0, 0);
    for seed in repeat::schedules(150) {
        let folder = tempfile::tempdir().unwrap();
        let mut world = World::new(seed, folder.path());
        let mut positions = StoredPositions::new();
        let mut settled: BTreeMap<u64, u32> = BTreeMap::new();
        let mut safe = BTreeSet::new();
        let crashes = world.random.usize(1..12);
        let torn = world.random.bool();
        // The disk kept up: nothing was waiting to be written when the process died.
        let written = !torn && world.random.bool();
        for life in 0..=crashes {
            let mut tail = world.tail(positions.clone());
            let steps = match life < crashes {
                true => world.random.usize(0..400),
                false => STEPS_MAX,
            };
            world.work(&mut tail, steps).await;
            if tail.ended && world.random.bool() || life == crashes {
                assert!(tail.ended, "seed {seed}");
                tail.settle(|_| true);
            }
            for (id, times) in std::mem::take(&mut tail.settled) {
                *settled.entry(id).or_default() += times;
            }
            if written {
                let again = safe.iter().find(|id| tail.given.contains_key(id));
                assert_eq!(again, None, "seed {seed}: settled, and handed out again");
            }
            world.assert_nothing_before_the_start(&tail, seed);
            safe.append(&mut tail.safe);
            // Records in flight are lost with the process; sometimes a file is lost too.
            positions.clone_from(&tail.positions);
            if written {
                tail.tail.close().await;
            }
            drop(tail);
            if torn && world.random.u32(0..4) == 0 {
                tear(&mut world.random, folder.path());
            }
        }
        for id in world.promised() {
            assert!(
                settled.contains_key(&id),
                "seed {seed}: record {id} is lost"
            );
        }
        records += settled.len();
        repeated += settled.values().map(|times| times - 1).sum::<u32>() as usize;
    }
    println!("{repeated} of {records} records were settled more than once");
}

/// Truncates one of the files with identities.
fn tear(random: &mut Rng, folder: &std::path::Path) {
    let Ok(files) = std::fs::read_dir(folder.join("seen")) else {
        return;
    };
    for file in files {
        let path = file.unwrap().path();
        // The tail's last write may still be deleting it.
        let Ok(bytes) = std::fs::read(&path) else {
            continue;
        };
        if random.bool() {
            std::fs::write(path, &bytes[..random.usize(0..=bytes.len())]).unwrap();
        }
    }
}
