//! The one gate through which events leave: nothing else makes an [`Event`].
//!
//! Receivers lose more than the event that they cannot read. Falco answers 200 and then drops a
//! whole body that is nested too deep; a receiver in Go refuses a whole body for one time without
//! six digits or one member of a wrong type; of a key that stands twice Falco reads the first value
//! and the API server acted on the last. And much of an event is chosen by whoever it is about. So
//! what leaves here is always
//!
//! - at most `--event-bytes-max` bytes and `--event-depth-max` levels, counted in the `EventList`,
//! - valid UTF-8 without half surrogate pairs, each key once in its object (the last value),
//! - of `audit.k8s.io/v1`, with `auditID`, `stage` and `verb`, times with six digits in UTC, and
//!   every member that Kubernetes knows of its type.
//!
//! An event is never refused for being too large, too deep or too odd. What must go goes by rules
//! that leave nobody the choice of what is seen (`shorten`, `repair`, `cut`), and the event
//! then carries the API server's own mark, `audit.k8s.io/truncated` (`plugin/pkg/audit/truncate`).
//!
//! A native event is read here once (`inspect`). Nearly always nothing is wrong with it, and it
//! passes byte for byte; when something is, the text is made anew, and every member that stays keeps
//! its bytes.

mod assemble;
mod changes;
mod compose;
mod cut;
mod inspect;
mod known;
mod notes;
mod repair;
mod shape;
mod shorten;
mod shrink;
mod uri;

use std::borrow::Cow;
use std::sync::LazyLock;

use bytes::Bytes;
use jiff::Timestamp;
use memchr::memmem;

use self::assemble::EventChanges;
use self::changes::changes_of;
pub use self::compose::{Composer, Keys, ObjectRef, Text};
use self::cut::Completed;
use self::inspect::Inspection;
use self::known::Member;
pub use self::notes::{GivenUp, Notes, Repair};
use super::json::{self, Edits, ErrorKind};

/// The API version that every event leaves with.
pub(crate) const API_VERSION: &str = "audit.k8s.io/v1";
/// The annotation on an event of which something is missing (upstream's own).
pub(crate) const TRUNCATED: &str = "audit.k8s.io/truncated";
/// The annotation on an event whose `stageTimestamp` is the provider's record time (`record`), or
/// stands for one that is lost (`unknown`).
pub(crate) const STAGE_TIMESTAMP: &str = "audit-bridge/stage-timestamp";
/// The annotation on an event whose `requestReceivedTimestamp` is the provider's record time.
pub(crate) const RECEIVED_TIMESTAMP: &str = "audit-bridge/request-received-timestamp";
/// The annotation that says of each member that was shortened how long it was, and its SHA-256.
pub(crate) const SHORTENED: &str = "audit-bridge/shortened";
/// The annotation that says which cluster an event is of (`--annotate-cluster`).
pub const CLUSTER: &str = "audit-bridge/cluster";
/// How CloudWatch's event ends when EKS cut it.
const TRUNCATION_MARKER: &[u8] = b"[Truncated...]";
/// The levels that an event has around it in a body: the `EventList` and its `items`.
const LEVELS_AROUND: usize = 2;
/// One `audit.k8s.io/v1` Event as JSON text, ready to be an item of an `EventList`
/// (Kubernetes: `k8s.io/apiserver/pkg/apis/audit/v1.Event`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    text: Bytes,
    notes: Notes,
}

impl Event {
    /// The event's JSON.
    pub fn text(&self) -> &Bytes {
        &self.text
    }

    /// Whether it has the annotation `audit.k8s.io/truncated`.
    pub fn truncated(&self) -> bool {
        self.notes.truncated()
    }

    /// What was done to it.
    pub fn notes(&self) -> Notes {
        self.notes
    }

    /// The same event in memory of its own: its text may be a small part of a whole page.
    pub fn detached(&self) -> Event {
        Event {
            text: Bytes::copy_from_slice(&self.text),
            notes: self.notes,
        }
    }

