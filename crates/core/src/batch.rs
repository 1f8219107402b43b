//! Groups events into batches by count, bytes and age: a state machine that never sleeps.
//!
//! Time comes in as an argument; the caller sleeps until [`Batcher::deadline`]. Events leave in the
//! order in which they came.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::convert::Records;
use crate::event::{Event, list};

/// An event to deliver, and the records that are settled when it arrives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    pub event: Event,
    /// The records that it was made of.
    pub records: Records,
    /// The bytes of these records, which stay in memory until the event is settled.
    pub records_bytes: usize,
}

impl Item {
    pub fn new(event: Event, records: impl Into<Records>) -> Item {
        Item {
            event,
            records: records.into(),
            records_bytes: 0,
        }
    }
}

/// The items of one POST.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// In arrival order; never empty when it comes from a [`Batcher`].
    pub items: Vec<Item>,
    /// The size of the body: events, the commas between them, and the list around them.
    pub bytes: usize,
}

impl Batch {
    pub fn new(items: Vec<Item>) -> Batch {
        let events: usize = items.iter().map(|item| item.event.text().len()).sum();
        let commas = items.len().saturating_sub(1);
        Batch {
            items,
            bytes: list::OVERHEAD_BYTES + events + commas,
        }
    }
}

/// When a batch is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimits {
    /// Events in one batch (`--batch-events-max`); 0 counts as 1.
    pub events_max: usize,
    /// Bytes of one body (`--batch-bytes-max`). A larger event goes alone.
    pub bytes_max: usize,
    /// How long the oldest event waits for others (`--batch-wait-max`).
    pub wait_max: Duration,
}

impl Default for BatchLimits {
    fn default() -> BatchLimits {
        BatchLimits {
            events_max: 400,
            bytes_max: 1 << 20,
            wait_max: Duration::from_secs(1),
        }
    }
}

/// Collects events until a batch is complete.
#[derive(Debug)]
pub(crate) struct Batcher {
    limits: BatchLimits,
    /// Batches that wait to be fetched, at most two per push, with the time of their oldest event.
    complete: VecDeque<(Instant, Batch)>,
    items: Vec<Item>,
    /// Bytes of the body that `items` would make.
    bytes: usize,
    /// When the first of `items` came.
    oldest: Option<Instant>,
}

impl Batcher {
    pub(crate) fn new(limits: BatchLimits) -> Batcher {
        Batcher {
            limits: BatchLimits {
                events_max: limits.events_max.max(1),
                ..limits
            },
            complete: VecDeque::new(),
            items: Vec::new(),
            bytes: list::OVERHEAD_BYTES,
            oldest: None,
        }
    }

    /// Adds one item. Fetch complete batches with [`Batcher::due`] before the next push, or they
    /// pile up here.
    pub(crate) fn push(&mut self, item: Item, now: Instant) {
        let event = item.event.text().len();
        if !self.items.is_empty() && self.bytes + 1 + event > self.limits.bytes_max {
            self.complete();
        }
        self.bytes += event + usize::from(!self.items.is_empty());
        self.items.push(item);
        self.oldest.get_or_insert(now);
        // Not even the smallest event would still fit.
        if self.items.len() >= self.limits.events_max || self.bytes >= self.limits.bytes_max {
            self.complete();
        }
    }

    /// When [`Batcher::due`] will return a batch: in the past if it would now; `None` when nothing
    /// waits.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self.complete.front() {
            Some((since, _)) => Some(*since),
            None => self.oldest.map(|oldest| oldest + self.limits.wait_max),
        }
    }

    /// The next batch that is complete, or whose oldest event has waited long enough. Call it until
    /// it returns `None`.
    pub(crate) fn due(&mut self, now: Instant) -> Option<Batch> {
        if self.complete.is_empty() && self.overdue(now) {
            self.complete();
        }
        self.complete.pop_front().map(|(_, batch)| batch)
    }

    /// The next batch, complete or not. Call it until it returns `None`.
    pub(crate) fn flush(&mut self) -> Option<Batch> {
        if self.complete.is_empty() && !self.items.is_empty() {
            self.complete();
        }
        self.complete.pop_front().map(|(_, batch)| batch)
    }

    /// Whether a complete batch waits to be fetched.
    pub(crate) fn has_complete(&self) -> bool {
        !self.complete.is_empty()
    }

    /// Whether no event waits here.
    pub(crate) fn is_empty(&self) -> bool {
        self.complete.is_empty() && self.items.is_empty()
    }

    /// Bytes of all events that wait here.
    pub(crate) fn waiting_bytes(&self) -> usize {
        let complete = self.complete.iter().map(|(_, batch)| batch.bytes);
        complete.sum::<usize>() + if self.items.is_empty() { 0 } else { self.bytes }
    }

    fn overdue(&self, now: Instant) -> bool {
        self.oldest
            .is_some_and(|oldest| now >= oldest + self.limits.wait_max)
    }

    fn complete(&mut self) {
        let Some(oldest) = self.oldest.take() else {
            return;
        };
        let capacity = self.items.len();
        let items = std::mem::replace(&mut self.items, Vec::with_capacity(capacity));
        let bytes = std::mem::replace(&mut self.bytes, list::OVERHEAD_BYTES);
        self.complete.push_back((oldest, Batch { items, bytes }));
    }
}

#[cfg(test)]
mod tests;
