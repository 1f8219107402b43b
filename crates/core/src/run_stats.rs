//! Counts of what became of the records, for a replay's report.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::convert::{Reject, Skip};
use crate::event::conformance::Notes;

/// Counters of a run. They serialise as the report's fixed JSON form.
#[derive(Debug, Clone, Default, Serialize)]
pub struct RunStats {
    /// Provider records read.
    pub records: u64,
    /// Events that the webhook accepted, or that were written.
    pub events: u64,
    /// Skipped records, by reason.
    pub skipped: BTreeMap<&'static str, u64>,
    /// Records and events in the dead letter, by reason.
    pub rejected: BTreeMap<&'static str, u64>,
    /// Events with the annotation `audit.k8s.io/truncated`.
    pub truncated: u64,
    /// Events in which something was repaired, by repair.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub repaired: BTreeMap<&'static str, u64>,
    /// Events of which something is missing, by what is missing.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub shortened: BTreeMap<&'static str, u64>,
    /// Bodies that were accepted or written.
    pub batches: u64,
    pub bytes_out: u64,
    /// Wall-clock time.
    pub elapsed_seconds: f64,
}

impl RunStats {
    /// Counts a skipped record.
    pub fn skip(&mut self, reason: Skip) {
        *self.skipped.entry(reason.name()).or_default() += 1;
    }

    /// Counts an event's repairs and missing parts.
    pub fn note(&mut self, notes: Notes) {
        for what in notes.repaired() {
            *self.repaired.entry(what.name()).or_default() += 1;
        }
        for what in notes.given_up() {
            *self.shortened.entry(what.name()).or_default() += 1;
        }
    }

    /// Counts a record or an event that went to the dead letter.
    pub fn reject(&mut self, reason: Reject) {
        *self.rejected.entry(reason.name()).or_default() += 1;
    }

    /// The total of all rejects.
    pub fn rejects(&self) -> u64 {
        self.rejected.values().sum()
    }

    pub fn set_duration(&mut self, elapsed: Duration) {
        self.elapsed_seconds = (elapsed.as_secs_f64() * 1000.0).round() / 1000.0;
    }
}

impl fmt::Display for RunStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.elapsed_seconds.max(0.001);
        writeln!(f, "records    {:>12}", self.records)?;
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let (events, bytes) = (self.events as f64, self.bytes_out as f64);
        writeln!(
            f,
            "events     {:>12}   {:.0} events/s",
            self.events,
            events / seconds
        )?;
        if self.truncated > 0 {
            writeln!(f, "truncated  {:>12}", self.truncated)?;
        }
        for (title, counts) in [
            ("repaired", &self.repaired),
            ("shortened", &self.shortened),
            ("skipped", &self.skipped),
            ("rejected", &self.rejected),
        ] {
            for (index, (reason, count)) in counts.iter().enumerate() {
                let title = if index == 0 { title } else { "" };
                writeln!(f, "{title:<10} {count:>12}   {reason}")?;
            }
        }
        writeln!(
            f,
            "batches    {:>12}   {:.1} MiB, {:.1} MiB/s, {:.1} s",
            self.batches,
            bytes / 1_048_576.0,
            bytes / 1_048_576.0 / seconds,
            self.elapsed_seconds
        )
    }
}