    /// The event without requestObject and responseObject, marked as truncated: what the API
    /// server's truncating backend does to an event that its receiver finds too large. `None` when
    /// it has neither, as nothing would change.
    pub fn without_objects(&self) -> Option<Event> {
        let json = std::str::from_utf8(&self.text).ok()?;
        let (seen, _) = Inspection::read(json);
        let mut notes = self.notes;
        let mut changes = EventChanges::default();
        for (name, what) in [
            (Member::RequestObject, GivenUp::RequestObject),
            (Member::ResponseObject, GivenUp::ResponseObject),
        ] {
            if seen.place(name).is_some() {
                changes.remove(name);
                notes.give_up(what);
            }
        }
        if changes.none() {
            return None;
        }
        changes.annotate(TRUNCATED, "true");
        Some(Event {
            text: changes.apply(&seen).into(),
            notes,
        })
    }
}

#[cfg(test)]
impl Event {
    /// Any bytes, for tests that only move them.
    pub(crate) fn of_bytes(text: impl Into<Bytes>) -> Event {
        Event {
            text: text.into(),
            notes: Notes::default(),
        }
    }
}

/// What the caller knows of a text and wants of the event.
#[derive(Debug, Clone, Copy)]
pub struct EventContext<'a> {
    /// The provider said that this is an audit event (its audit stream, its audit category).
    pub claimed: bool,
    /// In the provider's own form of the record, something had to be replaced by U+FFFD already.
    pub replaced: bool,
    /// What the text lacks of the event already: it gets the annotation for it.
    pub given_up: Option<GivenUp>,
    /// The time of the provider's record: the last resort for a missing `stageTimestamp`.
    pub record_time: Option<Timestamp>,
    /// What is asked for all events.
    pub options: &'a EventOptions,
}

/// What the user wants of every event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventOptions {
    /// The largest event that may leave, in bytes of JSON (`--event-bytes-max`); at least
    /// [`EventOptions::EVENT_BYTES_MIN`].
    pub event_bytes_max: usize,
    /// The deepest nesting that may leave, in levels of the body (`--event-depth-max`): the
    /// `EventList` is the first, and a scalar counts; at least [`EventOptions::EVENT_DEPTH_MIN`].
    pub event_depth_max: usize,
    /// Annotations for every event (`--annotate`); they win over those that an event has.
    pub annotations: Vec<(String, String)>,
}

impl EventOptions {
    /// Below this an event cannot keep what says who did what.
    pub const EVENT_BYTES_MIN: usize = 16 << 10;
    /// The depth that the members outside the objects need.
    pub const EVENT_DEPTH_MIN: usize = 10;

    /// The event of a record, as the user wants it; see [`event`] and [`EventContext`].
    ///
    /// # Errors
    /// It is none.
    pub fn event(
        &self,
        text: &Bytes,
        claimed: bool,
        record_time: Option<Timestamp>,
    ) -> Result<Event, EventError> {
        let context = EventContext {
            claimed,
            record_time,
            ..self.context()
        };
        event(text, &context)
    }

    /// A context in which nothing is known of a text but what is wanted of its event.
    pub fn context(&self) -> EventContext<'_> {
        EventContext {
            claimed: false,
            replaced: false,
            given_up: None,
            record_time: None,
            options: self,
        }
    }

    /// The deepest nesting of an event by itself.
    fn own_depth_max(&self) -> usize {
        self.event_depth_max
            .max(EventOptions::EVENT_DEPTH_MIN)
            .saturating_sub(LEVELS_AROUND)
    }
}

impl Default for EventOptions {
    fn default() -> EventOptions {
        EventOptions {
            event_bytes_max: 250 << 10,
            event_depth_max: 250,
            annotations: Vec::new(),
        }
    }
}

