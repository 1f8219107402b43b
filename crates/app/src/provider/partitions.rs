//! Combines the health of a source's partitions into one answer for `/readyz`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use audit_bridge_core::readiness::{Component, Unavailable};

use crate::telemetry::Telemetry;

/// Which partitions can be read. Clones share the state.
#[derive(Debug, Clone)]
pub struct PartitionHealth {
    telemetry: Telemetry,
    partitions: Arc<Mutex<BTreeMap<String, State>>>,
}

#[derive(Debug)]
enum State {
    /// Nothing was read from it yet.
    Starting,
    Reading,
    Failing(Unavailable),
}

impl PartitionHealth {
    pub fn new(telemetry: Telemetry) -> PartitionHealth {
        PartitionHealth {
            telemetry,
            partitions: Arc::default(),
        }
    }

    /// The telemetry of the source.
    pub fn telemetry(&self) -> &Telemetry {
        &self.telemetry
    }

    /// A partition is going to be read.
    pub fn starting(&self, partition: &str) {
        self.change(|all| {
            all.insert(partition.to_owned(), State::Starting);
        });
    }

    /// A partition is intentionally no longer read.
    pub fn left(&self, partition: &str) {
        self.change(|all| {
            all.remove(partition);
        });
    }

    /// A partition can be read.
    pub fn reading(&self, partition: &str) {
        self.change(|all| {
            all.insert(partition.to_owned(), State::Reading);
        });
    }

    /// A partition cannot be read, until `reading` is called for it.
    pub fn failed(&self, partition: &str, unavailable: Unavailable) {
        self.change(|all| {
            all.insert(partition.to_owned(), State::Failing(unavailable));
        });
    }

    /// Whether the partition's last reported state is `Reading`.
    pub fn is_reading(&self, partition: &str) -> bool {
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
            State::Failing(unavailable) => Some((name, unavailable)),
            _ => None,
        });
        if let Some((name, unavailable)) = failing.next() {
            let more = match failing.count() {
                0 => String::new(),
                more => format!(" (and {more} more)"),
            };
            self.telemetry.not_ready(
                unavailable.component,
                format!("partition {name}{more}: {unavailable}"),
            );
        } else if all.values().all(|state| matches!(state, State::Reading)) {
            self.telemetry.ready(Component::Source);
            self.telemetry.ready(Component::Identity);
            self.telemetry.process().ready(Component::Identity);
        }
    }
}
