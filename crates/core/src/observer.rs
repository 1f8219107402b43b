//! What happened, for whoever counts it or shows it: traits, so that neither the pipeline nor a
//! source knows of metrics.

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

/// What becomes of an event, as an observer wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventHandling {
    /// It is delivered.
    Deliver,
    /// It is delivered. The observer expects it: it is no sign that others write to the log, and ends no
    /// silence.
    Expect,
    /// The same, and [`Observer::followed`] is told the end of it, under this number.
    Follow(u64),
    /// It is left out: its record counts as skipped, and ends no silence.
    Skip(Skip),
}

/// Receives pipeline progress. Methods that an observer does not need keep their empty default.
pub trait Observer {
    /// The source gave records.
    fn received(&mut self, records: u64) {
        let _ = records;
    }

    /// The sink accepted a batch. `truncated`: how many of its events have the annotation for it.
    fn delivered(&mut self, events: u64, truncated: u64) {
        let _ = (events, truncated);
    }

    /// A record was skipped.
    fn skipped(&mut self, reason: Skip) {
        let _ = reason;
    }

    /// An event was made in which something was repaired, or of which something is missing.
    fn noted(&mut self, notes: Notes) {
        let _ = notes;
    }

    /// Looks at an event before it is delivered, and says what becomes of it.
    fn inspect(&mut self, event: &Event) -> EventHandling {
        let _ = event;
        EventHandling::Deliver
    }

    /// An event that is followed came to its end: the sink accepted it, or it goes to the dead letter.
    fn followed(&mut self, number: u64, accepted: bool) {
        let _ = (number, accepted);
    }

    /// A record, or an event of it, goes to the dead letter.
    fn reject(&mut self, origin: &Origin, reason: Reject, error: &str) {
        let _ = (origin, reason, error);
    }

    /// Something of the source could not be read.
    fn problem(&mut self, problem: &Problem) {
        let _ = problem;
    }

    fn checkpoint_written(&mut self) {}

    /// Called every 250 ms with the counters and the state of the run.
    fn progressed(&mut self, stats: &RunStats, progress: &Progress<'_>) {
        let _ = (stats, progress);
    }
}

/// The state of a run.
#[derive(Debug)]
pub struct Progress<'a> {
    /// The sink.
    pub delivery: DeliveryStatus,
    /// Why positions or rejects cannot be kept; nothing is read until they can.
    pub storage_error: Option<&'a str>,
    /// Bytes of records that are read and not yet settled, and of their events, but for those that
    /// are parked.
    pub in_flight_bytes: usize,
    /// Up to when all is settled.
    pub frontier: Frontier,
    /// How many records are read and not settled, those of parked events among them.
    pub open_records: usize,
    /// Since when positions wait to be written, where that should have been done by now.
    pub unsaved_since: Option<Instant>,
    /// How long no record of the audit log had arrived when the head of the log was last read;
    /// `None` before it was.
    pub silence: Option<Duration>,
}

/// Receives what happens while a source asks its provider.
pub trait SourceObserver: fmt::Debug + Send + Sync {
    /// A request to the provider ended with this status, of a bounded set of words.
    fn requested(&self, status: &str);

    /// The provider throttled a request.
    fn throttled(&self);

    /// Records of this age were found late.
    fn late(&self, age: &str, records: u64);

    /// The provider answers: its log can be read, and the credentials are good.
    fn answers(&self);

    /// The provider does not answer: which part is not ready, why, and what to do.
    fn not_ready(&self, part: Component, why: String);
}
