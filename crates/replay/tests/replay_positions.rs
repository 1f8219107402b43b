//! Attacks a replay with saved positions: inputs that grow, change, appear, vanish and change their
//! order between processes, crashes anywhere, and a store that fails. `SEED=n` replays one
//! schedule.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test may stop at once"
)]

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use audit_bridge_core::batch;
use audit_bridge_core::checkpoint::{Checkpoint, Checkpointer, Owner, Store, StoreError};
use audit_bridge_core::convert::{Convert, Output, RecordId, Skip};
use audit_bridge_core::event::Event;
use audit_bridge_core::event::json::Raw;
use audit_bridge_core::observer::Observer;
use audit_bridge_core::read_budget::ReadBudget;
use audit_bridge_core::record::{Origin, Record};
use audit_bridge_core::run::{Ended, Pipeline, RetryPolicy, run};
use audit_bridge_core::sink::{Sink, Verdict};
use audit_bridge_replay::dump::{Dump, PieceContext, RecordError, Role, Shape, Splitter};
use audit_bridge_replay::{Replay, ReplaySettings};
use audit_bridge_testkit::repeat;
use fastrand::Rng;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Records are objects with an `id`.
struct Plain;

impl Dump for Plain {
    fn shapes(&self) -> &'static [Shape] {
        &[]
    }

    fn role(&self, key: &str) -> Role {
        match key {
            "id" => Role::Record,
            "records" => Role::Records,
            _ => Role::Neutral,
        }
    }

    fn record<'a>(&self, piece: Raw<'a>, _: &PieceContext) -> Result<Cow<'a, str>, RecordError> {
        Ok(piece.text().into())
    }

    fn recognises(&self, _: Raw<'_>) -> bool {
        false
    }

    fn text_split(&self, _: Option<&str>, _: &str) -> Option<Box<dyn Splitter>> {
        None
    }
}

/// Counts how often each record was settled; crashes at a given number.
#[derive(Default)]
struct Settled {
    records: BTreeMap<String, u64>,
    /// The newest record of each input in this process.
    newest: BTreeMap<String, u64>,
    until_crash: Option<u64>,
    crashed: bool,
}

/// Settles every record at once, and counts it.
struct Settle(Arc<Mutex<Settled>>, Arc<Notify>);

impl Convert for Settle {
    fn convert(&mut self, id: RecordId, record: &Record, out: &mut Output) {
        let mut settled = self.0.lock().unwrap();
        if settled.until_crash == Some(0) {
            // The process has ended: records in flight are dropped.
            settled.crashed = true;
            self.1.notify_one();
            return;
        }
        if let Some(left) = &mut settled.until_crash {
            *left -= 1;
        }
        let Origin::File {
            file,
            record: number,
        } = &record.origin
        else {
            unreachable!("{}", record.origin);
        };
        let before = settled.newest.insert(file.to_string(), *number);
        assert!(before < Some(*number), "the order of {file}");
        let text = String::from_utf8_lossy(&record.payload).into_owned();
        *settled.records.entry(text).or_default() += 1;
        out.skip(id, Skip::OTHER_CLUSTER);
    }
}

struct Nowhere;

impl Sink for Nowhere {
    async fn send(&self, _: &[Event]) -> Verdict {
        Verdict::Accepted { status: 200 }
    }
}

struct Quiet;

impl Observer for Quiet {}

#[derive(Clone, Default)]
struct Memory(Arc<Mutex<(Option<Checkpoint>, u64)>>);

impl Store for Memory {
    async fn load(&mut self) -> Result<Option<Checkpoint>, StoreError> {
        Ok(self.0.lock().unwrap().0.clone())
    }

    async fn save(&mut self, checkpoint: &Checkpoint) -> Result<(), StoreError> {
        let mut held = self.0.lock().unwrap();
        held.1 += 1;
        if held.1.is_multiple_of(3) {
            return Err(StoreError::Unavailable {
                place: "memory".to_owned(),
                problem: "is full".to_owned(),
                remedy: "make room".to_owned(),
                source: None,
            });
        }
        // As JSON, so that nothing survives that a file would not store.
        let text = serde_json::to_string(checkpoint).unwrap();
        held.0 = Some(serde_json::from_str(&text).unwrap());
        Ok(())
    }
}

/// Runs one process. `None`: it crashed.
async fn live(
    paths: &[PathBuf],
    store: &Memory,
    settled: &Arc<Mutex<Settled>>,
    crash_after: Option<u64>,
    parallel: usize,
) -> Option<Ended> {
    {
        let mut settled = settled.lock().unwrap();
        settled.newest.clear();
        settled.until_crash = crash_after;
        settled.crashed = false;
    }
    let mut store = store.clone();
    let loaded = store.load().await.unwrap();
    let positions = loaded.as_ref().map(|it| it.position.clone());
    let settings = ReplaySettings {
        paths: paths.to_vec(),
        dump: Arc::new(Plain),
        shape: None,
        skip_records: 0,
        resume: Some(positions.unwrap_or_default()),
        shard: None,
        parallel: NonZeroUsize::new(parallel).unwrap(),
    };
    let source = Replay::start(&settings, || None).unwrap();
    let owner = Owner {
        provider: "eks".to_owned(),
        source: "replay".to_owned(),
    };
    let crash = Arc::new(Notify::new());
    let pipeline = Pipeline {
        source,
        converter: Settle(Arc::clone(settled), Arc::clone(&crash)),
        sink: Nowhere,
        dead_letter: None,
        checkpoint: Some(Checkpointer::new(store, owner, loaded, Duration::ZERO)),
        lease_hold: None,
        observer: Quiet,
        on_request: Box::new(|_, _| {}),
        batch: batch::BatchLimits {
            events_max: 7,
            bytes_max: 4000,
            wait_max: Duration::from_millis(500),
        },
        in_flight_batches_max: 1,
        in_flight_bytes: ReadBudget::new(1 << 20),
        retry_policy: RetryPolicy::GiveUpAfter(Duration::from_secs(60)),
        stop: CancellationToken::new(),
        grace: Duration::from_secs(25),
    };
    let ended = tokio::select! {
        biased;
        () = crash.notified() => None,
        outcome = run(pipeline) => Some(outcome.ended),
    };
    // The loop may end before the crash is noticed.
    ended.filter(|_| !settled.lock().unwrap().crashed)
}

