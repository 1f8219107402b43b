//! From one record to events: a pure function that cannot fail the stream.
//!
//! Every record ends as exactly one of *converted* (its events are delivered), *skipped* for a
//! reason, or *rejected* for a reason (and kept in the dead letter). A converter may hold a record
//! until others arrive (a log entry that the provider split); what it holds it must emit later.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Deref;

use crate::event::Event;
use crate::event::conformance::EventError;
use crate::record::Record;

/// Names one record on its way through the pipeline; ascending in read order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordId(pub u64);

/// The records that an event was made of. Nearly always one: no allocation for that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Records {
    /// One record.
    One(RecordId),
    /// The parts of an entry that the provider had split.
    Many(Box<[RecordId]>),
}

impl Records {
    /// The records, in the order given.
    pub fn as_slice(&self) -> &[RecordId] {
        match self {
            Records::One(id) => std::slice::from_ref(id),
            Records::Many(ids) => ids,
        }
    }
}

impl Deref for Records {
    type Target = [RecordId];

    fn deref(&self) -> &[RecordId] {
        self.as_slice()
    }
}

impl From<RecordId> for Records {
    fn from(id: RecordId) -> Records {
        Records::One(id)
    }
}

impl From<Vec<RecordId>> for Records {
    fn from(ids: Vec<RecordId>) -> Records {
        match ids[..] {
            [id] => Records::One(id),
            _ => Records::Many(ids.into()),
        }
    }
}

/// Why a record is not for us: counted, never an error, not kept. Each bridge has reasons of its own,
/// as constants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Skip(&'static str);

impl Skip {
    /// No audit event, and never claimed to be one.
    pub const NOT_AUDIT: Skip = Skip::new("not_audit");
    /// Another cluster's record.
    pub const OTHER_CLUSTER: Skip = Skip::new("other_cluster");

    /// A reason by its name in reports and metrics: lower-case letters and underscores.
    ///
    /// # Panics
    /// It is not written so; for a constant, the compiler says so.
    pub const fn new(name: &'static str) -> Skip {
        assert!(is_reason(name), "lower-case letters and underscores");
        Skip(name)
    }

    /// The reason's name in reports and metrics.
    pub fn name(self) -> &'static str {
        self.0
    }
}

/// Why a record, or an event made of it, is in the dead letter. Each bridge may have reasons of its
/// own, as constants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reject(&'static str);

impl Reject {
    /// It claims to be an audit record and cannot be read as one.
    pub const UNPARSABLE: Reject = Reject::new("unparsable");
    /// The provider cut it before what a receiver needs.
    pub const TRUNCATED: Reject = Reject::new("truncated");
    /// Larger than receivers take, even without its objects.
    pub const TOO_LARGE: Reject = Reject::new("too_large");
    /// The webhook refused this event, and accepted others.
    pub const REFUSED: Reject = Reject::new("refused");
    /// The receiver took the event only without its objects: this is the original.
    pub const STRIPPED: Reject = Reject::new("stripped");
    /// The webhook failed on this event, alone, again and again, and accepted others meanwhile.
    pub const UNDELIVERABLE: Reject = Reject::new("undeliverable");
    /// The converter itself failed on it: please report it, with the record.
    pub const DEFECT: Reject = Reject::new("defect");

    /// A reason by its name in the dead letter, in reports and metrics: lower-case letters and
    /// underscores.
    ///
    /// # Panics
    /// It is not written so; for a constant, the compiler says so.
    pub const fn new(name: &'static str) -> Reject {
        assert!(is_reason(name), "lower-case letters and underscores");
        Reject(name)
    }

    /// The reason's name in the dead letter, in reports and metrics.
    pub fn name(self) -> &'static str {
        self.0
    }
}

/// Whether a name can be a reason's.
const fn is_reason(name: &str) -> bool {
    let name = name.as_bytes();
    let mut at = 0;
    while at < name.len() {
        if !name[at].is_ascii_lowercase() && name[at] != b'_' {
            return false;
        }
        at += 1;
    }
    at > 0
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a record gives no event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// It is not for us.
    Skip(Skip),
    /// It cannot be made one.
    Failure(EventError),
}

impl Refusal {
    /// It never claimed to be an audit event.
    pub fn not_audit(error: impl Into<String>) -> Refusal {
        Refusal::Failure(EventError::NotAudit(error.into()))
    }

    /// It claims to be one and cannot be read as one.
    pub fn unparsable(error: impl Into<String>) -> Refusal {
        Refusal::Failure(EventError::Unparsable(error.into()))
    }
}

impl From<EventError> for Refusal {
    fn from(failure: EventError) -> Refusal {
        Refusal::Failure(failure)
    }
}

/// One thing a converter decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// An event to deliver. It settles the records once the webhook has it; several records when
    /// the provider had split the entry.
    Event {
        event: Event,
        /// The records it was made of.
        records: Records,
    },
    /// The record is not for us.
    Skip {
        /// Which.
        record: RecordId,
        /// Why.
        reason: Skip,
    },
    /// The record goes to the dead letter.
    Reject {
        /// Which.
        record: RecordId,
        /// Why, in a word.
        reason: Reject,
        /// Why, for a person.
        error: String,
    },
}

