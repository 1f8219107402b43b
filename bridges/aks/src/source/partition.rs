//! Reads one partition indefinitely.
//!
//! Each partition has its own connection and task, so that none waits for another. Whatever ends a
//! link, the task opens a new one after the last message that it handed on ([`placement`]). It
//! drops lower sequence numbers, and reports missing ones. A link that was quiet for long is
//! reopened too: it may lead to a namespace that its alias no longer points to.
//!
//! [`placement`]: crate::source::placement
//!
//! A start is turned into a sequence number as soon as possible, and the checkpoint gets that
//! number even before the first message. So a restart neither skips nor repeats what arrived in
//! between.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use audit_bridge_app::provider::partitions::PartitionHealth;
use audit_bridge_core::read_budget::{HeldBytes, ReadBudget};
use audit_bridge_core::retry::Backoff;
use jiff::Timestamp;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

use crate::client::{HubClient, HubConnection, HubError, HubErrorKind, HubMessage, caught};
use crate::source::message::Cutter;
use crate::source::pages::PageSender;
use crate::source::partition_health;
use crate::source::placement::{Lookup, MessageMatch, Placement, compare};
use crate::source::position::{MessagePosition, PartitionStart};
use crate::source::turns::{STALL_MAX, Turn, Turns};

/// Number of steps over which the reopening of a hub's quiet links is spread.
const RENEW_STEPS: u32 = 16;

/// When a partition is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionTiming {
    /// A link that did not fail within this time is attached.
    pub attach: Duration,
    /// After this silence there is nothing more at the moment.
    pub idle: Duration,
    /// Interval at which a silent link is tested, and the partition is asked whether it holds more.
    pub probe: Duration,
    /// How long to wait before a partition that seems to have started anew is checked again.
    pub confirm: Duration,
    /// A link that was silent for this long is reopened.
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

    /// When a quiet link of this partition is reopened: the partitions' times are spread.
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
    /// The room for large messages in flight.
    pub(super) turns: Turns,
    /// Where the job ends, if it does.
    pub(crate) until: Option<Timestamp>,
    /// Event Hubs disconnects readers with a lower owner level, or with none.
    pub(crate) owner_level: Option<i64>,
}

/// A message is passed after it could not be decoded so often in a row.
const UNDECODABLE_MAX: u32 = 3;

pub(crate) struct PartitionReader {
    shared: Arc<ReaderContext>,
    id: String,
    cutter: Cutter,
    begin: PartitionStart,
    /// The last message that was handed on or may be skipped.
    reached: Option<MessagePosition>,
    /// How the next link looks for that message.
    lookup: Lookup,
    /// A link that was silent for this long is reopened.
    renew: Duration,
    /// The number of the last message that was handed on, came again, or was passed because it
    /// cannot be decoded.
    last: Option<i64>,
    /// How often the message behind that one could not be decoded.
    undecodable: u32,
    /// The missing position was reported already.
    reported: bool,
    pages: PageSender,
    /// The partition was reported as readable.
    told: bool,
    failures: u32,
    backoff: Backoff,
}

/// Why reading ended without an error.
#[derive(Debug, PartialEq, Eq)]
enum Done {
    /// The source was dropped.
    Closed,
    /// All up to the end of the job was read.
    Reached,
    /// Continue with a new link, which looks for the position in this way.
    Reopen(Lookup),
    /// Wait for a turn, and continue with a new link.
    OutOfTurn,
}

