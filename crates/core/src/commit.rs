//! Receipts come in any order; the position of a partition moves only over a contiguous prefix of
//! settled records.
//!
//! A record is *settled* when the converter is done with it and every event made of it was
//! delivered or kept in the dead letter. Until then the tracker keeps the record itself, as the
//! dead letter needs it.
//!
//! Everything is O(1), amortised: records live in a queue by id, and the open ones of a partition
//! are linked in read order. One record that stays open for a day (the webhook refuses it) costs
//! no memory for those settled behind it: it moves aside and the queue goes on.

use std::collections::{HashMap, VecDeque};

use crate::convert::RecordId;
use crate::record::Record;

/// What the book-keeping of one record costs besides its payload, roughly, so that a flood of tiny
/// records is bounded too.
const RECORD_OVERHEAD_BYTES: usize = 256;

/// Settled records may make up this share of the queue before the open ones move aside.
const SETTLED_PER_OPEN_MAX: usize = 4;

/// Below this length the queue is left alone.
const QUEUE_LEN_MIN: usize = 4096;

/// The bytes that a record takes of the budget while it is open.
pub fn cost(record: &Record) -> usize {
    record.payload.len() + RECORD_OVERHEAD_BYTES
}

/// How far a partition is settled without a gap.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Watermark {
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
    /// How many records the partition had before it, and the last of those, settled or not.
    before: Watermark,
    /// Its neighbours among the partition's open records.
    previous: Option<RecordId>,
    next: Option<RecordId>,
}

/// One partition: the ends of its list of open records, and all it ever had.
#[derive(Debug, Default)]
struct Partition {
    first: Option<RecordId>,
    last: Option<RecordId>,
    opened: Watermark,
}

/// Which records are open, and how far each partition is settled.
#[derive(Debug, Default)]
pub struct Tracker {
    /// By id, from `base` on; `None` is settled.
    queue: VecDeque<Option<Open>>,
    /// The id of the queue's front.
    base: u64,
    /// Records that were still open when the queue moved past them.
    aside: HashMap<RecordId, Open>,
    /// By index; a partition that never had a record is an empty one.
    partitions: Vec<Partition>,
    open: usize,
    open_bytes: usize,
}

impl Tracker {
    /// A tracker without records.
    pub fn new() -> Tracker {
        Tracker::default()
    }

    /// A record that was read from this partition (a small index, as the source counts them),
    /// after all those opened before it. It stays open until it is closed and its events are
    /// settled.
    pub fn open(&mut self, partition: u32, record: Record) -> RecordId {
        let id = RecordId(self.base + self.queue.len() as u64);
        let index = partition as usize;
        if index >= self.partitions.len() {
            self.partitions.resize_with(index + 1, Partition::default);
        }
        let place = &mut self.partitions[index];
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

    /// `events` more events of this record are on their way.
    pub fn add(&mut self, id: RecordId, events: u32) {
        let open = self.find_mut(id);
        debug_assert!(open.is_some(), "events of {id:?}, which is not open");
        if let Some(open) = open {
            open.outstanding += events;
        }
    }

    /// One event of this record was delivered, or is safe in the dead letter. Returns the bytes
    /// that this freed: not 0 only when it settled the record.
    pub fn settle(&mut self, id: RecordId) -> usize {
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
    pub fn close(&mut self, id: RecordId) -> usize {
        let open = self.find_mut(id);
        debug_assert!(open.is_some(), "{id:?} closed, which is not open");
        let Some(open) = open else { return 0 };
        open.closed = true;
        self.remove_settled(id)
    }

    /// The record, while it is open.
    pub fn get(&self, id: RecordId) -> Option<&Record> {
        self.find(id).map(|open| &open.record)
    }

    /// How far this partition is settled without a gap.
    pub fn watermark(&self, partition: u32) -> Watermark {
        let Some(place) = self.partitions.get(partition as usize) else {
            return Watermark::default();
        };
        place
            .first
            .and_then(|first| self.find(first))
            .map_or(place.opened, |open| open.before)
    }

    /// Whether every record is settled.
    pub fn is_empty(&self) -> bool {
        self.open == 0
    }

    /// How many records are open.
    pub fn open_records(&self) -> usize {
        self.open
    }

    /// What the open records take of the budget, by [`cost`].
    pub fn open_bytes(&self) -> usize {
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
        let freed = cost(&open.record);
        self.open -= 1;
        self.open_bytes -= freed;
        freed
    }

    fn unlink(&mut self, open: &Open) {
        match open.previous.and_then(|id| self.find_mut(id)) {
            Some(previous) => previous.next = open.next,
            None => self.partitions[open.partition as usize].first = open.next,
        }
        match open.next.and_then(|id| self.find_mut(id)) {
            Some(next) => next.previous = open.previous,
            None => self.partitions[open.partition as usize].last = open.previous,
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
