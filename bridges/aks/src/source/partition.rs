//! The reading of one partition, for ever.
//!
//! Each partition has a connection and a task of its own, so that none waits for another. Whatever
//! ends a link, the task opens it again behind the last message that it handed on ([`placement`]);
//! numbers at or below that are dropped, numbers that are missing are told. A link that was quiet for
//! long is opened again too: it may lead to a namespace from which the alias was turned away.
//!
//! [`placement`]: crate::source::placement
//!
//! Every start becomes a sequence number as soon as there is one, and that number goes to the
//! checkpoint even before the first message: a restart then neither leaves out nor reads again
//! what came in between.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use audit_bridge_app::provider::partitions::PartitionHealth;
use audit_bridge_core::read_budget::{HeldBytes, ReadBudget};
use audit_bridge_core::retry::Backoff;
use jiff::Timestamp;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

use crate::client::{HubClient, HubConnection, HubError, HubErrorKind, HubMessage};
use crate::source::message::Cutter;
use crate::source::pages::PageSender;
use crate::source::partition_health;
use crate::source::placement::{Lookup, MessageMatch, Placement, compare};
use crate::source::position::{MessagePosition, PartitionStart};

/// Into so many times the quiet links of a hub are spread.
const RENEW_STEPS: u32 = 16;

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
    /// A link on which nothing came for so long is opened anew.
    pub renew: Duration,
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
            renew: Duration::from_secs(300),
            discover: Duration::from_secs(60),
        }
    }
}

impl PartitionTiming {
    /// The same for this many partitions, with at least this pause from one query to the next.
    pub(crate) fn paced(mut self, pause: Duration, partitions: usize) -> PartitionTiming {
        let partitions = u32::try_from(partitions).unwrap_or(u32::MAX);
        let round = pause.saturating_mul(partitions);
        self.probe = self.probe.max(round);
        // Each new link asks twice.
        self.renew = self.renew.max(round.saturating_mul(2));
        self
    }

    /// When a quiet link of this partition is opened anew: not those of all at once.
    fn renew_of(&self, partition: u32) -> Duration {
        self.renew + self.renew / RENEW_STEPS * (partition % RENEW_STEPS)
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
    /// What readers have taken and not handed on.
    pub(super) in_hand: ReadBudget,
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
    /// The last message that was handed on, or that need not be.
    reached: Option<MessagePosition>,
    /// By what that one is looked for.
    lookup: Lookup,
    /// A link on which nothing came for so long is opened anew.
    renew: Duration,
    /// It was said that the hub does not have it.
    reported: bool,
    pages: PageSender,
    /// It was said that it works.
    told: bool,
    failures: u32,
    backoff: Backoff,
}

/// Why the reading ended without a fault.
#[derive(Debug, PartialEq, Eq)]
enum Done {
    /// The source was dropped.
    Closed,
    /// All up to the end of the job was read.
    Reached,
    /// It goes on with another link, which looks for the position by this.
    Reopen(Lookup),
}

/// What a link has brought so far.
struct Link {
    placement: Placement,
    /// When the hub was created.
    created_on: Option<Timestamp>,
    /// The sequence number of the last message that was handed on, or that need not be.
    last: Option<i64>,
    /// The message that was read last was asked for once more, and has not come yet.
    unproven: bool,
    /// When the partition said that it holds nothing behind that one.
    nothing_more: Option<Timestamp>,
}

impl PartitionReader {
    pub(crate) fn new(
        shared: Arc<ReaderContext>,
        id: &str,
        index: u32,
        begin: PartitionStart,
        pages: PageSender,
    ) -> PartitionReader {
        let stream = format!("{}/{id}", shared.client.hub().name);
        // The answer takes a while, and a lost one is asked for again.
        let again_within = shared.timing.probe * 3 / 2;
        let renew = shared.timing.renew_of(index);
        PartitionReader {
            shared,
            id: id.to_owned(),
            cutter: Cutter::new(index, stream.into(), again_within),
            reached: match &begin {
                PartitionStart::After(message) => Some(message.clone()),
                PartitionStart::Earliest | PartitionStart::From(_) => None,
            },
            begin,
            lookup: Lookup::Offset,
            renew,
            reported: false,
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
                Ok(Done::Reopen(by)) => {
                    tracing::debug!(partition = self.id, ?by, "link is opened anew");
                    self.lookup = by;
                    continue;
                }
                Ok(done) => {
                    tracing::debug!(partition = self.id, ?done, "partition reader ended");
                    return;
                }
                Err(fault) => fault,
            };
            self.lookup = Lookup::Offset;
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
        let Some(mut link) = self.place(connection).await? else {
            return Ok(Done::Closed);
        };
        match self.follow(connection, &mut link).await {
            Err(fault) if fault.kind == HubErrorKind::Position => {
                link.placement.next_lookup().map(Done::Reopen).ok_or(fault)
            }
            ended => ended,
        }
    }

