//! The settings of a tail.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use audit_bridge_core::observer::SourceObserver;

use super::identity_chunks::LoadedIdentities;

/// What a tail is told.
#[derive(Debug, Clone)]
pub struct TailSettings {
    /// Between two looks at the edge.
    pub poll_interval: Duration,
    /// How far the older cursors trail behind, in any order. Each is read at half its age, at
    /// least a poll apart.
    pub revisit_after: Vec<Duration>,
    /// Where to begin when there are no positions. Not "since ever" but since when the log can
    /// hold anything, though windows over nothing grow to more than a year.
    pub start: Timestamp,
    /// Where to end; `None`: never. Every cursor reads up to it, so an end in the recent past is
    /// reached when it is as old as the oldest cursor, one that is older at once.
    pub until: Option<Timestamp>,
    /// How many identities are remembered, of 8 to 13 bytes each. Beyond it the oldest go, and
    /// what is read again of them is handed out again. A tail needs one and a half times its
    /// oldest age, in records.
    pub identities_max: usize,
    /// Where the identities of settled records are kept over a restart: a folder for this log
    /// alone. Without it a restart repeats what was handed out within the oldest age.
    pub seen_dir: Option<PathBuf>,
    /// Identities that another process kept, and where they are kept for the next one. Without it a
    /// take-over repeats what was handed out within the oldest age.
    pub identities: Option<LoadedIdentities>,
    /// Receives requests, lateness and readiness, besides the tail's monitor.
    pub observer: Option<Arc<dyn SourceObserver>>,
}

impl Default for TailSettings {
    /// The edge alone, every five seconds from now on, four million identities.
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
