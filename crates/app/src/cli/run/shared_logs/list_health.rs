//! Reports lists of the provider's logs that fail: new logs are not found meanwhile, and no reader
//! fails because of that.

use std::time::Duration;

use audit_bridge_core::readiness::{Component, Unavailable};

use crate::telemetry::Telemetry;

/// This many failed lists in a row make the process not ready. Single failures are normal.
const FAILURES_MAX: u32 = 3;

#[derive(Debug)]
pub(super) struct ListHealth {
    telemetry: Telemetry,
    /// Failed lists in a row.
    failures: u32,
}

impl ListHealth {
    pub(super) fn new(telemetry: Telemetry) -> ListHealth {
        ListHealth {
            telemetry,
            failures: 0,
        }
    }

    pub(super) fn works(&mut self) {
        if std::mem::take(&mut self.failures) >= FAILURES_MAX {
            for component in [Component::Identity, Component::Source] {
                self.telemetry.ready(component);
            }
        }
    }

    pub(super) fn failed(&mut self, unavailable: &Unavailable) {
        self.failures = self.failures.saturating_add(1);
        tracing::warn!(
            failures = self.failures,
            %unavailable,
            "log list failed; retrying"
        );
        if self.failures >= FAILURES_MAX {
            let why = format!("list of logs: {unavailable}");
            self.telemetry.not_ready(unavailable.component, why);
        }
    }
}

/// The failure of a list that took longer than this.
pub(super) fn timed_out(after: Duration) -> Unavailable {
    Unavailable {
        component: Component::Source,
        reason: format!("listing the logs took more than {after:?}"),
        remedy: "it is tried again; check that this machine reaches the provider".to_owned(),
    }
}
