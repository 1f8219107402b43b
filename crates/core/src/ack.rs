//! Tracks all positions: opens records in read order, takes the position behind them, and yields it
//! once they, and all earlier records of their partition, are settled.
//!
//! A record is *settled* when the converter is done with it and every event made of it was
//! delivered or kept in the dead letter. Until then the tracker keeps the record itself, because
//! the dead letter may need it. Receipts come in any order; a position is reached only when all
//! records before it are settled.
//!
//! # Design
//! - A **partition** is a part of a source with its own order and position: a partition of an event
//!   hub, a cursor of a tail, an input of a replay. Sources number them with small integers.
//! - A source *announces* a partition, explicitly or by its first record or position, and *retires*
//!   one that it will never read again because another partition covers it. Both may happen at any
//!   time. A retirement is ordered like a position: it is reached once all the partition's records
//!   are settled, and only then is its position dropped.
//! - Progress leaves as [`PartitionProgress`], in an order that is safe to store after each step.
//!   The checkpoint merges it and keeps the positions of unannounced partitions.
//! - Positions are opaque to the tracker: they are of the source's own type.
//!
//! Every operation is O(1), amortised, and an idle partition costs nothing: records live in a queue
//! by ID, and a partition's open records are linked in read order. A record that stays open for a
//! day (the webhook refuses it) costs no memory for records settled behind it: it moves aside and
//! the queue goes on.

use std::collections::{BTreeSet, HashMap, VecDeque};

use crate::convert::RecordId;
use crate::record::Record;

/// Rough memory cost of tracking one record besides its payload, so that a flood of tiny records is
/// bounded too.
const RECORD_OVERHEAD_BYTES: usize = 256;

/// The queue may hold this many settled records per open one before the open ones move aside.
const SETTLED_PER_OPEN_MAX: usize = 4;

/// A shorter queue is never compacted.
const QUEUE_LEN_MIN: usize = 4096;

/// Limits the positions of a partition that wait for records to be settled. Beyond it, every second
/// one is dropped: otherwise a record that stays open for long would collect the positions of
/// everything read meanwhile.
const POSITIONS_WAITING_MAX: usize = 1024;

/// The bytes that an open record takes of the budget.
pub(crate) fn cost(record: &Record) -> usize {
    record.payload.len() + RECORD_OVERHEAD_BYTES
}

/// How far a partition is settled without a gap.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Watermark {
    /// How many of the partition's records, from its first, are settled.
    pub settled: u64,
    /// The last of them; `None` when there is none.
    pub last: Option<RecordId>,
}

/// One open record.
#[derive(Debug)]
struct Open {
    record: Record,
    /// Events that are not yet delivered or in the dead letter.
    outstanding: u32,
    /// The converter is done with it.
    closed: bool,
    partition: u32,
    /// How many records the partition had before this one, and the last of those, settled or not.
    before: Watermark,
    /// The neighbours among the partition's open records.
    previous: Option<RecordId>,
    next: Option<RecordId>,
}

/// One partition: both ends of its list of open records, the count of all its records, and the
/// positions that wait for records to be settled.
#[derive(Debug)]
struct Partition<P> {
    first: Option<RecordId>,
    last: Option<RecordId>,
    opened: Watermark,
    /// How many records must be settled, and the position reached then.
    waiting: VecDeque<(u64, P)>,
    /// The source will read no more of the partition.
    retired: bool,
}

impl<P> Default for Partition<P> {
    fn default() -> Partition<P> {
        Partition {
            first: None,
            last: None,
            opened: Watermark::default(),
            waiting: VecDeque::new(),
            retired: false,
        }
    }
}

/// Progress of a source's positions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PartitionProgress<P> {
    /// The source reads this partition.
    Announced(u32),
    /// All records of the partition up to this position are settled.
    Reached(u32, P),
    /// All records of the partition are settled, and no more will follow.
    Retired(u32),
}

/// Which records are open, and how far each partition is settled.
#[derive(Debug)]
pub(crate) struct AckTracker<P> {
    /// By ID, from `base` on; `None` is settled.
    queue: VecDeque<Option<Open>>,
    /// The ID of the queue's front.
    base: u64,
    /// Records that were still open when the queue moved past them.
    aside: HashMap<RecordId, Open>,
    partitions: HashMap<u32, Partition<P>>,
    /// Partitions announced since the last call of `progress`.
    announced: Vec<u32>,
    /// Partitions with a position or a retirement that is not reached yet.
    waiting: BTreeSet<u32>,
    open: usize,
    open_bytes: usize,
    /// Records settled since the last [`AckTracker::take_settled`], if enabled: the partition, and
    /// the number of records before it in the partition.
    settled_each: Option<Vec<(u32, u64)>>,
}

