//! Brings batches to the receiver: several at once, tried again until each event is delivered or
//! refused for good; says what became of each part as soon as it is known.
//!
//! A *job* is a batch under way. It holds one of N slots, has one request at most, and is taken
//! apart when the receiver refuses it: halves, front first, until the refused event is alone. So
//! with one slot events arrive in order.
//!
//! One refusal proves nothing: a receiver that refuses everything is misconfigured, and nothing
//! may be dropped for that. An event is given up only when it was refused alone and the receiver
//! has accepted a request that began after the event's first refusal. Until then it is *parked*:
//! out of its slot, but still in flight. One parked part at a time is tried again, with backoff;
//! once something is accepted, all are tried at once. When nothing but parked events is left, an
//! event that was accepted before is sent once more as a *witness*, since no other can tell a bad
//! event from a bad receiver (a duplicate, which is legal).
//!
//! Waiting is data, not tasks: everything is polled in [`Delivery::next`], nothing is spawned, and
//! what is in memory is bounded by the slots and by the bytes that the caller lets in.

mod health;
mod job;
mod receipt;

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;

use crate::batch::{Batch, Item};
use crate::event::{Event, list};
use crate::retry::Backoff;
use crate::sink::{Cause, Sink, Verdict};
pub use health::{DeliveryStatus, Hold};
use health::{Health, Problem};
use job::{Answer, Entry, Job, Part, Role, Waiting};
pub use receipt::{DeliverySettings, Receipt};

/// Events of one batch that may be refused alone, with none accepted, before the rest of the batch
/// leaves its slot and is tried at the pace of the backoff.
const REFUSED_ALONE_MAX: u32 = 16;

type Request = Pin<Box<dyn Future<Output = Answer> + Send>>;
type Observe = Box<dyn Fn(&str, f64) + Send + Sync>;

/// Batches on their way.
pub struct Delivery<S> {
    sink: Arc<S>,
    slots: usize,
    observe: Observe,
    backoff: Backoff,
    /// Jobs with a request under way.
    in_flight: FuturesUnordered<Request>,
    /// How many of them had failed before.
    in_flight_failing: usize,
    /// Jobs between two attempts.
    waiting: Vec<Waiting>,
    /// Refused, alone or not, with no proof yet that the receiver works.
    parked: VecDeque<Part>,
    /// Parked ones for which that proof has come: to be tried at once.
    due: VecDeque<Part>,
    /// When a parked part is tried next, how often that failed, and whether it is under way.
    probe_at: Instant,
    probe_failures: u32,
    probing: bool,
    /// An event that was accepted.
    witness: Option<Event>,
    /// The receiver asked to be left alone until then.
    pause_until: Option<Instant>,
    /// Requests begun so far, and the last of them that was accepted, by number.
    begun: u64,
    accepted: u64,
    /// Receipts not yet fetched: at most one or two.
    receipts: VecDeque<Receipt>,
    bytes: usize,
    /// The largest batch so far, in events and bytes: parked events are sent in no larger ones.
    largest: (usize, usize),
    health: Health,
}

