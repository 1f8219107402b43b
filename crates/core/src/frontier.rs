//! The settled frontier of a source: everything that its log held up to this time was delivered or
//! is in the dead letter. `lag_seconds` is now minus this time; `/readyz` reports when it does not
//! move.
//!
//! A partition's frontier is the time of its oldest open record. Without open records it is the
//! time up to which the partition was read ([`ReadTo`]). A source polls its log repeatedly, and
//! each answer that there is nothing more moves the frontier. So a frontier that does not move
//! always means trouble: there is more to settle, or the log cannot be read.
//!
//! A source's frontier is the oldest among its partitions. Partitions that never report up to when
//! they are read (a tail's cursors behind the edge) do not count.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use crate::ack::AckTracker;
use crate::source::ReadTo;

/// A reader that has read to within this distance of now is at the head of the log, where new
/// records arrive.
const HEAD: SignedDuration = SignedDuration::from_mins(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frontier {
    pub to: ReadTo,
    /// The partition that is farthest behind; `None` while no partition is announced.
    pub partition: Option<u32>,
    /// How many of its records are settled without a gap: this moves even where times do not.
    pub settled: u64,
}

impl Frontier {
    /// Seconds from the frontier to now; 0 while the source is not yet due to report a later time.
    pub fn lag_seconds(&self, now: Timestamp) -> f64 {
        let behind = now.duration_since(self.to.time).as_secs_f64();
        match behind <= self.to.again_within.as_secs_f64() {
            true => 0.0,
            false => behind,
        }
    }
}

/// Follows the frontier of one source.
#[derive(Debug)]
pub(crate) struct FrontierTracker {
    /// Everything before this time was settled before this process read anything.
    seed: Timestamp,
    partitions: BTreeMap<u32, Place>,
}

/// The frontier of one partition.
#[derive(Debug)]
struct Place {
    settled: ReadTo,
    /// How many records must be settled, and up to when the partition is settled then.
    waiting: VecDeque<(u64, ReadTo)>,
    /// When it was last read at the head of the log.
    head_at: Option<Instant>,
}

impl FrontierTracker {
    /// `seed`: the settled time of an earlier run, or else the start of this one.
    pub(crate) fn new(seed: Timestamp) -> FrontierTracker {
        FrontierTracker {
            seed,
            partitions: BTreeMap::new(),
        }
    }

    /// The source reads this partition.
    pub(crate) fn announce(&mut self, partition: u32) {
        self.place(partition);
    }

    /// The source reads no more of this partition.
    pub(crate) fn remove(&mut self, partition: u32) {
        self.partitions.remove(&partition);
    }

    /// Whether this partition counts for the frontier, so its records arrive at the head of the
    /// log.
    pub(crate) fn counts(&self, partition: u32) -> bool {
        self.partitions.contains_key(&partition)
    }

    /// The partition is read up to here; all its records so far are open already.
    pub(crate) fn read_to<P>(&mut self, partition: u32, to: ReadTo, tracker: &AckTracker<P>) {
        let behind = tracker.opened(partition);
        let place = self.place(partition);
        if Timestamp::now().duration_since(to.time) <= HEAD {
            place.head_at = Some(Instant::now());
        }
        if place.waiting.back().is_some_and(|(at, _)| *at == behind) {
            place.waiting.pop_back();
        }
        place.waiting.push_back((behind, to));
    }

    /// The source's current frontier.
    pub(crate) fn frontier<P>(&mut self, tracker: &AckTracker<P>) -> Frontier {
        let places = self.partitions.iter_mut();
        let all = places.map(|(&partition, place)| {
            let settled = tracker.watermark(partition).settled;
            while let Some((behind, _)) = place.waiting.front()
                && *behind <= settled
                && let Some((_, to)) = place.waiting.pop_front()
            {
                place.settled = to;
            }
            let open = tracker.oldest_open(partition).map(|record| record.time);
            // The record was in the log before the time of the next `read_to`.
            let until = place.waiting.front().map_or(Timestamp::MAX, |it| it.1.time);
            Frontier {
                to: match open {
                    Some(time) => at_once(time.unwrap_or(place.settled.time).min(until)),
                    None => place.settled,
                },
                partition: Some(partition),
                settled,
            }
        });
        let farthest = all.min_by_key(|it| due(it.to));
        farthest.unwrap_or(Frontier {
            to: at_once(self.seed),
            partition: None,
            settled: 0,
        })
    }

    /// When the partition that was at the head of the log least recently was there; `None` if one
    /// never was.
    pub(crate) fn head_at(&self) -> Option<Instant> {
        let mut oldest: Option<Instant> = None;
        for place in self.partitions.values() {
            let at = place.head_at?;
            oldest = Some(oldest.map_or(at, |oldest| oldest.min(at)));
        }
        oldest
    }

    fn place(&mut self, partition: u32) -> &mut Place {
        let seed = self.seed;
        self.partitions.entry(partition).or_insert_with(|| Place {
            settled: at_once(seed),
            waiting: VecDeque::new(),
            head_at: None,
        })
    }
}

/// A time from which lag counts without a grace period.
fn at_once(time: Timestamp) -> ReadTo {
    ReadTo {
        time,
        again_within: Duration::ZERO,
    }
}

/// When the lag begins to count.
fn due(to: ReadTo) -> i128 {
    let within = i128::try_from(to.again_within.as_nanos()).unwrap_or(0);
    to.time.as_nanosecond() + within
}

#[cfg(test)]
mod tests;