    /// Hands on what a link brings.
    async fn follow(
        &mut self,
        connection: &HubConnection,
        link: &mut Link,
    ) -> Result<Done, HubError> {
        let shared = Arc::clone(&self.shared);
        let start = link.placement.start();
        let receiver = connection
            .receiver(&self.id, start, shared.prefetch, shared.owner_level)
            .await?;
        let mut messages = receiver.messages();
        let mut quiet = SilenceTimer::new();
        let mut patience = shared.timing.attach;
        loop {
            // Without room the time does not count either: who does not look cannot say that it is silent.
            let next = timeout(patience, messages.next());
            match shared.in_hand.read(false, next).await {
                Ok(message) => {
                    quiet = SilenceTimer::new();
                    patience = shared.timing.idle;
                    let message = message?;
                    let held = shared.in_hand.hold(message.body.len());
                    if let Some(done) = self.take(link, message, held).await {
                        return Ok(done);
                    }
                }
                Err(_) => {
                    patience = shared.timing.idle;
                    self.reset_failures();
                    let due = quiet.since.elapsed() >= shared.timing.probe;
                    let at_the_end = shared.until.is_some_and(|until| until <= Timestamp::now());
                    if (due || at_the_end) && self.probe(connection, link, &mut quiet).await? {
                        return Ok(Done::Reached);
                    }
                    if !quiet.behind && quiet.started.elapsed() >= self.renew {
                        return Ok(Done::Reopen(Lookup::Offset));
                    }
                }
            }
        }
    }

    /// Where the next link begins; `None` when the source was dropped.
    async fn place(&mut self, connection: &HubConnection) -> Result<Option<Link>, HubError> {
        let created_on = connection.properties().await?.created_on;
        let mut asked_at = Timestamp::now();
        let mut bounds = connection.bounds(&self.id).await?;
        self.shared.health.telemetry().source_request("ok");
        let mut news = None;
        let placement = match (&self.reached, &self.begin) {
            (Some(known), _) | (None, PartitionStart::After(known)) => {
                if bounds.last < known.sequence_number {
                    // Properties may lag behind for a moment; another hub stays so.
                    sleep(self.shared.timing.confirm).await;
                    asked_at = Timestamp::now();
                    bounds = connection.bounds(&self.id).await?;
                }
                Placement::of(known, self.lookup, bounds, created_on)
            }
            (None, PartitionStart::From(time)) if !bounds.hold_nothing_since(*time) => {
                Placement::From(*time)
            }
            (None, begin) => {
                let made = match begin {
                    PartitionStart::From(_) => MessagePosition::behind(&bounds, created_on),
                    _ => MessagePosition::before(&bounds, created_on),
                };
                let number = made.sequence_number;
                news = Some(made);
                Placement::Behind(number)
            }
        };
        self.report(&placement);
        let nothing_more = placement.is_at_end(&bounds).then_some(asked_at);
        let mut link = Link {
            created_on,
            last: match &placement {
                Placement::Behind(number) => Some(*number),
                Placement::At { known, .. } => Some(known.sequence_number),
                Placement::Elsewhere(_) | Placement::From(_) => None,
            },
            unproven: matches!(placement, Placement::At { .. }),
            nothing_more,
            placement,
        };
        let open = link.unproven || self.stand(&mut link, news).await;
        Ok(open.then_some(link))
    }