impl<P> Default for AckTracker<P> {
    fn default() -> AckTracker<P> {
        AckTracker {
            queue: VecDeque::new(),
            base: 0,
            aside: HashMap::new(),
            partitions: HashMap::new(),
            announced: Vec::new(),
            waiting: BTreeSet::new(),
            open: 0,
            open_bytes: 0,
            settled_each: None,
        }
    }
}

impl<P> AckTracker<P> {
    pub(crate) fn new() -> AckTracker<P> {
        AckTracker::default()
    }

    /// Makes [`AckTracker::take_settled`] return each settled record from now on.
    pub(crate) fn tell_each(&mut self) {
        self.settled_each.get_or_insert_default();
    }

    /// The records settled since the last call, in any order: the partition, and the record's
    /// number in it, from 0.
    pub(crate) fn take_settled(&mut self) -> Vec<(u32, u64)> {
        let settled = self.settled_each.as_mut();
        settled.map(std::mem::take).unwrap_or_default()
    }

    /// The source reads this partition. Cancels its retirement.
    pub(crate) fn announce(&mut self, partition: u32) {
        self.partition(partition).retired = false;
    }

    /// The source reads no more of this partition; another one covers it.
    pub(crate) fn retire(&mut self, partition: u32) {
        self.partition(partition).retired = true;
        self.waiting.insert(partition);
    }

    /// Takes the position behind all records of this partition opened so far.
    pub(crate) fn take_position(&mut self, partition: u32, position: P) {
        let place = self.partition(partition);
        let behind = place.opened.settled;
        // No record came in between: the newer position replaces the older one.
        if place.waiting.back().is_some_and(|(at, _)| *at == behind) {
            place.waiting.pop_back();
        }
        place.waiting.push_back((behind, position));
        if place.waiting.len() > POSITIONS_WAITING_MAX {
            let newest = place.waiting.len();
            let mut number = 0;
            place.waiting.retain(|_| {
                number += 1;
                number % 2 == 0 || number == newest
            });
        }
        self.waiting.insert(partition);
    }

    /// Progress since the last call: the newest reached position of each partition, and the
    /// partitions that came and went.
    pub(crate) fn progress(&mut self) -> Vec<PartitionProgress<P>> {
        let announced = self.announced.drain(..);
        let mut progress: Vec<_> = announced.map(PartitionProgress::Announced).collect();
        if self.waiting.is_empty() {
            return progress;
        }
        for partition in std::mem::take(&mut self.waiting) {
            let settled = self.watermark(partition).settled;
            let Some(place) = self.partitions.get_mut(&partition) else {
                continue;
            };
            let mut newest = None;
            while let Some((behind, _)) = place.waiting.front()
                && *behind <= settled
            {
                newest = place.waiting.pop_front().map(|(_, position)| position);
            }
            let position = newest.map(|position| PartitionProgress::Reached(partition, position));
            progress.extend(position);
            if place.retired && settled == place.opened.settled {
                self.partitions.remove(&partition);
                progress.push(PartitionProgress::Retired(partition));
            } else if place.retired || !place.waiting.is_empty() {
                self.waiting.insert(partition);
            }
        }
        progress
    }

    fn partition(&mut self, partition: u32) -> &mut Partition<P> {
        let announced = &mut self.announced;
        self.partitions.entry(partition).or_insert_with(|| {
            announced.push(partition);
            Partition::default()
        })
    }

    /// Adds the next record of this partition (a small index that the source chose). It stays open
    /// until it is closed and its events are settled.
    pub(crate) fn open(&mut self, partition: u32, record: Record) -> RecordId {
        let id = RecordId(self.base + self.queue.len() as u64);
        let place = self.partition(partition);
        let before = place.opened;
        place.opened = Watermark {
            settled: before.settled + 1,
            last: Some(id),
        };
        let previous = place.last.replace(id);
        if place.first.is_none() {
            place.first = Some(id);
        }
        self.open += 1;
        self.open_bytes += cost(&record);
        self.queue.push_back(Some(Open {
            record,
            outstanding: 0,
            closed: false,
            partition,
            before,
            previous,
            next: None,
        }));
        if let Some(open) = previous.and_then(|previous| self.find_mut(previous)) {
            open.next = Some(id);
        }
        self.compact();
        id
    }

    /// `events` more events of this record are in flight.
    pub(crate) fn add(&mut self, id: RecordId, events: u32) {
        let open = self.find_mut(id);
        debug_assert!(open.is_some(), "events of {id:?}, which is not open");
        if let Some(open) = open {
            open.outstanding += events;
        }
    }

    /// One event of this record was delivered, or is safe in the dead letter. Returns the bytes
    /// that this freed: 0 unless it settled the record.
    pub(crate) fn settle(&mut self, id: RecordId) -> usize {
        let open = self.find_mut(id);
        debug_assert!(
            open.as_ref().is_some_and(|open| open.outstanding > 0),
            "{id:?} settled without an outstanding event"
        );
        let Some(open) = open else { return 0 };
        open.outstanding = open.outstanding.saturating_sub(1);
        self.remove_settled(id)
    }

