//! From one record to events: a pure function that cannot fail the stream.
//!
//! Every record ends as exactly one of *converted* (its events are delivered), *skipped* for a
//! reason, or *rejected* for a reason (and kept in the dead letter). A converter may hold a record
//! until others arrive (parts of a log entry that the provider split); it must decide about it
//! later.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Deref;

use crate::event::Event;
use crate::event::conformance::EventError;
use crate::record::Record;

/// Identifies one record on its way through the pipeline; ascending in read order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordId(pub u64);

/// The records that an event was made of: nearly always one, which needs no allocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Records {
    One(RecordId),
    /// The parts of an entry that the provider split.
    Many(Box<[RecordId]>),
}

impl Records {
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

/// Why a record is skipped: counted, never an error, not kept. Each bridge defines reasons of its
/// own as constants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Skip(&'static str);

impl Skip {
    /// Not an audit event, and does not claim to be one.
    pub const NOT_AUDIT: Skip = Skip::new("not_audit");
    /// Another cluster's record.
    pub const OTHER_CLUSTER: Skip = Skip::new("other_cluster");

    /// A reason with this name in reports and metrics: lower-case letters and underscores.
    ///
    /// # Panics
    /// If the name is malformed; in a constant, compilation fails.
    pub const fn new(name: &'static str) -> Skip {
        assert!(is_reason(name), "lower-case letters and underscores");
        Skip(name)
    }

    /// The reason's name in reports and metrics.
    pub fn name(self) -> &'static str {
        self.0
    }
}

/// Why a record, or an event made of it, is in the dead letter. Each bridge may define reasons of
/// its own as constants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reject(&'static str);

impl Reject {
    /// The record claims to be an audit record but cannot be parsed as one.
    pub const UNPARSABLE: Reject = Reject::new("unparsable");
    /// The provider truncated the record before a member that receivers need.
    pub const TRUNCATED: Reject = Reject::new("truncated");
    /// The event exceeds what receivers accept, even without its objects; or the record exceeds the
    /// largest size that is read.
    pub const TOO_LARGE: Reject = Reject::new("too_large");
    /// The webhook refused this event and accepted others.
    pub const REFUSED: Reject = Reject::new("refused");
    /// The receiver accepted the event only without its objects; the dead letter keeps the
    /// original.
    pub const STRIPPED: Reject = Reject::new("stripped");
    /// The webhook failed repeatedly on this event alone, and accepted others meanwhile.
    pub const UNDELIVERABLE: Reject = Reject::new("undeliverable");
    /// The converter panicked on the record, which is a bug: please report it with the record.
    pub const DEFECT: Reject = Reject::new("defect");

    /// A reason with this name in the dead letter, reports and metrics: lower-case letters and
    /// underscores.
    ///
    /// # Panics
    /// If the name is malformed; in a constant, compilation fails.
    pub const fn new(name: &'static str) -> Reject {
        assert!(is_reason(name), "lower-case letters and underscores");
        Reject(name)
    }

    /// The reason's name in the dead letter, reports and metrics.
    pub fn name(self) -> &'static str {
        self.0
    }
}

/// Whether the name is valid for a reason.
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

/// Why a record becomes no event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The record is not meant for this bridge.
    Skip(Skip),
    /// The record should become an event but cannot.
    Failure(EventError),
}

impl Refusal {
    /// The record does not claim to be an audit event.
    pub fn not_audit(error: impl Into<String>) -> Refusal {
        Refusal::Failure(EventError::NotAudit(error.into()))
    }

    /// The record claims to be an audit event but cannot be parsed as one.
    pub fn unparsable(error: impl Into<String>) -> Refusal {
        Refusal::Failure(EventError::Unparsable(error.into()))
    }
}

impl From<EventError> for Refusal {
    fn from(failure: EventError) -> Refusal {
        Refusal::Failure(failure)
    }
}

/// One decision of a converter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// An event to deliver. Its delivery settles the records: several when the provider split the
    /// entry.
    Event {
        event: Event,
        /// The records that the event was made of.
        records: Records,
    },
    /// The record is skipped.
    Skip {
        record: RecordId,
        /// A constant of [`Skip`] or of the bridge.
        reason: Skip,
    },
    /// The record goes to the dead letter.
    Reject {
        record: RecordId,
        /// The reason, for metrics.
        reason: Reject,
        /// The reason, for people.
        error: String,
    },
}

impl Outcome {
    /// The record, if the outcome concerns only one.
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

    /// The same outcome, for the same record under another ID.
    fn renamed(mut self, id: RecordId) -> Outcome {
        match &mut self {
            Outcome::Event { records, .. } => *records = id.into(),
            Outcome::Skip { record, .. } | Outcome::Reject { record, .. } => *record = id,
        }
        self
    }
}

/// What a [fork](Convert::fork) decided about the records of a page, by their number in the page.
#[derive(Debug, Default)]
pub struct EarlyOutcomes(VecDeque<Outcome>);

impl EarlyOutcomes {
    /// Takes the outcome for the newest record.
    pub fn take(&mut self, out: &mut Output) {
        self.0.extend(out.drain());
    }

    /// Moves the outcome for this record of the page to `out`; false if there is none.
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

/// Collects a converter's decisions.
#[derive(Debug, Default)]
pub struct Output {
    outcomes: Vec<Outcome>,
}

impl Output {
    /// An event made of this one record. A record may become several events.
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

    /// The record is not meant for this bridge.
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

    /// The outcome of a record that becomes one event or none.
    pub fn settle(
        &mut self,
        id: RecordId,
        record: &Record,
        result: Result<Event, impl Into<Refusal>>,
    ) {
        match result.map_err(Into::into) {
            Ok(event) => self.event(id, event),
            Err(Refusal::Skip(reason)) => self.skip(id, reason),
            // Foreign text in a damaged place is not skipped: it may be half of a record.
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

    /// Takes all decisions since the last call.
    pub fn drain(&mut self) -> std::vec::Drain<'_, Outcome> {
        self.outcomes.drain(..)
    }
}

/// Turns a provider's records into audit events.
///
/// Total: every record, however broken, gets an outcome, now or (if the converter holds it) in a
/// later call. No clock and no I/O; time comes in as an argument.
pub trait Convert: Send {
    /// Decides about one record, or holds it and emits nothing for it yet.
    fn convert(&mut self, id: RecordId, record: &Record, out: &mut Output);

    /// The same conversion for another thread, which decides about records where they are read. The
    /// fork shares state with this converter as far as decisions depend on other records. It holds
    /// no records: one that has to wait for others it leaves undecided, for this converter. `None`:
    /// the converter cannot fork.
    fn fork(&self) -> Option<Box<dyn Convert>> {
        None
    }

    /// Whether it holds this record undecided.
    fn is_holding(&self, id: RecordId) -> bool {
        let _ = id;
        false
    }

    /// Decides about held records that have waited too long. `now` is monotonic, since the start.
    fn overdue(&mut self, now: std::time::Duration, out: &mut Output) {
        let _ = (now, out);
    }

    /// No record will follow: decides about all held records.
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