/// The state of a link.
struct Link {
    placement: Placement,
    /// When the hub was created.
    created_on: Option<Timestamp>,
    /// The sequence number of the last message that was handed on or may be skipped.
    last: Option<i64>,
    /// The last message that was read was requested again, to verify the position, and has not come
    /// yet.
    unproven: bool,
    /// When the partition answered that it holds nothing after that message.
    nothing_more: Option<Timestamp>,
    /// Messages up to this number arrive as soon as it is attached.
    waiting_up_to: Option<i64>,
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
        // An answer takes a while, and a lost query is repeated.
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
            last: None,
            undecodable: 0,
            reported: false,
            pages,
            told: false,
            failures: 0,
            backoff: Backoff::seeded(u64::from(index) ^ seed()),
        }
    }

    /// Reads until the source is dropped, the job is done, or `gone` says that the partition no
    /// longer exists.
    pub(crate) async fn run(mut self, gone: oneshot::Receiver<()>) {
        let pages = self.pages.clone();
        let mut over = pin!(async move {
            tokio::select! {
                () = pages.closed() => {}
                Ok(()) = gone => {}
            }
        });
        let shared = Arc::clone(&self.shared);
        let mut turn = shared.turns.none();
        loop {
            let read = self.read_until_closed(over.as_mut(), &mut turn);
            let fault = match caught(read).await {
                Ok(Done::OutOfTurn) => {
                    turn.rest();
                    if self.failures == 0 {
                        // The partition answered: it can be read.
                        self.reset_failures();
                    }
                    // While it waits, it has no connection.
                    tokio::select! {
                        () = over.as_mut() => return,
                        next = shared.turns.begin() => turn = next,
                    }
                    self.lookup = Lookup::Offset;
                    continue;
                }
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
            turn.rest();
            self.lookup = Lookup::Offset;
            if fault.kind == HubErrorKind::Undecodable && self.passes_undecodable(&fault).await {
                continue;
            }
            self.told = false;
            self.failures = self.failures.saturating_add(1);
            partition_health::failed(&self.shared.health, &self.id, self.failures, fault);
            let wait = self.backoff.wait(self.failures);
            if timeout(wait, over.as_mut()).await.is_ok() {
                return;
            }
        }
    }

    /// Whether the next message is passed, after it could not be decoded a few times. What is known
    /// of it goes to the dead letter.
    async fn passes_undecodable(&mut self, fault: &HubError) -> bool {
        let Some(number) = self.last.and_then(|last| last.checked_add(1)) else {
            return false;
        };
        self.undecodable += 1;
        if self.undecodable < UNDECODABLE_MAX {
            return false;
        }
        tracing::warn!(
            partition = self.id,
            number,
            why = fault.what,
            "message cannot be decoded: it is passed, and noted in the dead letter"
        );
        let page = self.cutter.undecodable(number, &fault.what);
        let is_open = self.pages.send(page).await.is_ok();
        self.last = Some(number);
        // Bad messages often come in rows: the next one is passed at once.
        self.undecodable = UNDECODABLE_MAX - 1;
        self.failures = 0;
        is_open
    }

    async fn read_until_closed(
        &mut self,
        over: impl Future<Output = ()>,
        turn: &mut Turn<'_>,
    ) -> Result<Done, HubError> {
        let connection = self.shared.client.connect().await?;
        let ended = tokio::select! {
            biased;
            () = over => Ok(Done::Closed),
            ended = self.read(&connection, turn) => ended,
        };
        // A connection that is only dropped stays open.
        connection.close().await;
        ended
    }

    async fn read(
        &mut self,
        connection: &HubConnection,
        turn: &mut Turn<'_>,
    ) -> Result<Done, HubError> {
        let Some(mut link) = self.place(connection).await? else {
            return Ok(Done::Closed);
        };
        match self.follow(connection, &mut link, turn).await {
            Err(fault) if fault.kind == HubErrorKind::Position => {
                link.placement.next_lookup().map(Done::Reopen).ok_or(fault)
            }
            ended => ended,
        }
    }

    /// Hands on the messages of a link.
    async fn follow(
        &mut self,
        connection: &HubConnection,
        link: &mut Link,
        turn: &mut Turn<'_>,
    ) -> Result<Done, HubError> {
        if link.waiting_up_to.is_some() && !turn.has_room() && !turn.claim_most() {
            return Ok(Done::OutOfTurn);
        }
        let shared = Arc::clone(&self.shared);
        let start = link.placement.start();
        let receiver = connection
            .receiver(&self.id, start, shared.prefetch, shared.owner_level)
            .await?;
        let mut messages = receiver.messages();
        let mut quiet = SilenceTimer::new();
        let mut patience = shared.timing.attach;
        loop {
            // The time limit stops while there is no room: a reader that does not read cannot call
            // the link silent.
            let next = timeout(patience, messages.next());
            let next = shared.in_hand.read(false, next);
            let came = match turn.has_room() {
                true => next.await,
                false => match timeout(patience + STALL_MAX, next).await {
                    Ok(came) => came,
                    Err(_) if turn.claim_most() => continue,
                    Err(_) => return Ok(Done::OutOfTurn),
                },
            };
            match came {
                Ok(message) => {
                    quiet = SilenceTimer::new();
                    patience = shared.timing.idle;
                    let message = message?;
                    turn.took(message.body.len());
                    let number = message.sequence_number;
                    let is_last = link
                        .waiting_up_to
                        .take_if(|last| number >= Some(*last))
                        .is_some();
                    let held = shared.in_hand.hold(message.body.len());
                    if let Some(done) = self.take(link, message, held).await {
                        return Ok(done);
                    }
                    if is_last {
                        turn.rest();
                    } else if turn.is_over() {
                        return Ok(Done::OutOfTurn);
                    }
                }
                Err(_) => {
                    turn.rest();
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
                    // Properties may be stale for a moment; those of another hub stay as they are.
                    sleep(self.shared.timing.confirm).await;
                    asked_at = Timestamp::now();
                    bounds = connection.bounds(&self.id).await?;
                }
                let placement = Placement::of(known, self.lookup, bounds, created_on);
                placement.behind(self.last, created_on)
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
        let asks_again = matches!(placement, Placement::At { .. });
        let mut link = Link {
            created_on,
            last: match &placement {
                Placement::Behind(number) => Some(*number),
                Placement::At { known, .. } => Some(known.sequence_number),
                Placement::Elsewhere(_) | Placement::From(_) => None,
            },
            unproven: asks_again,
            nothing_more,
            waiting_up_to: (nothing_more.is_none() || asks_again).then_some(bounds.last),
            placement,
        };
        if link.last.is_none() || link.last > self.last {
            self.last = link.last;
        }
        let open = link.unproven || self.stand(&mut link, news).await;
        Ok(open.then_some(link))
    }

    /// Hands on the new position and the time up to which the partition is read, if there are any.
    /// False if the source was dropped.
    async fn stand(&mut self, link: &mut Link, news: Option<MessagePosition>) -> bool {
        let nothing_more = link.nothing_more.take();
        if news.is_none() && nothing_more.is_none() {
            return true;
        }
        let page = self.cutter.standing(news.as_ref(), nothing_more);
        self.reached = news.or(self.reached.take());
        self.pages.send(page).await.is_ok()
    }

    /// Reports once that the hub no longer has the position.
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
        if let Placement::At { known, by } = &link.placement
            && std::mem::take(&mut link.unproven)
        {
            match compare(known, *by, &message) {
                MessageMatch::Same => return self.go_on_behind(link, &message).await,
                MessageMatch::Later => {}
                MessageMatch::Different(by) => return Some(Done::Reopen(by)),
            }
        }
        // A message that only came again shows nothing of those behind it.
        self.reset_failures();
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
            self.last = link.last;
            self.undecodable = 0;
            self.reached = Some(position);
            self.lookup = Lookup::Offset;
            self.reported = false;
        }
        None
    }

    /// The last message that was read came again. It is not handed on, but its position is updated
    /// with what is now known.
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

    /// Tests whether a silent link still works: a network can vanish unnoticed while the partition
    /// holds more. True if the job ends here.
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
            // If the pipeline does not take it, the next probe says more. If the source was dropped,
            // this reader ends with it.
            let standing = self.cutter.standing(None, Some(asked_at));
            let _ = timeout(STALL_MAX, self.pages.send(standing)).await;
            return Ok(self.shared.until.is_some_and(|until| until <= asked_at));
        }
        // Messages that are on their way will have arrived by the next probe.
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
    /// It held more when it was last asked.
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
