//! The promise, attacked: random schedules of a log, a receiver and a store that all fail, with
//! crashes in between, on paused time. A failing seed is printed; `SEED=n` runs it alone.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test may stop at once"
)]

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use audit_bridge_core::batch;
use audit_bridge_core::checkpoint::{Checkpoint, Checkpointer, Owner, Store, StoreError};
use audit_bridge_core::convert::{Convert, Output, RecordId, Reject, Skip};
use audit_bridge_core::dead_letter::DeadLetter;
use audit_bridge_core::deliver::PARKED_BYTES_MAX;
use audit_bridge_core::event::Event;
use audit_bridge_core::event::conformance::{self, Options};
use audit_bridge_core::record::{Origin, Record};
use audit_bridge_core::run::{Doing, Ended, Observer, Patience, Pipeline, run};
use audit_bridge_core::shutdown::Stop;
use audit_bridge_core::sink::{Cause, Failure, Sink, Verdict};
use audit_bridge_core::source::{Page, Position, Source};
use audit_bridge_core::tally::Tally;

/// Small, seeded, good enough (`SplitMix64`).
#[derive(Clone)]
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % limit.max(1)
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// How long the webhook client waits.
const TIMEOUT_MS: u64 = 10_000;

/// On what the receiver always fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Poison {
    None,
    /// It calls the bodies bad: the events are refused.
    Bodies,
    /// Whatever else it may do: they are parked first.
    All,
}

impl Poison {
    /// What goes on when the log is read, so that poison can be told from an outage: an event every
    /// 20 seconds, so many times.
    fn fillers(self) -> u64 {
        match self {
            Poison::None => 0,
            Poison::Bodies => 15,
            Poison::All => 120,
        }
    }
}

/// What a schedule has in it.
#[derive(Debug, Clone, Copy)]
struct Plan {
    partitions: u32,
    records: u64,
    /// Percent of requests that fail in some way while faults last.
    faults: u64,
    /// Some failing requests were accepted all the same.
    lost_answers: bool,
    poison: Poison,
    /// The receiver's time for each event while faults last.
    each: u64,
    crashes: u64,
    store_faults: u64,
    in_flight: usize,
}

impl Plan {
    fn of(seed: u64) -> Plan {
        let mut dice = Dice(seed);
        Plan {
            partitions: 1 + u32::try_from(dice.below(4)).unwrap(),
            records: 20 + dice.below(300),
            faults: [0, 10, 40][usize::try_from(dice.below(3)).unwrap()],
            lost_answers: dice.chance(40),
            poison: [
                Poison::None,
                Poison::None,
                Poison::Bodies,
                Poison::Bodies,
                Poison::All,
            ][usize::try_from(dice.below(5)).unwrap()],
            each: [0, 0, 200, 2000][usize::try_from(dice.below(4)).unwrap()],
            crashes: dice.below(5),
            store_faults: [0, 30][usize::try_from(dice.below(2)).unwrap()],
            in_flight: 1 + usize::try_from(dice.below(4)).unwrap(),
        }
    }
}

/// Where the indices of fillers begin: all of them are events.
const FILLER: u64 = 17_000_000;

fn id(partition: u32, index: u64) -> String {
    format!("p{partition}-{index}")
}

fn event_text(partition: u32, index: u64) -> String {
    format!(
        "{{\"kind\":\"Event\",\"apiVersion\":\"audit.k8s.io/v1\",\"level\":\"Metadata\",\
         \"auditID\":\"{}\",\"stage\":\"ResponseComplete\",\"verb\":\"get\",\
         \"stageTimestamp\":\"2026-11-21T10:00:00.000000Z\"}}",
        id(partition, index)
    )
}

/// What kind of record stands at an index: most are events.
fn kind(index: u64) -> &'static str {
    match index % 17 {
        _ if index >= FILLER => "event",
        3 => "stranger",
        5 => "broken",
        11 => "poison",
        _ => "event",
    }
}

