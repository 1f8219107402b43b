//! The loop's bookkeeping between two waits: conversion, accounting, rejects to the dead letter.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{Instant, timeout_at};

use super::dead_letter_writer::{DeadLetterWriter, Line, Settle};
use super::guard::Guarded;
use super::{Ended, RetryPolicy};
use crate::ack::{self, AckTracker, PartitionProgress};
use crate::batch::{self, Batcher, Item};
use crate::chain::chain;
use crate::convert::{self, Convert, Output, RecordId, Reject, Skip};
use crate::dead_letter::{DeadLetter, DeadLetterError};
use crate::deliver::Receipt;
use crate::frontier::{Frontier, FrontierTracker};
use crate::observer::{EventHandling, Observer};
use crate::run_stats::RunStats;
use crate::source::{Page, PartitionChange, Position};

/// The sink accepts nothing any more: why, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct BrokenSink(String);

/// Converts pages, accounts for every record and hands rejects to the dead letter.
pub(super) struct Processor<P, Con, Obs> {
    converter: Guarded<Con>,
    out: Output,
    pub(super) batcher: Batcher,
    pub(super) tracker: AckTracker<P>,
    frontier: FrontierTracker,
    /// When a record of the audit log last arrived at the head of the log.
    arrived_at: Option<Instant>,
    pub(super) dead_letter: Option<DeadLetterWriter>,
    /// Why the dead letter cannot be written; the write is retried for ever.
    pub(super) stuck: Option<String>,
    retry_policy: RetryPolicy,
    /// Records of events that the observer follows, each with the observer's number.
    followed: Vec<(RecordId, u64)>,
    pub(super) observer: Obs,
    pub(super) stats: RunStats,
    /// The partitions of which a record went to the dead letter.
    rejected_in: BTreeSet<u32>,
}

/// The dead letter's error text for the original of an event that was delivered without its
/// objects.
const STRIPPED: &str = "the receiver found the event too large (413) and took it without its objects; \
                        this is the original";

impl<P: Position, Con: Convert, Obs: Observer> Processor<P, Con, Obs> {
    pub(super) fn new(
        converter: Con,
        batch: batch::BatchLimits,
        dead_letter: Option<DeadLetter>,
        observer: Obs,
        retry_policy: RetryPolicy,
        settled_to: Timestamp,
    ) -> Processor<P, Con, Obs> {
        Processor {
            converter: Guarded::new(converter),
            out: Output::default(),
            batcher: Batcher::new(batch),
            tracker: AckTracker::new(),
            frontier: FrontierTracker::new(settled_to),
            arrived_at: None,
            dead_letter: dead_letter.map(DeadLetterWriter::new),
            stuck: None,
            retry_policy,
            followed: Vec::new(),
            observer,
            stats: RunStats::default(),
            rejected_in: BTreeSet::new(),
        }
    }

    /// Called at each tick of the loop: decides about records that the converter held for too long.
    pub(super) fn tick(&mut self, since_start: Duration) {
        // A replay ignores time: it says nothing about when the parts of a split entry arrive.
        if self.retry_policy == RetryPolicy::Forever {
            self.converter.overdue(since_start, &mut self.out);
            self.outcomes(Instant::now());
        }
    }

    /// Positions reached since the last call.
    pub(super) fn progress(&mut self) -> Vec<PartitionProgress<P>> {
        let mut progress = self.tracker.progress();
        for step in &mut progress {
            if let PartitionProgress::Reached(partition, position) = step
                && self.rejected_in.contains(partition)
            {
                position.note_reject();
            }
        }
        progress
    }

    /// Up to when everything is settled.
    pub(super) fn frontier(&mut self) -> Frontier {
        self.frontier.frontier(&self.tracker)
    }

    /// How long no record of the audit log had arrived when the head of the log was last read:
    /// since the last one that did, or since `started` plus the silence `before` this process. It
    /// does not grow while the log cannot be read; `None` before the head is reached.
    pub(super) fn silence(&self, started: Instant, before: Duration) -> Option<Duration> {
        let head_at = self.frontier.head_at()?;
        Some(match self.arrived_at {
            Some(arrived_at) => head_at.saturating_duration_since(arrived_at),
            None => head_at.saturating_duration_since(started) + before,
        })
    }

