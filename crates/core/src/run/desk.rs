//! What the loop works on between two waits: conversion, accounting, the dead letter.

use std::time::Duration;

use tokio::time::Instant;

use super::guard::Guarded;
use super::{Ended, Observer, Patience};
use crate::ack::{self, AckTracker, PartitionProgress};
use crate::batch::{self, Batcher, Item};
use crate::chain::chain;
use crate::convert::{self, Convert, Output, RecordId, Reject, Skip};
use crate::dead_letter::DeadLetter;
use crate::deliver::Receipt;
use crate::source::{Page, PartitionChange};
use crate::tally::Tally;

/// What the loop works on between two waits.
pub(super) struct Desk<Con, Obs> {
    converter: Guarded<Con>,
    out: Output,
    pub(super) batcher: Batcher,
    pub(super) tracker: AckTracker,
    dead_letter: Option<DeadLetter>,
    /// In the dead letter, but not yet safe on the disk.
    unsynced: Vec<(RecordId, Settle)>,
    /// Why the dead letter cannot be made safe; it is tried again at every turn.
    pub(super) stuck: Option<String>,
    patience: Patience,
    pub(super) observer: Obs,
    pub(super) tally: Tally,
}

/// What the safety of a dead letter settles.
#[derive(Clone, Copy)]
enum Settle {
    /// The whole record: it did not convert.
    Record,
    /// One of its events: it was refused.
    Event,
}

impl<Con: Convert, Obs: Observer> Desk<Con, Obs> {
    pub(super) fn new(
        converter: Con,
        batch: batch::Limits,
        dead_letter: Option<DeadLetter>,
        observer: Obs,
        patience: Patience,
    ) -> Desk<Con, Obs> {
        Desk {
            converter: Guarded::new(converter),
            out: Output::default(),
            batcher: Batcher::new(batch),
            tracker: AckTracker::new(),
            dead_letter,
            unsynced: Vec::new(),
            stuck: None,
            patience,
            observer,
            tally: Tally::default(),
        }
    }

    /// A turn of the clock.
    pub(super) fn turn(&mut self, since_start: Duration) -> Result<(), String> {
        // In a replay, time says nothing about the parts of a split entry.
        if self.patience == Patience::Endless {
            self.converter.overdue(since_start, &mut self.out);
            self.outcomes(Instant::now())?;
        }
        self.sync()
    }

    /// What is reached since the last call.
    pub(super) fn progress(&mut self) -> Vec<PartitionProgress> {
        self.tracker.progress()
    }

    pub(super) fn page(&mut self, mut page: Page) -> Result<(), String> {
        for problem in &page.problems {
            self.observer.problem(problem);
        }
        self.observer.received(page.records.len() as u64);
        for change in page.partitions {
            match change {
                PartitionChange::Announced(partition) => self.tracker.announce(partition),
                PartitionChange::Retired(partition) => self.tracker.retire(partition),
            }
        }
        let now = Instant::now();
        for (number, record) in page.records.into_iter().enumerate() {
            self.tally.records += 1;
            let id = self.tracker.open(page.partition, record);
            let is_decided = page.early.hand_on(number, id, &mut self.out);
            if let Some(record) = self.tracker.get(id).filter(|_| !is_decided) {
                self.converter.convert(id, record, &mut self.out);
            }
            self.outcomes(now)?;
        }
        if let Some(position) = page.position {
            self.tracker.take_position(page.partition, position);
        }
        self.sync()
    }

    pub(super) fn finish(&mut self) -> Result<(), String> {
        self.converter.finish(&mut self.out);
        self.outcomes(Instant::now())?;
        self.sync()
    }

    fn outcomes(&mut self, now: Instant) -> Result<(), String> {
        let mut out = std::mem::take(&mut self.out);
        for outcome in out.drain() {
            match outcome {
                convert::Outcome::Event { event, records } => {
                    let notes = event.notes();
                    if !notes.none() {
                        self.tally.note(notes);
                        self.observer.noted(notes);
                    }
                    for &id in records.as_slice() {
                        self.tracker.add(id, 1);
                        self.tracker.close(id);
                    }
                    self.batcher.push(Item::new(event, records), now);
                }
                convert::Outcome::Skip { record, reason } => self.skip(record, reason)?,
                convert::Outcome::Reject {
                    record,
                    reason,
                    error,
                } => self.reject(record, Settle::Record, reason, &error)?,
            }
        }
        self.out = out;
        Ok(())
    }

