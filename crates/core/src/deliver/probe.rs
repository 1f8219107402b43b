//! Asks the receiver with an empty list whether it works, while it accepts none of the events.
//!
//! Where hardly any event is accepted, those that fail would fill all slots before one is found that
//! shows that they are to blame. An empty list that is accepted shows it, too, but weakly: a
//! receiver that accepts it may still fail on all events. So it is reason enough to park an event,
//! and never to give one up.

use std::time::Duration;

use tokio::time::Instant;

use crate::retry::Backoff;

/// The least time between the beginnings of two probes. It doubles where there is no room to park what
/// fails, and each probe only makes batches look for an event that is accepted.
const INTERVAL: Duration = Duration::from_secs(1);
const INTERVAL_MAX: Duration = Duration::from_secs(300);

#[derive(Debug)]
pub(super) struct Probe {
    /// An event fails alone, and nothing was accepted since it failed first.
    is_due: bool,
    in_flight: bool,
    /// Probes that were accepted without room since an event was accepted.
    searches: u32,
    has_room: bool,
    not_before: Instant,
    /// Consecutive failures.
    failures: u32,
    /// The newest that was accepted: its request's number, and when.
    accepted: Option<(u64, Instant)>,
}

impl Probe {
    pub(super) fn new() -> Probe {
        Probe {
            is_due: false,
            in_flight: false,
            searches: 0,
            has_room: true,
            not_before: Instant::now(),
            failures: 0,
            accepted: None,
        }
    }

    /// The receiver is asked as soon as may be. `has_room`: for an event for which there is room.
    pub(super) fn want(&mut self, has_room: bool) {
        self.is_due = true;
        self.has_room = has_room;
    }

    /// An event was accepted, which shows more.
    pub(super) fn cancel(&mut self) {
        self.is_due = false;
        self.searches = 0;
    }

    /// When the next one begins.
    pub(super) fn begins_at(&self) -> Option<Instant> {
        (self.is_due && !self.in_flight).then_some(self.not_before)
    }

    pub(super) fn begin(&mut self, now: Instant) {
        self.is_due = false;
        self.in_flight = true;
        let interval = INTERVAL.saturating_mul(1 << self.searches.min(16));
        self.not_before = now + interval.min(INTERVAL_MAX);
    }

    /// The one in this request was accepted.
    pub(super) fn accepted(&mut self, number: u64, now: Instant) {
        self.in_flight = false;
        self.failures = 0;
        self.searches = match self.has_room {
            true => 0,
            false => self.searches.saturating_add(1),
        };
        self.accepted = Some((number, now));
    }

    /// It failed, and the receiver asked for this wait.
    pub(super) fn failed(&mut self, after: Option<Duration>, now: Instant, backoff: &mut Backoff) {
        self.in_flight = false;
        self.failures = self.failures.saturating_add(1);
        let wait = backoff.wait_asked(self.failures, after);
        self.not_before = self.not_before.max(now + wait);
    }

    /// Whether there was room to park the event for which one was wanted last.
    pub(super) fn has_room(&self) -> bool {
        self.has_room
    }

    /// The request's number of the newest that was accepted; 0 if none was.
    pub(super) fn newest(&self) -> u64 {
        self.accepted.map_or(0, |(number, _)| number)
    }

    /// Whether one was accepted no longer ago than this.
    pub(super) fn accepted_within(&self, now: Instant, time: Duration) -> bool {
        self.accepted
            .is_some_and(|(_, at)| now.duration_since(at) < time)
    }
}
