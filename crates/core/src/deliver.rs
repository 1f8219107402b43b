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
//!   receiver calls its body bad (400, 413, 422), it is refused, but for many in a row. After any
//!   other failure it is parked (`parked`) and retried for a quarter of an hour.
//! - Where no event is accepted, an empty list is sent (`probe`). If it is accepted, events that fail
//!   alone before and after are parked, so that others get their turn. That is weak evidence, as is
//!   one acceptance for many events in a row: it takes more to give up what was parked on it.
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
mod failed;
mod job;
mod parked;
mod probe;
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
use crate::convert::RecordId;
use crate::event::{Event, list};
use crate::retry::Backoff;
use crate::sink::{Cause, RequestFailure, Sink, Verdict};
use delivery_health::DeliveryHealth;
pub use delivery_health::{DeliveryStatus, Outage};
use job::{InFlightEvent, Job, JobState};
pub use parked::{ALONE_FAILURES_MAX, ALONE_TIME_MIN, PARKED_BYTES_MAX, ParkedStatus};
use parked::{BatchRequests, Parked, REFUSED_MAX};
use probe::Probe;
pub use receipt::{ConcurrencyLimit, Receipt};
use request_limit::RequestLimit;

/// At the end of a replay, refused events are given up when nothing else was accepted for this
/// long.
const REFUSED_WAIT: Duration = Duration::from_secs(10);

type Request = Pin<Box<dyn Future<Output = Answered> + Send>>;
type Observe = Box<dyn Fn(&str, f64) + Send + Sync>;

/// A request that ended.
enum Answered {
    /// It had events.
    Events(Answer),
    /// It was an empty list, with this number.
    Probe(u64, Verdict),
}

/// How a request with events ended.
struct Answer {
    /// The request's number, from 1.
    number: u64,
    /// The job that sent it; `None` for a parked event.
    job: Option<u64>,
    /// The newest probe that was accepted before this request began: a request from before may have
    /// failed in an outage that is over.
    probed: u64,
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
    requests: FuturesUnordered<Request>,
    /// Oldest first.
    jobs: VecDeque<Job>,
    parked: Parked,
    probe: Probe,
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
            requests: FuturesUnordered::new(),
            jobs: VecDeque::new(),
            parked: Parked::new(slots),
            probe: Probe::new(),
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
                Some(answered) = self.requests.next(), if !self.requests.is_empty() => {
                    match answered {
                        Answered::Events(answer) => self.answered(answer),
                        Answered::Probe(number, verdict) => self.probed(number, verdict),
                    }
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
        let in_jobs = || self.jobs.iter().flat_map(|job| &job.entries);
        let left = || in_jobs().chain(self.parked.entries());
        let few = left().count() <= REFUSED_MAX;
        if !left().all(|entry| entry.is_suspect(self.accepted, few)) {
            return;
        }
        let passed = |refused| {
            let wait = if refused {
                after.min(REFUSED_WAIT)
            } else {
                after
            };
            !self.health.accepted_within(now, wait)
        };
        let jobs = passed(in_jobs().all(|entry| entry.refused));
        let parked = passed(self.parked.entries().all(|entry| entry.refused));
        if jobs {
            for entry in self.jobs.drain(..).flat_map(|job| job.entries) {
                self.bytes -= entry.charge;
                self.receipts.push_back(Receipt::Rejected {
                    error: self.newest_failure.clone(),
                    reason: entry.reject_reason(),
                    item: entry.item,
                });
            }
        }
        if parked {
            for parked in self.parked.drain() {
                self.reject(parked, now);
            }
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
        if self.probe.begins_at().is_some_and(|at| at <= now) {
            self.probe.begin(now);
            self.begin_probe();
        }
    }

    fn begin_probe(&mut self) {
        self.begun += 1;
        let (number, sink) = (self.begun, Arc::clone(&self.sink));
        self.requests.push(Box::pin(async move {
            let _slot = sink.parked_slot().await;
            Answered::Probe(number, sink.send(&[]).await)
        }));
    }

    fn begin(&mut self, job: Option<u64>, events: Vec<Event>) {
        self.begun += 1;
        let (number, probed) = (self.begun, self.probe.newest());
        let sink = Arc::clone(&self.sink);
        self.requests.push(Box::pin(async move {
            let bytes = events.iter().map(|event| event.text().len()).sum();
            let _slot = match job {
                Some(_) => sink.slot().await,
                None => sink.parked_slot().await,
            };
            let began = Instant::now();
            let verdict = sink.send(&events).await;
            Answered::Events(Answer {
                number,
                job,
                probed,
                events: events.len(),
                bytes,
                verdict,
                took: began.elapsed(),
            })
        }));
    }

    /// When the next waiting request may begin.
    fn wake_at(&self, now: Instant) -> Option<Instant> {
        let jobs = self.jobs.iter().filter_map(Job::begins_at).min();
        let jobs = jobs.filter(|_| self.sending() < self.slots);
        let others = [self.parked.next_at(), self.probe.begins_at()];
        let next = jobs.into_iter().chain(others.into_iter().flatten()).min()?;
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

    /// An empty list was answered. If it was accepted, batches go on: events that fail alone again
    /// are parked.
    fn probed(&mut self, number: u64, verdict: Verdict) {
        let now = Instant::now();
        match verdict {
            Verdict::Accepted { .. } => {
                self.probe.accepted(number, now);
                self.health.empty_list_accepted();
                // One slot keeps the order.
                let woken = if self.slots == 1 { 1 } else { usize::MAX };
                for job in self.jobs.iter_mut().take(woken) {
                    job.others_accepted(number, 0, now);
                }
            }
            Verdict::Failed(failure) => {
                self.probe.failed(failure.after, now, &mut self.backoff);
            }
            Verdict::Broken { .. } => self.probe.failed(None, now, &mut self.backoff),
        }
    }

    fn accepted(&mut self, answer: &Answer, now: Instant) {
        self.accepted = self.accepted.max(answer.number);
        self.ended.accepted += u64::from(answer.job.is_some());
        self.health.accepted(now);
        // The receiver accepts requests again, so its pause is over.
        self.pause_until = None;
        self.parked.receiver_is_back(now);
        self.probe.cancel();
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
