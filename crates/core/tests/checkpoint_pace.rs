//! The checkpointer: its pace, what counts as durable, and how it handles failures.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "tests, with their helpers"
)]

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use audit_bridge_core::checkpoint::{
    Checkpoint, Checkpointer, FileStore, Owner, SaveOutcome, Store, StoreError,
};
use serde_json::{Value, json};
use tokio::time::{Instant, interval, sleep, timeout};

const SECOND: Duration = Duration::from_secs(1);

fn owner() -> Owner {
    Owner {
        provider: "aks".to_owned(),
        source: "hub".to_owned(),
    }
}

#[derive(Default)]
struct Script {
    takes: Duration,
    failures: VecDeque<StoreError>,
    /// When each attempt started, and its positions.
    attempts: Vec<(Instant, BTreeMap<u32, Value>)>,
    saved: Option<Checkpoint>,
}

/// A scripted store.
#[derive(Clone, Default)]
struct Scripted(Arc<Mutex<Script>>);

impl Store for Scripted {
    async fn load(&mut self) -> Result<Option<Checkpoint>, StoreError> {
        Ok(self.0.lock().unwrap().saved.clone())
    }

    async fn save(&mut self, checkpoint: &Checkpoint) -> Result<(), StoreError> {
        let (takes, failure) = {
            let mut script = self.0.lock().unwrap();
            let attempt = (Instant::now(), checkpoint.position.clone());
            script.attempts.push(attempt);
            (script.takes, script.failures.pop_front())
        };
        sleep(takes).await;
        match failure {
            Some(error) => Err(error),
            None => {
                self.0.lock().unwrap().saved = Some(checkpoint.clone());
                Ok(())
            }
        }
    }
}

fn full() -> StoreError {
    StoreError::Unavailable {
        place: "/state".to_owned(),
        problem: "cannot be written".to_owned(),
        remedy: "make room".to_owned(),
        source: None,
    }
}

fn refused() -> StoreError {
    StoreError::Refused {
        place: "/state".to_owned(),
        found: "is foreign".to_owned(),
        expected: "ours".to_owned(),
        remedy: "move it".to_owned(),
    }
}

fn checkpointer(store: &Scripted) -> Checkpointer<Scripted, u64> {
    Checkpointer::new(store.clone(), owner(), None, SECOND)
}

fn saved(store: &Scripted) -> BTreeMap<u32, Value> {
    store.0.lock().unwrap().saved.clone().unwrap().position
}

#[tokio::test(start_paused = true)]
async fn checkpointer_busy_writes_newest_positions_once_per_interval() {
    let store = Scripted::default();
    store.0.lock().unwrap().takes = Duration::from_millis(300);
    let mut checkpointer = checkpointer(&store);
    let mut committed = 0;
    let mut tick = interval(Duration::from_millis(7));
    for n in 1..=3000_u64 {
        // As in the run loop: the first branch wins, the others are dropped.
        tokio::select! {
            biased;
            outcome = checkpointer.next() => {
                let SaveOutcome::Saved(positions) = outcome else { panic!("{outcome:?}") };
                let [(0, position)] = positions.as_slice() else { panic!("{positions:?}") };
                committed = *position;
                // Only what is in the store is durable, not newer positions.
                assert_eq!(saved(&store)[&0], *position);
            }
            _ = tick.tick() => {}
        }
        checkpointer.advance(0, n);
        assert!(committed < n);
    }
    let script = store.0.lock().unwrap();
    // 21 seconds of work.
    assert!((20..=23).contains(&script.attempts.len()));
    for pair in script.attempts.windows(2) {
        assert!(pair[1].0 - pair[0].0 >= SECOND);
        assert!(pair[1].1[&0].as_u64() > pair[0].1[&0].as_u64());
    }
    assert!(committed > 2600);
}

#[tokio::test(start_paused = true)]
async fn checkpointer_idle_writes_nothing() {
    let store = Scripted::default();
    let mut checkpointer = checkpointer(&store);
    assert!(timeout(100 * SECOND, checkpointer.next()).await.is_err());
    assert_eq!(checkpointer.age(), 100 * SECOND);
    assert!(checkpointer.is_clean());
    checkpointer.advance(3, 7);
    assert!(!checkpointer.is_clean());
    let outcome = checkpointer.next().await;
    assert_eq!(outcome, SaveOutcome::Saved(vec![(3, 7)]));
    assert_eq!(checkpointer.age(), Duration::ZERO);
    checkpointer.advance(3, 7);
    assert!(checkpointer.is_clean());
    assert!(timeout(100 * SECOND, checkpointer.next()).await.is_err());
    assert_eq!(store.0.lock().unwrap().attempts.len(), 1);
    assert_eq!(checkpointer.flush(SECOND).await, []);
}

#[tokio::test(start_paused = true)]
async fn checkpointer_partition_of_earlier_run_is_kept() {
    let store = Scripted::default();
    let positions = BTreeMap::from([(0, json!(1)), (1, json!(10))]);
    let loaded = Checkpoint::new(&owner(), positions);
    let mut checkpointer = Checkpointer::new(store.clone(), owner(), Some(loaded), SECOND);
    // The same position again does not count as a change.
    checkpointer.advance(1, 10);
    assert!(checkpointer.is_clean());
    checkpointer.advance(0, 2);
    let outcome = checkpointer.next().await;
    assert_eq!(outcome, SaveOutcome::Saved(vec![(0, 2)]));
    let want = BTreeMap::from([(0, json!(2)), (1, json!(10))]);
    assert_eq!(saved(&store), want);
}

