//! Sends batches to the receiver, several at once, until each event is delivered or belongs in the
//! dead letter. Returns a receipt for events as soon as their end is known.
//!
//! One rule covers every answer that is not 2xx, and missing answers: **what fails while others are
//! accepted is split until each failing event is alone. Alone, it waits outside the slots. After
//! enough failures it goes to the dead letter. While nothing is accepted, nothing is given up.**
//!
//! - A batch holds one of N slots until its last event is accepted or parked (`job`). It is sent
//!   front first, so one slot keeps the order.
//! - An event is to blame when it failed, then something else was accepted, then it failed alone.
//!   The acceptance is the last thing that happened to its batch, or at most a second old (a minute,
//!   if the event is only parked), or of a request that began later than the failed one. If the
//!   receiver calls its body bad (400, 413, 422), it is refused. After any other failure it is
//!   parked (`parked`) and retried for a quarter of an hour.
//! - To find something that is accepted, a batch whose first event fails alone tries others of its
//!   events. When none is accepted the batch no longer counts for a slot, so that another batch can
//!   show whether the receiver works. Within a minute after something was accepted, each batch looks
//!   through its events at once, and their turns are a second apart. The oldest batch is always
//!   tried first, so after an outage it is the first to get through.
//! - After a time-out, all requests become smaller; quick answers let them grow again
//!   (`request_limit`). If a request that began later was accepted, the batch is to blame rather
//!   than the receiver: it is divided at once, into 16 parts, since each time-out takes ten seconds.
//!   It is halved if the receiver fails at random: the newest parked event turned out to be good.
//!
//! Waiting is data, not tasks: everything is polled in [`Delivery::next`] and nothing is spawned.
//! Memory is bounded by the bytes that the caller lets in and by [`PARKED_BYTES_MAX`].

mod delivery_health;
mod job;
mod parked;
mod receipt;
mod request_limit;

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;

use crate::batch::{Batch, Item};
use crate::convert::{RecordId, Reject};
use crate::event::{Event, list};
use crate::retry::Backoff;
use crate::sink::{Cause, RequestFailure, Sink, Verdict};
use delivery_health::DeliveryHealth;
pub use delivery_health::{DeliveryStatus, Outage};
use job::{InFlightEvent, Job, JobState, Next, OthersAccepted};
pub use parked::{ALONE_FAILURES_MAX, ALONE_TIME_MIN, PARKED_BYTES_MAX, ParkedStatus};
use parked::{BatchRequests, DeliverySnapshot, Parked, ParkedEvent, ParkedOutcome};
pub use receipt::{ConcurrencyLimit, Receipt};
use request_limit::RequestLimit;

/// At the end of a replay, refused events are given up when nothing else was accepted for this
/// long.
const REFUSED_WAIT: Duration = Duration::from_secs(10);

/// All slots pause for a `Retry-After` only if the receiver accepted nothing for this long.
const TAKES_OTHERS: Duration = Duration::from_secs(1);

/// A receiver that accepted something this recently may work, so that what fails is searched for at
/// once: where many events fail, hardly any is accepted, and each wait would hold up all others.
const WORKED_RECENTLY: Duration = Duration::from_secs(60);

/// The longest wait between two batches' turns then.
const TURN_WAIT_MAX: Duration = Duration::from_secs(1);

type Request = Pin<Box<dyn Future<Output = Answer> + Send>>;
type Observe = Box<dyn Fn(&str, f64) + Send + Sync>;

/// How a request ended.
struct Answer {
    /// The request's number, from 1.
    number: u64,
    /// The job that sent it; `None` for a parked event.
    job: Option<u64>,
    events: usize,
    bytes: usize,
    verdict: Verdict,
    took: Duration,
}

/// Batches on their way.
pub struct Delivery<S> {
    sink: Arc<S>,
    slots: usize,
    observe: Observe,
    backoff: Backoff,
    random: fastrand::Rng,
    requests: FuturesUnordered<Request>,
    /// Oldest first.
    jobs: VecDeque<Job>,
    parked: Parked,
    limit: RequestLimit,
    /// No request begins before this time, because the receiver asked for a pause.
    pause_until: Option<Instant>,
    started: u64,
    /// Requests begun so far, and the newest of them that was accepted, by number.
    begun: u64,
    accepted: u64,
    /// The newest failure, and the newest acceptance of another pipeline that was counted.
    failed_at: Option<Instant>,
    heard_at: Option<Instant>,
    /// What the newest failure of a batch was, for people.
    newest_failure: String,
    /// The requests of batches that ended.
    ended: BatchRequests,
    /// Receipts not yet fetched: few.
    receipts: VecDeque<Receipt>,
    /// Bytes of the events in jobs.
    bytes: usize,
    health: DeliveryHealth,
}

