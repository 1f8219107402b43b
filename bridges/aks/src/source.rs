//! An event hub as a source: a reader for each of its partitions, and a look now and then whether
//! there are more.

use std::collections::HashMap;
use std::sync::Arc;

use audit_bridge_core::live::{Resume, Start, Trouble};
use audit_bridge_core::source::{Page, Source};
use audit_bridge_core::telemetry::Part;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep;

use crate::client::{Client, Fault};
use crate::health::Health;
use crate::message::sequence_number;
use crate::partition::{Begin, Reader, Shared, Timing};

/// The largest message of Event Hubs' standard tiers.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// What all partitions together may have on its way to us.
const PREFETCH_BYTES_MAX: usize = 16 << 20;
/// The largest number of messages on their way that the client library makes good use of.
const PREFETCH_MAX: usize = 300;
/// Event Hubs has at most 1024 partitions a hub, in its largest tier.
const PARTITIONS_MAX: u32 = 4096;
/// Pages that wait for the pipeline: each reader has one in its hands besides.
const PAGES_WAITING: usize = 1;

/// All partitions of an event hub.
#[derive(Debug)]
pub struct EventHub {
    pages: mpsc::Receiver<Page>,
    /// The readers; they end with the source.
    _tasks: JoinSet<()>,
}

impl EventHub {
    /// Begins to read all partitions.
    ///
    /// # Errors
    /// The hub does not tell its partitions, or the checkpoint's positions are not ours.
    pub async fn open(
        client: &Client,
        resume: Resume,
        prefetch_bytes_max: usize,
        timing: Timing,
    ) -> Result<EventHub, Trouble> {
        let ids = partitions(client).await.map_err(Trouble::from)?;
        let shared = Arc::new(Shared {
            client: client.clone(),
            health: Health::new(resume.telemetry.clone()),
            timing,
            prefetch: prefetch(prefetch_bytes_max, ids.len()),
            until: resume.until,
        });
        let mut begins = Vec::new();
        for id in ids {
            let index = index(&id)?;
            begins.push((begin(index, &resume)?, id, index));
        }
        tracing::info!(
            event_hub = client.hub().name,
            partitions = begins.len(),
            "reading"
        );
        let (sender, pages) = mpsc::channel(PAGES_WAITING);
        let mut tasks = JoinSet::new();
        let mut roster = Roster {
            shared,
            pages: sender,
            readers: HashMap::new(),
        };
        for (begin, id, index) in begins {
            roster.admit(&mut tasks, &id, index, begin);
        }
        if resume.until.is_none() {
            tasks.spawn(roster.keep());
        }
        Ok(EventHub {
            pages,
            _tasks: tasks,
        })
    }
}

impl Source for EventHub {
    async fn read(&mut self) -> Option<Page> {
        self.pages.recv().await
    }
}

/// The names of the hub's partitions.
pub(crate) async fn partitions(client: &Client) -> Result<Vec<String>, Fault> {
    let connection = client.connect().await?;
    let found = connection.partitions().await;
    connection.close().await;
    found
}

/// Event Hubs numbers its partitions.
fn index(id: &str) -> Result<u32, Trouble> {
    id.parse()
        .ok()
        .filter(|index| *index < PARTITIONS_MAX)
        .ok_or_else(|| Trouble {
            part: Part::Source,
            what: format!("the event hub has a partition named {id:?}, which is no small number"),
            remedy: "please report it".to_owned(),
        })
}

/// Where a partition begins. One that an existing checkpoint does not know came after it.
fn begin(index: u32, resume: &Resume) -> Result<Begin, Trouble> {
    match resume.positions.get(&index) {
        Some(position) => sequence_number(position)
            .map(Begin::After)
            .ok_or_else(|| Trouble {
                part: Part::Checkpoint,
                what: format!("the checkpoint's position of partition {index} is {position}"),
                remedy: "expected is {\"sequence_number\": N}; restore it, or remove the \
                         checkpoint to begin at --start"
                    .to_owned(),
            }),
        None if !resume.positions.is_empty() => Ok(Begin::Earliest),
        None => Ok(match resume.start {
            Start::Earliest => Begin::Earliest,
            Start::Latest(time) | Start::At(time) => Begin::From(time),
        }),
    }
}

/// How many messages of each partition may be on their way, should each be as large as can be.
fn prefetch(bytes_max: usize, partitions: usize) -> u32 {
    let share = bytes_max.min(PREFETCH_BYTES_MAX / partitions.max(1));
    let messages = (share / MESSAGE_BYTES_MAX).clamp(1, PREFETCH_MAX);
    u32::try_from(messages).unwrap_or(1)
}

/// Who reads what.
struct Roster {
    shared: Arc<Shared>,
    pages: mpsc::Sender<Page>,
    readers: HashMap<String, AbortHandle>,
}

impl Roster {
    fn admit(&mut self, tasks: &mut JoinSet<()>, id: &str, index: u32, begin: Begin) {
        self.shared.health.starting(id);
        let reader = Reader::new(
            Arc::clone(&self.shared),
            id,
            index,
            begin,
            self.pages.clone(),
        );
        let task = tasks.spawn(reader.run());
        self.readers.insert(id.to_owned(), task);
    }

    /// Looks for partitions that were added, for ever. The larger tiers can.
    async fn keep(mut self) {
        // Readers that are admitted here end with this task.
        let mut tasks = JoinSet::new();
        loop {
            sleep(self.shared.timing.discover).await;
            match partitions(&self.shared.client).await {
                Ok(ids) => self.compare(&mut tasks, &ids),
                // The readers tell of their troubles themselves.
                Err(fault) => tracing::debug!(why = %fault, "the partitions are not told"),
            }
        }
    }

    fn compare(&mut self, tasks: &mut JoinSet<()>, ids: &[String]) {
        for id in ids {
            if self.readers.contains_key(id) {
                continue;
            }
            match index(id) {
                Ok(index) => {
                    tracing::info!(
                        partition = id,
                        "a partition was added; it is read from its beginning"
                    );
                    self.admit(tasks, id, index, Begin::Earliest);
                }
                Err(trouble) => tracing::error!(%trouble, "a partition cannot be read"),
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
                "a partition is gone: the event hub was made anew"
            );
            if let Some(reader) = self.readers.remove(&id) {
                reader.abort();
            }
            self.shared.health.left(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_on_its_way_is_bounded_in_all() {
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
        }
    }

    #[test]
    fn partitions_are_small_numbers() {
        assert_eq!(index("31"), Ok(31));
        for wrong in ["", "-1", "a", "4096", "99999999999"] {
            assert!(index(wrong).is_err(), "{wrong}");
        }
    }
}
