//! One batch under way: what of it goes next, and what its failures show.

use std::collections::VecDeque;

use tokio::time::Instant;

use super::request_limit::RequestLimit;
use crate::batch::Item;
use crate::convert::Reject;
use crate::event::Event;
use crate::sink::Cause;

/// After this many failures alone, an event is compared with others of its batch. Before that the
/// failure may pass, and keeping the order is worth the wait.
const ALONE_BEFORE_COMPARING: u32 = 3;

/// Events of a batch that are sent alone to compare, before another batch is asked for.
const COMPARISONS_MAX: u32 = 8;

/// More events of a batch than this that fail one after the other may be good ones, to a receiver that
/// accepted an event and fails on all again.
const CULPRITS_IN_A_ROW_MAX: u32 = 16;

/// What timed out is divided into so many parts: what fails at once is halved, but each time-out
/// costs ten seconds, and an accepted request a few milliseconds. Where the receiver fails at
/// random, each part is another time-out, and two are enough.
const TIMEOUT_PARTS: usize = 16;

/// An event under way.
#[derive(Debug)]
pub(super) struct InFlightEvent {
    pub(super) item: Item,
    /// The bytes it came with, which are freed with its receipt.
    pub(super) charge: usize,
    /// The event as it came, while it is tried without its objects.
    original: Option<Event>,
    /// How many requests had begun when it was first in a failed one.
    failed_at: Option<u64>,
    /// When it first failed alone.
    pub(super) alone_since: Option<Instant>,
    /// The receiver called its body bad when it last failed alone.
    pub(super) refused: bool,
    /// How often it failed alone.
    pub(super) alone_failures: u32,
}

impl InFlightEvent {
    pub(super) fn new(item: Item) -> InFlightEvent {
        InFlightEvent {
            charge: item.event.text().len(),
            item,
            original: None,
            failed_at: None,
            alone_since: None,
            refused: false,
            alone_failures: 0,
        }
    }

    /// What it takes of the room for parked events: itself or its records, whichever is more. Both
    /// stay in memory.
    pub(super) fn parked_bytes(&self) -> usize {
        self.charge.max(self.item.records_bytes)
    }

    /// Notes that the event failed alone. Returns whether to try it once more without its objects,
    /// because the receiver finds it too large. If that attempt fails too, the original is
    /// restored.
    pub(super) fn retries_stripped(&mut self, cause: Cause) -> bool {
        if let Some(original) = self.original.take() {
            self.item.event = original;
            return false;
        }
        if cause != Cause::Status(413) {
            return false;
        }
        let Some(event) = self.item.event.without_objects() else {
            return false;
        };
        self.original = Some(std::mem::replace(&mut self.item.event, event));
        true
    }

    /// Whether it fails alone, and something was accepted since its first failed request (or ever,
    /// if the receiver calls its body bad, and that of `few` others). This is weaker evidence than
    /// parking needs, since both failures may have been passing ones.
    pub(super) fn is_suspect(&self, accepted: u64, few: bool) -> bool {
        let proven = self.is_proven(accepted) || self.refused && few && accepted > 0;
        self.alone_since.is_some() && proven
    }

    /// Whether the request with this number, which was accepted, began after its first failure.
    pub(super) fn is_proven(&self, accepted: u64) -> bool {
        self.failed_at.is_some_and(|at| accepted > at)
    }

    /// Why it is given up.
    pub(super) fn reject_reason(&self) -> Reject {
        match self.refused {
            true => Reject::REFUSED,
            false => Reject::UNDELIVERABLE,
        }
    }

    /// Whether it goes without its objects now.
    pub(super) fn is_stripped(&self) -> bool {
        self.original.is_some()
    }
}

/// What a job does after a failure.
#[derive(Debug)]
pub(super) enum Next {
    /// It tries again, after a while.
    Wait,
    /// It sends something else at once: half of what failed, or the event without its objects.
    AtOnce,
    /// Its first event fails alone, and nothing was accepted since: another event must show
    /// whether the receiver takes any.
    Compare,
    /// This event failed, then something else was accepted, or an empty list, then it failed alone.
    Culprit(Box<InFlightEvent>, Evidence),
}

/// What shows that an event, and not the receiver, is to blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Evidence {
    /// The receiver calls its body bad, and accepted another event just now.
    Refused,
    /// The receiver accepted another event within a minute.
    OtherEvent,
    /// The receiver may fail on all events: it accepted an empty list only, or another event before many
    /// that failed.
    Weak,
}

/// What the receiver took while a job failed.
#[derive(Debug, Clone, Copy)]
pub(super) struct OthersAccepted {
    /// The newest request that was, by number.
    pub(super) newest: u64,
    /// Whether anything was: a moment ago, since the job last failed, or by a request that began
    /// after the failed one.
    pub(super) lately: bool,
    /// Whether anything was within a minute.
    pub(super) worked: bool,
    /// The same, or an empty list: the receiver may work, and what fails be to blame.
    pub(super) recently: bool,
    /// The newest empty list that was before the failed request began, by number; 0 for none.
    pub(super) probed: u64,
    /// The largest event for which there is room to park it.
    pub(super) park_bytes_max: usize,
    /// The receiver fails at random: a request that failed may have no event to blame.
    pub(super) at_random: bool,
}