/// The log: every partition holds records 0..n; positions are "read up to".
struct Log {
    plan: Plan,
    dice: Dice,
    next: Vec<u64>,
    fillers: u64,
    filler_at: Option<tokio::time::Instant>,
    /// Positions that the checkpoint made durable, as the source is told.
    committed: Arc<Mutex<BTreeMap<u32, u64>>>,
}

fn record(text: String, partition: u32, index: u64) -> Record {
    let origin = Origin::Stream {
        stream: partition.to_string().into(),
        id: index.to_string(),
    };
    Record::new(text, origin)
}

impl Source for Log {
    async fn read(&mut self) -> Option<Page> {
        if self.dice.chance(20) {
            tokio::time::sleep(Duration::from_millis(self.dice.below(3000))).await;
        }
        let open: Vec<u32> = (0..self.plan.partitions)
            .filter(|&p| self.next[p as usize] < self.plan.records)
            .collect();
        if open.is_empty() {
            if self.fillers == self.plan.poison.fillers() {
                return None;
            }
            let now = tokio::time::Instant::now();
            let at = *self.filler_at.get_or_insert(now + Duration::from_secs(20));
            tokio::time::sleep_until(at).await;
            self.filler_at = None;
            let index = self.fillers;
            self.fillers += 1;
            let partition = self.plan.partitions;
            return Some(Page {
                partition,
                records: vec![record(
                    event_text(partition, FILLER + index),
                    partition,
                    index,
                )],
                ..Page::default()
            });
        }
        let partition = open[usize::try_from(self.dice.below(open.len() as u64)).unwrap()];
        let from = self.next[partition as usize];
        let to = self.plan.records.min(from + self.dice.below(30));
        self.next[partition as usize] = to;
        let records = (from..to)
            .map(|index| {
                let text = match kind(index) {
                    "stranger" => "{\"message\":\"nothing of ours\"}".to_owned(),
                    "broken" => format!(
                        "{{\"kind\":\"Event\",\"auditID\":\"{}\"}}",
                        id(partition, index)
                    ),
                    _ => event_text(partition, index),
                };
                record(text, partition, index)
            })
            .collect();
        // Some pages say nothing of the position, some only that.
        let position =
            (!self.dice.chance(30) || to == self.plan.records).then(|| Position::from(to));
        Some(Page {
            partition,
            records,
            position,
            ..Page::default()
        })
    }

    fn commit(&mut self, partition: u32, position: &Position) {
        self.committed
            .lock()
            .unwrap()
            .insert(partition, position.as_u64().unwrap());
    }
}

struct Native(Options);

impl Convert for Native {
    fn convert(&mut self, id: RecordId, record: &Record, out: &mut Output) {
        if record.payload.starts_with(b"{\"message") {
            return out.skip(id, Skip::OtherStream);
        }
        out.settle(
            id,
            record,
            conformance::event(&record.payload, &self.0.context()),
        );
    }
}

/// Everything that outlives a crash: the receiver, the store, and what they know.
struct World {
    plan: Plan,
    dice: Dice,
    /// Events accepted, in order, with their text.
    accepted: Vec<String>,
    faulty: bool,
    stored: Option<Checkpoint>,
    at_once: usize,
    at_once_max: usize,
    /// States that were reached, and how often.
    seen: BTreeMap<&'static str, u64>,
}

type Shared = Arc<Mutex<World>>;

struct Receiver(Shared);

fn text_of(event: &Event) -> String {
    String::from_utf8(event.text().to_vec()).unwrap()
}

