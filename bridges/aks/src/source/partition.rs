//! The reading of one partition, for ever.
//!
//! Each partition has a connection and a task of its own, so that none waits for another. Whatever
//! ends a link, the task opens it again behind the last message that it handed on; numbers at or
//! below that are dropped, numbers that are missing are told.
//!
//! Every start becomes a sequence number as soon as there is one, and that number goes to the
//! checkpoint even before the first message: a restart then neither leaves out nor reads again
//! what came in between.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use audit_bridge_app::provider::partitions::PartitionHealth;
use audit_bridge_core::retry::Backoff;
use audit_bridge_core::source::Page;
use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout};

use crate::client::{
    HubClient, HubConnection, HubError, HubErrorKind, HubMessage, PartitionBounds, ReceiverStart,
};
use crate::source::message::Cutter;
use crate::source::partition_health;
use crate::source::position::PartitionStart;

/// When a partition is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionTiming {
    /// A link that has not failed for so long after it was asked for is attached.
    pub attach: Duration,
    /// Nothing for so long: there is nothing more at the moment.
    pub idle: Duration,
    /// A silent link is asked whether it still lives so often, and whether there is more.
    pub probe: Duration,
    /// How long a partition that seems to have begun anew is given to show that it has not.
    pub confirm: Duration,
    /// How often the hub is asked for its partitions.
    pub discover: Duration,
}

impl Default for PartitionTiming {
    fn default() -> PartitionTiming {
        PartitionTiming {
            attach: Duration::from_secs(3),
            idle: Duration::from_secs(1),
            probe: Duration::from_secs(10),
            confirm: Duration::from_secs(10),
            discover: Duration::from_secs(60),
        }
    }
}

impl PartitionTiming {
    /// The same for this many partitions, with at least this pause from one query to the next.
    pub(crate) fn paced(mut self, pause: Duration, partitions: usize) -> PartitionTiming {
        let partitions = u32::try_from(partitions).unwrap_or(u32::MAX);
        self.probe = self.probe.max(pause.saturating_mul(partitions));
        self
    }
}

/// What the readers of all partitions share.
#[derive(Debug)]
pub(crate) struct ReaderContext {
    pub(crate) client: HubClient,
    pub(crate) health: PartitionHealth,
    pub(crate) timing: PartitionTiming,
    /// Messages that may be on their way to us, each up to a MiB.
    pub(crate) prefetch: u32,
    /// Where the job ends, if it does.
    pub(crate) until: Option<Timestamp>,
    /// Readers with a lower one are kept out by Event Hubs, and those without any.
    pub(crate) owner_level: Option<i64>,
}

pub(crate) struct PartitionReader {
    shared: Arc<ReaderContext>,
    id: String,
    cutter: Cutter,
    begin: PartitionStart,
    /// The sequence number of the last message that was handed on, or that need not be.
    last: Option<i64>,
    pages: mpsc::Sender<Page>,
    /// It was said that it works.
    told: bool,
    failures: u32,
    backoff: Backoff,
}

/// Why the reading ended for good.
#[derive(Debug, PartialEq, Eq)]
enum Done {
    /// The source was dropped.
    Closed,
    /// All up to the end of the job was read.
    Reached,
}

impl PartitionReader {
    pub(crate) fn new(
        shared: Arc<ReaderContext>,
        id: &str,
        index: u32,
        begin: PartitionStart,
        pages: mpsc::Sender<Page>,
    ) -> PartitionReader {
        let stream = format!("{}/{id}", shared.client.hub().name);
        // The answer takes a while, and a lost one is asked for again.
        let again_within = shared.timing.probe * 3 / 2;
        PartitionReader {
            shared,
            id: id.to_owned(),
            cutter: Cutter::new(index, stream.into(), again_within),
            last: match begin {
                PartitionStart::After(last) => Some(last),
                PartitionStart::Earliest | PartitionStart::From(_) => None,
            },
            begin,
            pages,
            told: false,
            failures: 0,
            backoff: Backoff::seeded(u64::from(index) ^ seed()),
        }
    }

    /// Reads until nobody takes pages any more, the job is done, or the partition is said to be
    /// gone.
    pub(crate) async fn run(mut self, gone: oneshot::Receiver<()>) {
        let pages = self.pages.clone();
        let mut over = pin!(async move {
            tokio::select! {
                () = pages.closed() => {}
                Ok(()) = gone => {}
            }
        });
        loop {
            let fault = match self.read_until_closed(over.as_mut()).await {
                Ok(done) => {
                    tracing::debug!(partition = self.id, ?done, "partition reader ended");
                    return;
                }
                Err(fault) => fault,
            };
            self.told = false;
            self.failures = self.failures.saturating_add(1);
            partition_health::failed(&self.shared.health, &self.id, self.failures, fault);
            let wait = self.backoff.wait(self.failures);
            if timeout(wait, over.as_mut()).await.is_ok() {
                return;
            }
        }
    }

    async fn read_until_closed(
        &mut self,
        over: impl Future<Output = ()>,
    ) -> Result<Done, HubError> {
        let connection = self.shared.client.connect().await?;
        let ended = tokio::select! {
            biased;
            () = over => Ok(Done::Closed),
            ended = self.read(&connection) => ended,
        };
        // A connection that is only dropped lives on.
        connection.close().await;
        ended
    }

