//! Everything that outlives a crash, and the history: the log, accepted events, the disk, the
//! trace.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use audit_bridge_core::source::{Page, PartitionChange};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::dead_disk::{kept, lines};
use super::log::{FILLER, FILLERS, Place, Shards, event_text, id, kind};
use super::plan::{Dice, Plan, Poison};

pub(crate) type Shared = Arc<Mutex<World>>;

/// A reached position is on the disk after this time: the checkpoint's interval plus twice the time
/// of a write.
const KEPT_WITHIN: Duration = Duration::from_millis(1010);

pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) dice: Dice,
    pub(crate) shards: Shards,
    began: Instant,
    pub(crate) faulty: bool,
    /// The process has ended: nothing that it started has an effect any more.
    pub(crate) crashed: bool,
    pub(crate) crash: Arc<Notify>,
    /// Events accepted, in order, with their text.
    pub(crate) accepted: Vec<String>,
    /// When each record was first accepted or rejected in this process, by audit ID.
    settled_at: BTreeMap<String, Instant>,
    /// The positions with which this process started.
    start: BTreeMap<u32, u64>,
    /// Positions of its pages, each with its time.
    given: Vec<(Instant, u32, u64)>,
    pub(crate) dead: PathBuf,
    /// Lines of the dead letter that a lying sync lost.
    lost: BTreeSet<String>,
    /// The positions of the last write that succeeded, as far as the process knows.
    pub(crate) durable: BTreeMap<u32, u64>,
    pub(crate) at_once: usize,
    pub(crate) at_once_max: usize,
    /// Events of failed requests, by their first event.
    pub(crate) failed: BTreeMap<String, usize>,
    /// Number of times that each state was reached.
    pub(crate) seen: BTreeMap<&'static str, u64>,
    /// Every request, answer, position, checkpoint and reject, with its simulated time.
    pub(crate) trace: Option<String>,
}

impl World {
    pub(crate) fn new(plan: Plan, dead: PathBuf, traced: bool) -> Shared {
        Arc::new(Mutex::new(World {
            plan,
            dice: Dice(plan.seed ^ 0xabcd),
            shards: Shards::of(&plan),
            began: Instant::now(),
            faulty: true,
            crashed: false,
            crash: Arc::default(),
            accepted: Vec::new(),
            settled_at: BTreeMap::new(),
            start: BTreeMap::new(),
            given: Vec::new(),
            dead,
            lost: BTreeSet::new(),
            durable: BTreeMap::new(),
            at_once: 0,
            at_once_max: 0,
            failed: BTreeMap::new(),
            seen: BTreeMap::new(),
            trace: traced.then(String::new),
        }))
    }

    pub(crate) fn saw(&mut self, state: &'static str) {
        *self.seen.entry(state).or_default() += 1;
    }