/// What a job does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum JobState {
    /// A request is in flight. `outdone`: one at least as large was accepted meanwhile.
    Sending { sent: usize, outdone: bool },
    /// It begins its next request then. `asked`: the receiver asked for this wait.
    Waiting { at: Instant, asked: bool },
    /// It waits for something to be accepted, or to be compared with an older batch.
    Asleep,
}

/// A batch under way.
///
/// A batch that fails twice goes on with its first event alone, to see whether the receiver takes
/// anything. If it does, the rest is halved until what fails is alone too. After a time-out it is
/// divided into more parts, and at once if the receiver takes others.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) id: u64,
    pub(super) entries: VecDeque<InFlightEvent>,
    pub(super) state: JobState,
    /// Where the next request begins: at the front, or further on to compare.
    pub(super) from: usize,
    /// How many events it may have.
    take: usize,
    /// How many events from the front failed together; 0 when unknown.
    suspects: usize,
    /// The most events of a request after a time-out. It grows again once no suspects are left.
    part: usize,
    /// Waits since something of it was accepted.
    pub(super) waits: u32,
    /// Requests begun when it last failed.
    pub(super) failed_at: u64,
    /// Its wait was cut short since then.
    hurried: bool,
    /// Comparisons in vain.
    comparisons: u32,
    /// How many others were compared, in vain, since one of it was accepted.
    compared: usize,
    /// Events that were to blame since one of it was accepted.
    pub(super) culprits: u32,
}

impl Job {
    pub(super) fn new(id: u64, entries: VecDeque<InFlightEvent>, now: Instant) -> Job {
        Job {
            id,
            entries,
            state: JobState::Waiting {
                at: now,
                asked: false,
            },
            from: 0,
            take: usize::MAX,
            suspects: 0,
            part: usize::MAX,
            waits: 0,
            failed_at: u64::MAX,
            hurried: false,
            comparisons: 0,
            compared: 0,
            culprits: 0,
        }
    }

    /// Whether no event that it tried is accepted: another batch must show whether the receiver
    /// accepts any, so this one does not count for a slot.
    pub(super) fn is_stuck(&self) -> bool {
        self.comparisons >= COMPARISONS_MAX
    }

    /// Whether its first event has failed alone so often, or so many others have, that only the
    /// receiver's state can tell whether it is to blame.
    pub(super) fn needs_proof(&self) -> bool {
        let first = self.entries.front();
        self.is_stuck() || first.is_some_and(|it| it.alone_failures >= ALONE_BEFORE_COMPARING)
    }

    /// What its first event takes when parked.
    pub(super) fn first_bytes(&self) -> usize {
        self.entries.front().map_or(0, InFlightEvent::parked_bytes)
    }

    pub(super) fn is_sending(&self) -> bool {
        matches!(self.state, JobState::Sending { .. })
    }

    /// When it begins its next request.
    pub(super) fn begins_at(&self) -> Option<Instant> {
        match self.state {
            JobState::Waiting { at, .. } => Some(at),
            JobState::Sending { .. } | JobState::Asleep => None,
        }
    }

    /// How many events go in the next request.
    pub(super) fn next_len(&self, limit: &RequestLimit) -> usize {
        let most = self.take.min(limit.events).max(1);
        let mut bytes = 0;
        let fits = self
            .entries
            .iter()
            .skip(self.from)
            .take(most)
            .take_while(|entry| {
                bytes += entry.charge;
                bytes <= limit.bytes
            });
        fits.count().max(1)
    }

    /// The receiver took these many events from where the request began.
    pub(super) fn accepted(&mut self, sent: usize) -> Vec<InFlightEvent> {
        let from = std::mem::take(&mut self.from);
        let taken = self.entries.drain(from..from + sent).collect();
        if from == 0 {
            self.suspects = self.suspects.saturating_sub(sent);
            self.take = match self.suspects {
                0 => {
                    self.part = self.part.saturating_mul(TIMEOUT_PARTS);
                    self.part
                }
                suspects => suspects.min(self.part),
            };
        } else {
            // Continue with the first event, which the accepted one was compared with.
            self.take = 1;
        }
        self.waits = 0;
        self.hurried = false;
        self.culprits = 0;
        self.compared = 0;
        taken
    }

    /// A request failed that had these many events. `others` is what the receiver takes meanwhile,
    /// `begun` the newest request that was begun.
    pub(super) fn failed(
        &mut self,
        sent: usize,
        cause: Cause,
        others: OthersAccepted,
        begun: u64,
        now: Instant,
    ) -> Next {
        if sent == 1
            && let Some(entry) = self.entries.get_mut(self.from)
            && entry.retries_stripped(cause)
        {
            return Next::AtOnce;
        }
        self.failed_at = begun;
        match sent {
            _ if !cause.reached_receiver() => Next::Wait,
            1 => self.failed_alone(cause, others, begun, now),
            _ => self.failed_together(sent, cause, others, begun),
        }
    }

