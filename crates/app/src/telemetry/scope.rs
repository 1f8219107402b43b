//! The state of the process and of each of its logs: readiness and progress.

use std::collections::BTreeMap;

use audit_bridge_core::deliver::ParkedStatus;
use audit_bridge_core::readiness::Component;
use tokio::time::Instant;

use super::gaps::Gaps;
use super::log_progress::{HealthLimits, LogProgress};

/// The index of the process in the list of scopes.
pub(super) const PROCESS: usize = 0;

/// The components that must be ready before the process is.
pub(super) const TO_BE_SHOWN: [Component; 4] = [
    Component::Identity,
    Component::Source,
    Component::Checkpoint,
    Component::Webhook,
];

#[derive(Debug)]
pub(super) struct TelemetryState {
    /// The process first, then its logs.
    pub(super) scopes: Vec<Scope>,
    /// The holder of the Lease that this process waits for.
    pub(super) standby: Option<String>,
    pub(super) limits: HealthLimits,
    pub(super) gaps: Gaps,
}

impl TelemetryState {
    /// The logs that this process reads.
    pub(super) fn logs(&self) -> impl Iterator<Item = &Scope> {
        self.scopes[1..].iter().filter(|scope| !scope.retired)
    }

    /// The state of a process without logs.
    pub(super) fn new(process: &str) -> TelemetryState {
        TelemetryState {
            scopes: vec![Scope::new(process, &TO_BE_SHOWN)],
            standby: None,
            limits: HealthLimits::default(),
            gaps: Gaps::default(),
        }
    }
}

/// Why a component is not ready before its first attempt.
pub(super) const NOT_TRIED: &str = "not tried yet";

/// The state of the process as a whole, or of one log.
#[derive(Debug)]
pub(super) struct Scope {
    pub(super) name: String,
    /// Why each component is not ready; `None` when it is.
    pub(super) components: BTreeMap<Component, Option<String>>,
    pub(super) since: Instant,
    pub(super) checkpoint_written: Option<Instant>,
    /// The log's progress as last reported.
    pub(super) log_progress: LogProgress,
    pub(super) in_flight_bytes: usize,
    /// Events that fail while others are accepted, or an empty list.
    pub(super) parked: ParkedStatus,
    /// When the loop last reported; `None` while no loop runs.
    pub(super) progress: Option<Instant>,
    /// Another process reads the log now: nothing here is valid.
    pub(super) retired: bool,
}

impl Scope {
    pub(super) fn new(name: &str, components: &[Component]) -> Scope {
        let unseen = || Some(NOT_TRIED.to_owned());
        Scope {
            name: name.to_owned(),
            components: components
                .iter()
                .map(|&component| (component, unseen()))
                .collect(),
            since: Instant::now(),
            checkpoint_written: None,
            log_progress: LogProgress::new(name),
            in_flight_bytes: 0,
            parked: ParkedStatus::default(),
            progress: None,
            retired: false,
        }
    }

    /// Seconds since the last write of the checkpoint, or since the start before the first.
    pub(super) fn checkpoint_age(&self) -> f64 {
        let written = self.checkpoint_written.unwrap_or(self.since);
        written.elapsed().as_secs_f64()
    }
}
