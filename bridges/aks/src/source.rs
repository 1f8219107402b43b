//! An event hub as a source. Each partition has a reader; new partitions are looked for at an
//! interval.

mod message;
mod pages;
pub mod partition;
mod partition_health;
mod placement;
pub(crate) mod position;
mod records;
mod turns;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use audit_bridge_app::provider::Resume;
use audit_bridge_app::provider::partitions::PartitionHealth;
use audit_bridge_core::read_budget::ReadBudget;
use audit_bridge_core::readiness::{Component, Unavailable};
use audit_bridge_core::source::{Page, PartitionChange, Source, StoredPositions};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::client::HubClient;
use crate::source::pages::{HubPage, PageReceiver, PageSender};
use crate::source::partition::{PartitionReader, PartitionTiming, ReaderContext};
use crate::source::position::{MessagePosition, PartitionStart};
use crate::source::turns::Turns;

/// The largest message of Event Hubs' standard tiers.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Limit of the bytes in flight for all partitions together.
const PREFETCH_BYTES_MAX: usize = 16 << 20;
/// The same where partitions take turns: where the share of each would be one message.
const TURNS_BYTES_MAX: usize = 6 << 20;
/// The largest number of messages on their way that the client library makes good use of.
const PREFETCH_MAX: usize = 300;
/// Once the readers of all partitions hold this many bytes that the pipeline has not taken, none
/// takes another message. The library requests a message as soon as it has returned one, so each
/// partition has one more in flight.
const IN_HAND_BYTES_MAX: usize = 2 * MESSAGE_BYTES_MAX;
/// The same for a single reader: one message of any size reaches the limit.
const IN_HAND_BYTES_MAX_ALONE: usize = 1;
/// Event Hubs has at most 1024 partitions a hub, in its largest tier.
const PARTITIONS_MAX: u32 = 4096;
/// Event Hubs answers 50 partition queries a second, for all clients of a namespace.
const PROBE_PACE: Duration = Duration::from_millis(100);

/// All partitions of an event hub, or one. With all, each reader is a task. The reader of a single
/// one runs only while `read` is polled, so that it takes nothing for which the pipeline has no
/// room. When the source is dropped, readers close their connections and end.
pub struct EventHub {
    pages: PageReceiver,
    /// The first page: announces all partitions, as some may stay silent for long.
    announced: Option<HubPage>,
    /// The reader of one partition, until it ends.
    reader: Option<Reading>,
}

type Reading = Pin<Box<dyn Future<Output = ()> + Send>>;

impl fmt::Debug for EventHub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventHub")
            .field("pages", &self.pages)
            .finish_non_exhaustive()
    }
}

impl Drop for EventHub {
    fn drop(&mut self) {
        // The reader notices that the source is gone, and closes its connection.
        if let (Some(reader), Ok(runtime)) = (self.reader.take(), Handle::try_current()) {
            runtime.spawn(reader);
        }
    }
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
        let told = client.properties().await?;
        told.partitions.iter().map(|id| Self::of(id)).collect()
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

impl EventHub {
    /// Begins to read all partitions.
    ///
    /// # Errors
    /// The partitions cannot be listed, or a position of the checkpoint is invalid.
    pub async fn open(
        client: &HubClient,
        resume: Resume,
        prefetch_bytes_max: usize,
        timing: PartitionTiming,
    ) -> Result<EventHub, Unavailable> {
        client.remember(position::hub_of(&resume.positions));
        let partitions = Partition::all(client).await?;
        tracing::info!(
            event_hub = client.hub().name,
            partitions = partitions.len(),
            "event hub opened"
        );
        let prefetch = prefetch(prefetch_bytes_max, partitions.len());
        let bounds = ReceiveBounds {
            prefetch,
            in_hand_bytes_max: IN_HAND_BYTES_MAX,
            turns_bytes_max: turns_bytes_max(prefetch),
        };
        let timing = timing.paced(PROBE_PACE, partitions.len());
        let (mut partition_set, pages) = PartitionSet::new(client, &resume, bounds, timing);
        for partition in &partitions {
            let begin = PartitionStart::resume(partition.index, &resume)?;
            tokio::spawn(partition_set.admit(partition, begin));
        }
        if resume.until.is_none() {
            tokio::spawn(partition_set.watch_partitions());
        }
        Ok(EventHub {
            pages,
            announced: Some(announce(&partitions)),
            reader: None,
        })
    }