    /// Tells where the partition stands, if there is news of it. False when the source was dropped.
    async fn stand(&mut self, link: &mut Link, news: Option<MessagePosition>) -> bool {
        let nothing_more = link.nothing_more.take();
        if news.is_none() && nothing_more.is_none() {
            return true;
        }
        let page = self.cutter.standing(news.as_ref(), nothing_more);
        self.reached = news.or(self.reached.take());
        self.pages.send(page).await.is_ok()
    }

    /// Says once that the hub does not have the position.
    fn report(&mut self, placement: &Placement) {
        let Placement::Elsewhere(failover) = placement else {
            return;
        };
        if !std::mem::replace(&mut self.reported, true) {
            failover.report(self.cutter.stream());
        }
    }

    /// Hands a message on.
    async fn take(
        &mut self,
        link: &mut Link,
        message: HubMessage,
        held: HeldBytes,
    ) -> Option<Done> {
        self.reset_failures();
        if let Placement::At { known, by } = &link.placement
            && std::mem::take(&mut link.unproven)
        {
            match compare(known, *by, &message) {
                MessageMatch::Same => return self.go_on_behind(link, &message).await,
                MessageMatch::Later => {}
                MessageMatch::Different(by) => return Some(Done::Reopen(by)),
            }
        }
        if let (Some(until), Some(enqueued)) = (self.shared.until, message.enqueued)
            && enqueued >= until
        {
            return Some(Done::Reached);
        }
        let telemetry = self.shared.health.telemetry();
        match (&link.placement, message.sequence_number, link.last) {
            (_, Some(number), Some(last)) if number <= last => return None,
            (_, Some(number), Some(last)) if number > last + 1 => telemetry.expired(
                self.cutter.stream(),
                number.abs_diff(last) - 1,
                "these are messages, of several records each; give the event hub a longer \
                 retention, or this bridge what it needs to keep up",
            ),
            (Placement::Elsewhere(failover), _, None) => {
                failover.found(telemetry, self.cutter.stream(), &message);
            }
            _ => {}
        }
        let position = MessagePosition::of(&message, link.created_on);
        let page = self.cutter.page(message, position.as_ref());
        if self.pages.send_held(page, held).await.is_err() {
            return Some(Done::Closed);
        }
        if let Some(position) = position {
            link.last = Some(position.sequence_number);
            self.reached = Some(position);
            self.lookup = Lookup::Offset;
            self.reported = false;
        }
        None
    }

    /// The message that was read last came once more: it is not handed on again, and what is known
    /// of it now is kept.
    async fn go_on_behind(&mut self, link: &mut Link, message: &HubMessage) -> Option<Done> {
        self.lookup = Lookup::Offset;
        self.reported = false;
        let now = MessagePosition::of(message, link.created_on);
        let news = now.filter(|now| self.reached.as_ref() != Some(now));
        let open = self.stand(link, news).await;
        (!open).then_some(Done::Closed)
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
        link: &Link,
        quiet: &mut SilenceTimer,
    ) -> Result<bool, HubError> {
        let asked_at = Timestamp::now();
        let bounds = connection.bounds(&self.id).await?;
        quiet.since = Instant::now();
        let behind = match link.last {
            Some(last) => link.unproven || bounds.last > last,
            None => !link.placement.is_at_end(&bounds),
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
    started: Instant,
    /// When it was last asked whether there is more.
    since: Instant,
    /// There was more to come when it was last asked.
    behind: bool,
}

impl SilenceTimer {
    fn new() -> SilenceTimer {
        SilenceTimer {
            started: Instant::now(),
            since: Instant::now(),
            behind: false,
        }
    }
}

fn seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0)
}
