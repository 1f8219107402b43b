//! Native audit events: what a real API server wrote, passed on byte for byte unless something
//! must change.
//!
//! What can have to change: `kind` and `apiVersion` are missing (items of an `EventList`) or old
//! (`v1beta1`); the provider cut the text; receivers would drop it (no `stageTimestamp`, too
//! large); the user asked for annotations. One pass over the members decides; only when something
//! changes is the event written anew, and even then every member that stays keeps its bytes.
//!
//! A cut text is salvaged: the API server writes its fields in a fixed order, so what is left in
//! front is whole. Every complete member stays, the cut one goes, and the event says so with the
//! API server's own mark, `audit.k8s.io/truncated` (`plugin/pkg/audit/truncate`).

mod seen;

use std::borrow::Cow;

use bytes::Bytes;
use jiff::Timestamp;

use self::seen::{Name, Seen, read_time};
use super::json::{self, Raw, Scanner};
use super::{Event, time};

/// The API version that every event leaves with.
pub const API_VERSION: &str = "audit.k8s.io/v1";
/// The annotation on an event whose objects, or whose end, are missing (upstream's own).
pub const TRUNCATED: &str = "audit.k8s.io/truncated";
/// The annotation on an event whose `stageTimestamp` is the provider's record time.
pub const STAGE_TIMESTAMP: &str = "audit-bridge/stage-timestamp";

/// The annotation that says which cluster an event is of (`--annotate-cluster`).
pub const CLUSTER: &str = "audit-bridge/cluster";
/// How CloudWatch's event ends when EKS cut it.
const TRUNCATION_MARKER: &[u8] = b"[Truncated...]";

/// What the caller knows of a text and wants of the event.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The provider said that this is an audit event (its audit stream, its audit category).
    pub claimed: bool,
    /// The time of the provider's record: the last resort for a missing `stageTimestamp`.
    pub record_time: Option<Timestamp>,
    /// What is asked for all events.
    pub options: &'a Options,
}

/// What the user wants of every event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The largest event that may leave, in bytes of JSON (`--event-bytes-max`).
    pub event_bytes_max: usize,
    /// Annotations for every event (`--annotate`); they win over those that an event has.
    pub annotations: Vec<(String, String)>,
}

impl Options {
    /// The event of a record, as the user wants it; see [`event`] and [`Context`].
    ///
    /// # Errors
    /// It is none, or none that can be delivered.
    pub fn event(
        &self,
        text: &Bytes,
        claimed: bool,
        record_time: Option<Timestamp>,
    ) -> Result<Event, Failure> {
        let context = Context {
            claimed,
            record_time,
            options: self,
        };
        event(text, &context)
    }
}

impl Default for Options {
    fn default() -> Options {
        Options {
            event_bytes_max: 250 << 10,
            annotations: Vec::new(),
        }
    }
}

/// Why a text does not become an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// It never claimed to be one.
    #[error("not an audit event: {0}")]
    NotAudit(String),
    /// It claims to be one and is not.
    #[error("{0}")]
    Unparsable(String),
    /// The provider cut it before what a receiver needs.
    #[error("the event is cut before its {0}")]
    Truncated(&'static str),
    /// Larger than receivers take, even without its objects.
    #[error(
        "the event has {bytes} bytes, {stripped_bytes} without its objects; the limit is {max}"
    )]
    TooLarge {
        /// As it came.
        bytes: usize,
        /// Without requestObject and responseObject.
        stripped_bytes: usize,
        /// `--event-bytes-max`.
        max: usize,
    },
}

impl Failure {
    /// Of a text that claims to be an audit event, or of one that does not.
    fn of(claimed: bool, what: String) -> Failure {
        if claimed {
            Failure::Unparsable(what)
        } else {
            Failure::NotAudit(what)
        }
    }
}

