//! The settings of a tail.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use audit_bridge_core::observer::SourceObserver;

use super::identity_chunks::LoadedIdentities;

#[derive(Debug, Clone)]
pub struct TailSettings {
    /// The time between two reads at the edge.
    pub poll_interval: Duration,
    /// How far the older cursors trail behind, in any order. Each is read at intervals of half its
    /// age, but at least a poll interval apart.
    pub revisit_after: Vec<Duration>,
    /// Where to begin without positions. Set it to when the log can first hold records, rather than
    /// to the earliest time, though windows over empty stretches grow to more than a year.
    pub start: Timestamp,
    /// Where to end; `None`: never. Every cursor reads up to it, so the job ends once this time is
    /// as old as the oldest cursor: at once, if it already is.
    pub until: Option<Timestamp>,
    /// How many identities are remembered, with 8 to 13 bytes each. Beyond it the oldest are
    /// forgotten, and their records are handed out again if they are read again. A tail needs to
    /// remember the records of one and a half times its oldest age.
    pub identities_max: usize,
    /// A folder for the identities of settled records, which survive a restart, for this log alone.
    /// Without it a restart repeats what was handed out within the oldest age.
    pub seen_dir: Option<PathBuf>,
    /// Identities that another process stored, and the store for the next one. Without it a
    /// takeover repeats what was handed out within the oldest age.
    pub identities: Option<LoadedIdentities>,
    /// Receives requests, lateness and readiness, in addition to the tail's monitor.
    pub observer: Option<Arc<dyn SourceObserver>>,
}

impl Default for TailSettings {
    /// Only the edge, every five seconds from now on, with four million identities.
    fn default() -> TailSettings {
        TailSettings {
            poll_interval: Duration::from_secs(5),
            revisit_after: Vec::new(),
            start: Timestamp::now(),
            until: None,
            identities_max: 4_000_000,
            seen_dir: None,
            identities: None,
            observer: None,
        }
    }
}