    /// Starts reading one of `partitions` partitions that replicas share.
    pub(crate) fn open_partition(
        client: &HubClient,
        partition: &Partition,
        partitions: usize,
        resume: &Resume,
        prefetch_bytes_max: usize,
        timing: PartitionTiming,
    ) -> Result<EventHub, Unavailable> {
        let (mut partition_set, pages) =
            PartitionSet::of_one(client, partitions, resume, prefetch_bytes_max, timing);
        let begin = PartitionStart::resume(partition.index, resume)?;
        Ok(EventHub {
            pages,
            announced: Some(announce(std::slice::from_ref(partition))),
            reader: Some(Box::pin(partition_set.admit(partition, begin))),
        })
    }
}

impl Source for EventHub {
    type Position = MessagePosition;

    async fn read(&mut self) -> Option<HubPage> {
        if let Some(page) = self.announced.take() {
            return Some(page);
        }
        if let Some(reader) = &mut self.reader {
            tokio::select! {
                biased;
                page = self.pages.take() => return page,
                () = reader.as_mut() => self.reader = None,
            }
        }
        self.pages.take().await
    }
}

/// A page that announces these partitions.
fn announce(partitions: &[Partition]) -> HubPage {
    let partitions = partitions.iter();
    Page {
        partitions: partitions
            .map(|partition| PartitionChange::Announced(partition.index))
            .collect(),
        ..Page::default()
    }
}

/// What the readers of one pipeline may hold.
#[derive(Debug, Clone, Copy)]
struct ReceiveBounds {
    /// Messages on their way from each partition.
    prefetch: u32,
    /// Bytes that readers hold and the pipeline has not taken.
    in_hand_bytes_max: usize,
    /// Bytes in flight from all partitions that have their turn.
    turns_bytes_max: usize,
}

/// Messages that may be in flight from each partition, if all are as large as possible.
fn prefetch(bytes_max: usize, partitions: usize) -> u32 {
    let share = bytes_max.min(PREFETCH_BYTES_MAX / partitions.max(1));
    let messages = (share / MESSAGE_BYTES_MAX).clamp(1, PREFETCH_MAX);
    u32::try_from(messages).unwrap_or(1)
}

/// The room for large messages: for some partitions at a time, or for all where they are few.
fn turns_bytes_max(prefetch: u32) -> usize {
    match prefetch {
        0 | 1 => TURNS_BYTES_MAX,
        _ => PREFETCH_BYTES_MAX,
    }
}

/// The readers of all partitions.
struct PartitionSet {
    shared: Arc<ReaderContext>,
    /// The checkpoint's, for partitions that are found later.
    positions: StoredPositions,
    pages: PageSender,
    /// By partition, the sender that tells a reader that its partition is gone.
    readers: HashMap<String, oneshot::Sender<()>>,
    /// Partitions that the newest list lacked.
    missing: HashSet<String>,
}

impl PartitionSet {
    /// A set without readers, and the channel on which their pages arrive.
    fn new(
        client: &HubClient,
        resume: &Resume,
        bounds: ReceiveBounds,
        timing: PartitionTiming,
    ) -> (PartitionSet, PageReceiver) {
        let (sender, pages) = pages::channel();
        let shared = ReaderContext {
            client: client.clone(),
            health: PartitionHealth::new(resume.telemetry.clone()),
            timing,
            prefetch: bounds.prefetch,
            in_hand: ReadBudget::new(bounds.in_hand_bytes_max),
            turns: Turns::new(bounds.turns_bytes_max, MESSAGE_BYTES_MAX),
            until: resume.until,
            owner_level: resume.term,
        };
        let partition_set = PartitionSet {
            shared: Arc::new(shared),
            positions: resume.positions.clone(),
            pages: sender,
            readers: HashMap::new(),
            missing: HashSet::new(),
        };
        (partition_set, pages)
    }

    /// The set for one of `partitions` partitions.
    fn of_one(
        client: &HubClient,
        partitions: usize,
        resume: &Resume,
        prefetch_bytes_max: usize,
        timing: PartitionTiming,
    ) -> (PartitionSet, PageReceiver) {
        let bounds = ReceiveBounds {
            prefetch: prefetch(prefetch_bytes_max, partitions),
            in_hand_bytes_max: IN_HAND_BYTES_MAX_ALONE,
            // One link always has its turn.
            turns_bytes_max: 0,
        };
        let timing = timing.paced(PROBE_PACE, partitions);
        PartitionSet::new(client, resume, bounds, timing)
    }

