//! Writes the newest positions at a steady pace, concurrently with the run loop.
//!
//! At most one write is in progress and at most one begins per interval. Positions that arrive in
//! between replace each other, and nothing is written that the store already holds. A failed write
//! is retried for ever with backoff, always with the newest positions. The write is a future stored
//! here, so the loop may drop [`Checkpointer::next`] at any time without losing or repeating a
//! write.

use std::collections::{BTreeMap, BTreeSet};
use std::future::{Future, pending};
use std::pin::Pin;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::{Checkpoint, HealthTimes, Owner, Store, StoreError, UNANNOUNCED_MAX};
use crate::ack::PartitionProgress;
use crate::retry::Backoff;
use crate::source::{Position, StoredPosition, StoredPositions};

/// The minimum wait after a failed write, unless the interval is shorter: nothing is read
/// meanwhile.
const RETRY_WAIT_MIN: Duration = Duration::from_secs(1);

/// The wait between attempts of a last write while the process ends.
const FLUSH_RETRY: Duration = Duration::from_millis(500);

type Saving<S> = Pin<Box<dyn Future<Output = (S, Checkpoint, Result<(), StoreError>)> + Send>>;

/// The result of one write.
#[derive(Debug, Clone, PartialEq)]
pub enum SaveOutcome<P> {
    /// These partitions' new positions are durable: commit them at the source.
    Saved(Vec<(u32, P)>),
    /// The write failed; see [`Checkpointer::failure`].
    Failed {
        /// How long until the next attempt.
        retry_in: Duration,
    },
}

/// A series of failed writes.
#[derive(Debug)]
pub struct SaveFailure {
    /// The last attempt's error.
    pub error: StoreError,
    /// Failed attempts in a row.
    pub attempts: u32,
    /// When the first of them failed.
    pub since: Instant,
}

pub struct Checkpointer<S, P> {
    /// `None` while a write is in progress.
    store: Option<S>,
    saving: Option<Saving<S>>,
    owner: Owner,
    interval: Duration,
    /// The newest position of each partition that has one of this run. Only where a write begins it
    /// becomes JSON.
    reached: BTreeMap<u32, P>,
    /// Those of the write in progress.
    saving_reached: BTreeMap<u32, P>,
    /// The positions of earlier runs, of the other partitions.
    kept: StoredPositions,
    /// Partitions that the source announced in this run.
    announced: BTreeSet<u32>,
    /// Since when a partition with a kept position is unannounced.
    unannounced: BTreeMap<u32, Timestamp>,
    /// Copied from the loaded checkpoint.
    merged: Option<Timestamp>,
    health: HealthTimes,
    /// The positions that the store holds.
    durable: StoredPositions,
    durable_unannounced: BTreeMap<u32, Timestamp>,
    durable_health: HealthTimes,
    /// Since when a change waits for a write to begin.
    unsaved_since: Option<Instant>,
    /// The same for the write in progress.
    saving_since: Option<Instant>,
    saved_at: Instant,
    next_at: Instant,
    backoff: Backoff,
    failure: Option<SaveFailure>,
}