    pub(crate) fn note(&mut self, what: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            let line = format!("{} {}", self.began.elapsed().as_micros(), what());
            if std::env::var_os("TRACE").is_some() {
                println!("{line}");
            }
            writeln!(trace, "{line}").unwrap();
        }
    }

    /// Ends the process immediately.
    pub(crate) fn end(&mut self, how: &'static str) {
        self.crashed = true;
        self.saw(how);
        self.note(|| how.to_owned());
        self.crash.notify_one();
    }

    /// Records a page of the source.
    pub(crate) fn read(&mut self, page: &Page<u64>) {
        self.note(|| {
            let (id, position) = (page.partition, &page.position);
            let records: Vec<_> = page
                .records
                .iter()
                .map(|it| it.origin.to_string())
                .collect();
            format!("read {id} {records:?} {position:?} {:?}", page.partitions)
        });
        if let Some(position) = page.position {
            self.given.push((Instant::now(), page.partition, position));
        }
        let retired = page.partitions.iter().filter_map(|change| {
            let PartitionChange::Retired(id) = change else {
                return None;
            };
            Some(*id)
        });
        let open = retired.into_iter().any(|id| {
            let records = &self.shards.get(id).records;
            records.iter().any(|&place| !self.is_settled(place))
        });
        if open {
            self.saw("retired with records open");
        }
    }

    /// Records that an event or record is settled.
    pub(crate) fn settle(&mut self, audit_id: &str) {
        let at = self.settled_at.entry(audit_id.to_owned());
        at.or_insert_with(Instant::now);
    }

    fn is_settled(&self, place: Place) -> bool {
        kind(place.1) == "stranger" || self.settled_at.contains_key(&id(place))
    }

    /// Checks that a crash repeats only what was settled within the last second: older positions
    /// are saved.
    pub(crate) fn check_repeated(&mut self) {
        let kept_to = Instant::now().checked_sub(KEPT_WITHIN).unwrap();
        let settled_by_then = |place: &Place| {
            let at = self.settled_at.get(&id(*place));
            kind(place.1) == "stranger" || at.is_some_and(|at| *at <= kept_to)
        };
        let mut held = 0;
        for (at, shard, position) in &self.given {
            if *at > kept_to || *shard == FILLERS {
                continue;
            }
            let from = self.start.get(shard).copied().unwrap_or(0);
            let mut records = self.shards.get(*shard).between(from, *position);
            if !records.all(settled_by_then) {
                continue;
            }
            held += 1;
            let kept = self.durable.get(shard).is_some_and(|it| it >= position)
                || self
                    .durable
                    .keys()
                    .any(|id| self.shards.follows(*id, *shard));
            assert!(
                kept,
                "{position} of {shard} was reached more than a second ago"
            );
        }
        if held > 0 {
            self.saw("crashed behind a kept position");
        }
    }

    /// A process starts with these positions.
    pub(crate) fn begin(&mut self, positions: &BTreeMap<u32, u64>) {
        self.crashed = false;
        self.at_once = 0;
        self.given.clear();
        self.settled_at.clear();
        self.start = positions.clone();
        self.durable = positions.clone();
        self.check_before(positions);
        self.note(|| format!("begin {positions:?}"));
    }

    /// A power loss removed these lines of the dead letter, although a sync had reported them as
    /// written.
    pub(crate) fn lose(&mut self, lines: BTreeSet<String>) {
        if !lines.is_empty() {
            self.saw("dead letter lost by a sync that lied");
        }
        self.note(|| format!("lost by a sync that lied {lines:?}"));
        self.lost.extend(lines);
    }

    /// Checks that every record before these positions is delivered intact, in the dead letter, or
    /// a stranger.
    pub(crate) fn check_before(&self, positions: &BTreeMap<u32, u64>) {
        self.check(&self.shards.before(positions));
    }

    pub(crate) fn check(&self, places: &[Place]) {
        let accepted: BTreeSet<&str> = self.accepted.iter().map(String::as_str).collect();
        let kept = kept(&self.dead);
        for &place in places {
            let text = event_text(place);
            let id = id(place);
            let in_dead_letter = kept.contains(&id);
            let was_there = in_dead_letter || self.lost.contains(&id);
            match kind(place.1) {
                "stranger" => {}
                "broken" => assert!(was_there, "{place:?} is not kept"),
                "poison" if self.plan.poison != Poison::None => {
                    assert!(was_there, "{place:?} is not kept");
                    assert!(!accepted.contains(text.as_str()));
                }
                _ => {
                    assert!(accepted.contains(text.as_str()), "{place:?} is lost");
                    assert!(!in_dead_letter, "{place:?} is in the dead letter too");
                }
            }
        }
    }

    /// Traces the lines of the dead letter, without this machine's time.
    pub(crate) fn note_dead_letter(&mut self) {
        for line in lines(&self.dead) {
            let line = line
                .split("\"provider\"")
                .nth(1)
                .unwrap_or(&line)
                .to_owned();
            self.note(|| format!("dead letter {line}"));
        }
    }

    /// Checks that only issued events arrived.
    pub(crate) fn check_issued(&self) {
        let fillers = (0..self.plan.poison.fillers()).map(|index| (FILLERS, FILLER + index));
        let issued: BTreeSet<String> = self
            .shards
            .places()
            .chain(fillers)
            .map(event_text)
            .collect();
        for text in &self.accepted {
            assert!(issued.contains(text), "never issued: {text}");
        }
    }
}
