//! Events that fail alone while the receiver works. They wait outside the slots, so that nothing
//! waits for them, and are tried again with long waits, each alone in its request.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::job::{Evidence, InFlightEvent};
use crate::retry::Backoff;
use crate::sink::RequestFailure;

/// Bytes of events that may be parked, each counted as itself or as the records it was made of,
/// whichever is more.
pub const PARKED_BYTES_MAX: usize = 8 << 20;

/// An event is undeliverable when it failed alone so often…
pub const ALONE_FAILURES_MAX: u32 = 8;

/// …over so long, each time with others accepted since the time before.
pub const ALONE_TIME_MIN: Duration = Duration::from_secs(15 * 60);

/// A parked event that failed alone so often probably is the cause: the receiver does not fail at
/// random.
const CAUSE_FAILURES: u32 = 3;

/// An event that was parked on weak evidence is given up for lack of room only when it failed alone so
/// often with another event accepted in between: a receiver that accepts one event in an outage must
/// not condemn what is parked. The same holds for one whose body is called bad, if many are parked.
const PROOFS_MIN: u32 = 3;

/// Of parked events no more is logged than one in this time.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// More refused events than this, with no other accepted in between, are rather the receiver's fault.
pub(super) const REFUSED_MAX: usize = 100;

/// A receiver that fails at random must not make a good event look bad. So an event is given up
/// only once the chance that a good one fails this often is below one in a million.
const CHANCE_MAX: f64 = 1e-6;

/// What is parked now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ParkedStatus {
    /// How many events.
    pub events: usize,
    /// Their bytes.
    pub bytes: usize,
    /// When the oldest of them began to fail alone.
    pub oldest: Option<Instant>,
}

/// An event that fails alone.
#[derive(Debug)]
pub(super) struct ParkedEvent {
    pub(super) entry: InFlightEvent,
    /// The newest failure.
    pub(super) detail: String,
    /// How many requests had begun at its last counted failure: one with others accepted since the
    /// failure before.
    failed_at: u64,
    /// Counts of batches' requests at its last counted failure.
    others: BatchRequests,
    /// The logarithm of the chance that a good event fails so often.
    chance: f64,
    /// When it is tried again.
    at: Instant,
    /// Nothing was accepted between its last two failures: it is retried as soon as something is.
    held: bool,
    /// How often it failed alone with another event accepted since the failure before;
    /// [`PROOFS_MIN`] if the evidence was strong.
    proofs: u32,
}

/// Requests of batches so far.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct BatchRequests {
    pub(super) accepted: u64,
    pub(super) failed: u64,
}

impl BatchRequests {
    /// The logarithm of the share of requests that failed since `then`. The parked event's own
    /// failure is one of them, so that a single accepted request between two failures proves little.
    /// Bounded below, since even many prove little at once.
    fn chance_since(self, then: BatchRequests) -> f64 {
        let accepted = (self.accepted - then.accepted) as f64;
        let failed = (self.failed - then.failed + 1) as f64;
        if accepted == 0.0 {
            return 0.0;
        }
        // It had failed twice before it was parked.
        let least = CHANCE_MAX.ln() / f64::from(ALONE_FAILURES_MAX - 2);
        (failed / (accepted + failed)).ln().max(least)
    }
}

/// What the rest of delivery knows when a parked event fails.
pub(super) struct DeliverySnapshot {
    pub(super) now: Instant,
    /// Requests begun so far, and the newest of them that was accepted, by number.
    pub(super) begun: u64,
    pub(super) accepted: u64,
    pub(super) others: BatchRequests,
}

impl ParkedEvent {
    /// Whether it may be given up for others.
    fn makes_room(&self) -> bool {
        self.proofs >= PROOFS_MIN
    }

    /// Why it is given up, for the dead letter.
    pub(super) fn why(&self, now: Instant) -> String {
        if self.entry.refused {
            return self.detail.clone();
        }
        let seconds = self
            .entry
            .alone_since
            .map_or(0, |since| now.duration_since(since).as_secs());
        format!(
            "{}; it failed alone {} times in {seconds}s, while other events were accepted",
            self.detail, self.entry.alone_failures
        )
    }
}

/// All of them, by the time at which they began to fail.
#[derive(Debug)]
pub(super) struct Parked {
    /// Parked events that are tried at the same time while others are accepted: an event that makes
    /// the receiver hang takes its request's whole time limit.
    requests_max: usize,
    /// In order of their first failure.
    waiting: VecDeque<ParkedEvent>,
    /// When the next of them is tried. There may be tens of thousands: not every request looks at all.
    soonest: Option<Instant>,
    /// Some of them are held.
    any_held: bool,
    /// Those that are being tried, with the numbers of their requests.
    retrying: Vec<(u64, ParkedEvent)>,
    bytes: usize,
    /// Those of events that make no room.
    kept_bytes: usize,
    logged_at: Option<Instant>,
    /// Consecutive failures with nothing accepted, and the end of the pause for all events because
    /// of them.
    held_failures: u32,
    not_before: Instant,
    /// A parked event was accepted after all, and none has proved to be the cause since.
    fails_at_random: bool,
}