impl<S: Store + 'static, P: Position> Checkpointer<S, P> {
    /// Starts from the loaded checkpoint (its partitions are kept, whether they advance or not),
    /// and writes at most once per `interval`.
    pub fn new(
        store: S,
        owner: Owner,
        loaded: Option<Checkpoint>,
        interval: Duration,
    ) -> Checkpointer<S, P> {
        let now = Instant::now();
        let (durable, unannounced, merged, health) = loaded
            .map(|it| {
                // Earlier releases did not write this time; everything up to the write was settled
                // then.
                let settled_to = it.health.settled_to.or(Some(it.written));
                let health = HealthTimes {
                    settled_to,
                    ..it.health
                };
                (it.position, it.unannounced, it.merged, health)
            })
            .unwrap_or_default();
        Checkpointer {
            store: Some(store),
            saving: None,
            owner,
            interval,
            reached: BTreeMap::new(),
            saving_reached: BTreeMap::new(),
            kept: durable.clone(),
            announced: BTreeSet::new(),
            durable_unannounced: unannounced.clone(),
            unannounced,
            merged,
            health,
            durable_health: health,
            durable,
            unsaved_since: None,
            saving_since: None,
            saved_at: now,
            next_at: now,
            backoff: Backoff::seeded(fastrand::u64(..)),
            failure: None,
        }
    }

    /// Applies a step of progress. Does no I/O: [`Checkpointer::next`] does.
    pub(crate) fn take(&mut self, progress: PartitionProgress<P>) {
        match progress {
            PartitionProgress::Announced(partition) => self.announce(partition),
            PartitionProgress::Reached(partition, position) => self.advance(partition, position),
            PartitionProgress::Retired(partition) => self.retire(partition),
        }
    }

    /// The source reads this partition: its position is kept.
    pub fn announce(&mut self, partition: u32) {
        self.announced.insert(partition);
        if self.unannounced.remove(&partition).is_some() {
            self.unsaved_since.get_or_insert_with(Instant::now);
        }
    }

    /// Another partition covers this one: its position is dropped.
    pub(crate) fn retire(&mut self, partition: u32) {
        self.announced.remove(&partition);
        self.unannounced.remove(&partition);
        let reached = self.reached.remove(&partition).is_some();
        if self.kept.remove(&partition).is_some() || reached {
            self.unsaved_since.get_or_insert_with(Instant::now);
        }
    }

    /// The partition is settled up to this position. Does no I/O: [`Checkpointer::next`] does.
    pub fn advance(&mut self, partition: u32, position: P) {
        self.announce(partition);
        let is_kept = |kept: &StoredPosition| *kept == position.to_stored();
        if self.reached.get(&partition) == Some(&position)
            || self.kept.get(&partition).is_some_and(is_kept)
        {
            return;
        }
        self.kept.remove(&partition);
        self.reached.insert(partition, position);
        self.unsaved_since.get_or_insert_with(Instant::now);
    }

    /// Writes when something has changed and the interval has passed, and returns the result. Pends
    /// for ever while there is nothing to write. Cancel-safe.
    pub async fn next(&mut self) -> SaveOutcome<P> {
        loop {
            if let Some(saving) = &mut self.saving {
                let (store, checkpoint, result) = saving.await;
                self.saving = None;
                self.store = Some(store);
                return self.settle(checkpoint, result);
            }
            if self.unsaved_since.is_none() {
                return pending().await;
            }
            sleep_until(self.next_at).await;
            if !self.begin() {
                return pending().await;
            }
        }
    }

    /// Writes what is left, at once, for at most `within`: for the end of a run. Returns what has
    /// become durable; [`Checkpointer::is_clean`] says whether that is all.
    pub async fn flush(&mut self, within: Duration) -> Vec<(u32, P)> {
        let deadline = Instant::now() + within;
        let mut durable = BTreeMap::new();
        while !self.is_clean() {
            if self.saving.is_none() && !self.begin() {
                break;
            }
            match timeout_at(deadline, self.next()).await {
                Ok(SaveOutcome::Saved(positions)) => durable.extend(positions),
                Ok(SaveOutcome::Failed { .. }) => {
                    let refused = |failure: &SaveFailure| !failure.error.is_unavailable();
                    if self.failure.as_ref().is_some_and(refused) {
                        break;
                    }
                    sleep_until(deadline.min(Instant::now() + FLUSH_RETRY)).await;
                }
                Err(_) => break,
            }
            if Instant::now() >= deadline {
                break;
            }
        }
        durable.into_iter().collect()
    }

    /// Whether every position is durable.
    pub fn is_clean(&self) -> bool {
        self.unsaved_since.is_none() && self.saving.is_none()
    }

    /// The time since the last successful write, or since the start before the first. It also grows
    /// while there is nothing to write.
    pub fn age(&self) -> Duration {
        self.saved_at.elapsed()
    }

    /// When a write became overdue: a change has waited for more than two intervals, one to begin
    /// and one to finish.
    pub(crate) fn overdue_since(&self) -> Option<Instant> {
        let since = self.saving_since.or(self.unsaved_since)?;
        Some(since + self.interval * 2).filter(|due| *due < Instant::now())
    }

    /// The times that are written with the positions; initially those of the loaded checkpoint.
    pub fn health(&self) -> HealthTimes {
        self.health
    }

    /// Sets the times that the next write includes. Only the first arrival causes a write: a log that
    /// was never anything but silent has positions that do not move.
    pub(crate) fn set_health(&mut self, health: HealthTimes) {
        self.health = health;
        if self.lacks_arrival() {
            self.unsaved_since.get_or_insert_with(Instant::now);
        }
    }

    /// Whether a restart would begin the silence anew.
    fn lacks_arrival(&self) -> bool {
        let has_positions = !self.kept.is_empty() || !self.reached.is_empty();
        let (here, there) = (self.health.arrived, self.durable_health.arrived);
        has_positions && here.is_some() && there.is_none()
    }

    /// The current series of failed writes, until one succeeds.
    pub fn failure(&self) -> Option<&SaveFailure> {
        self.failure.as_ref()
    }

    /// Begins a write. False if there is nothing to write: positions may return to what the store
    /// holds (a partition that had advanced is read anew).
    fn begin(&mut self) -> bool {
        let reached = self.reached.iter();
        let reached = reached.map(|(&partition, position)| (partition, position.to_stored()));
        let mut positions = self.kept.clone();
        positions.extend(reached);
        let is_unchanged = self.failure.is_none()
            && positions == self.durable
            && !self.lacks_arrival()
            && self.unannounced == self.durable_unannounced;
        if is_unchanged {
            self.unsaved_since = None;
            return false;
        }
        let Some(mut store) = self.store.take() else {
            return false;
        };
        self.saving_since = self.unsaved_since.take();
        self.next_at = Instant::now() + self.interval;
        self.mark_unannounced(&mut positions, Timestamp::now());
        self.saving_reached.clone_from(&self.reached);
        let checkpoint = Checkpoint {
            unannounced: self.unannounced.clone(),
            merged: self.merged,
            health: self.health,
            ..Checkpoint::new(&self.owner, positions)
        };
        self.saving = Some(Box::pin(async move {
            let result = store.save(&checkpoint).await;
            (store, checkpoint, result)
        }));
        true
    }

    /// Marks the positions that no source has announced in this run, and drops those that have been
    /// unannounced for too long.
    fn mark_unannounced(&mut self, positions: &mut StoredPositions, now: Timestamp) {
        let unannounced = &mut self.unannounced;
        positions.retain(|&partition, position| {
            if self.announced.contains(&partition) {
                return true;
            }
            let since = unannounced.entry(partition).or_insert(now);
            // A clock that was ahead must not keep the position for ever.
            *since = (*since).min(now);
            if now.duration_since(*since)
                <= SignedDuration::try_from(UNANNOUNCED_MAX).unwrap_or(SignedDuration::MAX)
            {
                return true;
            }
            tracing::warn!(
                partition, %position, %since,
                "position dropped: no source has announced its partition for too long"
            );
            unannounced.remove(&partition);
            false
        });
        unannounced.retain(|partition, _| positions.contains_key(partition));
        self.kept
            .retain(|partition, _| positions.contains_key(partition));
    }

    fn settle(&mut self, checkpoint: Checkpoint, result: Result<(), StoreError>) -> SaveOutcome<P> {
        let now = Instant::now();
        let since = self.saving_since.take();
        let Err(error) = result else {
            self.saved_at = now;
            self.failure = None;
            self.durable_unannounced = checkpoint.unannounced;
            self.durable_health = checkpoint.health;
            let old = std::mem::replace(&mut self.durable, checkpoint.position);
            let reached = std::mem::take(&mut self.saving_reached);
            let moved =
                |(partition, _): &(u32, P)| old.get(partition) != self.durable.get(partition);
            return SaveOutcome::Saved(reached.into_iter().filter(moved).collect());
        };
        // The positions of the failed write still wait, and have waited longer than any newer one.
        self.unsaved_since = since.or(self.unsaved_since);
        let (attempts, since) = match &self.failure {
            Some(failure) => (failure.attempts.saturating_add(1), failure.since),
            None => (1, now),
        };
        self.failure = Some(SaveFailure {
            error,
            attempts,
            since,
        });
        let least = self.interval.min(RETRY_WAIT_MIN);
        let wait = self.backoff.wait(attempts).max(least);
        self.next_at = now + wait;
        SaveOutcome::Failed { retry_in: wait }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nowhere;

    impl Store for Nowhere {
        async fn load(&mut self) -> Result<Option<Checkpoint>, StoreError> {
            Ok(None)
        }

        async fn save(&mut self, _: &Checkpoint) -> Result<(), StoreError> {
            Ok(())
        }
    }

    struct Broken;

    impl Store for Broken {
        async fn load(&mut self) -> Result<Option<Checkpoint>, StoreError> {
            Ok(None)
        }

        async fn save(&mut self, _: &Checkpoint) -> Result<(), StoreError> {
            Err(StoreError::Unavailable {
                place: String::new(),
                problem: String::new(),
                remedy: String::new(),
                source: None,
            })
        }
    }

    fn owner() -> Owner {
        Owner {
            provider: "eks".to_owned(),
            source: "a".to_owned(),
        }
    }

    /// The document after a write, in a run that announces only partition 0.
    async fn written(loaded: Checkpoint) -> Checkpoint {
        let mut checkpointer = Checkpointer::new(Nowhere, owner(), Some(loaded), Duration::ZERO);
        checkpointer.advance(0, fastrand::u64(..));
        assert!(checkpointer.begin());
        let (_, checkpoint, _) = checkpointer.saving.take().unwrap().await;
        // Through the text, as a store keeps it.
        let text = checkpoint.write().unwrap();
        serde_json::from_str(&text).unwrap()
    }

    #[tokio::test]
    async fn checkpointer_position_equal_to_stored_is_not_written() {
        let loaded = Checkpoint::new(&owner(), [(0, 1.into())].into());
        let mut checkpointer =
            Checkpointer::new(Nowhere, owner(), Some(loaded), Duration::from_secs(3600));
        checkpointer.advance(0, 2_u64);
        assert!(!checkpointer.is_clean());
        checkpointer.advance(0, 1_u64);
        assert_eq!(checkpointer.flush(Duration::from_secs(3600)).await, []);
        assert!(checkpointer.is_clean());
        checkpointer.advance(0, 2_u64);
        let flushed = checkpointer.flush(Duration::from_secs(3600)).await;
        assert_eq!(flushed, [(0, 2)]);
    }

    #[tokio::test]
    async fn checkpointer_first_arrival_is_written_though_no_position_moves() {
        let mut loaded = Checkpoint::new(&owner(), [(0, 1.into())].into());
        for (stored, writes) in [(None, true), (Some(Timestamp::UNIX_EPOCH), false)] {
            loaded.health.arrived = stored;
            let loaded = Some(loaded.clone());
            let mut checkpointer =
                Checkpointer::<_, u64>::new(Nowhere, owner(), loaded, Duration::ZERO);
            let arrived = Some(Timestamp::now());
            let health = HealthTimes {
                arrived,
                ..checkpointer.health()
            };
            checkpointer.set_health(health);
            assert_eq!(!checkpointer.is_clean(), writes);
            checkpointer.flush(Duration::from_secs(60)).await;
            checkpointer.set_health(health);
            assert!(checkpointer.is_clean(), "once");
            assert!(checkpointer.durable_health.arrived.is_some());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn checkpointer_write_failed_is_retried_before_long_interval() {
        let interval = Duration::from_secs(600);
        let mut checkpointer = Checkpointer::new(Broken, owner(), None, interval);
        checkpointer.advance(0, 1_u64);
        let outcome = checkpointer.next().await;
        let SaveOutcome::Failed { retry_in } = outcome else {
            panic!("{outcome:?}");
        };
        assert!(
            (RETRY_WAIT_MIN..interval / 10).contains(&retry_in),
            "{retry_in:?}"
        );
    }

    #[tokio::test]
    async fn checkpointer_partition_unannounced_keeps_position_thirty_days() {
        let loaded = Checkpoint::new(&owner(), [(0, 1.into()), (7, "typo".into())].into());
        let first = written(loaded).await;
        assert_eq!(first.position[&7], "typo");
        assert_eq!(first.unannounced.keys().collect::<Vec<_>>(), [&7]);
        let mut next = written(first.clone()).await;
        assert_eq!(next.unannounced, first.unannounced, "since the first time");
        let ago = |hours| Timestamp::now() - SignedDuration::from_hours(hours);
        next.unannounced.insert(7, ago(30 * 24 - 1));
        let mut next = written(next).await;
        assert!(next.position.contains_key(&7));
        next.unannounced.insert(7, ago(30 * 24 + 1));
        let next = written(next).await;
        assert_eq!(next.position.len(), 1);
        assert!(next.unannounced.is_empty());
    }

    #[tokio::test]
    async fn checkpointer_partition_announced_again_clears_mark_and_retired_one_goes() {
        let loaded = Checkpoint::new(
            &owner(),
            [(0, 1.into()), (7, 2.into()), (8, 3.into())].into(),
        );
        let loaded = written(loaded).await;
        let mut checkpointer =
            Checkpointer::<_, u64>::new(Nowhere, owner(), Some(loaded), Duration::ZERO);
        assert!(checkpointer.is_clean());
        checkpointer.take(PartitionProgress::Announced(7));
        checkpointer.take(PartitionProgress::Retired(8));
        assert!(!checkpointer.is_clean());
        assert!(checkpointer.begin());
        let (_, checkpoint, _) = checkpointer.saving.take().unwrap().await;
        assert_eq!(checkpoint.position.keys().collect::<Vec<_>>(), [&0, &7]);
        assert_eq!(checkpoint.unannounced.keys().collect::<Vec<_>>(), [&0]);
    }
}