    pub(super) fn page(&mut self, mut page: Page<P>) {
        for problem in &page.problems {
            self.observer.problem(problem);
        }
        self.observer.received(page.records.len() as u64);
        for change in page.partitions {
            match change {
                PartitionChange::Announced(partition) => {
                    self.tracker.announce(partition);
                    self.frontier.announce(partition);
                }
                PartitionChange::Retired(partition) => {
                    self.tracker.retire(partition);
                    self.frontier.remove(partition);
                }
                PartitionChange::Left(partition) => self.frontier.remove(partition),
            }
        }
        let now = Instant::now();
        let at_head = page.read_to.is_some() || self.frontier.counts(page.partition);
        for (number, record) in page.records.into_iter().enumerate() {
            self.stats.records += 1;
            let time = record.time;
            let id = self.tracker.open(page.partition, record);
            let is_decided = page.early.take_record(number, id, &mut self.out);
            if let Some(record) = self.tracker.get(id).filter(|_| !is_decided) {
                self.converter.convert(id, record, &mut self.out);
            }
            if self.outcomes(now) {
                self.arrived(now, time.filter(|_| !at_head));
            }
        }
        if let Some(position) = page.position {
            self.tracker.take_position(page.partition, position);
        }
        if let Some(read_to) = page.read_to {
            self.frontier
                .read_to(page.partition, read_to, &self.tracker);
        }
    }

    /// Notes that a record of the audit log arrived: now, or at its log `time` where a cursor
    /// behind the edge found it, since that cursor may have found it late or again.
    fn arrived(&mut self, now: Instant, time: Option<Timestamp>) {
        let ago = time.map_or(Duration::ZERO, |time| {
            Duration::try_from(Timestamp::now().duration_since(time)).unwrap_or_default()
        });
        self.arrived_at = self.arrived_at.max(now.checked_sub(ago));
    }

    pub(super) fn finish(&mut self) {
        self.converter.finish(&mut self.out);
        self.outcomes(Instant::now());
    }

    /// Accounts for the converter's outcomes. True if one of them was of the audit log; a skipped
    /// record is not, nor is an event that the observer expects.
    fn outcomes(&mut self, now: Instant) -> bool {
        let mut out = std::mem::take(&mut self.out);
        let mut audit = false;
        for outcome in out.drain() {
            match outcome {
                convert::Outcome::Event { event, records } => {
                    match self.observer.inspect(&event) {
                        EventHandling::Deliver => audit = true,
                        EventHandling::Expect => {}
                        EventHandling::Follow(number) => {
                            let records = records.iter().map(|&id| (id, number));
                            self.followed.extend(records);
                        }
                        EventHandling::Skip(reason) => {
                            for &id in records.as_slice() {
                                self.skip(id, reason);
                            }
                            continue;
                        }
                    }
                    let notes = event.notes();
                    if !notes.none() {
                        self.stats.note(notes);
                        self.observer.noted(notes);
                    }
                    for &id in records.as_slice() {
                        self.tracker.add(id, 1);
                        self.tracker.close(id);
                    }
                    let records_bytes = self.bytes_of(records.iter().copied());
                    let item = Item {
                        records_bytes,
                        ..Item::new(event, records)
                    };
                    self.batcher.push(item, now);
                }
                convert::Outcome::Skip { record, reason } => self.skip(record, reason),
                convert::Outcome::Reject {
                    record,
                    reason,
                    error,
                } => {
                    audit = true;
                    self.reject(record, Settle::Record, reason, &error);
                }
            }
        }
        self.out = out;
        audit
    }

    fn skip(&mut self, id: RecordId, reason: Skip) {
        // The part that was read looks foreign, but the rest is unknown.
        if self.tracker.get(id).is_some_and(|record| record.oversized) {
            self.reject(id, Settle::Record, Reject::TOO_LARGE, "");
            return;
        }
        self.stats.skip(reason);
        self.observer.skipped(reason);
        self.tracker.close(id);
    }

    fn reject(&mut self, id: RecordId, settle: Settle, mut reason: Reject, mut error: &str) {
        let Some(record) = self.tracker.get(id) else {
            return;
        };
        if record.oversized {
            reason = Reject::TOO_LARGE;
            error = "the record is larger than what is read of one; its beginning is kept";
        }
        self.stats.reject(reason);
        self.rejected_in.extend(self.tracker.partition_of(id));
        self.observer.reject(&record.origin, reason, error);
        match &mut self.dead_letter {
            Some(dead_letter) => dead_letter.add(Line {
                record: id,
                settle,
                reason,
                error: error.to_owned(),
                origin: record.origin.clone(),
                payload: record.payload.clone(),
            }),
            None => self.settle(id, settle),
        }
    }

