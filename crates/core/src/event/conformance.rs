//! The one gate through which events leave: only this module makes an [`Event`].
//!
//! One bad event can make a receiver lose others. Falco answers 200 and then drops a whole body
//! that is nested too deep. A receiver in Go refuses a whole body for one time without six digits
//! or one member of a wrong type. Of a duplicate key Falco reads the first value, but the API
//! server acted on the last. And the client that an event is about chooses much of its content. So
//! every event that leaves here is
//!
//! - at most `--event-bytes-max` bytes and `--event-depth-max` levels, counted in the `EventList`,
//! - valid UTF-8 without lone surrogates, with each key once per object (the last value),
//! - of `audit.k8s.io/v1`, with `auditID`, `stage` and `verb`, times with six digits in UTC, and
//!   every member that Kubernetes knows of its type.
//!
//! An event is never refused for being too large, too deep or too odd. Instead, parts of it are
//! removed or shortened by rules that do not let its author choose what remains visible (`shorten`,
//! `repair`, `cut`). Such an event carries the API server's own mark, `audit.k8s.io/truncated`
//! (`plugin/pkg/audit/truncate`).
//!
//! A native event is read here once (`inspect`). Nearly all events need no change and pass byte for
//! byte. Otherwise the text is rebuilt, and every unchanged member keeps its bytes.

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
/// The annotation (upstream's own) on an event of which something is missing.
pub(crate) const TRUNCATED: &str = "audit.k8s.io/truncated";
/// The annotation on an event whose `stageTimestamp` is the provider's record time (`record`) or a
/// placeholder for a lost one (`unknown`).
pub(crate) const STAGE_TIMESTAMP: &str = "audit-bridge/stage-timestamp";
/// The annotation on an event whose `requestReceivedTimestamp` is the provider's record time.
pub(crate) const RECEIVED_TIMESTAMP: &str = "audit-bridge/request-received-timestamp";
/// The annotation that lists each shortened member with its original length and SHA-256.
pub(crate) const SHORTENED: &str = "audit-bridge/shortened";
/// The annotation that names the event's cluster (`--annotate-cluster`).
pub const CLUSTER: &str = "audit-bridge/cluster";
/// The end of a CloudWatch event that EKS truncated.
const TRUNCATION_MARKER: &[u8] = b"[Truncated...]";
/// The levels around an event in a body: the `EventList` and its `items`.
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

    /// What was repaired in the event or removed from it.
    pub fn notes(&self) -> Notes {
        self.notes
    }

    /// A copy in its own memory: the text may be a small slice of a whole page.
    pub fn detached(&self) -> Event {
        Event {
            text: Bytes::copy_from_slice(&self.text),
            notes: self.notes,
        }
    }

    /// The event without requestObject and responseObject, marked as truncated, as the API server's
    /// truncating backend does when a receiver finds an event too large. `None` when the event has
    /// neither.
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
    /// An event of arbitrary bytes, for tests that only move them.
    pub(crate) fn of_bytes(text: impl Into<Bytes>) -> Event {
        Event {
            text: text.into(),
            notes: Notes::default(),
        }
    }
}

/// What the caller knows about a text and wants of its event.
#[derive(Debug, Clone, Copy)]
pub struct EventContext<'a> {
    /// The provider says that this is an audit event (by its audit stream or audit category).
    pub claimed: bool,
    /// Something in the provider's record was already replaced by U+FFFD.
    pub replaced: bool,
    /// What the text already lacks; the event is then annotated as truncated.
    pub given_up: Option<GivenUp>,
    /// The provider's record time: the last resort for a missing `stageTimestamp`.
    pub record_time: Option<Timestamp>,
    pub options: &'a EventOptions,
}

/// The user's options for every event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventOptions {
    /// The largest event that may leave, in bytes of JSON (`--event-bytes-max`); at least
    /// [`EventOptions::EVENT_BYTES_MIN`].
    pub event_bytes_max: usize,
    /// The deepest nesting that may leave, in levels of the body (`--event-depth-max`): the
    /// `EventList` is level 1, and a scalar counts as a level; at least
    /// [`EventOptions::EVENT_DEPTH_MIN`].
    pub event_depth_max: usize,
    /// Annotations for every event (`--annotate`); they override the event's own.
    pub annotations: Vec<(String, String)>,
}

impl EventOptions {
    /// With fewer bytes an event might lose who did what.
    pub const EVENT_BYTES_MIN: usize = 16 << 10;
    /// The depth that the members outside the objects need.
    pub const EVENT_DEPTH_MIN: usize = 10;

    /// Makes the event of a record; see [`event`] and [`EventContext`].
    ///
    /// # Errors
    /// The text is no audit event.
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

    /// A context with these options for a text about which nothing else is known.
    pub fn context(&self) -> EventContext<'_> {
        EventContext {
            claimed: false,
            replaced: false,
            given_up: None,
            record_time: None,
            options: self,
        }
    }

    /// The deepest nesting of an event without the levels around it.
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
    /// It does not claim to be one.
    #[error("not an audit event: {0}")]
    NotAudit(String),
    /// It claims to be one but cannot be read as one.
    #[error("{0}")]
    Unparsable(String),
    /// The provider truncated it before a member that it needs.
    #[error("the event is cut before its {0}")]
    Truncated(&'static str),
    /// The user's own annotations leave no room for an event.
    #[error("the event has {bytes} bytes at its shortest; the limit (--event-bytes-max) is {max}")]
    TooLarge {
        /// The size after everything removable is removed.
        bytes: usize,
        /// `--event-bytes-max`.
        max: usize,
    },
}

impl EventError {
    /// The error for a text that claims to be an audit event, or for one that does not.
    fn of(claimed: bool, what: String) -> EventError {
        if claimed {
            EventError::Unparsable(what)
        } else {
            EventError::NotAudit(what)
        }
    }
}

/// Makes the `audit.k8s.io/v1` event from a native event's text.
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

/// The bytes as text. If the bytes end inside a character, they were cut there, and the partial
/// character is dropped.
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
            // Also drop a partial character at the end of text with invalid bytes elsewhere.
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

/// Whether the event already has the annotation, because the API server truncated it.
fn is_marked(seen: &Inspection<'_>) -> bool {
    static NAME: LazyLock<memmem::Finder<'_>> = LazyLock::new(|| memmem::Finder::new("truncated"));
    static SPELLED: LazyLock<memmem::Finder<'_>> = LazyLock::new(|| memmem::Finder::new("\\u"));
    // Among escapes only `\u` can spell a letter.
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

/// The text without anything that receivers read differently or not at all.
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
            // `set_kind` and `set_api_version` report wrong values of these with a better message.
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

/// The event of an inspected text; an unchanged one is sliced, not copied.
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

/// Writes the event if anything changes, and shortens it if it is too large.
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

/// Whether this text lies in the memory of the bytes.
fn is_part_of(json: &str, bytes: &Bytes) -> bool {
    let (part, whole) = (json.as_bytes().as_ptr_range(), bytes.as_ptr_range());
    part.start >= whole.start && part.end <= whole.end
}

#[cfg(test)]
mod tests;
