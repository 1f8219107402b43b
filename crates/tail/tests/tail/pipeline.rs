//! A minimal pipeline for a source: the test decides when and in what order records settle, and a
//! position is committed once all records before it in its partition are settled.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use audit_bridge_core::source::{Page, PartitionChange, Position as _, Source, StoredPositions};
use audit_bridge_tail::{CursorPosition, Tail, TailStats, TailStatus};
use tokio::time::{Instant, timeout};

use crate::memory_log::MemoryLog;

enum Item {
    Record { id: u64, settled: bool },
    Position(CursorPosition),
}

pub(crate) struct Pipeline {
    pub(crate) tail: Tail<MemoryLog>,
    /// As in the checkpoint.
    pub(crate) positions: StoredPositions,
    partitions: BTreeMap<u32, VecDeque<Item>>,
    /// Partitions whose positions are removed at the next settlement.
    retired: BTreeSet<u32>,
    /// How often each record was delivered.
    pub(crate) given: BTreeMap<u64, u32>,
    /// How often each record was settled.
    pub(crate) settled: BTreeMap<u64, u32>,
    /// Records before a committed position, which must not be repeated.
    pub(crate) safe: BTreeSet<u64>,
    pub(crate) ended: bool,
}

impl Pipeline {
    pub(crate) fn new(tail: Tail<MemoryLog>, positions: StoredPositions) -> Pipeline {
        Pipeline {
            tail,
            positions,
            partitions: BTreeMap::new(),
            retired: BTreeSet::new(),
            given: BTreeMap::new(),
            settled: BTreeMap::new(),
            safe: BTreeSet::new(),
            ended: false,
        }
    }

    pub(crate) fn stats(&self) -> TailStats {
        self.tail.monitor().stats()
    }

    pub(crate) fn status(&self) -> TailStatus {
        self.tail.monitor().status()
    }

    /// Waits for one page, but at most this long; then the read is dropped.
    pub(crate) async fn step(&mut self, wait: Duration) -> bool {
        match timeout(wait, self.tail.read()).await {
            Ok(Some(page)) => {
                self.take(page);
                true
            }
            Ok(None) => {
                self.ended = true;
                false
            }
            Err(_) => false,
        }
    }

    fn take(&mut self, page: Page<CursorPosition>) {
        for change in &page.partitions {
            if let PartitionChange::Retired(partition) = change {
                // Removed only once the positions before this page are in the checkpoint.
                self.retired.insert(*partition);
            }
        }
        let queue = self.partitions.entry(page.partition).or_default();
        for record in page.records {
            let text = std::str::from_utf8(&record.payload).expect("a number");
            let id = text.parse().expect("a number");
            *self.given.entry(id).or_default() += 1;
            queue.push_back(Item::Record { id, settled: false });
        }
        queue.extend(page.position.map(Item::Position));
    }

    /// Settles the records that `choose` selects, and commits the resulting positions.
    pub(crate) fn settle(&mut self, mut choose: impl FnMut(u64) -> bool) {
        for (&partition, queue) in &mut self.partitions {
            for item in queue.iter_mut() {
                if let Item::Record { id, settled } = item
                    && !*settled
                    && choose(*id)
                {
                    *settled = true;
                    *self.settled.entry(*id).or_default() += 1;
                }
            }
            let mut last = None;
            let end = queue
                .iter()
                .position(|item| matches!(item, Item::Record { settled: false, .. }))
                .unwrap_or(queue.len());
            let is_position = |item: &Item| matches!(item, Item::Position(_));
            let end = queue
                .range(..end)
                .rposition(is_position)
                .map_or(0, |at| at + 1);
            for item in queue.drain(..end) {
                match item {
                    Item::Record { id, .. } => {
                        self.safe.insert(id);
                    }
                    Item::Position(position) => last = Some(position),
                }
            }
            if let Some(position) = last {
                self.tail.commit(partition, &position);
                self.positions.insert(partition, position.to_stored());
            }
        }
        let retired = std::mem::take(&mut self.retired);
        self.positions
            .retain(|partition, _| !retired.contains(partition));
    }

    /// Reads for this long, and settles everything at once.
    pub(crate) async fn run_for(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end && !self.ended {
            let left = end.saturating_duration_since(Instant::now());
            self.step(left).await;
            self.settle(|_| true);
        }
    }

    pub(crate) async fn run_secs(&mut self, seconds: u64) {
        self.run_for(Duration::from_secs(seconds)).await;
    }

    /// Asserts that exactly these records were delivered, each once.
    pub(crate) fn assert_each_once(&self, ids: impl IntoIterator<Item = u64>) {
        let want: BTreeMap<u64, u32> = ids.into_iter().map(|id| (id, 1)).collect();
        assert_eq!(self.given, want);
    }
}
