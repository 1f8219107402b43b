//! Parents are logs that come before others: the holder of a child's Lease waits until they are
//! read.

use std::sync::Arc;
use std::time::Duration;

use audit_bridge_core::checkpoint::StoreError;
use audit_bridge_core::source::StoredPositions;
use tokio::time::{Instant, timeout};

use super::{Bridge, Common, Hands, Log, Process, View};
use crate::fatal::Fatal;
use crate::provider::{ProviderLog as _, STANDSTILL_MAX};
use crate::state::StateLayout;

/// The time between two checks of a parent's checkpoint.
const WAIT_INTERVAL: Duration = Duration::from_secs(2);

/// What is known of a parent since a log waits for it.
#[derive(Debug, Default)]
struct ParentWait {
    seen: Option<(StoredPositions, Instant)>,
}

impl ParentWait {
    /// Whether its positions were never read.
    fn is_new(&self) -> bool {
        self.seen.is_none()
    }

    /// Whether its positions have not changed for too long.
    fn stands_still(&mut self, positions: StoredPositions, now: Instant) -> bool {
        match &self.seen {
            Some((seen, since)) if *seen == positions => {
                now.duration_since(*since) >= STANDSTILL_MAX
            }
            _ => {
                self.seen = Some((positions, now));
                false
            }
        }
    }
}

impl<B: Bridge> Process<'_, B> {
    /// Finds logs that other replicas have read to their ends: only closed logs can be.
    pub(super) async fn find_ended(
        &self,
        layout: &StateLayout,
        common: &Common,
        view: &mut View<Log<B>>,
        hands: &Hands,
    ) {
        let closed: Vec<_> = view
            .logs
            .values()
            .filter(|log| log.is_closed() && !view.ended.contains(log.name()))
            .filter(|log| !hands.reading.contains(log.name()))
            .cloned()
            .collect();
        for log in closed {
            match self.is_at_end(layout, common, &*log).await {
                Ok(true) => view.end(log.name().to_owned()),
                Ok(false) => {}
                // The replica that reads the log reports the error.
                Err(error) => tracing::debug!(%error, "checkpoint read failed; retrying"),
            }
        }
    }

    /// Whether the table of slots, the log's checkpoint or the common one says that it is read to
    /// its end.
    async fn is_at_end(
        &self,
        layout: &StateLayout,
        common: &Common,
        log: &Log<B>,
    ) -> Result<bool, StoreError> {
        let positions = self.positions_of(layout, common, log).await?;
        Ok(positions.is_none_or(|positions| log.is_at_end(&positions)))
    }

    /// The positions of a log; `None`: it is read to its end and has no slot any more.
    async fn positions_of(
        &self,
        layout: &StateLayout,
        common: &Common,
        log: &Log<B>,
    ) -> Result<Option<StoredPositions>, StoreError> {
        let owner = self.owner(log.name());
        let Some(slots) = layout.slots() else {
            return Ok(Some(StoredPositions::new()));
        };
        let table = slots.read().await?;
        if table.is_ended(log.name()) {
            return Ok(None);
        }
        let own = layout.peek(&owner, &table).await?;
        let (positions, _) = common.resume(log, &owner, own);
        Ok(Some(positions))
    }

    /// Waits until the logs before this one are read to their ends or gone, or have stood still for
    /// so long that they may be waiting for this one.
    pub(super) async fn wait_for_parents(
        &self,
        layout: &StateLayout,
        common: &Common,
        log: &Log<B>,
        parents: Vec<Arc<Log<B>>>,
    ) -> Result<(), Fatal> {
        for parent in parents {
            let mut wait = ParentWait::default();
            while log.after().iter().any(|name| name == parent.name()) {
                let look = async || Ok(self.positions_of(layout, common, &*parent).await?);
                let positions = self.retry_until_ok(look).await?;
                let Some(positions) = positions.filter(|it| !parent.is_at_end(it)) else {
                    break;
                };
                let (log, parent) = (log.name(), parent.name());
                if wait.is_new() {
                    tracing::info!(
                        log,
                        parent,
                        "partition waits until its parent is read to its end"
                    );
                }
                if wait.stands_still(positions, Instant::now()) {
                    tracing::warn!(
                        log,
                        parent,
                        "parent stands still: one of its events may be held until others are \
                         accepted; reading what comes after it"
                    );
                    break;
                }
                let _ = timeout(WAIT_INTERVAL, common.read_to_end.notified()).await;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn parent_is_waited_for_while_it_moves_and_no_longer_once_it_stands_still() {
        let mut wait = ParentWait::default();
        let began = Instant::now();
        let at = |minute: u64| began + Duration::from_secs(60 * minute);
        let stands = |number: u64| StoredPositions::from([(0, json!(number))]);
        assert!(wait.is_new());
        for minute in 0..100 {
            assert!(
                !wait.stands_still(stands(minute / 19), at(minute)),
                "it moves"
            );
        }
        assert!(!wait.is_new());
        assert!(!wait.stands_still(stands(9), at(100)));
        assert!(!wait.stands_still(stands(9), at(119)));
        assert!(wait.stands_still(stands(9), at(120)));
        assert!(!wait.stands_still(stands(10), at(120)), "it goes on");
    }
}