/// Why a text does not become an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// It never claimed to be one.
    #[error("not an audit event: {0}")]
    NotAudit(String),
    /// It claims to be one and is not.
    #[error("{0}")]
    Unparsable(String),
    /// The provider cut it before what makes it an event.
    #[error("the event is cut before its {0}")]
    Truncated(&'static str),
    /// The user's own annotations leave no room for an event.
    #[error("the event has {bytes} bytes at its shortest; the limit (--event-bytes-max) is {max}")]
    TooLarge {
        /// What is left when everything that may go is gone.
        bytes: usize,
        /// `--event-bytes-max`.
        max: usize,
    },
}

impl EventError {
    /// Of a text that claims to be an audit event, or of one that does not.
    fn of(claimed: bool, what: String) -> EventError {
        if claimed {
            EventError::Unparsable(what)
        } else {
            EventError::NotAudit(what)
        }
    }
}

/// The `audit.k8s.io/v1` event of a native event's text.
///
/// # Errors
/// See [`EventError`].
pub fn event(text: &Bytes, context: &EventContext<'_>) -> Result<Event, EventError> {
    let mut notes = Notes::of(context);
    let trimmed = text.trim_ascii();
    let (bytes, marked) = match trimmed.strip_suffix(TRUNCATION_MARKER) {
        Some(bytes) => (bytes, true),
        None => (trimmed, false),
    };
    let decoded = decode(bytes, &mut notes);
    let (seen, end) = Inspection::read(&decoded);
    let ends_early = match end {
        Ok(()) => marked,
        Err(error) if error.kind == ErrorKind::Incomplete => true,
        Err(error) => {
            let claimed = context.claimed || seen.claims();
            return Err(EventError::of(claimed, error.to_string()));
        }
    };
    let depth_max = context.options.own_depth_max();
    if end.is_ok() && !ends_early && is_clean(&seen, context.options) {
        let changes = changes_of(&seen, None, context, &mut notes)?;
        return native(text, &seen, &changes, context, notes);
    }
    let completed = match end {
        Ok(()) => ends_early.then(|| Completed {
            json: decoded.clone().into_owned(),
            within: None,
        }),
        Err(_) => match cut::complete(&decoded, depth_max) {
            Some(completed) => Some(completed),
            None if context.claimed => return Err(EventError::Truncated("auditID")),
            None => return Err(EventError::NotAudit("no auditID".to_owned())),
        },
    };
    let json = completed
        .as_ref()
        .map_or(&*decoded, |completed| &completed.json);
    let repaired = repaired(json, depth_max, context, &mut notes)?;
    let (seen, end) = Inspection::read(&repaired);
    if let Err(error) = end {
        let claimed = context.claimed || seen.claims();
        return Err(EventError::of(claimed, error.to_string()));
    }
    let changes = changes_of(&seen, completed.as_ref(), context, &mut notes)?;
    native(text, &seen, &changes, context, notes)
}

/// The bytes as text. What ends inside a character ends before it: there it was cut.
fn decode<'a>(bytes: &'a [u8], notes: &mut Notes) -> Cow<'a, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(error) => {
            let valid_up_to = error.valid_up_to();
            if error.error_len().is_none()
                && let Ok(text) = std::str::from_utf8(bytes.get(..valid_up_to).unwrap_or_default())
            {
                return Cow::Borrowed(text);
            }
            notes.repair(Repair::Encoding);
            // The same at its end.
            let whole = bytes.utf8_chunks().last().map_or(0, |chunk| {
                let tail = chunk.invalid();
                let ends_inside = std::str::from_utf8(tail).is_err_and(|e| e.error_len().is_none());
                if ends_inside { tail.len() } else { 0 }
            });
            json::replace_invalid(bytes.get(..bytes.len() - whole).unwrap_or_default())
        }
    }
}

/// Whether nothing has to be repaired.
fn is_clean(seen: &Inspection<'_>, options: &EventOptions) -> bool {
    !seen.odd_types
        && !seen.may_repeat_a_key()
        && !seen.findings.has_lone_surrogate()
        && seen.depth() <= options.own_depth_max()
}

