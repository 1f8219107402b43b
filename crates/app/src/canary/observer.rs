//! Checks the events of one log for canaries, and passes all progress on to the log's
//! [`Telemetry`].

use std::sync::Arc;

use audit_bridge_core::convert::{Reject, Skip};
use audit_bridge_core::event::Event;
use audit_bridge_core::event::conformance::Notes;
use audit_bridge_core::observer::{EventHandling, Observer, Progress};
use audit_bridge_core::record::Origin;
use audit_bridge_core::run_stats::RunStats;
use audit_bridge_core::source::Problem;

use super::CanaryWatch;
use crate::telemetry::Telemetry;

/// The observer of a log's pipeline.
#[derive(Debug)]
pub(crate) struct CanaryObserver {
    telemetry: Telemetry,
    /// `None`: no canaries are sent.
    watch: Option<Arc<CanaryWatch>>,
    log: String,
    /// Whether an audit event of others was read since the last `progressed`.
    read: bool,
}

impl CanaryObserver {
    /// `remedy`: what to look at when the log gives no records.
    pub(crate) fn new(
        telemetry: Telemetry,
        watch: Option<Arc<CanaryWatch>>,
        log: &str,
        remedy: String,
    ) -> CanaryObserver {
        if let Some(watch) = &watch {
            watch.add_log(log, remedy);
        }
        CanaryObserver {
            telemetry,
            watch,
            log: log.to_owned(),
            read: false,
        }
    }
}

impl Observer for CanaryObserver {
    fn inspect(&mut self, event: &Event) -> EventHandling {
        match &self.watch {
            None => EventHandling::Deliver,
            Some(watch) => {
                let handling = watch.inspect(&self.log, event);
                self.read |= handling == EventHandling::Deliver;
                handling
            }
        }
    }

    fn followed(&mut self, number: u64, accepted: bool) {
        if let Some(watch) = &self.watch {
            watch.followed(number, accepted);
        }
    }

    fn progressed(&mut self, stats: &RunStats, progress: &Progress<'_>) {
        if let Some(watch) = &self.watch {
            watch.progressed(&self.log, std::mem::take(&mut self.read), progress);
        }
        self.telemetry.progressed(stats, progress);
    }

    fn received(&mut self, records: u64) {
        Observer::received(&mut self.telemetry, records);
    }

    fn delivered(&mut self, events: u64, truncated: u64) {
        Observer::delivered(&mut self.telemetry, events, truncated);
    }

    fn skipped(&mut self, reason: Skip) {
        Observer::skipped(&mut self.telemetry, reason);
    }

    fn noted(&mut self, notes: Notes) {
        Observer::noted(&mut self.telemetry, notes);
    }

    fn reject(&mut self, origin: &Origin, reason: Reject, error: &str) {
        self.telemetry.reject(origin, reason, error);
    }

    fn problem(&mut self, problem: &Problem) {
        self.telemetry.problem(problem);
    }

    fn checkpoint_written(&mut self) {
        Observer::checkpoint_written(&mut self.telemetry);
    }
}
