//! An event hub as a source: a reader for each of its partitions, and a look now and then whether
//! there are more.

mod message;
pub mod partition;
mod partition_health;
pub(crate) mod position;
mod records;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use audit_bridge_app::provider::Resume;
use audit_bridge_app::provider::partitions::PartitionHealth;
use audit_bridge_core::readiness::{Component, Unavailable};
use audit_bridge_core::source::{Page, PartitionChange, Source};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::client::{HubClient, HubError};
use crate::source::partition::{PartitionReader, PartitionTiming, ReaderContext};
use crate::source::position::PartitionStart;

/// The largest message of Event Hubs' standard tiers.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// What all partitions together may have on its way to us.
const PREFETCH_BYTES_MAX: usize = 16 << 20;
/// The largest number of messages on their way that the client library makes good use of.
const PREFETCH_MAX: usize = 300;
/// Event Hubs has at most 1024 partitions a hub, in its largest tier.
const PARTITIONS_MAX: u32 = 4096;
/// Event Hubs answers 50 questions about partitions a second, of all who ask a namespace.
const PROBE_PACE: Duration = Duration::from_millis(100);
/// Pages that wait for the pipeline: each reader has one in its hands besides.
const PAGES_WAITING: usize = 1;

/// Partitions of an event hub: all of them, or one. Its readers are tasks of their own; once it is
/// dropped, they close their connections and end.
#[derive(Debug)]
pub struct EventHub {
    pages: mpsc::Receiver<Page>,
    /// The first page: all partitions, since some may be silent for long.
    announced: Option<Page>,
}

/// A partition, by its name and by the number that the name is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Partition {
    pub(crate) id: String,
    pub(crate) index: u32,
}

impl Partition {
    /// The hub's partitions.
    pub(crate) async fn all(client: &HubClient) -> Result<Vec<Partition>, Unavailable> {
        names(client).await?.iter().map(|id| Self::of(id)).collect()
    }

    /// Event Hubs numbers its partitions.
    fn of(id: &str) -> Result<Partition, Unavailable> {
        let index = id.parse().ok().filter(|index| *index < PARTITIONS_MAX);
        match index {
            Some(index) => Ok(Partition {
                id: id.to_owned(),
                index,
            }),
            None => Err(Unavailable {
                component: Component::Source,
                reason: format!(
                    "the event hub has a partition named {id:?}, which is no small number"
                ),
                remedy: "please report it".to_owned(),
            }),
        }
    }
}

/// The names of the hub's partitions.
async fn names(client: &HubClient) -> Result<Vec<String>, HubError> {
    let connection = client.connect().await?;
    let found = connection.partitions().await;
    connection.close().await;
    found
}

impl EventHub {
    /// Begins to read all partitions.
    ///
    /// # Errors
    /// The hub does not tell its partitions, or the checkpoint's positions are not ours.
    pub async fn open(
        client: &HubClient,
        resume: Resume,
        prefetch_bytes_max: usize,
        timing: PartitionTiming,
    ) -> Result<EventHub, Unavailable> {
        let partitions = Partition::all(client).await?;
        tracing::info!(
            event_hub = client.hub().name,
            partitions = partitions.len(),
            "event hub opened"
        );
        let bytes = share_of_prefetch(prefetch_bytes_max, partitions.len());
        let timing = timing.paced(PROBE_PACE, partitions.len());
        let (mut partition_set, pages) = PartitionSet::new(client, &resume, bytes, timing);
        for partition in &partitions {
            let begin = PartitionStart::resume(partition.index, &resume)?;
            partition_set.admit(partition, begin);
        }
        if resume.until.is_none() {
            tokio::spawn(partition_set.watch_partitions());
        }
        Ok(EventHub {
            pages,
            announced: Some(announce(&partitions)),
        })
    }

    /// Starts to read one partition of those that replicas share.
    pub(crate) fn open_partition(
        client: &HubClient,
        partition: &Partition,
        resume: &Resume,
        prefetch_bytes_max: usize,
        timing: PartitionTiming,
    ) -> Result<EventHub, Unavailable> {
        let (mut partition_set, pages) =
            PartitionSet::new(client, resume, prefetch_bytes_max, timing);
        partition_set.admit(partition, PartitionStart::resume(partition.index, resume)?);
        Ok(EventHub {
            pages,
            announced: Some(announce(std::slice::from_ref(partition))),
        })
    }
}

impl Source for EventHub {
    async fn read(&mut self) -> Option<Page> {
        if let Some(page) = self.announced.take() {
            return Some(page);
        }
        self.pages.recv().await
    }
}

