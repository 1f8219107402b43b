//! Attacks the promise: random schedules of a log, a receiver and a disk that all fail, with
//! crashes in between and paused time. A failing seed is printed; `SEED=n` runs it alone, `TRACE=1`
//! shows its steps; `SCHEDULES=n` runs more schedules.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test may stop at once"
)]

mod dead_disk;
mod disk;
mod log;
mod plan;
mod receiver;
mod watch;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use audit_bridge_core::batch;
use audit_bridge_core::checkpoint::{Checkpointer, Owner};
use audit_bridge_core::convert::{Convert, Output, RecordId, Skip};
use audit_bridge_core::event::conformance::{self, EventOptions};
use audit_bridge_core::read_budget::ReadBudget;
use audit_bridge_core::record::Record;
use audit_bridge_core::run::{Ended, Pipeline, RetryPolicy, run};
use audit_bridge_testkit::repeat::schedules;
use tokio_util::sync::CancellationToken;

use self::dead_disk::DeadDisk;
use self::disk::{Disk, DiskStore, positions};
use self::log::{FILLERS, Log};
use self::plan::{Dice, Plan, Poison};
use self::receiver::Receiver;
use self::watch::Watch;
use self::world::{Shared, World};

/// Limit of records and events in a process's memory.
const IN_FLIGHT_BYTES_MAX: usize = 20_000;

struct Native(EventOptions);

impl Convert for Native {
    fn convert(&mut self, id: RecordId, record: &Record, out: &mut Output) {
        if record.payload.starts_with(b"{\"message") {
            return out.skip(id, Skip::OTHER_CLUSTER);
        }
        out.settle(
            id,
            record,
            conformance::event(&record.payload, &self.0.context()),
        );
    }
}

/// A folder in memory if possible, as the schedules sync thousands of files.
fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    match memory.is_dir() {
        true => tempfile::tempdir_in(memory).unwrap(),
        false => tempfile::tempdir().unwrap(),
    }
}

fn owner() -> Owner {
    Owner {
        provider: "eks".to_owned(),
        source: "test".to_owned(),
    }
}

/// The disks of a process.
struct Disks {
    state: Arc<Mutex<Disk>>,
    dead: Arc<Mutex<DeadDisk>>,
}

/// Runs one process, from its start to its end or a crash.
async fn live(world: &Shared, disks: &Disks, dice: &mut Dice, last: bool) -> Option<Ended> {
    let (store, loaded) = DiskStore::open(world, &disks.state, &owner()).await;
    let start = loaded.as_ref().map(positions).unwrap_or_default();
    let (plan, crash) = {
        let mut world = world.lock().unwrap();
        world.begin(&start);
        (world.plan, Arc::clone(&world.crash))
    };
    let pipeline = Pipeline {
        source: Log::open(world, dice.below(u64::MAX), &start),
        converter: Native(EventOptions::default()),
        sink: Receiver(Arc::clone(world)),
        dead_letter: Some(DeadDisk::open(world, &disks.dead)),
        checkpoint: Some(Checkpointer::new(
            store,
            owner(),
            loaded,
            Duration::from_secs(1),
        )),
        lease_hold: None,
        observer: Watch::new(world, IN_FLIGHT_BYTES_MAX),
        on_request: Box::new(|_, _| {}),
        batch: batch::BatchLimits {
            events_max: 7,
            bytes_max: 4000,
            wait_max: Duration::from_millis(500),
        },
        in_flight_batches_max: plan.in_flight,
        in_flight_bytes: ReadBudget::new(IN_FLIGHT_BYTES_MAX),
        retry_policy: RetryPolicy::Forever,
        stop: CancellationToken::new(),
        grace: Duration::from_secs(25),
    };
    if last {
        // Faults end; from here on there must be progress without them.
        let heal = async {
            tokio::time::sleep(Duration::from_secs(120)).await;
            world.lock().unwrap().faulty = false;
        };
        let bound = Duration::from_secs(4 * 3600);
        let both = async { tokio::join!(run(pipeline), heal).0 };
        let outcome = tokio::time::timeout(bound, both).await;
        return Some(outcome.expect("progress resumes").ended);
    }
    // A crash: the process ends at any point.
    if dice.chance(50) {
        disks.state.lock().unwrap().crash_in_a_write();
    } else if dice.chance(50) {
        disks.dead.lock().unwrap().crash_in_a_write();
    }
    let until = Duration::from_millis(dice.below(20_000));
    let ended = tokio::select! {
        biased;
        () = crash.notified() => None,
        outcome = run(pipeline) => Some(outcome.ended),
        () = tokio::time::sleep(until) => None,
    };
    let mut world = world.lock().unwrap();
    // The loop may end before the crash is noticed.
    let ended = ended.filter(|_| !world.crashed);
    if ended.is_none() && plan.store_faults == 0 {
        world.check_repeated();
    }
    ended
}