    /// Makes the reader of this partition; the caller runs it.
    fn admit(
        &mut self,
        partition: &Partition,
        begin: PartitionStart,
    ) -> impl Future<Output = ()> + Send + use<> {
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
        self.readers.insert(id.clone(), gone);
        reader.run(told)
    }

    /// Looks for new partitions until the source is dropped. The larger tiers can add some.
    async fn watch_partitions(mut self) {
        while timeout(self.shared.timing.discover, self.pages.closed())
            .await
            .is_err()
        {
            match self.shared.client.properties().await {
                Ok(told) => self.compare(&told.partitions).await,
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
                    let begin = PartitionStart::of_later(partition.index, &self.positions);
                    tracing::info!(partition = id, ?begin, "partition added");
                    tokio::spawn(self.admit(&partition, begin));
                }
                Err(unavailable) => tracing::error!(%unavailable, "partition could not be opened"),
            }
        }
        let readers = self.readers.keys();
        let missing: HashSet<String> = readers.filter(|id| !ids.contains(id)).cloned().collect();
        // One list may be wrong, and a partition that comes again is read from its beginning.
        let before = std::mem::replace(&mut self.missing, missing.clone());
        for id in missing.into_iter().filter(|id| before.contains(id)) {
            tracing::warn!(
                partition = id,
                "partition no longer exists: the event hub was created again"
            );
            if let Some(reader) = self.readers.remove(&id) {
                let _ = reader.send(());
            }
            self.shared.health.left(&id);
            if let Ok(index) = id.parse() {
                self.positions.remove(&index);
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
    use std::collections::BTreeMap;

    use audit_bridge_app::provider::Start;
    use audit_bridge_app::telemetry::Telemetry;

    use super::*;
    use crate::client::{Credential, HubAddress, Transport};

    /// The set of a replica that reads one of `partitions`.
    fn lone_set(partitions: usize) -> (PartitionSet, PageReceiver) {
        let hub = HubAddress {
            namespace: "localhost".to_owned(),
            name: "hub".to_owned(),
            consumer_group: "$Default".to_owned(),
            transport: Transport::AmqpTcp,
            endpoint: None,
        };
        let client = HubClient::new(hub, Credential::ConnectionStringFile("nowhere".into()));
        let resume = Resume {
            positions: BTreeMap::new(),
            start: Start::Earliest,
            until: None,
            term: None,
            seen_dir: "unused".into(),
            identities: None,
            telemetry: Telemetry::new("aks-audit-bridge", "0").log("hub"),
        };
        PartitionSet::of_one(&client, partitions, &resume, 1, PartitionTiming::default())
    }

    /// If other replicas read the other partitions, their queries use the same quota.
    #[tokio::test]
    async fn partition_shared_is_asked_about_as_seldom_as_all_partitions_are() {
        let timing = PartitionTiming::default();
        for (partitions, want) in [(1, timing.probe), (1000, PROBE_PACE * 1000)] {
            let set = lone_set(partitions as usize).0;
            assert_eq!(set.shared.timing.probe, want);
            let renew = PROBE_PACE.saturating_mul(2 * partitions);
            assert_eq!(set.shared.timing.renew, timing.renew.max(renew));
        }
    }

    /// What is asked at intervals may be answered wrongly once.
    #[tokio::test]
    async fn partition_missing_from_one_list_is_still_read() {
        let (mut set, _pages) = lone_set(1);
        let partition = Partition::of("0").unwrap();
        let _reader = set.admit(&partition, PartitionStart::Earliest);
        let all = ["0".to_owned()];
        for ids in [&[][..], &all, &[]] {
            set.compare(ids).await;
            assert!(set.readers.contains_key("0"), "{ids:?}");
        }
        set.compare(&[]).await;
        assert!(set.readers.is_empty(), "it is gone");
    }

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
            assert_eq!(prefetch(bytes, partitions), want, "{bytes} {partitions}");
            let room = turns_bytes_max(want) / MESSAGE_BYTES_MAX;
            assert!(
                want == 1 || room >= partitions,
                "{partitions} would have to take turns"
            );
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