/// A page that announces these partitions.
fn announce(partitions: &[Partition]) -> Page {
    let partitions = partitions.iter();
    Page {
        partitions: partitions
            .map(|partition| PartitionChange::Announced(partition.index))
            .collect(),
        ..Page::default()
    }
}

/// How many bytes may be prefetched from each partition.
pub(crate) fn share_of_prefetch(bytes_max: usize, partitions: usize) -> usize {
    bytes_max.min(PREFETCH_BYTES_MAX / partitions.max(1))
}

/// How many messages of a partition may be on their way, should each be as large as can be.
fn prefetch(bytes_max: usize) -> u32 {
    let messages = (bytes_max / MESSAGE_BYTES_MAX).clamp(1, PREFETCH_MAX);
    u32::try_from(messages).unwrap_or(1)
}

/// The readers of all partitions.
struct PartitionSet {
    shared: Arc<ReaderContext>,
    pages: mpsc::Sender<Page>,
    /// Each with the way to tell it that its partition is gone.
    readers: HashMap<String, oneshot::Sender<()>>,
}

impl PartitionSet {
    /// A set without readers, and the channel on which their pages arrive.
    fn new(
        client: &HubClient,
        resume: &Resume,
        prefetch_bytes_max: usize,
        timing: PartitionTiming,
    ) -> (PartitionSet, mpsc::Receiver<Page>) {
        let (sender, pages) = mpsc::channel(PAGES_WAITING);
        let shared = ReaderContext {
            client: client.clone(),
            health: PartitionHealth::new(resume.telemetry.clone()),
            timing,
            prefetch: prefetch(prefetch_bytes_max),
            until: resume.until,
            owner_level: resume.term,
        };
        let partition_set = PartitionSet {
            shared: Arc::new(shared),
            pages: sender,
            readers: HashMap::new(),
        };
        (partition_set, pages)
    }

    fn admit(&mut self, partition: &Partition, begin: PartitionStart) {
        let Partition { id, index } = partition;
        self.shared.health.starting(id);
        let reader = PartitionReader::new(
            Arc::clone(&self.shared),
            id,
            *index,
            begin,
            self.pages.clone(),
        );
        let (gone, told) = oneshot::channel();
        tokio::spawn(reader.run(told));
        self.readers.insert(id.clone(), gone);
    }

    /// Looks for partitions that were added, until nobody takes pages any more. The larger tiers can
    /// add some.
    async fn watch_partitions(mut self) {
        while timeout(self.shared.timing.discover, self.pages.closed())
            .await
            .is_err()
        {
            match names(&self.shared.client).await {
                Ok(ids) => self.compare(&ids).await,
                // The readers report their own failures.
                Err(fault) => tracing::debug!(why = %fault, "listing partitions failed; retrying"),
            }
        }
    }

    async fn compare(&mut self, ids: &[String]) {
        for id in ids {
            if self.readers.contains_key(id) {
                continue;
            }
            match Partition::of(id) {
                Ok(partition) => {
                    tracing::info!(
                        partition = id,
                        "partition added: reading it from its beginning"
                    );
                    self.admit(&partition, PartitionStart::Earliest);
                }
                Err(unavailable) => tracing::error!(%unavailable, "partition could not be opened"),
            }
        }
        let gone: Vec<String> = self
            .readers
            .keys()
            .filter(|id| !ids.contains(id))
            .cloned()
            .collect();
        for id in gone {
            tracing::warn!(
                partition = id,
                "partition no longer exists: the event hub was created again"
            );
            if let Some(reader) = self.readers.remove(&id) {
                let _ = reader.send(());
            }
            self.shared.health.left(&id);
            if let Ok(index) = id.parse() {
                let left = Page {
                    partitions: vec![PartitionChange::Left(index)],
                    ..Page::default()
                };
                // The source was dropped: nothing to report.
                let _ = self.pages.send(left).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefetch_share_of_all_partitions_is_bounded() {
        let mib = 1 << 20;
        for (bytes, partitions, want) in [
            (8 * mib, 1, 8),
            (8 * mib, 4, 4),
            (8 * mib, 32, 1),
            (64 * mib, 2, 8),
            (1, 1, 1),
            (usize::MAX, 0, 16),
        ] {
            let share = share_of_prefetch(bytes, partitions);
            assert_eq!(prefetch(share), want, "{bytes} {partitions}");
        }
    }

    #[test]
    fn partition_name_must_be_a_small_number() {
        assert_eq!(Partition::of("31").map(|it| it.index), Ok(31));
        for wrong in ["", "-1", "a", "4096", "99999999999"] {
            assert!(Partition::of(wrong).is_err(), "{wrong}");
        }
    }
}