impl Parked {
    pub(super) fn new(requests_max: usize) -> Parked {
        Parked {
            requests_max,
            waiting: VecDeque::new(),
            soonest: None,
            any_held: false,
            retrying: Vec::new(),
            bytes: 0,
            kept_bytes: 0,
            logged_at: None,
            held_failures: 0,
            not_before: Instant::now(),
            fails_at_random: false,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len() + self.retrying.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the receiver fails at random, as far as parked events show: good ones were parked.
    pub(super) fn receiver_fails_at_random(&self) -> bool {
        self.fails_at_random
    }

    /// Parked events, in no order.
    pub(super) fn entries(&self) -> impl Iterator<Item = &InFlightEvent> {
        let retrying = self.retrying.iter().map(|(_, parked)| parked);
        retrying.chain(&self.waiting).map(|parked| &parked.entry)
    }

    pub(super) fn status(&self) -> ParkedStatus {
        let retrying = self.retrying.iter().map(|(_, parked)| parked);
        let candidates = retrying.chain(self.waiting.front());
        ParkedStatus {
            events: self.len(),
            bytes: self.bytes,
            oldest: candidates.filter_map(|it| it.entry.alone_since).min(),
        }
    }

    /// The largest event for which there is room, or for which others make room; if all would, any.
    pub(super) fn room(&self) -> usize {
        match self.kept_bytes {
            0 => usize::MAX,
            bytes => PARKED_BYTES_MAX.saturating_sub(bytes),
        }
    }

    /// There is no room for another event: those that make none are tried again now, to find out.
    pub(super) fn hurry(&mut self, now: Instant) {
        let kept = self.waiting.iter_mut().filter(|it| !it.makes_room());
        for parked in kept {
            parked.at = parked.at.min(now);
        }
        self.find_soonest();
    }

    /// Parks an event that failed alone. If the room does not suffice, returns the oldest that make
    /// room, which are given up.
    pub(super) fn park(
        &mut self,
        mut entry: InFlightEvent,
        evidence: Evidence,
        detail: String,
        moment: &DeliverySnapshot,
        backoff: &mut Backoff,
    ) -> Vec<ParkedEvent> {
        let proofs = match evidence {
            Evidence::Refused | Evidence::OtherEvent => PROOFS_MIN,
            Evidence::Weak => 0,
        };
        let records = entry.item.records.as_slice();
        // How many there are, others choose: the metric counts them.
        if self
            .logged_at
            .is_none_or(|at| moment.now - at >= LOG_INTERVAL)
        {
            self.logged_at = Some(moment.now);
            tracing::warn!(
                detail,
                ?records,
                parked = self.len() + 1,
                "event parked: it fails alone while the webhook works; retrying"
            );
        } else {
            tracing::debug!(detail, ?records, "event parked");
        }
        // Copies the event, which may stay for long, so that its page is freed.
        entry.item.event = entry.item.event.detached();
        self.bytes += entry.parked_bytes();
        if proofs < PROOFS_MIN {
            self.kept_bytes += entry.parked_bytes();
        }
        self.put_back(ParkedEvent {
            at: moment.now + backoff.wait_parked(1),
            entry,
            detail,
            failed_at: moment.begun,
            others: moment.others,
            chance: 0.0,
            held: proofs == 0,
            proofs,
        });
        let mut given_up = Vec::new();
        while self.bytes > PARKED_BYTES_MAX
            && let Some(at) = self.waiting.iter().position(ParkedEvent::makes_room)
            && let Some(oldest) = self.waiting.remove(at)
        {
            self.leaves(&oldest);
            given_up.push(oldest);
        }
        if !given_up.is_empty() {
            self.find_soonest();
        }
        given_up
    }

    /// Frees the room of an event that leaves.
    fn leaves(&mut self, parked: &ParkedEvent) {
        let bytes = parked.entry.parked_bytes();
        self.bytes -= bytes;
        if !parked.makes_room() {
            self.kept_bytes -= bytes;
        }
    }

    /// Gives up all of them.
    pub(super) fn drain(&mut self) -> Vec<ParkedEvent> {
        (self.bytes, self.kept_bytes) = (0, 0);
        self.soonest = None;
        let retrying = self.retrying.drain(..).map(|(_, parked)| parked);
        retrying.chain(self.waiting.drain(..)).collect()
    }

    /// When the next one is tried; `None` while enough are, or when there is none.
    pub(super) fn next_at(&self) -> Option<Instant> {
        // While nothing is accepted, one shows as much as several.
        let requests_max = match self.held_failures {
            0 => self.requests_max,
            _ => 1,
        };
        if self.retrying.len() >= requests_max {
            return None;
        }
        debug_assert_eq!(
            self.soonest,
            self.waiting.iter().map(|parked| parked.at).min()
        );
        Some(self.soonest?.max(self.not_before))
    }

    /// After events left `waiting`, or their times were changed.
    fn find_soonest(&mut self) {
        self.soonest = self.waiting.iter().map(|parked| parked.at).min();
    }

    /// The event whose time has come; it goes in the request with this number.
    pub(super) fn begin(&mut self, number: u64, now: Instant) -> Option<&InFlightEvent> {
        if self.next_at()? > now {
            return None;
        }
        let at = self.waiting.iter().position(|parked| parked.at <= now)?;
        let parked = self.waiting.remove(at)?;
        self.find_soonest();
        self.retrying.push((number, parked));
        self.retrying.last().map(|(_, parked)| &parked.entry)
    }

    /// The one that was tried by this request, which has ended.
    fn tried(&mut self, number: u64) -> Option<ParkedEvent> {
        let at = self.retrying.iter().position(|(it, _)| *it == number)?;
        Some(self.retrying.swap_remove(at).1)
    }

    /// The one in this request is delivered.
    pub(super) fn accepted(&mut self, number: u64) -> Option<InFlightEvent> {
        let parked = self.tried(number)?;
        self.leaves(&parked);
        // If it was parked in an outage, it shows nothing.
        self.fails_at_random |= parked.proofs > 0;
        Some(parked.entry)
    }

    /// Something was accepted after an outage: events that failed meanwhile are retried now.
    pub(super) fn receiver_is_back(&mut self, now: Instant) {
        self.held_failures = 0;
        self.not_before = now;
        if !std::mem::take(&mut self.any_held) {
            return;
        }
        for parked in &mut self.waiting {
            if std::mem::take(&mut parked.held) {
                parked.at = now;
            }
        }
        self.find_soonest();
    }

    /// The one in this request failed. Returns it if it is given up: the receiver says that its body
    /// is bad, or it failed too often.
    pub(super) fn failed(
        &mut self,
        number: u64,
        failure: RequestFailure,
        moment: &DeliverySnapshot,
        backoff: &mut Backoff,
    ) -> Option<ParkedEvent> {
        let now = moment.now;
        let mut parked = self.tried(number)?;
        parked.at = now;
        if parked.entry.retries_stripped(failure.cause) {
            self.put_back(parked);
            return None;
        }
        parked.detail = failure.detail;
        parked.entry.refused = failure.cause.blames_body();
        let counts = moment.accepted > parked.failed_at && failure.cause.reached_receiver();
        let asked = failure.after.unwrap_or_default();
        if !counts {
            parked.held = failure.cause.reached_receiver();
            self.held_failures = self.held_failures.saturating_add(1);
            let wait = backoff.wait_asked(self.held_failures, failure.after);
            self.not_before = now + wait;
            parked.at = now + backoff.wait_parked(parked.entry.alone_failures);
            self.put_back(parked);
            return None;
        }
        parked.proofs = parked.proofs.saturating_add(1);
        if parked.proofs == PROOFS_MIN {
            self.kept_bytes -= parked.entry.parked_bytes();
        }
        parked.failed_at = moment.begun;
        parked.chance += moment.others.chance_since(parked.others);
        parked.others = moment.others;
        parked.entry.alone_failures += 1;
        self.fails_at_random &= parked.entry.alone_failures < CAUSE_FAILURES;
        let since = parked.entry.alone_since.unwrap_or(now);
        let too_often = parked.entry.alone_failures >= ALONE_FAILURES_MAX
            && parked.chance <= CHANCE_MAX.ln()
            && now.duration_since(since) >= ALONE_TIME_MIN;
        let is_refused = parked.entry.refused && (parked.makes_room() || self.len() < REFUSED_MAX);
        if is_refused || too_often {
            self.leaves(&parked);
            return Some(parked);
        }
        let wait = backoff.wait_parked(parked.entry.alone_failures);
        parked.at = now + wait.max(asked);
        self.put_back(parked);
        None
    }

    /// Inserts it in order of its first failure.
    fn put_back(&mut self, parked: ParkedEvent) {
        self.any_held |= parked.held;
        self.soonest = self.soonest.into_iter().chain([parked.at]).min();
        let since = parked.entry.alone_since;
        let place = self
            .waiting
            .partition_point(|other| other.entry.alone_since <= since);
        self.waiting.insert(place, parked);
    }
}
