//! How the partitions are doing, as one answer: what is ready, and whether there is more to read.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use audit_bridge_core::telemetry::{Part, Telemetry};

use crate::client::{Fault, FaultKind};

/// A link ends now and then, and is opened anew: the first failure in a row is weather.
const WEATHER: u32 = 1;

/// Which partition can be read. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Health {
    telemetry: Telemetry,
    partitions: Arc<Mutex<BTreeMap<String, State>>>,
}

/// How one partition is doing.
#[derive(Debug)]
enum State {
    /// Nothing came of it yet.
    Starting,
    /// It is read; `idle`: it has nothing more at the moment.
    Reading { idle: bool },
    /// It cannot be read.
    Failing(Fault),
}

impl Health {
    pub(crate) fn new(telemetry: Telemetry) -> Health {
        Health {
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
    pub(crate) fn reading(&self, partition: &str, idle: bool) {
        self.change(|all| {
            all.insert(partition.to_owned(), State::Reading { idle });
        });
    }

    /// An attempt at a partition failed, so many in a row.
    pub(crate) fn failed(&self, partition: &str, failures: u32, fault: &Fault) {
        self.telemetry.source_request(fault.status());
        if fault.kind == FaultKind::Busy {
            self.telemetry.source_throttled();
        }
        if failures <= WEATHER && fault.kind == FaultKind::Ended {
            tracing::info!(partition, why = %fault, "the link to a partition ended; it is opened again");
            return;
        }
        tracing::warn!(partition, failures, why = %fault, "a partition cannot be read; it is tried again");
        self.change(|all| {
            all.insert(partition.to_owned(), State::Failing(fault.clone()));
        });
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<String, State>)) {
        let mut all = self
            .partitions
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        change(&mut all);
        let drained = !all.is_empty()
            && all
                .values()
                .all(|state| matches!(state, State::Reading { idle: true }));
        self.telemetry.drained(drained);
        let mut failing = all.iter().filter_map(|(name, state)| match state {
            State::Failing(fault) => Some((name, fault)),
            _ => None,
        });
        if let Some((name, fault)) = failing.next() {
            let more = match failing.count() {
                0 => String::new(),
                more => format!(" (and {more} more)"),
            };
            self.telemetry
                .not_ready(fault.part(), format!("partition {name}{more}: {fault}"));
        } else if all
            .values()
            .all(|state| matches!(state, State::Reading { .. }))
        {
            self.telemetry.ready(Part::Source);
            self.telemetry.ready(Part::Identity);
            self.telemetry.process().ready(Part::Identity);
        }
    }
}