impl<S: Sink + 'static> Delivery<S> {
    /// Nothing in flight yet. `observe` receives every request: its label (see
    /// [`Verdict::label`]) and how many seconds it took.
    pub fn new(
        sink: S,
        limit: ConcurrencyLimit,
        observe: impl Fn(&str, f64) + Send + Sync + 'static,
    ) -> Delivery<S> {
        let slots = limit.in_flight_batches_max.min(sink.in_flight_max()).max(1);
        Delivery {
            slots,
            sink: Arc::new(sink),
            observe: Box::new(observe),
            backoff: Backoff::seeded(limit.seed),
            random: fastrand::Rng::with_seed(limit.seed),
            requests: FuturesUnordered::new(),
            jobs: VecDeque::new(),
            parked: Parked::new(slots),
            limit: RequestLimit::none(),
            pause_until: None,
            started: 0,
            begun: 0,
            accepted: 0,
            failed_at: None,
            heard_at: None,
            newest_failure: String::new(),
            ended: BatchRequests::default(),
            receipts: VecDeque::new(),
            bytes: 0,
            health: DeliveryHealth::default(),
        }
    }

    /// Whether [`Delivery::start`] may be called.
    pub fn has_room(&self) -> bool {
        self.jobs.iter().filter(|job| !job.is_stuck()).count() < self.slots
    }

    /// Takes a batch on. Only while [`Delivery::has_room`].
    pub fn start(&mut self, batch: Batch) {
        debug_assert!(self.has_room(), "more batches than slots");
        if batch.items.is_empty() {
            return;
        }
        let entries: VecDeque<InFlightEvent> =
            batch.items.into_iter().map(InFlightEvent::new).collect();
        self.bytes += entries.iter().map(|entry| entry.charge).sum::<usize>();
        self.started += 1;
        let now = Instant::now();
        let mut job = Job::new(self.started, entries, now);
        if let Some(first) = self.jobs.front_mut().filter(|first| first.is_stuck()) {
            // This batch's result shows whether the first one's events or the receiver are to
            // blame.
            job.state = JobState::Asleep;
            first.skip_wait(now);
        }
        self.jobs.push_back(job);
    }

    /// The next receipt. May be dropped and called again at any time: nothing is lost. Waits for
    /// ever when nothing is in flight.
    pub async fn next(&mut self) -> Receipt {
        loop {
            if let Some(receipt) = self.receipts.pop_front() {
                return receipt;
            }
            let now = Instant::now();
            self.begin_due(now);
            let wake_at = self.wake_at(now);
            tokio::select! {
                biased;
                Some(answer) = self.requests.next(), if !self.requests.is_empty() => {
                    self.answered(answer);
                }
                () = tokio::time::sleep_until(wake_at.unwrap_or(now)), if wake_at.is_some() => {}
                else => std::future::pending().await,
            }
        }
    }

    /// Whether nothing is in flight, nothing is parked, and every receipt was fetched.
    pub fn is_idle(&self) -> bool {
        self.only_parked() && self.parked.is_empty()
    }

    /// Whether nothing is in flight but parked events, and every receipt was fetched.
    pub fn only_parked(&self) -> bool {
        self.jobs.is_empty() && self.receipts.is_empty()
    }

    /// Bytes of events without a receipt, but for those that are parked.
    pub fn in_flight_bytes(&self) -> usize {
        self.bytes
    }

    /// The records whose events are parked; one that gave several events may come several times.
    pub fn parked_records(&self) -> impl Iterator<Item = RecordId> {
        let entries = self.parked.entries();
        entries.flat_map(|entry| entry.item.records.as_slice().iter().copied())
    }

    /// How delivery is doing.
    pub fn status(&self) -> DeliveryStatus {
        let now = Instant::now();
        DeliveryStatus {
            outage: self.health.outage(now),
            last_accepted: self.health.last_accepted(),
            parked: self.parked.status(),
            request_events_max: self.limit.events,
        }
    }

    /// Why to give up, once nothing was accepted for `after` while delivery was failing: what
    /// fails, since when, and the remedy.
    pub fn gave_up(&self, now: Instant, after: Duration) -> Option<String> {
        self.health.gave_up(now, after)
    }

    /// Gives up suspect events once nothing was accepted for `after` and only such events are left:
    /// at the end of a replay, no other event will come that could show more.
    pub fn give_up_culprits(&mut self, now: Instant, after: Duration) {
        let accepted = self.accepted;
        let mut left = self.jobs.iter().flat_map(|job| &job.entries);
        if !left.all(|entry| entry.is_suspect(accepted)) {
            return;
        }
        let mut left = self.jobs.iter().flat_map(|job| &job.entries);
        let refused = !self.jobs.is_empty() && left.all(|entry| entry.refused);
        let wait = if refused {
            after.min(REFUSED_WAIT)
        } else {
            after
        };
        if self.health.accepted_within(now, wait) {
            return;
        }
        for entry in self.jobs.drain(..).flat_map(|job| job.entries) {
            self.bytes -= entry.charge;
            self.receipts.push_back(Receipt::Rejected {
                error: self.newest_failure.clone(),
                reason: match entry.refused {
                    true => Reject::REFUSED,
                    false => Reject::UNDELIVERABLE,
                },
                item: entry.item,
            });
        }
        if self.health.accepted_within(now, after) {
            return;
        }
        for parked in self.parked.drain() {
            self.reject_undeliverable(parked, now);
        }
    }

    fn sending(&self) -> usize {
        self.jobs.iter().filter(|job| job.is_sending()).count()
    }

    /// Begins what may begin by now, the oldest first.
    fn begin_due(&mut self, now: Instant) {
        if self.pause_until.is_some_and(|until| until > now) {
            return;
        }
        self.pause_until = None;
        for at in 0..self.jobs.len() {
            if self.sending() >= self.slots {
                break;
            }
            let job = &mut self.jobs[at];
            if job.begins_at().is_some_and(|at| at <= now) {
                let sent = job.next_len(&self.limit);
                job.state = JobState::Sending {
                    sent,
                    outdone: false,
                };
                let entries = job.entries.range(job.from..job.from + sent);
                let events = entries.map(|entry| entry.item.event.clone()).collect();
                let id = job.id;
                self.begin(Some(id), events);
            }
        }
        while let Some(entry) = self.parked.begin(self.begun + 1, now) {
            let event = entry.item.event.clone();
            self.begin(None, vec![event]);
        }
    }

    fn begin(&mut self, job: Option<u64>, events: Vec<Event>) {
        self.begun += 1;
        let (number, sink) = (self.begun, Arc::clone(&self.sink));
        self.requests.push(Box::pin(async move {
            let bytes = events.iter().map(|event| event.text().len()).sum();
            let _slot = match job {
                Some(_) => sink.slot().await,
                None => sink.parked_slot().await,
            };
            let began = Instant::now();
            let verdict = sink.send(&events).await;
            Answer {
                number,
                job,
                events: events.len(),
                bytes,
                verdict,
                took: began.elapsed(),
            }
        }));
    }

    /// When the next waiting request may begin.
    fn wake_at(&self, now: Instant) -> Option<Instant> {
        let jobs = self.jobs.iter().filter_map(Job::begins_at).min();
        let jobs = jobs.filter(|_| self.sending() < self.slots);
        let next = jobs.into_iter().chain(self.parked.next_at()).min()?;
        Some(next.max(self.pause_until.unwrap_or(now)))
    }

    fn answered(&mut self, mut answer: Answer) {
        let now = Instant::now();
        let had_room = self.has_room();
        let verdict = std::mem::replace(&mut answer.verdict, Verdict::Accepted { status: 200 });
        let made = !matches!(&verdict, Verdict::Failed(failure) if failure.cause == Cause::Token);
        if made {
            (self.observe)(&verdict.label(), answer.took.as_secs_f64());
        }
        match verdict {
            Verdict::Accepted { .. } => self.accepted(&answer, now),
            Verdict::Failed(failure) => {
                self.hear_of_others(now);
                self.failed_at = Some(now);
                self.ended.failed += u64::from(answer.job.is_some());
                self.failed(&answer, failure, now);
            }
            Verdict::Broken {
                detail,
                pipe_closed,
            } => {
                // As if nothing had been sent.
                let failure = RequestFailure {
                    cause: Cause::Connect,
                    detail: detail.clone(),
                    remedy: None,
                    after: None,
                };
                self.failed(&answer, failure, now);
                self.receipts.push_back(Receipt::Broken {
                    detail,
                    pipe_closed,
                });
            }
        }
        // Wakes a caller that waits in `next`: a slot is free.
        if !had_room && self.has_room() && self.receipts.is_empty() {
            self.receipts.push_back(Receipt::SlotFreed);
        }
    }

    fn accepted(&mut self, answer: &Answer, now: Instant) {
        self.accepted = self.accepted.max(answer.number);
        self.ended.accepted += u64::from(answer.job.is_some());
        self.health.accepted(now);
        // The receiver accepts requests again, so its pause is over.
        self.pause_until = None;
        self.parked.receiver_is_back(now);
        if self.limit.grow(answer.events, answer.bytes, answer.took) {
            tracing::debug!(events = self.limit.events, "request size limit raised");
        }
        let mut taken = Vec::new();
        match answer.job {
            None => taken.extend(self.parked.accepted(answer.number)),
            Some(id) => {
                if let Some(at) = self.jobs.iter().position(|job| job.id == id) {
                    let job = &mut self.jobs[at];
                    taken = job.accepted(answer.events);
                    job.wait(now, false);
                    self.bytes -= taken.iter().map(|entry| entry.charge).sum::<usize>();
                    self.remove_if_done(at);
                }
            }
        }
        for job in &mut self.jobs {
            job.others_accepted(answer.number, answer.events, now);
        }
        let stripped = (0..taken.len()).filter(|&at| taken[at].is_stripped());
        let stripped = stripped.collect();
        let items: Vec<Item> = taken.into_iter().map(|entry| entry.item).collect();
        self.receipts.push_back(Receipt::Delivered {
            bytes: list::OVERHEAD_BYTES + answer.bytes + items.len().saturating_sub(1),
            items,
            stripped,
        });
    }

    /// Counts a request of another pipeline that the receiver accepted: it shows as well as one of
    /// our own that the receiver accepts other events than the failing ones. Otherwise a log that
    /// has nothing else to send would hold its event for ever. The request counts once, and only if
    /// it began after all our failures.
    fn hear_of_others(&mut self, now: Instant) {
        let (Some(failed_at), Some(began)) = (self.failed_at, self.sink.accepted_of_others())
        else {
            return;
        };
        if began <= failed_at || self.heard_at.is_some_and(|heard_at| began <= heard_at) {
            return;
        }
        self.heard_at = Some(began);
        self.begun += 1;
        self.accepted = self.begun;
        self.ended.accepted += 1;
        self.health.accepted(began);
        self.pause_until = None;
        self.parked.receiver_is_back(now);
    }

    fn failed(&mut self, answer: &Answer, failure: RequestFailure, now: Instant) {
        match answer.job {
            Some(id) => self.job_failed(id, answer, failure, now),
            None => self.parked_failed(answer.number, failure, now),
        }
    }

    fn job_failed(&mut self, id: u64, answer: &Answer, failure: RequestFailure, now: Instant) {
        let first_is_stuck = self.jobs.front().is_some_and(Job::is_stuck);
        let Some(at) = self.jobs.iter().position(|job| job.id == id) else {
            return;
        };
        self.newest_failure.clone_from(&failure.detail);
        let job = &mut self.jobs[at];
        let outdone = matches!(job.state, JobState::Sending { outdone: true, .. });
        if failure.cause == Cause::Timeout && answer.events > 1 && !outdone {
            self.limit.shrink(answer.events, answer.bytes, answer.took);
            tracing::warn!(
                events = answer.events,
                events_max = self.limit.events,
                "webhook timed out: request size limit lowered"
            );
        }
        // The receiver means us, not this batch, unless it takes others.
        let takes_others = self.accepted > job.failed_at.min(answer.number)
            || self.health.accepted_within(now, TAKES_OTHERS);
        let recently = self.health.accepted_within(now, WORKED_RECENTLY);
        let others = OthersAccepted {
            newest: self.accepted,
            lately: takes_others,
            recently,
            at_random: self.parked.receiver_fails_at_random(),
        };
        let mut next = job.failed(answer.events, failure.cause, others, self.begun, now);
        let mut next_turn = None;
        if let Next::Compare = next {
            let turn = self
                .jobs
                .iter()
                .rposition(|it| it.id != id && it.state == JobState::Asleep && !it.is_stuck());
            let job = &mut self.jobs[at];
            next = match turn {
                // Comparing its own events found none accepted: a newer batch gets its turn.
                Some(_) if at == 0 && job.is_stuck() => {
                    next_turn = turn;
                    Next::Wait
                }
                _ if job.compare(&mut self.random) => Next::AtOnce,
                _ => Next::Wait,
            };
        }
        if let Some(turn) = next_turn {
            self.jobs[turn].wait(now, false);
        }
        let job = &mut self.jobs[at];
        let asked = failure
            .after
            .is_some_and(|after| after >= Duration::from_secs(1));
        match next {
            Next::Culprit(entry) => {
                self.bytes -= entry.charge;
                job.wait(now, false);
                self.remove_if_done(at);
                self.set_aside(*entry, failure, now);
            }
            // An older batch that is stuck is tried first; this one waits for its turn, once it has
            // compared a few of its own.
            _ if at > 0
                && first_is_stuck
                && !takes_others
                && !(recently && matches!(next, Next::AtOnce)) =>
            {
                job.waits = job.waits.saturating_add(1);
                job.state = JobState::Asleep;
            }
            Next::AtOnce if takes_others || !asked => job.wait(now, false),
            _ => {
                self.health.failed(now, &failure);
                job.waits = job.waits.saturating_add(1);
                let mut wait = self.backoff.wait_asked(job.waits, failure.after);
                let searches = recently && job.is_stuck() && failure.cause.reached_receiver();
                if searches && !asked && !failure.cause.blames_body() {
                    wait = wait.min(TURN_WAIT_MAX);
                }
                let until = now + wait;
                job.wait(until, asked);
                if asked && !takes_others && job.waits == 1 {
                    self.pause_until = self.pause_until.max(Some(until));
                }
            }
        }
    }

    fn remove_if_done(&mut self, at: usize) {
        if self.jobs[at].entries.is_empty() {
            self.jobs.remove(at);
            // The first never sleeps.
            if let Some(first) = self.jobs.front_mut()
                && first.state == JobState::Asleep
            {
                first.wait(Instant::now(), false);
            }
        }
    }

    /// An event that fails alone while others are accepted leaves its slot.
    fn set_aside(&mut self, entry: InFlightEvent, failure: RequestFailure, now: Instant) {
        if failure.cause.blames_body() {
            self.receipts.push_back(Receipt::Rejected {
                item: entry.item,
                reason: Reject::REFUSED,
                error: failure.detail,
            });
            return;
        }
        let moment = self.moment(now);
        let oldest = self
            .parked
            .park(entry, failure.detail, &moment, &mut self.backoff);
        for parked in oldest {
            self.reject_undeliverable(parked, now);
        }
    }

    fn parked_failed(&mut self, number: u64, failure: RequestFailure, now: Instant) {
        let moment = self.moment(now);
        match self
            .parked
            .failed(number, failure, &moment, &mut self.backoff)
        {
            ParkedOutcome::Parked => {}
            ParkedOutcome::Undeliverable(parked) => self.reject_undeliverable(parked, now),
            ParkedOutcome::Refused(parked) => self.receipts.push_back(Receipt::Rejected {
                item: parked.entry.item,
                reason: Reject::REFUSED,
                error: parked.detail,
            }),
        }
    }

    fn moment(&self, now: Instant) -> DeliverySnapshot {
        DeliverySnapshot {
            now,
            begun: self.begun,
            accepted: self.accepted,
            others: self.ended,
        }
    }

    fn reject_undeliverable(&mut self, parked: ParkedEvent, now: Instant) {
        self.receipts.push_back(Receipt::Rejected {
            error: parked.why(now),
            item: parked.entry.item,
            reason: Reject::UNDELIVERABLE,
        });
    }
}

impl<S> std::fmt::Debug for Delivery<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Delivery")
            .field("jobs", &self.jobs.len())
            .field("requests", &self.requests.len())
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}