    async fn read(&mut self, connection: &HubConnection) -> Result<Done, HubError> {
        let Some(start) = self.place(connection).await? else {
            return Ok(Done::Closed);
        };
        let shared = Arc::clone(&self.shared);
        let receiver = connection
            .receiver(&self.id, start, shared.prefetch, shared.owner_level)
            .await?;
        let mut messages = receiver.messages();
        let mut quiet = SilenceTimer::new();
        let mut patience = shared.timing.attach;
        loop {
            match timeout(patience, messages.next()).await {
                Ok(message) => {
                    quiet = SilenceTimer::new();
                    patience = shared.timing.idle;
                    if let Some(done) = self.take(message?).await {
                        return Ok(done);
                    }
                }
                Err(_) => {
                    patience = shared.timing.idle;
                    self.reset_failures();
                    let due = quiet.since.elapsed() >= shared.timing.probe;
                    let at_the_end = shared.until.is_some_and(|until| until <= Timestamp::now());
                    if (due || at_the_end) && self.probe(connection, &mut quiet).await? {
                        return Ok(Done::Reached);
                    }
                }
            }
        }
    }

    /// Where the receiver begins; `None` when the source was dropped.
    async fn place(
        &mut self,
        connection: &HubConnection,
    ) -> Result<Option<ReceiverStart>, HubError> {
        let mut asked_at = Timestamp::now();
        let mut bounds = connection.bounds(&self.id).await?;
        self.shared.health.telemetry().source_request("ok");
        let last = match (self.last, self.begin) {
            (Some(last), _) | (None, PartitionStart::After(last)) => last,
            (None, PartitionStart::Earliest) => bounds.first - 1,
            (None, PartitionStart::From(time)) if holds_nothing_since(&bounds, time) => bounds.last,
            (None, PartitionStart::From(time)) => return Ok(Some(ReceiverStart::From(time))),
        };
        if bounds.last < last {
            // Properties may lag behind for a moment; a hub that was made anew stays so.
            sleep(self.shared.timing.confirm).await;
            asked_at = Timestamp::now();
            bounds = connection.bounds(&self.id).await?;
        }
        let last = if bounds.last < last {
            tracing::error!(
                partition = self.cutter.stream(),
                position = last,
                newest = bounds.last,
                "position expired: the partition ends before it. It was created again, or the \
                 checkpoint is of another event hub; reading from its oldest message"
            );
            bounds.first - 1
        } else {
            last
        };
        let nothing_more = (bounds.last <= last || bounds.is_empty).then_some(asked_at);
        let news = Some(last).filter(|_| self.last != Some(last));
        self.last = Some(last);
        if news.is_some() || nothing_more.is_some() {
            let page = self.cutter.standing(news, nothing_more);
            if self.pages.send(page).await.is_err() {
                return Ok(None);
            }
        }
        Ok(Some(ReceiverStart::After(last)))
    }

    /// Hands a message on.
    async fn take(&mut self, message: HubMessage) -> Option<Done> {
        self.reset_failures();
        if let (Some(until), Some(enqueued)) = (self.shared.until, message.enqueued)
            && enqueued >= until
        {
            return Some(Done::Reached);
        }
        let number = message.sequence_number;
        if let (Some(number), Some(last)) = (number, self.last) {
            if number <= last {
                return None;
            }
            if number > last + 1 {
                self.shared.health.telemetry().expired(
                    self.cutter.stream(),
                    number.abs_diff(last) - 1,
                    "these are messages, of several records each; give the event hub a longer \
                     retention, or this bridge what it needs to keep up",
                );
            }
        }
        let page = self.cutter.page(message);
        if self.pages.send(page).await.is_err() {
            return Some(Done::Closed);
        }
        self.last = number.or(self.last);
        None
    }

    fn reset_failures(&mut self) {
        self.failures = 0;
        if !std::mem::replace(&mut self.told, true) {
            self.shared.health.reading(&self.id);
        }
    }

    /// Asks whether a silent link still lives: a network can go away without a word, and Event
    /// Hubs would know of more. True when the job ends here.
    async fn probe(
        &self,
        connection: &HubConnection,
        quiet: &mut SilenceTimer,
    ) -> Result<bool, HubError> {
        let asked_at = Timestamp::now();
        let bounds = connection.bounds(&self.id).await?;
        quiet.since = Instant::now();
        let behind = match self.last {
            Some(last) => bounds.last > last,
            None => match self.begin {
                PartitionStart::From(time) => !holds_nothing_since(&bounds, time),
                PartitionStart::After(_) | PartitionStart::Earliest => false,
            },
        };
        if !behind || bounds.is_empty {
            quiet.behind = false;
            // The source was dropped, and this reader ends with it.
            let _ = self
                .pages
                .send(self.cutter.standing(None, Some(asked_at)))
                .await;
            return Ok(self.shared.until.is_some_and(|until| until <= asked_at));
        }
        // What is on its way now will have come by the next time.
        if quiet.behind {
            let why = "the link is silent, though the partition holds more";
            return Err(HubError::new(HubErrorKind::Ended, why));
        }
        quiet.behind = true;
        Ok(false)
    }
}

/// How long a link has been silent.
struct SilenceTimer {
    since: Instant,
    /// There was more to come when it was last asked.
    behind: bool,
}

impl SilenceTimer {
    fn new() -> SilenceTimer {
        SilenceTimer {
            since: Instant::now(),
            behind: false,
        }
    }
}

/// Whether all that the partition ever held is older than this.
fn holds_nothing_since(bounds: &PartitionBounds, time: Timestamp) -> bool {
    bounds.last < bounds.first && bounds.is_empty
        || bounds.last_enqueued.is_some_and(|newest| newest < time)
}

fn seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0)
}