/// Applies a crash to the disk and the last line of the dead letter.
fn crash(world: &Shared, disks: &Disks, dice: &mut Dice) {
    {
        let mut world = world.lock().unwrap();
        if !world.crashed {
            world.end("crashed");
        }
        if dice.chance(30) {
            let line = "{\"time\":\"2026-11-21T10:00:00.000000Z\",\"provider\":\"eks\",\"reason\":";
            let at = usize::try_from(1 + dice.below(line.len() as u64 - 1)).unwrap();
            let mut kept = std::fs::read(&world.dead).unwrap_or_default();
            kept.extend_from_slice(&line.as_bytes()[..at]);
            std::fs::write(&world.dead, kept).unwrap();
            world.saw("dead letter torn");
        }
    }
    let power_lost = disks.state.lock().unwrap().crash(world);
    let mut dead = disks.dead.lock().unwrap();
    dead.crash();
    if power_lost {
        let lost = dead.lose_power();
        world.lock().unwrap().lose(lost);
    }
}

async fn attack(seed: u64, traced: bool) -> Shared {
    // Seeds the pipeline's own random choices.
    fastrand::seed(seed);
    let plan = Plan::of(seed);
    let folder = folder();
    let world = World::new(plan, folder.path().join("dead.jsonl"), traced);
    let state = folder.path().join("state");
    let disks = Disks {
        state: Disk::new(plan, &state),
        dead: DeadDisk::new(plan, &folder.path().join("dead.jsonl")),
    };
    let mut dice = Dice(seed ^ 0x1234);
    let mut life = 0;
    let ended = loop {
        let last = life >= plan.crashes;
        life += 1;
        match live(&world, &disks, &mut dice, last).await {
            Some(ended) => break ended,
            None => crash(&world, &disks, &mut dice),
        }
    };
    assert_eq!(ended, Ended::Done);
    {
        let mut world = world.lock().unwrap();
        check_end(&world);
        world.note_dead_letter();
    }
    world
}

fn check_end(world: &World) {
    let plan = world.plan;
    world.check(&world.shards.places().collect::<Vec<_>>());
    world.check_issued();
    let parked = plan.poison != Poison::None || plan.faults > 0;
    let more = if parked { plan.in_flight } else { 0 };
    assert!(
        world.at_once_max <= plan.in_flight + more,
        "{} requests at once",
        world.at_once_max
    );
    let mut kept = world.durable.clone();
    kept.remove(&FILLERS);
    let want: BTreeMap<u32, u64> = world
        .shards
        .last()
        .map(|(id, shard)| (id, shard.records.len() as u64))
        .collect();
    assert_eq!(kept, want, "the checkpoint ends at the end");
    let once: BTreeSet<_> = world.accepted.iter().collect();
    if plan.crashes == 0 && !plan.lost_answers && plan.each == 0 {
        assert_eq!(
            world.accepted.len(),
            once.len(),
            "duplicates with nothing that allows them"
        );
    }
}

/// Runs one schedule, with its own time.
fn play(seed: u64, traced: bool) -> Shared {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        runtime.block_on(attack(seed, traced))
    }));
    result.unwrap_or_else(|panic| {
        println!("SEED={seed} {:?}", Plan::of(seed));
        std::panic::resume_unwind(panic);
    })
}

#[test]
fn run_random_faults_lose_nothing() {
    let mut seen = BTreeMap::<&str, u64>::new();
    let schedules = schedules(1000);
    let many = schedules.end - schedules.start >= 1000;
    for seed in schedules {
        let world = play(seed, std::env::var_os("TRACE").is_some());
        for (state, times) in &world.lock().unwrap().seen {
            *seen.entry(state).or_default() += times;
        }
    }
    println!("{seen:#?}");
    let wanted = [
        "answer lost",
        "crashed",
        "crashed behind a kept position",
        "crashed in a write",
        "crashed in the dead letter",
        "dead letter lost by a sync that lied",
        "dead letter packed",
        "dead letter rotation failed",
        "dead letter sync failed",
        "dead letter torn",
        "dead letter write failed in the middle",
        "empty list",
        "grown",
        "halved",
        "outage",
        "parked",
        "poison: 302",
        "poison: 400",
        "poison: 403",
        "poison: 413",
        "poison: 422",
        "poison: 429",
        "poison: 500",
        "poison: reset",
        "poison: time-out",
        "power lost",
        "refused",
        "retired with records open",
        "shrunk",
        "torn checkpoint refused",
        "undeliverable",
        "unparsable",
        "write failed",
    ];
    for state in wanted.iter().filter(|_| many) {
        assert!(seen.get(state) > Some(&20), "{state} seldom: {seen:?}");
    }
}

#[test]
fn run_same_seed_gives_the_same_trace() {
    for seed in schedules(100) {
        let trace = || play(seed, true).lock().unwrap().trace.take().unwrap();
        let (one, other) = (trace(), trace());
        assert!(one.lines().count() > 20, "SEED={seed}: {one}");
        let differs = one.lines().zip(other.lines()).find(|(a, b)| a != b);
        assert_eq!(differs, None, "SEED={seed}");
        assert_eq!(one.len(), other.len(), "SEED={seed}");
    }
}