/// Whether the event came with the annotation: the API server itself cut it.
fn is_marked(seen: &Inspection<'_>) -> bool {
    static NAME: LazyLock<memmem::Finder<'_>> = LazyLock::new(|| memmem::Finder::new("truncated"));
    static SPELLED: LazyLock<memmem::Finder<'_>> = LazyLock::new(|| memmem::Finder::new("\\u"));
    // Of all escapes only one by number can spell a letter.
    let may_be = |text: &str| {
        [&NAME, &SPELLED]
            .iter()
            .any(|it| it.find(text.as_bytes()).is_some())
    };
    seen.text(Member::Annotations).is_some_and(may_be)
        && seen
            .value(Member::Annotations)
            .and_then(|raw| raw.get(TRUNCATED))
            .is_some()
}

/// The text without what receivers read differently or not at all.
fn repaired<'a>(
    json: &'a str,
    depth_max: usize,
    context: &EventContext<'_>,
    notes: &mut Notes,
) -> Result<Cow<'a, str>, EventError> {
    let repairs = repair::repairs(json, depth_max);
    for (found, what) in [
        (repairs.repeated_key, Repair::DuplicateKey),
        (repairs.lone_surrogate, Repair::Encoding),
    ] {
        if found {
            notes.repair(what);
        }
    }
    if repairs.too_deep {
        notes.give_up(GivenUp::Depth);
    }
    let json: Cow<'a, str> = match repairs.edits.is_empty() {
        true => Cow::Borrowed(json),
        false => Cow::Owned(repairs.edits.apply(json)),
    };
    let (seen, _) = Inspection::read(&json);
    if !seen.odd_types {
        return Ok(json);
    }
    let mut edits = Edits::default();
    for &name in Member::ALL {
        let Some(value) = seen.value(name) else {
            continue;
        };
        if let Err(wrong) = known::check(&json, value, name.kind(), name.name(), &mut edits) {
            // Kind and API version say by themselves what is wrong with them.
            if matches!(name, Member::Kind | Member::ApiVersion) {
                continue;
            }
            let claimed = context.claimed || seen.claims();
            return Err(EventError::of(claimed, wrong.to_string()));
        }
    }
    if edits.is_empty() {
        return Ok(json);
    }
    notes.repair(Repair::Number);
    Ok(Cow::Owned(edits.apply(&json)))
}

/// The event of a text that was read; where nothing is different, it stays where it is.
fn native(
    text: &Bytes,
    seen: &Inspection<'_>,
    changes: &EventChanges<'_>,
    context: &EventContext<'_>,
    mut notes: Notes,
) -> Result<Event, EventError> {
    let written = finish(seen, is_marked(seen), changes, context, &mut notes)?;
    let text = match written {
        Some(written) => written.into(),
        None if is_part_of(seen.json, text) => text.slice_ref(seen.json.as_bytes()),
        None => Bytes::copy_from_slice(seen.json.as_bytes()),
    };
    Ok(Event { text, notes })
}

/// Writes the event, unless nothing is to be different, and shortens it where it is too large.
fn finish(
    seen: &Inspection<'_>,
    is_marked: bool,
    changes: &EventChanges<'_>,
    context: &EventContext<'_>,
    notes: &mut Notes,
) -> Result<Option<String>, EventError> {
    if is_marked && !notes.truncated() {
        notes.give_up(GivenUp::ApiServer);
    }
    let max = context.options.event_bytes_max;
    let written = (!changes.none()).then(|| changes.apply(seen));
    let json = written.as_deref().unwrap_or(seen.json);
    if json.len() > max {
        return shorten::shorten(json, max, notes).map(Some);
    }
    Ok(written)
}

/// Whether this text is the same memory as a part of the bytes.
fn is_part_of(json: &str, bytes: &Bytes) -> bool {
    let (part, whole) = (json.as_bytes().as_ptr_range(), bytes.as_ptr_range());
    part.start >= whole.start && part.end <= whole.end
}

#[cfg(test)]
mod tests;