/// The `audit.k8s.io/v1` event of a native event's text.
///
/// # Errors
/// See [`Failure`].
pub fn event(text: &Bytes, context: &Context<'_>) -> Result<Event, Failure> {
    let trimmed = text.trim_ascii();
    let (bytes, mut cut) = match trimmed.strip_suffix(TRUNCATION_MARKER) {
        Some(bytes) => (bytes, true),
        None => (trimmed, false),
    };
    let json = match std::str::from_utf8(bytes) {
        Ok(json) => json,
        Err(error) => {
            let (valid, _) = bytes.split_at(error.valid_up_to());
            let valid = std::str::from_utf8(valid).unwrap_or_default();
            if error.error_len().is_some() {
                let claimed = context.claimed || claims(valid);
                let what = format!("invalid utf-8 at byte {}", error.valid_up_to());
                return Err(Failure::of(claimed, what));
            }
            // It ends inside a character: cut there.
            cut = true;
            valid
        }
    };
    let mut seen = Seen::read(json, context.claimed)?;
    seen.cut |= cut;
    let changes = Changes::of(&seen, context)?;
    let bytes_max = context.options.event_bytes_max;
    let fits = |text: Vec<u8>, truncated| {
        let bytes = text.len();
        let text = text.into();
        (bytes <= bytes_max)
            .then_some(Event { text, truncated })
            .ok_or(bytes)
    };
    let whole = if changes.none() {
        if json.len() <= bytes_max {
            return Ok(Event {
                text: text.slice_ref(json.as_bytes()),
                truncated: seen.marked(),
            });
        }
        Err(json.len())
    } else {
        fits(changes.apply(&seen, json), seen.cut || seen.marked())
    };
    whole
        .or_else(|whole_bytes| {
            if !seen.has_objects {
                return Err(whole_bytes);
            }
            fits(changes.stripping().apply(&seen, json), true)
        })
        .map_err(|stripped_bytes| Failure::TooLarge {
            bytes: json.len(),
            stripped_bytes,
            max: bytes_max,
        })
}

/// Whether the text, as far as it goes, says that it is an audit event.
fn claims(json: &str) -> bool {
    match Seen::read(json, false) {
        Ok(seen) => seen.claims(),
        Err(failure) => matches!(failure, Failure::Unparsable(_)),
    }
}

/// An event that a bridge built, made to fit: without its objects when it is larger than
/// `--event-bytes-max`.
///
/// # Errors
/// [`Failure::TooLarge`].
pub fn fit(event: Event, event_bytes_max: usize) -> Result<Event, Failure> {
    let bytes = event.text.len();
    if bytes <= event_bytes_max {
        return Ok(event);
    }
    let stripped = strip_objects(&event);
    let stripped_bytes = stripped.as_ref().map_or(bytes, |event| event.text.len());
    match stripped {
        Some(event) if stripped_bytes <= event_bytes_max => Ok(event),
        _ => Err(Failure::TooLarge {
            bytes,
            stripped_bytes,
            max: event_bytes_max,
        }),
    }
}

/// The event without requestObject and responseObject, marked as truncated: what the API server's
/// truncating backend does to an event that its receiver finds too large. `None` when it has
/// neither, as nothing would change.
pub fn strip_objects(event: &Event) -> Option<Event> {
    let json = std::str::from_utf8(&event.text).ok()?;
    let seen = Seen::read(json, true).ok()?;
    if !seen.has_objects {
        return None;
    }
    let text = Changes::default().stripping().apply(&seen, json);
    Some(Event {
        text: text.into(),
        truncated: true,
    })
}

/// What is to be different in the event that leaves.
#[derive(Debug, Default)]
struct Changes<'a> {
    add_kind: bool,
    /// Replace the API version if there is one, else add it.
    set_api_version: bool,
    stage_timestamp: Option<Cow<'a, str>>,
    /// Set in the annotations; each key once.
    annotations: Vec<(&'a str, &'a str)>,
    strip_objects: bool,
}