impl Sink for Receiver {
    async fn send(&self, events: &[Event]) -> Verdict {
        let (wait, late, fate) = {
            let mut world = self.0.lock().unwrap();
            world.at_once += 1;
            world.at_once_max = world.at_once_max.max(world.at_once);
            let (wait, faults) = (world.dice.below(400), world.plan.faults);
            let fails = world.faulty && world.dice.chance(faults);
            let each = if world.faulty { world.plan.each } else { 0 };
            let wait = wait + each * events.len() as u64;
            let late = wait > TIMEOUT_MS;
            let fate = fails.then(|| world.dice.below(7));
            (wait.min(TIMEOUT_MS), late, fate)
        };
        tokio::time::sleep(Duration::from_millis(wait)).await;
        let mut world = self.0.lock().unwrap();
        world.at_once -= 1;
        let failed = |cause, seconds: u64| {
            Verdict::Failed(Failure {
                cause,
                detail: "the webhook failed".to_owned(),
                remedy: None,
                after: (seconds > 0).then(|| Duration::from_secs(seconds)),
            })
        };
        match fate {
            _ if late => return failed(Cause::Timeout, 0),
            Some(0) => return failed(Cause::Status(503), 2),
            Some(1) => return failed(Cause::Status(429), 0),
            Some(2) => return failed(Cause::Connect, 0),
            Some(3) => return failed(Cause::Status(401), 0),
            Some(4) if events.len() > 1 => return failed(Cause::Status(413), 0),
            Some(5) if world.plan.lost_answers => {
                let poisoned = events
                    .iter()
                    .any(|event| poison(&world.plan, event).is_some());
                if !poisoned {
                    world.accepted.extend(events.iter().map(text_of));
                }
                return failed(Cause::Timeout, 0);
            }
            Some(_) => return failed(Cause::Status(500), 0),
            None => {}
        }
        if let Some(cause) = events.iter().find_map(|event| poison(&world.plan, event)) {
            return failed(cause, 0);
        }
        world.accepted.extend(events.iter().map(text_of));
        Verdict::Accepted { status: 200 }
    }
}

/// How the receiver fails on this event, always, if it does.
fn poison(plan: &Plan, event: &Event) -> Option<Cause> {
    let text = text_of(event);
    let id = text.split("auditID\":\"p").nth(1).unwrap();
    let mut numbers = id.split(['-', '"']).map(str::parse::<u64>);
    let (partition, index) = (
        numbers.next().unwrap().unwrap(),
        numbers.next().unwrap().unwrap(),
    );
    (plan.poison != Poison::None && kind(index) == "poison").then(|| {
        let kinds = if plan.poison == Poison::All { 9 } else { 3 };
        match (partition * 7 + index / 17) % kinds {
            0 => Cause::Status(400),
            1 => Cause::Status(413),
            2 => Cause::Status(422),
            3 => Cause::Status(403),
            4 => Cause::Status(302),
            5 => Cause::Status(500),
            6 => Cause::Status(429),
            7 => Cause::Other,
            _ => Cause::Timeout,
        }
    })
}

struct Memory(Shared);

impl Store for Memory {
    async fn load(&mut self) -> Result<Option<Checkpoint>, StoreError> {
        Ok(self.0.lock().unwrap().stored.clone())
    }

    async fn save(&mut self, checkpoint: &Checkpoint) -> Result<(), StoreError> {
        tokio::time::sleep(Duration::from_millis(5)).await;
        let mut world = self.0.lock().unwrap();
        let faults = world.plan.store_faults;
        if world.faulty && world.dice.chance(faults) {
            return Err(StoreError::Unavailable {
                place: "memory".to_owned(),
                problem: "is full".to_owned(),
                remedy: "make room".to_owned(),
                source: None,
            });
        }
        world.stored = Some(checkpoint.clone());
        Ok(())
    }
}

/// Checks, at every turn, what must hold at all times, and notes which states were reached.
struct Watch {
    in_flight_bytes_max: usize,
    world: Shared,
    request_events_max: usize,
}

impl Watch {
    fn saw(&self, state: &'static str) {
        *self.world.lock().unwrap().seen.entry(state).or_default() += 1;
    }
}

