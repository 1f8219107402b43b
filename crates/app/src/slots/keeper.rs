//! Brings what one replica knows of the logs into the table: which there are, and which have ended.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use audit_bridge_core::checkpoint::StoreError;
use tokio::time::Instant;

use super::{SlotStore, SlotTable};

/// A list that contradicts the table is believed only after lists have done so for this long: a
/// list may be older than the table, or temporarily incomplete.
const CONTRADICTION_MIN: Duration = Duration::from_secs(300);

/// The logs as the provider listed them.
#[derive(Debug, Clone)]
pub struct Listing {
    /// By name, whether a log is closed: whether it can be read to an end.
    pub logs: BTreeMap<String, bool>,
    /// When the list was asked for.
    pub at: Instant,
}

/// Keeps the table in step with the provider's lists, as one replica sees them.
#[derive(Debug)]
pub struct SlotKeeper {
    store: SlotStore,
    /// Since which list a log of the table was missing, or an ended one was listed as open.
    contradicted: BTreeMap<String, Instant>,
}

impl SlotKeeper {
    /// Knows nothing yet.
    pub fn new(store: SlotStore) -> SlotKeeper {
        SlotKeeper {
            store,
            contradicted: BTreeMap::new(),
        }
    }

    /// The table's place.
    pub fn store(&self) -> &SlotStore {
        &self.store
    }

    /// Gives each listed log without a slot a free one, if there is one, and frees the slots of
    /// logs that have ended or are gone. Returns the table as all replicas see it.
    ///
    /// # Errors
    /// As for [`SlotStore::update`]. Calling it again with the same arguments is safe.
    pub async fn update(
        &mut self,
        listing: &Listing,
        ended: &BTreeSet<String>,
    ) -> Result<SlotTable, StoreError> {
        let contradicted = &mut self.contradicted;
        self.store
            .update(|table| {
                for log in disproved(contradicted, table, listing) {
                    tracing::info!(log, "slot table: log is gone, or begins anew");
                    table.forget(&log);
                }
                // In the order of their names: shards come after those that they wait for.
                for log in listing.logs.keys() {
                    if ended.contains(log) {
                        table.end(log);
                    } else if !table.is_ended(log) {
                        table.assign(log);
                    }
                }
            })
            .await
    }
}

/// The logs for which lists have contradicted the table for long enough.
fn disproved(
    contradicted: &mut BTreeMap<String, Instant>,
    table: &SlotTable,
    listing: &Listing,
) -> Vec<String> {
    let is_wrong = |log: &String| match listing.logs.get(log) {
        None => true,
        Some(is_closed) => table.is_ended(log) && !is_closed,
    };
    let wrong: BTreeSet<&String> = table.logs().filter(|log| is_wrong(log)).collect();
    contradicted.retain(|log, _| wrong.contains(log));
    let mut disproved = Vec::new();
    for log in wrong {
        let since = *contradicted.entry(log.clone()).or_insert(listing.at);
        if listing.at.saturating_duration_since(since) >= CONTRADICTION_MIN {
            disproved.push(log.clone());
        }
    }
    disproved
}
