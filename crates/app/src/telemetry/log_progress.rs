//! How far one log has been read and settled, as its loop last reported.

use std::time::Duration;

use audit_bridge_core::frontier::Frontier;
use audit_bridge_core::observer::Progress;
use jiff::Timestamp;
use tokio::time::Instant;

/// The default of `--stall-max`. A rolling restart takes less, and an event that the webhook does
/// not accept is parked for longer.
pub(crate) const STALL_MAX: Duration = Duration::from_secs(300);

/// When a log counts as unhealthy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HealthLimits {
    /// A log whose frontier stands still for longer makes the process unready.
    pub stall_max: Duration,
    /// A log without an audit record for longer is warned about. `None`: never.
    pub silence_max: Option<Duration>,
}

impl Default for HealthLimits {
    fn default() -> HealthLimits {
        HealthLimits {
            stall_max: STALL_MAX,
            silence_max: None,
        }
    }
}

/// How far a log has been read and settled.
#[derive(Debug)]
pub(super) struct LogProgress {
    pub(super) frontier: Option<Frontier>,
    /// Everything that it had to deliver is settled.
    pub(super) finished: bool,
    /// When the frontier last moved; at first, when reading began.
    pub(super) moved_at: Instant,
    pub(super) open_records: usize,
    /// Since when positions are overdue to be written.
    pub(super) unsaved_since: Option<Instant>,
    pub(super) silence: Option<Duration>,
    /// Whether the silence was logged.
    pub(super) silence_said: bool,
    /// The whole whose silence counts, if records may come to any of its parts; else the log
    /// itself.
    pub(super) silence_of: String,
    /// What to look at when no records come.
    pub(super) silence_remedy: String,
}

impl LogProgress {
    pub(super) fn new(log: &str) -> LogProgress {
        LogProgress {
            frontier: None,
            finished: false,
            moved_at: Instant::now(),
            open_records: 0,
            unsaved_since: None,
            silence: None,
            silence_said: false,
            silence_of: log.to_owned(),
            silence_remedy: String::new(),
        }
    }

    pub(super) fn update(&mut self, progress: &Progress<'_>) {
        let place = |frontier: &Frontier| (frontier.to.time, frontier.partition, frontier.settled);
        if self.frontier.as_ref().map(place) != Some(place(&progress.frontier)) {
            self.moved_at = Instant::now();
        }
        self.frontier = Some(progress.frontier);
        self.open_records = progress.open_records;
        self.unsaved_since = progress.unsaved_since;
        self.silence = progress.silence;
    }

    /// In seconds.
    pub(super) fn lag(&self) -> f64 {
        if self.finished {
            return 0.0;
        }
        let now = Timestamp::now();
        let settled = self.frontier.map_or_else(
            || self.moved_at.elapsed().as_secs_f64(),
            |frontier| frontier.lag_seconds(now),
        );
        let unsaved = self.unsaved_since.map_or(Duration::ZERO, |it| it.elapsed());
        settled.max(unsaved.as_secs_f64())
    }

    /// Why the log counts as standing still.
    pub(super) fn stalled(&self, stall_max: Duration) -> Option<String> {
        if self.finished {
            return None;
        }
        if let Some(since) = self.unsaved_since
            && since.elapsed() > stall_max
        {
            let seconds = since.elapsed().as_secs();
            return Some(format!(
                "the checkpoint has not been written for {seconds} s: look at the disk, or at the API \
                 server"
            ));
        }
        let still = self.moved_at.elapsed();
        if still <= stall_max {
            return None;
        }
        let seconds = still.as_secs();
        let at = self.frontier.map_or_else(
            || "at its beginning".to_owned(),
            |frontier| format!("at {:.0}", frontier.to.time),
        );
        let why = match self.open_records {
            0 => "the log has told neither more nor that there is nothing more".to_owned(),
            1 => "a record is read and not settled".to_owned(),
            records => format!("{records} records are read and not settled"),
        };
        Some(format!(
            "the trail stands still {at} for {seconds} s: {why}"
        ))
    }
}