impl Observer for Watch {
    fn reject(&mut self, _: &Origin, reason: Reject, _: &str) {
        self.saw(reason.name());
    }

    fn turn(&mut self, _: &Tally, doing: &Doing<'_>) {
        // The limit, and one page that was read while there was room; and the records of a parked
        // event that is on its way to the dead letter.
        assert!(
            doing.in_flight_bytes <= self.in_flight_bytes_max + 30 * 1200,
            "{} bytes",
            doing.in_flight_bytes
        );
        let delivery = &doing.delivery;
        assert!(delivery.parked.bytes <= PARKED_BYTES_MAX);
        if delivery.parked.events > 0 {
            self.saw("parked");
        }
        if delivery.outage.is_some() {
            self.saw("outage");
        }
        let before = std::mem::replace(&mut self.request_events_max, delivery.request_events_max);
        match delivery.request_events_max.cmp(&before) {
            Ordering::Less => self.saw("shrunk"),
            Ordering::Greater => self.saw("grown"),
            Ordering::Equal => {}
        }
    }
}

async fn attack(seed: u64) -> BTreeMap<&'static str, u64> {
    let plan = Plan::of(seed);
    let folder = tempfile::tempdir().unwrap();
    let dead = folder.path().join("dead.jsonl");
    let world = Arc::new(Mutex::new(World {
        plan,
        dice: Dice(seed ^ 0xabcd),
        accepted: Vec::new(),
        faulty: true,
        stored: None,
        at_once: 0,
        at_once_max: 0,
        seen: BTreeMap::new(),
    }));
    let owner = Owner {
        provider: "eks".to_owned(),
        source: "test".to_owned(),
    };
    let mut dice = Dice(seed ^ 0x1234);
    let mut life = 0;
    let ended = loop {
        let mut store = Memory(Arc::clone(&world));
        let loaded = store.load().await.unwrap();
        let start: Vec<u64> = (0..plan.partitions)
            .map(|partition| {
                let positions = loaded.as_ref().map(|checkpoint| &checkpoint.position);
                positions
                    .and_then(|all| all.get(&partition)?.as_u64())
                    .unwrap_or(0)
            })
            .collect();
        // Before a position is durable, everything in front of it is delivered, dead or skipped.
        check_settled(&world, &dead, &start);
        let committed = Arc::new(Mutex::new(BTreeMap::new()));
        let (_keep, stop) = Stop::by_hand();
        let in_flight_bytes_max = 20_000;
        let pipeline = Pipeline {
            source: Log {
                plan,
                dice: Dice(dice.below(u64::MAX)),
                next: start,
                fillers: 0,
                filler_at: None,
                committed: Arc::clone(&committed),
            },
            converter: Native(Options::default()),
            sink: Receiver(Arc::clone(&world)),
            dead_letter: Some(DeadLetter::open(&dead, "eks").unwrap()),
            checkpoint: Some(Checkpointer::new(
                store,
                owner.clone(),
                loaded,
                Duration::from_secs(1),
            )),
            tenure: None,
            observer: Watch {
                in_flight_bytes_max,
                world: Arc::clone(&world),
                request_events_max: usize::MAX,
            },
            on_request: Box::new(|_, _| {}),
            batch: batch::Limits {
                events_max: 7,
                bytes_max: 4000,
                wait_max: Duration::from_millis(500),
            },
            in_flight_batches_max: plan.in_flight,
            in_flight_bytes_max,
            patience: Patience::Endless,
            stop,
            grace: Duration::from_secs(25),
        };
        let last = life >= plan.crashes;
        life += 1;
        if last {
            // Faults end; from here on progress must come by itself.
            let heal = async {
                tokio::time::sleep(Duration::from_secs(120)).await;
                world.lock().unwrap().faulty = false;
            };
            let bound = Duration::from_secs(4 * 3600);
            let both = async { tokio::join!(run(pipeline), heal).0 };
            let outcome = tokio::time::timeout(bound, both)
                .await
                .expect("progress resumes");
            break outcome.ended;
        }
        // A crash: everything in the process is gone, wherever it was.
        let until = Duration::from_millis(dice.below(20_000));
        if let Ok(outcome) = tokio::time::timeout(until, run(pipeline)).await {
            break outcome.ended;
        }
        world.lock().unwrap().at_once = 0;
    };
    assert_eq!(ended, Ended::Done);
    check_settled(&world, &dead, &vec![plan.records; plan.partitions as usize]);

    let world = world.lock().unwrap();
    assert!(
        world.at_once_max
            <= plan.in_flight + usize::from(plan.poison != Poison::None || plan.faults > 0),
        "{} requests at once",
        world.at_once_max
    );
    let positions = &world.stored.as_ref().expect("a checkpoint").position;
    for partition in 0..plan.partitions {
        assert_eq!(
            positions[&partition], plan.records,
            "the checkpoint ends at the end"
        );
    }
    let once: BTreeSet<_> = world.accepted.iter().collect();
    if plan.crashes == 0 && !plan.lost_answers && plan.each == 0 {
        assert_eq!(
            world.accepted.len(),
            once.len(),
            "duplicates with nothing that allows them"
        );
    }
    world.seen.clone()
}