    /// The converter is done with this record: its events were added, or it was skipped, or it is
    /// safe in the dead letter. Closing an open record twice is harmless. Returns the bytes that
    /// this freed.
    pub(crate) fn close(&mut self, id: RecordId) -> usize {
        let open = self.find_mut(id);
        debug_assert!(open.is_some(), "{id:?} closed, which is not open");
        let Some(open) = open else { return 0 };
        open.closed = true;
        self.remove_settled(id)
    }

    /// The record, while it is open.
    pub(crate) fn get(&self, id: RecordId) -> Option<&Record> {
        self.find(id).map(|open| &open.record)
    }

    /// The partition of an open record.
    pub(crate) fn partition_of(&self, id: RecordId) -> Option<u32> {
        self.find(id).map(|open| open.partition)
    }

    /// How far this partition is settled without a gap.
    pub(crate) fn watermark(&self, partition: u32) -> Watermark {
        let Some(place) = self.partitions.get(&partition) else {
            return Watermark::default();
        };
        place
            .first
            .and_then(|first| self.find(first))
            .map_or(place.opened, |open| open.before)
    }

    /// How many records of this partition were opened so far.
    pub(crate) fn opened(&self, partition: u32) -> u64 {
        let place = self.partitions.get(&partition);
        place.map_or(0, |place| place.opened.settled)
    }

    /// The oldest open record of this partition, in read order.
    pub(crate) fn oldest_open(&self, partition: u32) -> Option<&Record> {
        let first = self.partitions.get(&partition)?.first?;
        self.get(first)
    }

    /// How many records of each partition, from its first, are settled without a gap.
    pub(crate) fn settled(&self) -> HashMap<u32, u64> {
        let partitions = self.partitions.keys();
        partitions
            .map(|&partition| (partition, self.watermark(partition).settled))
            .collect()
    }

    /// How many records are open.
    pub(crate) fn open_records(&self) -> usize {
        self.open
    }

    /// The bytes that open records take of the budget, by [`cost`].
    pub(crate) fn open_bytes(&self) -> usize {
        self.open_bytes
    }

    fn find(&self, id: RecordId) -> Option<&Open> {
        match id.0.checked_sub(self.base) {
            Some(index) => self.queue.get(usize::try_from(index).ok()?)?.as_ref(),
            None => self.aside.get(&id),
        }
    }

    fn find_mut(&mut self, id: RecordId) -> Option<&mut Open> {
        match id.0.checked_sub(self.base) {
            Some(index) => self.queue.get_mut(usize::try_from(index).ok()?)?.as_mut(),
            None => self.aside.get_mut(&id),
        }
    }

    fn remove_settled(&mut self, id: RecordId) -> usize {
        let done = |open: &Open| open.closed && open.outstanding == 0;
        if !self.find(id).is_some_and(done) {
            return 0;
        }
        let removed = match id.0.checked_sub(self.base) {
            Some(index) => usize::try_from(index)
                .ok()
                .and_then(|index| self.queue.get_mut(index))
                .and_then(Option::take),
            None => self.aside.remove(&id),
        };
        let Some(open) = removed else { return 0 };
        self.unlink(&open);
        while let Some(None) = self.queue.front() {
            self.queue.pop_front();
            self.base += 1;
        }
        if let Some(settled) = &mut self.settled_each {
            settled.push((open.partition, open.before.settled));
        }
        let freed = cost(&open.record);
        self.open -= 1;
        self.open_bytes -= freed;
        freed
    }

    fn unlink(&mut self, open: &Open) {
        match open.previous.and_then(|id| self.find_mut(id)) {
            Some(previous) => previous.next = open.next,
            None => {
                if let Some(place) = self.partitions.get_mut(&open.partition) {
                    place.first = open.next;
                }
            }
        }
        match open.next.and_then(|id| self.find_mut(id)) {
            Some(next) => next.previous = open.previous,
            None => {
                if let Some(place) = self.partitions.get_mut(&open.partition) {
                    place.last = open.previous;
                }
            }
        }
    }

    /// Moves open records aside when most of what is queued behind them is settled. Each record
    /// moves at most once, and only after several others were opened: O(1), amortised.
    fn compact(&mut self) {
        let queued_open = self.open - self.aside.len();
        let limit = QUEUE_LEN_MIN.max(queued_open * (SETTLED_PER_OPEN_MAX + 1));
        if self.queue.len() <= limit {
            return;
        }
        while self.queue.len() > limit / 2 {
            let Some(front) = self.queue.pop_front() else {
                return;
            };
            if let Some(open) = front {
                self.aside.insert(RecordId(self.base), open);
            }
            self.base += 1;
        }
    }
}

#[cfg(test)]
mod tests;