    fn settle(&mut self, id: RecordId, settle: Settle) {
        match settle {
            Settle::Record => self.tracker.close(id),
            Settle::Event => self.tracker.settle(id),
        };
    }

    /// Settles the events of a receipt.
    ///
    /// # Errors
    /// The sink accepts nothing any more.
    pub(super) fn receipt(&mut self, receipt: Receipt) -> Result<(), BrokenSink> {
        match receipt {
            Receipt::Delivered {
                items,
                stripped,
                bytes,
            } => {
                self.stats.batches += 1;
                self.stats.bytes_out += bytes as u64;
                let events = items.len() as u64;
                let mut truncated = 0;
                for (at, item) in items.into_iter().enumerate() {
                    truncated += u64::from(item.event.truncated());
                    self.end_following(&item.records, true);
                    let is_stripped = stripped.binary_search(&at).is_ok();
                    for &id in item.records.as_slice() {
                        match is_stripped {
                            true => self.reject(id, Settle::Event, Reject::STRIPPED, STRIPPED),
                            false => self.settle(id, Settle::Event),
                        }
                    }
                }
                self.stats.events += events;
                self.stats.truncated += truncated;
                self.observer.delivered(events, truncated);
                Ok(())
            }
            Receipt::Rejected {
                item,
                reason,
                error,
            } => {
                self.end_following(&item.records, false);
                for &id in item.records.as_slice() {
                    self.reject(id, Settle::Event, reason, &error);
                }
                Ok(())
            }
            Receipt::SlotFreed => Ok(()),
            Receipt::Broken { detail, .. } => Err(BrokenSink(detail)),
        }
    }

    /// Reports the end of a followed event to the observer.
    fn end_following(&mut self, records: &[RecordId], accepted: bool) {
        if self.followed.is_empty() {
            return;
        }
        let observer = &mut self.observer;
        let mut told = None;
        self.followed.retain(|(id, number)| {
            let is_end = records.contains(id);
            if is_end && told.replace(*number) != Some(*number) {
                observer.followed(*number, accepted);
            }
            !is_end
        });
    }

    /// The bytes that these records take of the budget.
    pub(super) fn bytes_of(&self, records: impl Iterator<Item = RecordId>) -> usize {
        records
            .filter_map(|id| self.tracker.get(id).map(ack::cost))
            .sum()
    }

    /// The bytes of rejects on their way to the disk, besides their records.
    pub(super) fn reject_bytes(&self) -> usize {
        self.dead_letter.as_ref().map_or(0, DeadLetterWriter::bytes)
    }

    /// Whether all rejects are on the disk.
    pub(super) fn rejects_are_safe(&self) -> bool {
        self.dead_letter
            .as_ref()
            .is_none_or(DeadLetterWriter::is_idle)
    }

    /// Handles the end of a dead letter write. After a failure nothing more is read until one
    /// succeeds.
    ///
    /// # Errors
    /// The write failed and the policy is to give up.
    pub(super) fn written(
        &mut self,
        written: Result<Vec<(RecordId, Settle)>, DeadLetterError>,
    ) -> Result<(), DeadLetterError> {
        match written {
            Ok(safe) => {
                self.stuck = None;
                for (id, settle) in safe {
                    self.settle(id, settle);
                }
                Ok(())
            }
            Err(error) if self.retry_policy != RetryPolicy::Forever => Err(error),
            Err(error) => {
                self.stuck = Some(chain(&error));
                Ok(())
            }
        }
    }

    /// Writes the remaining rejects at the end of the run, for at most `within`.
    pub(super) async fn write_rejects(&mut self, within: Duration) {
        let deadline = Instant::now() + within;
        while let Some(writer) = &mut self.dead_letter
            && !writer.is_idle()
            && let Ok(Ok(safe)) = timeout_at(deadline, writer.next()).await
        {
            _ = self.written(Ok(safe));
        }
    }

    /// How the run ended, once every record should be settled.
    pub(super) fn done(&self) -> Ended {
        match self.tracker.open_records() {
            0 => Ended::Done,
            open => Ended::Failed(format!(
                "{open} records ended as nothing: this is a defect of the converter, please report it"
            )),
        }
    }
}