    fn skip(&mut self, id: RecordId, reason: Skip) -> Result<(), String> {
        // What was read of it may look like nothing of ours, but nobody has seen the rest.
        if self.tracker.get(id).is_some_and(|record| record.oversized) {
            return self.reject(id, Settle::Record, Reject::TooLarge, "");
        }
        self.tally.skip(reason);
        self.observer.skipped(reason);
        self.tracker.close(id);
        Ok(())
    }

    fn reject(
        &mut self,
        id: RecordId,
        settle: Settle,
        mut reason: Reject,
        mut error: &str,
    ) -> Result<(), String> {
        let Some(record) = self.tracker.get(id) else {
            return Ok(());
        };
        if record.oversized {
            reason = Reject::TooLarge;
            error = "the record is larger than what is read of one; its beginning is kept";
        }
        self.tally.reject(reason);
        self.observer.reject(&record.origin, reason, error);
        match &mut self.dead_letter {
            Some(dead_letter) => {
                let written = dead_letter.write(reason, error, &record.origin, &record.payload);
                // What could not be written waits in the dead letter's own memory.
                self.unsynced.push((id, settle));
                written.or_else(|error| self.cannot_keep(chain(&error)))?;
            }
            None => self.settle(id, settle),
        }
        Ok(())
    }

    fn settle(&mut self, id: RecordId, settle: Settle) {
        match settle {
            Settle::Record => self.tracker.close(id),
            Settle::Event => self.tracker.settle(id),
        };
    }

    pub(super) fn receipt(&mut self, receipt: Receipt) -> Result<(), String> {
        match receipt {
            Receipt::Delivered { items, bytes, .. } => {
                self.tally.batches += 1;
                self.tally.bytes_out += bytes as u64;
                let events = items.len() as u64;
                let (mut truncated, mut newest) = (0, None);
                for item in items {
                    truncated += u64::from(item.event.truncated());
                    for &id in item.records.as_slice() {
                        newest = newest.max(self.tracker.get(id).and_then(|record| record.time));
                        self.tracker.settle(id);
                    }
                }
                self.tally.events += events;
                self.tally.truncated += truncated;
                self.observer.delivered(events, truncated, newest);
                Ok(())
            }
            Receipt::Rejected {
                item,
                reason,
                error,
            } => {
                for &id in item.records.as_slice() {
                    self.reject(id, Settle::Event, reason, &error)?;
                }
                self.sync()
            }
            Receipt::SlotFreed => Ok(()),
            Receipt::Broken { detail, .. } => Err(detail),
        }
    }

    /// What these records take of the budget.
    pub(super) fn bytes_of(&self, records: impl Iterator<Item = RecordId>) -> usize {
        records
            .filter_map(|id| self.tracker.get(id).map(ack::cost))
            .sum()
    }

    /// Makes the dead letter safe, and with it what stands in it.
    fn sync(&mut self) -> Result<(), String> {
        if self.unsynced.is_empty() {
            return Ok(());
        }
        if let Some(Err(error)) = self.dead_letter.as_mut().map(DeadLetter::sync) {
            return self.cannot_keep(chain(&error));
        }
        self.stuck = None;
        for (id, settle) in std::mem::take(&mut self.unsynced) {
            self.settle(id, settle);
        }
        Ok(())
    }

    /// The dead letter does not take a record: nothing is settled by it, and nothing more is read.
    fn cannot_keep(&mut self, why: String) -> Result<(), String> {
        if self.patience != Patience::Endless {
            return Err(why);
        }
        self.stuck = Some(why);
        Ok(())
    }

    /// The end, which must find every record settled.
    pub(super) fn done(&self) -> Ended {
        match self.tracker.open_records() {
            0 => Ended::Done,
            open => Ended::Failed(format!(
                "{open} records ended as nothing: this is a defect of the converter, please report it"
            )),
        }
    }
}
