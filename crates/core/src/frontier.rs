//! The settled frontier of a source: up to when all that its log held was delivered or is in the dead
//! letter. `lag_seconds` is now minus this time, `/readyz` tells when it stands still.
//!
//! Of a partition it is the time of the oldest record that is read and not settled; while there is
//! none, the time up to which the partition was read ([`ReadTo`]) before the newest settled record.
//! A source asks its log again and again, and each answer that there is nothing more moves it. So
//! one that stands still means trouble, wherever it is: there is more, or nobody can say.
//!
//! Of a source it is the oldest of its partitions'. Those that never say up to when they are read
//! (the cursors of a tail behind the edge) do not count.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use crate::ack::AckTracker;
use crate::source::ReadTo;

/// Who reads what is no older than this reads at the head of the log, where records arrive.
const HEAD: SignedDuration = SignedDuration::from_mins(5);

/// Up to when a source is settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frontier {
    /// The time.
    pub to: ReadTo,
    /// The partition that is farthest behind; `None` while none has said anything.
    pub partition: Option<u32>,
    /// How many of its records are settled without a gap: it moves even where times do not.
    pub settled: u64,
}

impl Frontier {
    /// Seconds from here to now; 0 while the source is not yet due to say a later time.
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
    /// Up to when all was settled before this process read anything.
    seed: Timestamp,
    partitions: BTreeMap<u32, Place>,
}

/// What is known of a partition.
#[derive(Debug)]
struct Place {
    settled: ReadTo,
    /// How many records must be settled, and up to when the partition is settled then.
    waiting: VecDeque<(u64, ReadTo)>,
    /// When it was last read at the head of the log.
    head_at: Option<Instant>,
}

impl FrontierTracker {
    /// `seed`: up to when an earlier life settled all, or else when this one began.
    pub(crate) fn new(seed: Timestamp) -> FrontierTracker {
        FrontierTracker {
            seed,
            partitions: BTreeMap::new(),
        }
    }

    /// This partition is read.
    pub(crate) fn announce(&mut self, partition: u32) {
        self.place(partition);
    }

    /// Nothing more comes of this partition.
    pub(crate) fn remove(&mut self, partition: u32) {
        self.partitions.remove(&partition);
    }

    /// Whether records of this partition arrive at the head of the log.
    pub(crate) fn counts(&self, partition: u32) -> bool {
        self.partitions.contains_key(&partition)
    }

    /// The partition is read up to here, with all its records that were opened so far.
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

    /// Where the source stands now.
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
            // It was there before its partition was read up to the next time.
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

    /// Since when all partitions are read at the head of the log: `None` when one was never.
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

/// Counts for the lag from its first moment.
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
