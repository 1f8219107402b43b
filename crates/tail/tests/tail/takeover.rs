//! Another process continues with the checkpoint, but without its predecessor's disk.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use audit_bridge_core::source::{Source as _, StoredPositions};
use audit_bridge_tail::{IdentityStore, IdentityStoreError, LoadedIdentities, Tail, TailSettings};
use fastrand::Rng;
use futures_util::future::BoxFuture;

use crate::pipeline::Pipeline;
use crate::{MemoryLog, at, resumed, settings};

/// A store that outlives processes.
#[derive(Debug, Clone)]
struct MemoryStore {
    chunks: Arc<Mutex<BTreeMap<usize, Vec<u8>>>>,
    fails: Arc<Mutex<bool>>,
    writes: Arc<Mutex<usize>>,
    count: usize,
    chunk_bytes_max: usize,
}

impl MemoryStore {
    fn new(count: usize, chunk_bytes_max: usize) -> MemoryStore {
        MemoryStore {
            chunks: Arc::default(),
            fails: Arc::default(),
            writes: Arc::default(),
            count,
            chunk_bytes_max,
        }
    }

    /// A process that continues at these positions.
    async fn tail(&self, log: &MemoryLog, positions: StoredPositions) -> Pipeline {
        let identities = LoadedIdentities::load(Arc::new(self.clone())).await;
        let settings = TailSettings {
            identities: Some(identities),
            ..settings()
        };
        resumed(log, settings, positions)
    }
}

impl IdentityStore for MemoryStore {
    fn chunks(&self) -> usize {
        self.count
    }

    fn chunk_bytes_max(&self) -> usize {
        self.chunk_bytes_max
    }

    fn load(&self) -> BoxFuture<'_, Result<Vec<Vec<u8>>, IdentityStoreError>> {
        Box::pin(async {
            match *self.fails.lock().unwrap() {
                true => Err("the store is away".into()),
                false => Ok(self.chunks.lock().unwrap().values().cloned().collect()),
            }
        })
    }

    fn save(&self, slot: usize, chunk: Vec<u8>) -> BoxFuture<'_, Result<(), IdentityStoreError>> {
        Box::pin(async move {
            assert!(slot < self.count && chunk.len() <= self.chunk_bytes_max);
            *self.writes.lock().unwrap() += 1;
            match *self.fails.lock().unwrap() {
                true => Err("the store is away".into()),
                false => {
                    self.chunks.lock().unwrap().insert(slot, chunk);
                    Ok(())
                }
            }
        })
    }
}

/// A log with a hundred records a second for this long, a few of them late.
fn busy(seconds: i64) -> MemoryLog {
    let log = MemoryLog::millis();
    log.pages_of(2_000);
    for n in 0..seconds * 100 {
        let late = [0, 0, 0, 9_000, 100_000, 500_000][n as usize % 6];
        log.put_ms(n * 10, n * 10 + late);
    }
    log
}

fn repeated(tail: &Pipeline, before: &Pipeline) -> usize {
    let again = tail.given.keys().filter(|id| before.safe.contains(id));
    again.count()
}

#[tokio::test(start_paused = true)]
async fn takeover_after_crash_repeats_under_a_minute_and_misses_nothing() {
    let log = busy(2_400);
    let store = MemoryStore::new(8, 900_000);
    let mut random = Rng::with_seed(7);
    let mut tail = store.tail(&log, StoredPositions::new()).await;
    tail.run_secs(1_000).await;
    let mut settled = tail.settled.clone();
    let mut worst = 0;
    for _ in 0..6 {
        tail.run_secs(random.u64(1..200)).await;
        settled.extend(&tail.settled);
        // The process dies without flushing.
        let next = store.tail(&log, tail.positions.clone()).await;
        let before = std::mem::replace(&mut tail, next);
        tail.run_secs(400).await;
        worst = worst.max(repeated(&tail, &before));
    }
    println!("{worst} records were sent again at most");
    assert!(worst > 0, "no crash was unlucky: the test shows nothing");
    assert!(worst <= 60 * 100, "{worst}");
    tail.run_secs(3_000).await;
    settled.extend(&tail.settled);
    assert_eq!(settled.len(), 240_000);
}

#[tokio::test(start_paused = true)]
async fn takeover_after_clean_stop_repeats_nothing() {
    let log = busy(1_500);
    let store = MemoryStore::new(8, 900_000);
    let mut tail = store.tail(&log, StoredPositions::new()).await;
    for _ in 0..20 {
        tail.run_secs(61).await;
        tail.tail.close().await;
        let next = store.tail(&log, tail.positions.clone()).await;
        let before = std::mem::replace(&mut tail, next);
        tail.run_secs(13).await;
        assert_eq!(repeated(&tail, &before), 0);
    }
    // One write per interval of a chunk, plus those at each end: not one per commit.
    let writes = *store.writes.lock().unwrap();
    assert!(writes <= 1_480 / 30 + 3 * 20, "{writes} writes");
}

#[tokio::test(start_paused = true)]
async fn takeover_without_kept_identities_repeats_the_oldest_age() {
    let log = busy(1_500);
    let mut first = resumed(&log, settings(), StoredPositions::new());
    first.run_secs(1_300).await;
    let mut second = resumed(&log, settings(), first.positions.clone());
    second.run_secs(400).await;
    // This is what the store prevents.
    let again = repeated(&second, &first);
    assert!(again > 30_000, "{again}");
}

