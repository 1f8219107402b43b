//! The provider's logs, and what readers did with them: the rules that hold whatever fails.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use audit_bridge_app::slots::Listing;
use audit_bridge_testkit::kubernetes::FakeKubernetes;
use fastrand::Rng;
use tokio::time::Instant;

use super::chart::SLOTS;
use super::{EVERY, MISSING_MIN, Reader};

/// A log at the provider.
pub(super) struct Log {
    pub(super) born: Instant,
    /// Its number of records, once it is closed.
    pub(super) end: Option<u64>,
    /// Whether the provider no longer lists it.
    pub(super) gone: bool,
    /// Whether it vanished before it was read.
    pub(super) lost: bool,
    /// The provider's lists leave it out until then.
    pub(super) missing_until: Option<Instant>,
    /// All records before this one were delivered.
    pub(super) delivered: u64,
    /// What was written down last for certain.
    pub(super) saved: Saved,
}

/// What a reader wrote down.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Saved {
    /// By which win it read.
    pub(super) won: u64,
    pub(super) position: u64,
    pub(super) lease: String,
}

impl Log {
    pub(super) fn issued(&self) -> u64 {
        let elapsed = self.born.elapsed().as_millis() / EVERY.as_millis();
        let issued = u64::try_from(elapsed).unwrap();
        self.end.unwrap_or(issued)
    }
}

pub(super) struct World {
    pub(super) random: Rng,
    pub(super) fake: FakeKubernetes,
    pub(super) faulty: bool,
    pub(super) logs: BTreeMap<String, Log>,
    /// Number of won Leases.
    pub(super) won: u64,
    /// By log and by slot, the number of the win with which its newest reader started.
    pub(super) newest: BTreeMap<String, u64>,
    /// Which logs each slot has had, one after the other.
    pub(super) had: BTreeMap<String, Vec<String>>,
    /// Which replicas hang, and until when.
    pub(super) hung: BTreeMap<String, Instant>,
    pub(super) seen: BTreeMap<&'static str, u64>,
}

pub(super) type Shared = Arc<Mutex<World>>;

impl World {
    pub(super) fn saw(&mut self, state: &'static str) {
        *self.seen.entry(state).or_default() += 1;
    }

    pub(super) fn is_hung(&self, replica: &str) -> bool {
        let until = self.hung.get(replica);
        until.is_some_and(|&until| until > Instant::now())
    }

    /// A replica hangs: mostly for as long as a Lease lasts, sometimes for longer than a log that is
    /// missing keeps its slot.
    pub(super) fn hang(&mut self, replica: String) {
        let seconds = match self.random.u32(0..4) {
            0 => self.random.u64(300..500),
            _ => self.random.u64(1..100),
        };
        let until = Instant::now() + Duration::from_secs(seconds);
        self.hung.insert(replica, until);
        self.saw("hung");
    }

    /// A reader does something: no other one of its log or of its slot has begun after it.
    pub(super) fn act(&mut self, reader: &Reader) {
        for what in [&reader.log, &reader.lease] {
            let newest = self.newest.entry(what.clone()).or_default();
            assert!(
                *newest <= reader.won,
                "{} reads {} in {} although another one of {what} has begun",
                reader.replica,
                reader.log,
                reader.lease
            );
            *newest = reader.won;
        }
        let had = self.had.entry(reader.lease.clone()).or_default();
        if had.last() != Some(&reader.log) {
            had.push(reader.log.clone());
        }
    }

    /// A reader begins: where the one before it stood, unless the log has another slot now, or that
    /// was used in between; and never behind what was delivered.
    pub(super) fn begin(&mut self, reader: &Reader, next: u64) {
        let had = self.had.get(&reader.lease).and_then(|had| had.last());
        let is_kept = had == Some(&reader.log);
        self.act(reader);
        let log = self.logs.get_mut(&reader.log).unwrap();
        let has_moved = log.saved.position > 0 && log.saved.lease != reader.lease;
        let name = &reader.log;
        assert!(
            next <= log.delivered,
            "{name} leaves out what was not delivered"
        );
        if is_kept && log.saved.lease == reader.lease {
            let saved = log.saved.position;
            assert!(
                log.lost || next >= saved,
                "{name} begins at {next}, {saved} was written down"
            );
        } else {
            log.saved = reader.saved(next);
        }
        if has_moved {
            self.saw("log moved to another slot");
        }
    }

    pub(super) fn bear(&mut self) {
        let name = format!("stream/shard-{:03}", self.logs.len());
        let log = Log {
            born: Instant::now(),
            end: None,
            gone: false,
            lost: false,
            missing_until: None,
            delivered: 0,
            saved: Saved::default(),
        };
        self.logs.insert(name, log);
    }

    /// A random step of the provider.
    pub(super) fn turn(&mut self) {
        let there = self.logs.values().filter(|log| World::is_listed(log));
        let open = there.clone().filter(|log| log.end.is_none()).count();
        let names: Vec<String> = self.logs.keys().cloned().collect();
        let name = names[self.random.usize(0..names.len())].clone();
        let may_bear = open < SLOTS + 2;
        if !World::is_listed(&self.logs[&name]) {
            return;
        }
        let log = self.logs.get_mut(&name).unwrap();
        match (log.end, self.random.u32(0..10)) {
            (None, 0..4) if open > 1 || may_bear => {
                log.end = Some(log.issued());
                for _ in 0..self.random.usize(1..3) {
                    if may_bear {
                        self.bear();
                    }
                }
            }
            (Some(end), 4..9) if log.saved.position == end => log.gone = true,
            (Some(end), 9) if log.saved.position < end && !log.gone => {
                (log.gone, log.lost) = (true, true);
                self.saw("gone unread");
            }
            _ => {}
        }
    }

    /// The provider's lists leave an open log out, for long enough that it loses its slot.
    pub(super) fn hide(&mut self) {
        let now = Instant::now();
        let is_missing = |log: &Log| log.missing_until.is_some_and(|until| until > now);
        let all = self.logs.values_mut();
        let mut there: Vec<_> = all.filter(|log| log.end.is_none()).collect();
        if there.iter().filter(|log| is_missing(log)).count() < 2 {
            let log = self.random.choice(&mut there);
            if let Some(log) = log.filter(|log| !is_missing(log)) {
                let wait = MISSING_MIN + Duration::from_secs(self.random.u64(0..60));
                log.missing_until = Some(now + wait);
            }
        }
    }

    pub(super) fn is_listed(log: &Log) -> bool {
        !log.gone
            && log
                .missing_until
                .is_none_or(|until| until <= Instant::now())
    }

    pub(super) fn listing(&self) -> Listing {
        let there = self.logs.iter().filter(|(_, log)| World::is_listed(log));
        Listing {
            logs: there
                .map(|(name, log)| (name.clone(), log.end.is_some()))
                .collect(),
            at: Instant::now(),
        }
    }
}
