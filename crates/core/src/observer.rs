//! Traits that receive what happened, for metrics and logs, so that neither the pipeline nor a
//! source depends on metrics.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use crate::convert::{Reject, Skip};
use crate::deliver::DeliveryStatus;
use crate::event::Event;
use crate::event::conformance::Notes;
use crate::frontier::Frontier;
use crate::readiness::Component;
use crate::record::Origin;
use crate::run_stats::RunStats;
use crate::source::Problem;

/// What the pipeline does with an event, as decided by an observer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventHandling {
    /// Delivers it.
    Deliver,
    /// Delivers it. The observer expects the event, so it neither shows that others write to the
    /// log nor ends a silence.
    Expect,
    /// As `Expect`, and reports the event's end to [`Observer::followed`] under this number.
    Follow(u64),
    /// Drops it: its record counts as skipped and ends no silence.
    Skip(Skip),
}

/// Receives pipeline progress. Every method has an empty default.
pub trait Observer {
    /// The source returned records.
    fn received(&mut self, records: u64) {
        let _ = records;
    }

    /// The sink accepted a batch. `truncated`: how many of its events are annotated as truncated.
    fn delivered(&mut self, events: u64, truncated: u64) {
        let _ = (events, truncated);
    }

    /// A record was skipped.
    fn skipped(&mut self, reason: Skip) {
        let _ = reason;
    }

    /// An event was made that was repaired or shortened.
    fn noted(&mut self, notes: Notes) {
        let _ = notes;
    }

    /// Inspects an event before delivery and decides how to handle it.
    fn inspect(&mut self, event: &Event) -> EventHandling {
        let _ = event;
        EventHandling::Deliver
    }

    /// A followed event ended: the sink accepted it, or it goes to the dead letter.
    fn followed(&mut self, number: u64, accepted: bool) {
        let _ = (number, accepted);
    }

    /// A record, or an event made of it, goes to the dead letter.
    fn reject(&mut self, origin: &Origin, reason: Reject, error: &str) {
        let _ = (origin, reason, error);
    }

    /// A part of the source could not be read.
    fn problem(&mut self, problem: &Problem) {
        let _ = problem;
    }

    fn checkpoint_written(&mut self) {}

    /// Called every 250 ms with the counters and the state of the run.
    fn progressed(&mut self, stats: &RunStats, progress: &Progress<'_>) {
        let _ = (stats, progress);
    }
}

#[derive(Debug)]
pub struct Progress<'a> {
    pub delivery: DeliveryStatus,
    /// Why positions or rejects cannot be stored; nothing is read until they can.
    pub storage_error: Option<&'a str>,
    /// Bytes of open records and their events, without parked ones.
    pub in_flight_bytes: usize,
    /// Up to when everything is settled.
    pub frontier: Frontier,
    /// How many records are open, those of parked events included.
    pub open_records: usize,
    /// Since when positions wait to be written, if they are overdue.
    pub unsaved_since: Option<Instant>,
    /// How long no record of the audit log had arrived when the head of the log was last read;
    /// `None` before the head was reached.
    pub silence: Option<Duration>,
}

/// Receives events about a source's requests to its provider.
pub trait SourceObserver: fmt::Debug + Send + Sync {
    /// A request to the provider ended with this status, one of a bounded set of words.
    fn requested(&self, status: &str);

    /// The provider throttled a request.
    fn throttled(&self);

    /// A cursor of this age found records that arrived late.
    fn late(&self, age: &str, records: u64);

    /// The provider answered: the log can be read and the credentials are valid.
    fn answers(&self);

    /// The provider does not answer: which component is unavailable, why, and what to do.
    fn not_ready(&self, part: Component, why: String);
}
