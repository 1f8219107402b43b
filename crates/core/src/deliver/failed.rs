//! What a failed request shows, and what follows for its events.

use std::time::Duration;

use tokio::time::Instant;

use super::job::{Evidence, InFlightEvent, Job, JobState, Next, OthersAccepted};
use super::parked::{DeliverySnapshot, ParkedEvent};
use super::{Answer, Delivery, Receipt};
use crate::convert::Reject;
use crate::sink::{Cause, RequestFailure, Sink};

/// All slots pause for a `Retry-After` only if the receiver accepted nothing for this long.
const TAKES_OTHERS: Duration = Duration::from_secs(1);

/// A receiver that accepted something this recently may work, so that what fails is searched for at
/// once: where many events fail, hardly any is accepted, and each wait would hold up all others.
const WORKED_RECENTLY: Duration = Duration::from_secs(60);

/// The longest wait between two batches' turns then.
const TURN_WAIT_MAX: Duration = Duration::from_secs(1);

/// The wait of a batch behind an event that was parked on weak evidence, if no event was accepted so
/// recently: the receiver may be overloaded, and each event is a request.
const PARKING_PACE: Duration = Duration::from_millis(50);

impl<S: Sink + 'static> Delivery<S> {
    /// Counts a request of another pipeline that the receiver accepted: it shows as well as one of
    /// our own that the receiver accepts other events than the failing ones. Otherwise a log that
    /// has nothing else to send would hold its event for ever. The request counts once, and only if
    /// it began after all our failures.
    pub(super) fn hear_of_others(&mut self, now: Instant) {
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
        self.probe.cancel();
    }

    /// A request for events failed.
    pub(super) fn failed(&mut self, answer: &Answer, failure: RequestFailure, now: Instant) {
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
        let probed = self.probe.accepted_within(now, WORKED_RECENTLY);
        let worked = self.health.accepted_within(now, WORKED_RECENTLY);
        let recently = probed || worked;
        let others = OthersAccepted {
            newest: self.accepted,
            lately: takes_others,
            worked,
            recently,
            probed: answer.probed,
            park_bytes_max: self.parked.room(),
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
                _ if job.compare() => Next::AtOnce,
                _ => Next::Wait,
            };
        }
        let job = &self.jobs[at];
        let searches = answer.events == 1 && failure.cause.reached_receiver();
        if searches && (job.needs_proof() || probed) && !matches!(next, Next::Culprit(..)) {
            let has_room = job.first_bytes() <= self.parked.room();
            self.probe.want(has_room);
            if !has_room && worked {
                self.parked.hurry(now);
            }
        }
        if let Some(turn) = next_turn {
            self.jobs[turn].wait(now, false);
        }
        let job = &mut self.jobs[at];
        let asked = failure
            .after
            .is_some_and(|after| after >= Duration::from_secs(1));
        match next {
            Next::Culprit(entry, evidence) => {
                self.bytes -= entry.charge;
                match evidence {
                    Evidence::Weak if asked && job.culprits > 1 => {
                        job.wait(now + self.backoff.wait_asked(1, failure.after), true);
                    }
                    Evidence::Weak if !worked => job.wait(now + PARKING_PACE, false),
                    _ => job.wait(now, false),
                }
                self.remove_if_done(at);
                self.set_aside(*entry, evidence, failure, now);
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
                // Without room, each probe is followed by one search.
                let worth = worked || probed && self.probe.has_room();
                let searches = worth && job.is_stuck() && failure.cause.reached_receiver();
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

    pub(super) fn remove_if_done(&mut self, at: usize) {
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

    /// An event that fails alone while the receiver works leaves its slot.
    fn set_aside(
        &mut self,
        entry: InFlightEvent,
        evidence: Evidence,
        failure: RequestFailure,
        now: Instant,
    ) {
        if evidence == Evidence::Refused {
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
            .park(entry, evidence, failure.detail, &moment, &mut self.backoff);
        for parked in oldest {
            self.reject(parked, now);
        }
    }

    fn parked_failed(&mut self, number: u64, failure: RequestFailure, now: Instant) {
        let moment = self.moment(now);
        let given_up = self
            .parked
            .failed(number, failure, &moment, &mut self.backoff);
        if let Some(parked) = given_up {
            self.reject(parked, now);
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

    pub(super) fn reject(&mut self, parked: ParkedEvent, now: Instant) {
        self.receipts.push_back(Receipt::Rejected {
            error: parked.why(now),
            reason: parked.entry.reject_reason(),
            item: parked.entry.item,
        });
    }
}