    fn failed_together(
        &mut self,
        sent: usize,
        cause: Cause,
        others: OthersAccepted,
        begun: u64,
    ) -> Next {
        for entry in self.entries.range_mut(..sent) {
            entry.failed_at.get_or_insert(begun);
        }
        let timed_out = cause == Cause::Timeout;
        let dividing = self.suspects > 0 || cause.blames_body() || timed_out && others.lately;
        if !dividing && self.waits == 0 {
            return Next::Wait;
        }
        self.hurried = false;
        self.suspects = sent;
        self.part = match timed_out {
            true if !others.at_random => (sent / TIMEOUT_PARTS).max(1),
            _ => usize::MAX,
        };
        self.take = match dividing {
            true => self.part.min(sent / 2),
            false => 1,
        };
        if dividing { Next::AtOnce } else { Next::Wait }
    }

    fn failed_alone(
        &mut self,
        cause: Cause,
        others: OthersAccepted,
        begun: u64,
        now: Instant,
    ) -> Next {
        let from = self.from;
        let Some(entry) = self.entries.get_mut(from) else {
            return Next::Wait;
        };
        entry.refused = cause.blames_body();
        entry.alone_failures += 1;
        entry.alone_since.get_or_insert(now);
        // Something was accepted since it first failed, and not long ago, though others of its batch
        // may have failed since. Where many events fail, each would otherwise wait for one to be
        // accepted between two of its failures, and hold up all others meanwhile. What is refused
        // goes to the dead letter at once, and needs newer evidence than what is parked.
        let fits = entry.parked_bytes() <= others.park_bytes_max;
        let is_proven = entry.is_proven(others.newest);
        let works = others.lately || others.worked;
        let is_strong = is_proven && works && self.culprits < CULPRITS_IN_A_ROW_MAX;
        let evidence = if is_strong && others.lately && cause.blames_body() {
            Some(Evidence::Refused)
        } else if is_strong && fits {
            Some(Evidence::OtherEvent)
        } else if fits && (is_proven && works || entry.is_proven(others.probed)) {
            Some(Evidence::Weak)
        } else {
            None
        };
        entry.failed_at.get_or_insert(begun);
        // A receiver that refuses bodies has looked at them, and one that takes others works: the
        // next one needs no wait. A time-out was a wait, if this is the first one.
        let compares = cause.blames_body()
            || others.lately
            || others.recently && self.comparisons < COMPARISONS_MAX
            || (cause == Cause::Timeout && self.waits == 0)
            || entry.alone_failures >= ALONE_BEFORE_COMPARING;
        self.take = 1;
        self.suspects = self.suspects.max(1);
        if let Some(evidence) = evidence
            && let Some(culprit) = self.entries.remove(from)
        {
            // Others may be bad, too: send them alone until one is accepted. After time-outs, the
            // next requests are small, too.
            self.from = 0;
            (self.suspects, self.part) = match cause {
                Cause::Timeout => (0, 1),
                _ => (self.entries.len(), usize::MAX),
            };
            self.waits = 0;
            self.hurried = false;
            self.culprits = self.culprits.saturating_add(1);
            return Next::Culprit(Box::new(culprit), evidence);
        }
        if from > 0 {
            self.comparisons += 1;
            self.from = 0;
            let goes_on = cause.blames_body() || others.recently;
            return match others.lately || goes_on && !self.is_stuck() {
                true => Next::Compare,
                false => Next::Wait,
            };
        }
        match compares {
            true => Next::Compare,
            false => Next::Wait,
        }
    }

    /// Sends another event than the first, alone, in the next request. Returns false if there is
    /// none.
    pub(super) fn compare(&mut self) -> bool {
        let others = self.entries.len().saturating_sub(1);
        if others == 0 {
            self.comparisons = COMPARISONS_MAX;
            return false;
        }
        // 1, 2, 4, … behind the first: bad events often come in rows. Then each.
        self.from = match 1_usize.checked_shl(u32::try_from(self.compared).unwrap_or(u32::MAX)) {
            Some(far) if far <= others => far,
            _ => 1 + self.compared % others,
        };
        self.compared += 1;
        true
    }

    /// Waits until then.
    pub(super) fn wait(&mut self, at: Instant, asked: bool) {
        self.state = JobState::Waiting { at, asked };
    }

    /// Another request was accepted, with this number and size. Ends a wait, but only once per
    /// failure, so that failing events are not retried after every accepted request.
    pub(super) fn others_accepted(&mut self, number: u64, events: usize, now: Instant) {
        self.comparisons = 0;
        if !self.is_sending() {
            self.from = 0;
        }
        match &mut self.state {
            JobState::Sending { sent, outdone } => *outdone |= events >= *sent,
            JobState::Waiting { .. } => {
                if !self.hurried && number > self.failed_at {
                    self.hurried = true;
                    self.skip_wait(now);
                }
            }
            JobState::Asleep => self.wait(now, false),
        }
    }

    /// Ends the wait, unless the receiver asked for it.
    pub(super) fn skip_wait(&mut self, now: Instant) {
        if let JobState::Waiting { at, asked: false } = &mut self.state {
            *at = now;
        }
    }
}