/// Every record before these positions is delivered intact, in the dead letter, or a stranger.
fn check_settled(world: &Shared, dead: &std::path::Path, upto: &[u64]) {
    let world = world.lock().unwrap();
    let accepted: BTreeSet<&str> = world.accepted.iter().map(String::as_str).collect();
    let kept = std::fs::read_to_string(dead).unwrap_or_default();
    let issued: BTreeSet<String> = (0..world.plan.partitions)
        .flat_map(|partition| {
            (0..world.plan.records).map(move |index| event_text(partition, index))
        })
        .chain(
            (0..world.plan.poison.fillers())
                .map(|index| event_text(world.plan.partitions, FILLER + index)),
        )
        .collect();
    for text in &accepted {
        assert!(issued.contains(*text), "never issued: {text}");
    }
    for (partition, &upto) in (0..).zip(upto) {
        for index in 0..upto {
            let text = event_text(partition, index);
            let in_dead_letter =
                kept.contains(&format!("\"auditID\":\"{}\"", id(partition, index)));
            match kind(index) {
                "stranger" => {}
                "broken" => assert!(in_dead_letter, "{partition}/{index} is not kept"),
                "poison" if world.plan.poison != Poison::None => {
                    assert!(in_dead_letter, "{partition}/{index} is not kept");
                    assert!(!accepted.contains(text.as_str()));
                }
                _ => {
                    assert!(
                        accepted.contains(text.as_str()),
                        "{partition}/{index} is lost"
                    );
                    assert!(
                        !in_dead_letter,
                        "{partition}/{index} is in the dead letter too"
                    );
                }
            }
        }
    }
}

/// How many schedules; `SCHEDULES=n` for a longer run.
fn schedules() -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SCHEDULES").unwrap_or(2000),
    }
}

#[test]
fn nothing_is_lost_whatever_fails() {
    let mut seen = BTreeMap::<&str, u64>::new();
    let schedules = schedules();
    let many = schedules.end - schedules.start >= 200;
    for seed in schedules {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            runtime.block_on(attack(seed))
        }));
        match result {
            Ok(of_this) => {
                for (state, times) in of_this {
                    *seen.entry(state).or_default() += times;
                }
            }
            Err(panic) => {
                println!("SEED={seed} {:?}", Plan::of(seed));
                std::panic::resume_unwind(panic);
            }
        }
    }
    println!("{seen:?}");
    let wanted = [
        "outage",
        "parked",
        "refused",
        "undeliverable",
        "shrunk",
        "grown",
    ];
    for state in wanted.iter().filter(|_| many) {
        assert!(seen.get(state) > Some(&20), "{state} seldom: {seen:?}");
    }
}