/// The inputs: the lines of each, by name.
struct World {
    random: Rng,
    folder: PathBuf,
    files: BTreeMap<String, Vec<String>>,
    next: u64,
}

impl World {
    fn line(&mut self) -> String {
        self.next += 1;
        let padding = "x".repeat(self.random.usize(0..200));
        format!("{{\"id\":{},\"padding\":\"{padding}\"}}", self.next)
    }

    fn lines(&mut self, most: usize) -> Vec<String> {
        (0..self.random.usize(1..most))
            .map(|_| self.line())
            .collect()
    }

    /// Changes the inputs at random.
    fn change(&mut self) {
        let names: Vec<String> = self.files.keys().cloned().collect();
        let name = names[self.random.usize(0..names.len())].clone();
        let more = self.lines(120);
        let at = self.random.usize(0..=self.files[&name].len());
        let number = self.random.u32(0..7);
        let lines = self.files.get_mut(&name).unwrap();
        match number {
            0 => lines.extend(more),
            1 => {
                lines.splice(0..0, more);
            }
            2 => {
                lines.splice(at..at, more);
            }
            3 => *lines = more,
            4 => {
                lines.splice(at.., more);
            }
            5 if names.len() > 1 => {
                self.files.remove(&name);
                std::fs::remove_file(self.folder.join(name)).unwrap();
            }
            _ => {
                let name = format!("{}-{}", self.random.u32(0..90), self.next);
                self.files.insert(name, more);
            }
        }
    }

    /// Writes the inputs in random forms, and returns their paths in random order.
    fn write(&mut self) -> Vec<PathBuf> {
        let mut paths = Vec::new();
        for (name, lines) in &self.files {
            let mut text = String::new();
            for line in lines {
                writeln!(text, "{line}").unwrap();
            }
            let path = self.folder.join(name);
            match name.len() % 2 {
                0 => std::fs::write(&path, text).unwrap(),
                _ => write_packed(&path, &text),
            }
            paths.push(path);
        }
        self.random.shuffle(&mut paths);
        paths
    }
}

fn write_packed(path: &Path, text: &str) {
    let packed = zstd::encode_all(text.as_bytes(), 1).unwrap();
    std::fs::write(path, packed).unwrap();
}

/// A random number of inputs that are read at a time.
fn parallel(world: &mut World) -> usize {
    world.random.usize(1..5)
}

async fn attack(seed: u64) -> [u64; 3] {
    let folder = tempfile::tempdir().unwrap();
    let mut world = World {
        random: Rng::with_seed(seed),
        folder: folder.path().to_owned(),
        files: BTreeMap::new(),
        next: 0,
    };
    for n in 0..world.random.u32(1..5) {
        let lines = world.lines(400);
        world.files.insert(format!("{n}"), lines);
    }
    let store = Memory::default();
    let settled = Arc::new(Mutex::new(Settled::default()));
    let (mut crashes, mut changes) = (0, 0);
    for _ in 0..world.random.u32(1..8) {
        let paths = world.write();
        let crash_after = world.random.bool().then(|| world.random.u64(0..600));
        match live(&paths, &store, &settled, crash_after, parallel(&mut world)).await {
            Some(ended) => assert_eq!(ended, Ended::Done, "seed {seed}"),
            None => crashes += 1,
        }
        if world.random.u32(0..3) > 0 {
            world.change();
            changes += 1;
        }
    }
    let paths = world.write();
    for _ in 0..2 {
        let ended = live(&paths, &store, &settled, None, parallel(&mut world)).await;
        assert_eq!(ended, Some(Ended::Done), "seed {seed}");
    }
    let (all, before) = {
        let settled = settled.lock().unwrap();
        for (name, lines) in &world.files {
            for line in lines {
                assert!(
                    settled.records.contains_key(line),
                    "seed {seed}: {name}: {line} is lost"
                );
            }
        }
        let all: u64 = settled.records.values().sum();
        (all, settled.records.len() as u64)
    };
    // Two undisturbed processes over the same inputs: the second finds nothing to do.
    let ended = live(&paths, &store, &settled, None, parallel(&mut world)).await;
    assert_eq!(ended, Some(Ended::Done), "seed {seed}");
    let again: u64 = settled.lock().unwrap().records.values().sum();
    assert_eq!(
        again, all,
        "seed {seed}: records of finished inputs came again"
    );
    [crashes, changes, all - before]
}

#[test]
fn inputs_changed_between_runs_lose_nothing_and_finished_come_once() {
    let seeds = repeat::schedules(100);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    let mut sums = [0; 3];
    let many = seeds.end - seeds.start > 1;
    for seed in seeds {
        for (sum, more) in sums.iter_mut().zip(runtime.block_on(attack(seed))) {
            *sum += more;
        }
    }
    println!("crashes, changes, records that came again: {sums:?}");
    assert!(!many || sums.iter().all(|&sum| sum > 0), "{sums:?}");
}