impl Outcome {
    /// Whether it is of one record alone, and which.
    fn record(&self) -> Option<RecordId> {
        match self {
            Outcome::Event {
                records: Records::One(id),
                ..
            } => Some(*id),
            Outcome::Event { .. } => None,
            Outcome::Skip { record, .. } | Outcome::Reject { record, .. } => Some(*record),
        }
    }

    /// The same of one record under another name.
    fn renamed(mut self, id: RecordId) -> Outcome {
        match &mut self {
            Outcome::Event { records, .. } => *records = id.into(),
            Outcome::Skip { record, .. } | Outcome::Reject { record, .. } => *record = id,
        }
        self
    }
}

/// What a [fork](Convert::fork) decided about the records of a page, by their number in it.
#[derive(Debug, Default)]
pub struct EarlyOutcomes(VecDeque<Outcome>);

impl EarlyOutcomes {
    /// Takes what was decided about the newest record.
    pub fn take(&mut self, out: &mut Output) {
        self.0.extend(out.drain());
    }

    /// Moves what was decided about this record of the page to `out`; false if nothing was.
    pub fn take_record(&mut self, number: usize, id: RecordId, out: &mut Output) -> bool {
        let number = Some(RecordId(number as u64));
        let before = out.outcomes.len();
        while self.0.front().is_some_and(|it| it.record() == number) {
            let outcome = self.0.pop_front();
            out.outcomes
                .extend(outcome.map(|outcome| outcome.renamed(id)));
        }
        out.outcomes.len() > before
    }
}

/// Where a converter puts what it decided.
#[derive(Debug, Default)]
pub struct Output {
    outcomes: Vec<Outcome>,
}

impl Output {
    /// An event that this one record gives. A record may give several.
    pub fn event(&mut self, record: RecordId, event: Event) {
        self.outcomes.push(Outcome::Event {
            event,
            records: record.into(),
        });
    }

    /// An event made of several records.
    pub fn joined(&mut self, records: impl Into<Records>, event: Event) {
        self.outcomes.push(Outcome::Event {
            event,
            records: records.into(),
        });
    }

    /// The record is not for us.
    pub fn skip(&mut self, record: RecordId, reason: Skip) {
        self.outcomes.push(Outcome::Skip { record, reason });
    }

    /// The record cannot become an event.
    pub fn reject(&mut self, record: RecordId, reason: Reject, error: impl Into<String>) {
        self.outcomes.push(Outcome::Reject {
            record,
            reason,
            error: error.into(),
        });
    }

    /// What became of this record, in one event or none.
    pub fn settle(
        &mut self,
        id: RecordId,
        record: &Record,
        result: Result<Event, impl Into<Refusal>>,
    ) {
        match result.map_err(Into::into) {
            Ok(event) => self.event(id, event),
            Err(Refusal::Skip(reason)) => self.skip(id, reason),
            // What stands in a damaged place is no stranger: it may be half of a record.
            Err(Refusal::Failure(EventError::NotAudit(_))) if !record.damaged => {
                self.skip(id, Skip::NOT_AUDIT);
            }
            Err(Refusal::Failure(failure)) => {
                let reason = match failure {
                    EventError::Truncated(_) => Reject::TRUNCATED,
                    EventError::TooLarge { .. } => Reject::TOO_LARGE,
                    EventError::NotAudit(_) | EventError::Unparsable(_) => Reject::UNPARSABLE,
                };
                self.reject(id, reason, failure.to_string());
            }
        }
    }

    /// Whether something was decided about this record since the last drain.
    pub(crate) fn decides(&self, id: RecordId) -> bool {
        self.outcomes.iter().any(|outcome| match outcome {
            Outcome::Event { records, .. } => records.contains(&id),
            Outcome::Skip { record, .. } | Outcome::Reject { record, .. } => *record == id,
        })
    }

    /// Takes what was decided since the last call.
    pub fn drain(&mut self) -> std::vec::Drain<'_, Outcome> {
        self.outcomes.drain(..)
    }
}

/// Turns a provider's records into audit events.
///
/// Total: every record, however broken, ends in an outcome, now or (if the converter holds it) in
/// a later call. No clock and no I/O; time comes in as an argument.
pub trait Convert: Send {
    /// Decides about one record, or holds it: then it emits nothing for it yet.
    fn convert(&mut self, id: RecordId, record: &Record, out: &mut Output);

    /// The same conversion for another thread, which decides about records where they are read. It
    /// knows the others' records as far as that matters, holds none, and decides nothing about one
    /// that has to wait for others: that one comes to this converter. `None`: there is no such.
    fn fork(&self) -> Option<Box<dyn Convert>> {
        None
    }

    /// Whether it holds this record, about which it has decided nothing yet.
    fn is_holding(&self, id: RecordId) -> bool {
        let _ = id;
        false
    }

    /// Decides about held records that have waited too long. `now` is monotonic, since the start.
    fn overdue(&mut self, now: std::time::Duration, out: &mut Output) {
        let _ = (now, out);
    }

    /// No record will follow: decides about all that are still held.
    fn finish(&mut self, out: &mut Output) {
        let _ = out;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reason_name_other_than_a_label_is_refused() {
        for name in ["other_log", "duplicate"] {
            assert!(is_reason(name), "{name}");
        }
        for name in ["", "Other", "other log", "other-log", "other\n"] {
            assert!(!is_reason(name), "{name:?}");
        }
    }
}