impl<S: Sink + 'static> Delivery<S> {
    /// Nothing in flight yet. `observe` is told of every request: its label (see
    /// [`Verdict::label`]) and how many seconds it took.
    pub fn new(
        sink: S,
        settings: DeliverySettings,
        observe: impl Fn(&str, f64) + Send + Sync + 'static,
    ) -> Delivery<S> {
        Delivery {
            slots: settings
                .in_flight_batches_max
                .min(sink.in_flight_max())
                .max(1),
            sink: Arc::new(sink),
            observe: Box::new(observe),
            backoff: Backoff::seeded(settings.seed),
            in_flight: FuturesUnordered::new(),
            in_flight_failing: 0,
            waiting: Vec::new(),
            parked: VecDeque::new(),
            due: VecDeque::new(),
            probe_at: Instant::now(),
            probe_failures: 0,
            probing: false,
            witness: None,
            pause_until: None,
            begun: 0,
            accepted: 0,
            receipts: VecDeque::new(),
            bytes: 0,
            largest: (1, 0),
            health: Health::default(),
        }
    }

    /// Whether [`Delivery::start`] may be called. Parked events that are about to be tried again
    /// go before new batches.
    pub fn has_room(&self) -> bool {
        self.jobs() + usize::from(!self.due.is_empty()) < self.slots
    }

    /// Takes a batch on. Only while [`Delivery::has_room`].
    pub fn start(&mut self, batch: Batch) {
        debug_assert!(self.has_room(), "more batches than slots");
        if batch.items.is_empty() {
            return;
        }
        let part: Part = batch.items.into_iter().map(Entry::new).collect();
        let charge = part.iter().map(|entry| entry.charge).sum::<usize>();
        self.bytes += charge;
        self.largest.0 = self.largest.0.max(part.len());
        self.largest.1 = self.largest.1.max(charge);
        self.advance(Job::new(Role::Batch, part), Instant::now());
    }

    /// The next receipt. May be dropped and called again at any time: nothing is lost. Waits for
    /// ever when nothing is in flight.
    pub async fn next(&mut self) -> Receipt {
        loop {
            if let Some(receipt) = self.receipts.pop_front() {
                return receipt;
            }
            self.wake(Instant::now());
            let wake_at = self.wake_at();
            tokio::select! {
                biased;
                Some(answer) = self.in_flight.next(), if !self.in_flight.is_empty() => {
                    self.answered(answer);
                }
                () = tokio::time::sleep_until(wake_at.unwrap_or_else(Instant::now)),
                    if wake_at.is_some() => {}
                else => std::future::pending().await,
            }
        }
    }

    /// Whether nothing is in flight and every receipt was fetched.
    pub fn is_idle(&self) -> bool {
        self.jobs() == 0
            && self.parked.is_empty()
            && self.due.is_empty()
            && self.receipts.is_empty()
    }

    /// Bytes of events without a receipt, parked ones too.
    pub fn in_flight_bytes(&self) -> usize {
        self.bytes
    }

    /// How delivery is doing.
    pub fn status(&self) -> DeliveryStatus {
        self.health.status()
    }

    /// Why to give up, once nothing was accepted for `after` while delivery was failing: what
    /// fails, since when, and the remedy.
    pub fn gave_up(&self, now: Instant, after: Duration) -> Option<String> {
        self.health.gave_up(now, after)
    }

    fn jobs(&self) -> usize {
        self.in_flight.len() + self.waiting.len()
    }

    /// Begins what may begin by now.
    fn wake(&mut self, now: Instant) {
        while let Some(at) = self.waiting.iter().position(|waiting| waiting.at <= now) {
            let job = self.waiting.remove(at).job;
            self.advance(job, now);
        }
        while !self.due.is_empty() && self.jobs() < self.slots {
            let part = self.take_due();
            self.advance(Job::new(Role::Batch, part), now);
        }
        if self.probe_allowed() && self.probe_at <= now {
            // Every other probe, and only while no other event is under way that could tell.
            let turn = self.probe_failures % 2 == 1 && self.jobs() == 0;
            let job = match self.witness.clone().filter(|_| turn) {
                Some(event) => Some(Job::new(Role::Witness, vec![Entry::witness(event)])),
                None => self
                    .parked
                    .pop_front()
                    .map(|part| Job::new(Role::Probe, part)),
            };
            if let Some(job) = job {
                self.probing = true;
                self.advance(job, now);
            }
        }
    }

    /// When something may begin that may not now.
    fn wake_at(&self) -> Option<Instant> {
        let waiting = self.waiting.iter().map(|waiting| waiting.at).min();
        let probe = self.probe_allowed().then_some(self.probe_at);
        waiting.into_iter().chain(probe).min()
    }

    fn probe_allowed(&self) -> bool {
        !self.parked.is_empty() && !self.probing && self.due.is_empty() && self.jobs() < self.slots
    }

    /// As many parked events as make one batch.
    fn take_due(&mut self) -> Part {
        let mut part = Part::new();
        let mut bytes = 0;
        while let Some(mut next) = self.due.pop_front() {
            let mut rest = Part::new();
            for (at, entry) in next.iter().enumerate() {
                let fits =
                    part.len() + at < self.largest.0 && bytes + entry.charge <= self.largest.1;
                if !fits && part.len() + at > 0 {
                    rest = next.split_off(at);
                    break;
                }
                bytes += entry.charge;
            }
            part.append(&mut next);
            if !rest.is_empty() {
                self.due.push_front(rest);
                break;
            }
        }
        part
    }

    /// Begins the job's next request, or ends the job when it has no part left.
    fn advance(&mut self, mut job: Job, now: Instant) {
        if let Some(until) = self.pause_until.filter(|until| *until > now) {
            self.waiting.push(Waiting {
                at: until,
                asked: true,
                job,
            });
            return;
        }
        let Some(part) = job.parts.pop() else {
            self.ended(job, now);
            return;
        };
        self.begun += 1;
        self.in_flight_failing += usize::from(job.failures > 0);
        let (number, sink) = (self.begun, Arc::clone(&self.sink));
        self.in_flight.push(Box::pin(async move {
            let events: Vec<Event> = part.iter().map(|entry| entry.item.event.clone()).collect();
            let began = Instant::now();
            let verdict = sink.send(&events).await;
            Answer {
                number,
                job,
                part,
                verdict,
                seconds: began.elapsed().as_secs_f64(),
            }
        }));
    }

    /// The job leaves its slot.
    fn ended(&mut self, job: Job, now: Instant) {
        let proven_bad = match job.role {
            Role::Batch => job.refused_alone >= REFUSED_ALONE_MAX,
            Role::Probe => self.witness.is_none() || self.probe_failures > 0,
            Role::Witness => true,
        };
        if matches!(job.role, Role::Probe | Role::Witness) {
            self.probing = false;
            if job.refusal.is_some() {
                self.probe_failures = self.probe_failures.saturating_add(1);
                self.probe_at = now + self.backoff.wait(self.probe_failures);
            }
        }
        // A single bad event in a quiet hour is no reason for an alarm.
        if let Some((status, detail)) = job.refusal
            && proven_bad
            && !self.parked.is_empty()
        {
            let problem = Problem::RefusesAll { status };
            self.health.failed(now, problem, detail);
        }
        // Whoever waits in `next` must learn that there is room, or it waits for ever.
        if self.receipts.is_empty() {
            self.receipts.push_back(Receipt::Room);
        }
    }

    fn answered(&mut self, answer: Answer) {
        let now = Instant::now();
        let Answer {
            number,
            mut job,
            part,
            verdict,
            seconds,
        } = answer;
        self.in_flight_failing -= usize::from(job.failures > 0);
        let no_request = matches!(
            verdict,
            Verdict::Hold { cause, .. } | Verdict::Retry { cause, .. } if cause == Cause::Token
        );
        if !no_request {
            (self.observe)(&verdict.label(), seconds);
        }
        match verdict {
            Verdict::Accepted { .. } => {
                job.failures = 0;
                job.hurried = false;
                job.refusal = None;
                self.accepted_part(number, &job, part, now);
                self.advance(job, now);
            }
            Verdict::Refused { status, detail } => {
                job.failures = 0;
                self.refused_part(job, part, status, detail, now);
            }
            Verdict::Hold {
                cause,
                detail,
                remedy,
            } => {
                let problem = Problem::Hold { cause, remedy };
                self.health.failed(now, problem, detail);
                self.wait(job, part, None, now);
            }
            Verdict::Retry {
                cause,
                after,
                detail,
            } => {
                self.health.failed(now, Problem::Retry { cause }, detail);
                self.wait(job, part, after, now);
            }
            Verdict::Broken {
                detail,
                pipe_closed,
            } => {
                self.receipts.push_back(Receipt::Broken {
                    detail,
                    pipe_closed,
                });
                self.wait(job, part, None, now);
            }
        }
    }

    /// The job tries this part again later, in its slot.
    fn wait(&mut self, mut job: Job, part: Part, after: Option<Duration>, now: Instant) {
        job.failures = job.failures.saturating_add(1);
        job.parts.push(part);
        let at = now + self.backoff.wait_asked(job.failures, after);
        let asked = after.is_some_and(|after| !after.is_zero());
        if asked {
            // The receiver means us, not this batch.
            self.pause_until = self.pause_until.max(Some(at));
        }
        self.waiting.push(Waiting { at, asked, job });
    }

    fn accepted_part(&mut self, number: u64, job: &Job, part: Part, now: Instant) {
        self.accepted = self.accepted.max(number);
        self.probe_failures = 0;
        let proven = self.accepted;
        let proof = |part: &Part| part.iter().all(|entry| entry.proven_by(proven));
        let (due, parked) = self.parked.drain(..).partition(proof);
        self.parked = parked;
        self.due.extend::<VecDeque<Part>>(due);

        // The receiver is back: who waits tries now, but only once per row of failures, so that
        // one body that the receiver cannot digest does not follow every other one.
        for waiting in &mut self.waiting {
            if !waiting.asked && !waiting.job.hurried {
                waiting.at = now;
                waiting.job.hurried = true;
            }
        }
        self.health.accepted(now);
        self.recover(now);

        if matches!(job.role, Role::Witness) {
            return;
        }
        if let Some(entry) = part.first() {
            self.witness = Some(entry.item.event.detached());
        }
        let stripped = part.iter().filter(|entry| entry.newly_truncated).count();
        self.bytes -= part.iter().map(|entry| entry.charge).sum::<usize>();
        let items: Vec<Item> = part.into_iter().map(|entry| entry.item).collect();
        let texts: usize = items.iter().map(|item| item.event.text().len()).sum();
        self.receipts.push_back(Receipt::Delivered {
            bytes: list::OVERHEAD_BYTES + texts + items.len().saturating_sub(1),
            items,
            stripped,
        });
    }

    /// Delivery works again when nothing fails any more.
    fn recover(&mut self, now: Instant) {
        let failing = self.in_flight_failing > 0
            || self.waiting.iter().any(|waiting| waiting.job.failures > 0);
        if !failing && self.parked.is_empty() {
            self.health.recovered(now);
        }
    }

    fn refused_part(
        &mut self,
        mut job: Job,
        mut part: Part,
        status: u16,
        detail: String,
        now: Instant,
    ) {
        for entry in &mut part {
            entry.refused.get_or_insert(self.begun);
        }
        if part.len() > 1 {
            let back = part.split_off(part.len() / 2);
            job.parts.push(back);
            job.parts.push(part);
            self.advance(job, now);
            return;
        }
        let Some(mut entry) = part.pop() else {
            self.advance(job, now);
            return;
        };
        if status == 413 && entry.strip(Event::without_objects) {
            job.parts.push(vec![entry]);
            self.advance(job, now);
            return;
        }
        if matches!(job.role, Role::Witness) {
            job.refusal = Some((status, detail));
        } else if entry.proven_by(self.accepted) {
            self.bytes -= entry.charge;
            self.receipts.push_back(Receipt::Refused {
                item: entry.item,
                status,
                detail,
            });
            // Refused with proof: the receiver works.
            self.recover(now);
        } else {
            job.refused_alone += 1;
            job.refusal = Some((status, detail));
            if self.parked.is_empty() && !self.probing {
                self.probe_at = now + self.backoff.wait(1);
            }
            self.parked.push_back(vec![entry]);
            if matches!(job.role, Role::Probe) || job.refused_alone >= REFUSED_ALONE_MAX {
                // Those not yet tried alone go first.
                for part in job.parts.drain(..) {
                    self.parked.push_front(part);
                }
            }
        }
        self.advance(job, now);
    }
}

impl<S> std::fmt::Debug for Delivery<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Delivery")
            .field("in_flight", &self.in_flight.len())
            .field("waiting", &self.waiting.len())
            .field("parked", &self.parked.len())
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}
