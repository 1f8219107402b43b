//! How the partitions are doing, as one answer.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use audit_bridge_app::telemetry::Telemetry;
use audit_bridge_core::readiness::Component;

use crate::client::{HubError, HubErrorKind};

/// Which partition can be read. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct PartitionHealth {
    telemetry: Telemetry,
    partitions: Arc<Mutex<BTreeMap<String, State>>>,
}

/// How one partition is doing.
#[derive(Debug)]
enum State {
    /// Nothing came of it yet.
    Starting,
    /// It is read.
    Reading,
    /// It cannot be read.
    Failing(HubError),
}

impl PartitionHealth {
    pub(crate) fn new(telemetry: Telemetry) -> PartitionHealth {
        PartitionHealth {
            telemetry,
            partitions: Arc::default(),
        }
    }

    pub(crate) fn telemetry(&self) -> &Telemetry {
        &self.telemetry
    }

    /// A partition is going to be read.
    pub(crate) fn starting(&self, partition: &str) {
        self.change(|all| {
            all.insert(partition.to_owned(), State::Starting);
        });
    }

    /// A partition is not read any more, by intention.
    pub(crate) fn left(&self, partition: &str) {
        self.change(|all| {
            all.remove(partition);
        });
    }

    /// A partition can be read.
    pub(crate) fn reading(&self, partition: &str) {
        self.change(|all| {
            all.insert(partition.to_owned(), State::Reading);
        });
    }

    /// An attempt at a partition failed, so many in a row.
    pub(crate) fn failed(&self, partition: &str, failures: u32, fault: &HubError) {
        self.telemetry.source_request(fault.status());
        if fault.kind == HubErrorKind::Busy {
            self.telemetry.source_throttled();
        }
        // A link ends now and then, also by a token that ran out: one that worked is opened again
        // before there is anything to say.
        if failures == 1 && self.was_reading(partition) {
            tracing::info!(
                partition,
                why = fault.what,
                "a link ended; it is opened again"
            );
            return;
        }
        tracing::warn!(
            partition,
            failures,
            why = fault.what,
            "a partition cannot be read; it is tried again"
        );
        self.change(|all| {
            all.insert(partition.to_owned(), State::Failing(fault.clone()));
        });
    }

    fn was_reading(&self, partition: &str) -> bool {
        let all = self.partitions.lock();
        let all = all.unwrap_or_else(PoisonError::into_inner);
        matches!(all.get(partition), Some(State::Reading))
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<String, State>)) {
        let mut all = self
            .partitions
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        change(&mut all);
        let mut failing = all.iter().filter_map(|(name, state)| match state {
            State::Failing(fault) => Some((name, fault)),
            _ => None,
        });
        if let Some((name, fault)) = failing.next() {
            let more = match failing.count() {
                0 => String::new(),
                more => format!(" (and {more} more)"),
            };
            self.telemetry.not_ready(
                fault.component(),
                format!("partition {name}{more}: {fault}"),
            );
        } else if all.values().all(|state| matches!(state, State::Reading)) {
            self.telemetry.ready(Component::Source);
            self.telemetry.ready(Component::Identity);
            self.telemetry.process().ready(Component::Identity);
        }
    }
}