impl<'a> Changes<'a> {
    fn of(seen: &Seen<'a>, context: &Context<'a>) -> Result<Changes<'a>, Failure> {
        let claimed = context.claimed || seen.claims();
        let add_kind = match seen.kind.map(Raw::text) {
            None | Some("\"\"" | "null") => true,
            Some("\"Event\"") => false,
            Some(other) => {
                let what = format!("kind is {}, not \"Event\"", brief(other));
                return Err(Failure::of(claimed, what));
            }
        };
        let mut changes = Changes {
            add_kind,
            ..Changes::default()
        };
        if let Some(missing) = seen.missing() {
            return Err(match seen.cut {
                true if claimed => Failure::Truncated(missing),
                _ => Failure::of(claimed, format!("no {missing}")),
            });
        }
        changes.set_api_version = match seen.api_version.map(Raw::text) {
            Some("\"audit.k8s.io/v1\"") => false,
            None
            | Some("\"\"" | "null" | "\"audit.k8s.io/v1beta1\"" | "\"audit.k8s.io/v1alpha1\"") => {
                true
            }
            Some(other) => {
                let what = format!("apiVersion is {}, not {API_VERSION}", brief(other));
                return Err(Failure::of(claimed, what));
            }
        };
        for (key, value) in &context.options.annotations {
            changes.annotate(key, value);
        }
        if read_time(seen.stage_timestamp).is_none() {
            let of_event =
                read_time(seen.request_received_timestamp).or_else(|| read_time(seen.timestamp));
            changes.stage_timestamp = match (of_event, context.record_time) {
                (Some(time), _) => Some(time),
                (None, Some(time)) => {
                    changes.annotate(STAGE_TIMESTAMP, "record");
                    Some(time::micros(time).into())
                }
                (None, None) => {
                    let what = seen.stage_timestamp.map_or_else(
                        || "no stageTimestamp".to_owned(),
                        |raw| format!("stageTimestamp is {}", brief(raw.text())),
                    );
                    return Err(Failure::Unparsable(format!(
                        "{what} and no other time to take instead"
                    )));
                }
            };
        }
        if seen.cut {
            changes.annotate(TRUNCATED, "true");
        }
        Ok(changes)
    }

    fn annotate(&mut self, key: &'a str, value: &'a str) {
        self.annotations.retain(|&(had, _)| had != key);
        self.annotations.push((key, value));
    }

    fn none(&self) -> bool {
        !self.add_kind
            && !self.set_api_version
            && self.stage_timestamp.is_none()
            && self.annotations.is_empty()
    }

    /// The same changes, and the objects go too.
    fn stripping(mut self) -> Changes<'a> {
        self.strip_objects = true;
        self.annotate(TRUNCATED, "true");
        self
    }

    fn goes(&self, name: Name) -> bool {
        match name {
            Name::Kind => self.add_kind,
            Name::ApiVersion => self.set_api_version,
            Name::StageTimestamp => self.stage_timestamp.is_some(),
            Name::Annotations => !self.annotations.is_empty(),
            Name::Object => self.strip_objects,
        }
    }

    /// The event written anew. What stays is copied in as few pieces as can be, space and all.
    fn apply(&self, seen: &Seen<'_>, json: &str) -> Vec<u8> {
        let gone = || seen.spans.iter().filter(|span| self.goes(span.name));
        let (mut from, end) = seen.members;
        // The annotations that the event had go and come back.
        let had = seen.annotations.map_or(0, |raw| raw.text().len());
        let new = self
            .annotations
            .iter()
            .map(|(key, value)| key.len() + value.len() + 16);
        let gone_bytes: usize = gone().map(|span| span.to - span.from).sum();
        let mut out =
            Vec::with_capacity(end.saturating_sub(gone_bytes) + had + new.sum::<usize>() + 160);
        out.push(b'{');
        if self.add_kind {
            push_member(&mut out, "\"kind\":\"Event\"");
        }
        if self.set_api_version {
            push_member(&mut out, "\"apiVersion\":");
            json::write_string(&mut out, API_VERSION);
        }
        for span in gone() {
            push_member(&mut out, &json[from..span.from]);
            from = span.to;
        }
        push_member(&mut out, &json[from..end]);
        if let Some(time) = &self.stage_timestamp {
            push_member(&mut out, "\"stageTimestamp\":");
            json::write_string(&mut out, time);
        }
        if !self.annotations.is_empty() {
            push_member(&mut out, "\"annotations\":{");
            push_annotations(&mut out, seen.annotations, &self.annotations);
            out.push(b'}');
        }
        out.push(b'}');
        out
    }
}

/// Appends members, or one, to an object, without the space and commas around them; none is fine.
fn push_member(out: &mut Vec<u8>, text: &str) {
    let text = text.trim_matches([',', ' ', '\n', '\r', '\t']);
    if text.is_empty() {
        return;
    }
    if !out.ends_with(b"{") {
        out.push(b',');
    }
    out.extend_from_slice(text.as_bytes());
}

/// Appends the annotations: what the event had stays as it is written, unless `new` has the key.
fn push_annotations(out: &mut Vec<u8>, had: Option<Raw<'_>>, new: &[(&str, &str)]) {
    let had = had.map_or("{}", Raw::text);
    let mut scanner = Scanner::new(had);
    if scanner.open_object().is_ok() {
        while let Ok(Some((from, key))) = scanner.member()
            && scanner.value().is_ok()
        {
            if new.iter().all(|&(name, _)| name != key) {
                push_member(out, &had[from..scanner.at()]);
            }
        }
    }
    for (key, value) in new {
        if !out.ends_with(b"{") {
            out.push(b',');
        }
        json::write_string(out, key);
        out.push(b':');
        json::write_string(out, value);
    }
}

/// A value short enough for a message.
fn brief(text: &str) -> String {
    match text.char_indices().nth(40) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests;