#[tokio::test(start_paused = true)]
async fn checkpointer_save_failed_next_success_reports_all_positions() {
    let store = Scripted::default();
    store.0.lock().unwrap().failures = (0..40).map(|_| full()).collect();
    let mut checkpointer = checkpointer(&store);
    let begin = Instant::now();
    let mut failed = 0;
    loop {
        checkpointer.advance(failed % 2, u64::from(failed));
        match checkpointer.next().await {
            SaveOutcome::Failed { retry_in } => {
                failed += 1;
                assert!((SECOND..=30 * SECOND).contains(&retry_in));
                let failure = checkpointer.failure().unwrap();
                assert_eq!(failure.attempts, failed);
                assert_eq!(failure.since, begin);
                assert!(failure.error.to_string().contains("make room"));
                assert_eq!(checkpointer.age(), begin.elapsed());
            }
            SaveOutcome::Saved(positions) => {
                assert_eq!(positions, [(0, 40), (1, 39)]);
                break;
            }
        }
    }
    assert_eq!(failed, 40);
    assert!(checkpointer.failure().is_none());
    assert!(checkpointer.is_clean());
    // At intervals between one second and thirty: neither a storm of writes nor a long silence.
    assert!(begin.elapsed() > 200 * SECOND && begin.elapsed() < 1000 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn checkpointer_flush_waits_for_running_write_and_writes_the_rest() {
    let store = Scripted::default();
    store.0.lock().unwrap().takes = Duration::from_millis(400);
    let mut checkpointer = checkpointer(&store);
    checkpointer.advance(0, 1);
    let short = Duration::from_millis(100);
    assert!(timeout(short, checkpointer.next()).await.is_err());
    checkpointer.advance(0, 2);
    checkpointer.advance(1, 5);
    let begin = Instant::now();
    let durable = checkpointer.flush(5 * SECOND).await;
    assert_eq!(durable, [(0, 2), (1, 5)]);
    assert!(checkpointer.is_clean());
    // It neither waits for the interval nor makes more than two writes.
    assert_eq!(begin.elapsed(), Duration::from_millis(700));
    assert_eq!(saved(&store)[&0], json!(2));
}

#[tokio::test(start_paused = true)]
async fn checkpointer_flush_failing_retries_within_its_limit() {
    let store = Scripted::default();
    store.0.lock().unwrap().failures = (0..3).map(|_| full()).collect();
    let mut checkpointer = checkpointer(&store);
    checkpointer.advance(0, 1);
    assert_eq!(checkpointer.flush(5 * SECOND).await, [(0, 1)]);

    store.0.lock().unwrap().failures = (0..100).map(|_| full()).collect();
    checkpointer.advance(0, 2);
    let begin = Instant::now();
    assert_eq!(checkpointer.flush(5 * SECOND).await, []);
    assert_eq!(begin.elapsed(), 5 * SECOND);
    assert!(!checkpointer.is_clean());
    assert!(checkpointer.failure().is_some());

    // A store that hangs does not block the end.
    store.0.lock().unwrap().failures.clear();
    store.0.lock().unwrap().takes = 1000 * SECOND;
    let begin = Instant::now();
    assert_eq!(checkpointer.flush(5 * SECOND).await, []);
    assert_eq!(begin.elapsed(), 5 * SECOND);
    assert!(!checkpointer.is_clean());
}

#[tokio::test(start_paused = true)]
async fn checkpointer_flush_refused_does_not_retry() {
    let store = Scripted::default();
    store.0.lock().unwrap().failures = (0..100).map(|_| refused()).collect();
    let mut checkpointer = checkpointer(&store);
    checkpointer.advance(0, 1);
    let begin = Instant::now();
    assert_eq!(checkpointer.flush(5 * SECOND).await, []);
    assert_eq!(begin.elapsed(), Duration::ZERO);
    let failure = checkpointer.failure().unwrap();
    assert!(!failure.error.is_unavailable());
}

#[tokio::test(start_paused = true)]
async fn checkpointer_with_file_store_keeps_its_pace() {
    let folder = tempfile::TempDir::new().unwrap();
    let store = FileStore::open(folder.path(), owner()).unwrap();
    let mut checkpointer = Checkpointer::new(store, owner(), None, SECOND);
    for n in 0..5 {
        checkpointer.advance(0, n);
        let outcome = checkpointer.next().await;
        assert_eq!(outcome, SaveOutcome::Saved(vec![(0, n)]));
    }
    checkpointer.advance(0, 9);
    assert_eq!(checkpointer.flush(SECOND).await, [(0, 9)]);
    drop(checkpointer);
    let mut store = FileStore::open(folder.path(), owner()).unwrap();
    let loaded = store.load().await.unwrap().unwrap();
    assert_eq!(loaded.position, BTreeMap::from([(0, json!(9))]));
}