#[tokio::test(start_paused = true)]
async fn takeover_with_too_small_chunks_keeps_the_newest_and_misses_nothing() {
    let log = busy(1_500);
    let store = MemoryStore::new(4, 20_000);
    let mut first = store.tail(&log, StoredPositions::new()).await;
    first.run_secs(1_300).await;
    first.tail.close().await;
    let kept: usize = store.chunks.lock().unwrap().values().map(Vec::len).sum();
    assert!(kept > 40_000, "{kept} bytes");
    let mut second = store.tail(&log, first.positions.clone()).await;
    second.run_secs(3_000).await;
    let all = first.settled.keys().chain(second.settled.keys());
    let all: std::collections::BTreeSet<_> = all.collect();
    assert_eq!(all.len(), 150_000);
}

#[tokio::test(start_paused = true)]
async fn identity_store_away_costs_duplicates_until_it_is_back() {
    let log = busy(1_800);
    let store = MemoryStore::new(8, 900_000);
    *store.fails.lock().unwrap() = true;
    let mut first = store.tail(&log, StoredPositions::new()).await;
    first.run_secs(700).await;
    assert!(store.chunks.lock().unwrap().is_empty());
    *store.fails.lock().unwrap() = false;
    first.run_secs(1_000).await;
    first.tail.close().await;
    let mut second = store.tail(&log, first.positions.clone()).await;
    second.run_secs(3_000).await;
    assert_eq!(repeated(&second, &first), 0);
    let all = first.settled.keys().chain(second.settled.keys());
    let all: std::collections::BTreeSet<_> = all.collect();
    assert_eq!(all.len(), 180_000);
}

#[tokio::test(start_paused = true)]
async fn takeover_of_fresh_start_delivers_everything() {
    let log = busy(300);
    let store = MemoryStore::new(8, 900_000);
    let mut first = store.tail(&log, StoredPositions::new()).await;
    first.run_secs(300).await;
    first.tail.close().await;
    // A person deletes the checkpoint to get everything again.
    let mut second = store.tail(&log, StoredPositions::new()).await;
    // It gets as far as its first positions.
    second.step(std::time::Duration::from_secs(1)).await;
    second.settle(|_| false);
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    let positions = BTreeMap::from([(
        0,
        serde_json::json!({
            "age_ms": 0, "since": at(0).to_string(), "read_to": at(0).to_string(),
        }),
    )]);
    drop(second);
    let identities = LoadedIdentities::load(Arc::new(store.clone())).await;
    let with = TailSettings {
        identities: Some(identities),
        ..settings()
    };
    let limiter = Arc::new(audit_bridge_tail::Limiter::seeded(100.0, 1));
    let tail = Tail::new(
        log.clone(),
        with,
        &positions,
        limiter,
        Arc::new(log.clock()),
    );
    let mut third = Pipeline::new(tail.expect("positions of a tail"), positions);
    third.run_secs(2_000).await;
    third.assert_each_once(0..30_000);
}

#[tokio::test(start_paused = true)]
async fn identity_chunks_damaged_or_foreign_are_ignored() {
    let log = busy(300);
    let store = MemoryStore::new(8, 900_000);
    let mut first = store.tail(&log, StoredPositions::new()).await;
    first.run_secs(200).await;
    first.tail.close().await;
    let whole = store.chunks.lock().unwrap().clone();
    let mut random = Rng::with_seed(3);
    for _ in 0..60 {
        let mut chunks = whole.clone();
        for chunk in chunks.values_mut() {
            match random.u8(0..4) {
                0 => chunk.truncate(random.usize(0..=chunk.len())),
                1 => {
                    let at = random.usize(0..chunk.len());
                    chunk[at] ^= 1 << random.u8(0..8);
                }
                2 => chunk.splice(0..0, [7]).for_each(drop),
                _ => {}
            }
        }
        *store.chunks.lock().unwrap() = chunks;
        let mut second = store.tail(&log, first.positions.clone()).await;
        second.run_secs(1_500).await;
        let all = first.settled.keys().chain(second.settled.keys());
        let all: std::collections::BTreeSet<_> = all.collect();
        assert_eq!(all.len(), 30_000);
    }
}

/// Each write is itself an audit event of the log that is read.
#[tokio::test(start_paused = true)]
async fn short_ages_write_no_more_often() {
    for ages in [vec![], vec![1], vec![3, 15]] {
        let log = busy(600);
        let store = MemoryStore::new(8, 900_000);
        let with = TailSettings {
            revisit_after: ages
                .iter()
                .copied()
                .map(std::time::Duration::from_secs)
                .collect(),
            identities: Some(LoadedIdentities::load(Arc::new(store.clone())).await),
            ..settings()
        };
        let mut tail = resumed(&log, with, StoredPositions::new());
        tail.run_secs(600).await;
        let writes = *store.writes.lock().unwrap();
        // One per interval, plus the last of each chunk.
        assert!(
            (1..=2 * (600 / 30) + 2).contains(&writes),
            "{ages:?}: {writes} writes"
        );
    }
}
