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

use bytes::Bytes;
use jiff::Timestamp;

use super::json::{self, Raw, Scanner};
use super::{Event, time};

/// The API version that every event leaves with.
pub const API_VERSION: &str = "audit.k8s.io/v1";
/// The annotation on an event whose objects, or whose end, are missing (upstream's own).
pub const TRUNCATED: &str = "audit.k8s.io/truncated";
/// The annotation on an event whose `stageTimestamp` is the provider's record time.
pub const STAGE_TIMESTAMP: &str = "audit-bridge/stage-timestamp";
/// How CloudWatch's event ends when EKS cut it.
const TRUNCATION_MARKER: &str = "[Truncated...]";

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

/// The `audit.k8s.io/v1` event of a native event's text.
///
/// # Errors
/// See [`Failure`].
pub fn event(text: &Bytes, context: &Context<'_>) -> Result<Event, Failure> {
    let utf8 = std::str::from_utf8(text).map_err(|error| {
        let what = format!("invalid utf-8 at byte {}", error.valid_up_to());
        if context.claimed {
            Failure::Unparsable(what)
        } else {
            Failure::NotAudit(what)
        }
    })?;
    let trimmed = utf8.trim_ascii();
    let (json, marked) = match trimmed.strip_suffix(TRUNCATION_MARKER) {
        Some(json) => (json, true),
        None => (trimmed, false),
    };
    let mut seen = Seen::read(json, context.claimed)?;
    seen.cut |= marked;
    let changes = Changes::of(&seen, context)?;
    if changes.none() && json.len() <= context.options.event_bytes_max {
        return Ok(Event {
            text: text.slice_ref(json.as_bytes()),
            truncated: seen.marked(),
        });
    }
    let whole = changes.apply(json);
    if whole.len() <= context.options.event_bytes_max {
        return Ok(Event {
            text: whole.into(),
            truncated: seen.cut || seen.marked(),
        });
    }
    let stripped = changes.stripping(&seen).apply(json);
    if stripped.len() <= context.options.event_bytes_max {
        return Ok(Event {
            text: stripped.into(),
            truncated: true,
        });
    }
    Err(Failure::TooLarge {
        bytes: json.len(),
        stripped_bytes: stripped.len(),
        max: context.options.event_bytes_max,
    })
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
    let text = Changes::default().stripping(&seen).apply(json);
    Some(Event {
        text: text.into(),
        truncated: true,
    })
}

/// The members that decide, found in one pass. Of two with one name the last wins, as in Go.
#[derive(Debug, Default)]
struct Seen<'a> {
    kind: Option<Raw<'a>>,
    api_version: Option<Raw<'a>>,
    audit_id: Option<Raw<'a>>,
    stage: Option<Raw<'a>>,
    verb: Option<Raw<'a>>,
    stage_timestamp: Option<Raw<'a>>,
    request_received_timestamp: Option<Raw<'a>>,
    /// v1beta1 only.
    timestamp: Option<Raw<'a>>,
    annotations: Option<Raw<'a>>,
    has_objects: bool,
    cut: bool,
}

impl<'a> Seen<'a> {
    fn read(json: &'a str, claimed: bool) -> Result<Seen<'a>, Failure> {
        let mut seen = Seen::default();
        let walked = walk(json, |key, value, _| {
            let slot = match key {
                "kind" => &mut seen.kind,
                "apiVersion" => &mut seen.api_version,
                "auditID" => &mut seen.audit_id,
                "stage" => &mut seen.stage,
                "verb" => &mut seen.verb,
                "stageTimestamp" => &mut seen.stage_timestamp,
                "requestReceivedTimestamp" => &mut seen.request_received_timestamp,
                "timestamp" => &mut seen.timestamp,
                "annotations" => &mut seen.annotations,
                "requestObject" | "responseObject" => {
                    seen.has_objects = true;
                    return;
                }
                _ => return,
            };
            *slot = Some(value);
        });
        match walked {
            Ok(()) => {}
            Err(json::Error {
                kind: json::ErrorKind::Incomplete,
                ..
            }) => seen.cut = true,
            Err(error) if claimed || seen.claims() => {
                return Err(Failure::Unparsable(error.to_string()));
            }
            Err(error) => return Err(Failure::NotAudit(error.to_string())),
        }
        Ok(seen)
    }

    fn claims(&self) -> bool {
        self.audit_id.is_some() || self.kind.is_some_and(|kind| kind.text() == "\"Event\"")
    }

    /// Whether the event came with the mark already: the API server itself cut it.
    fn marked(&self) -> bool {
        self.annotations
            .and_then(|raw| raw.get(TRUNCATED))
            .is_some()
    }

    /// The member that a receiver cannot do without and that is not there.
    fn missing(&self) -> Option<&'static str> {
        let named = |value: Option<Raw<'_>>| {
            value.is_some_and(|raw| raw.kind() == json::Kind::String && raw.text() != "\"\"")
        };
        [
            ("auditID", self.audit_id),
            ("stage", self.stage),
            ("verb", self.verb),
        ]
        .into_iter()
        .find(|&(_, value)| !named(value))
        .map(|(name, _)| name)
    }
}

/// Calls `member(key, value, span)` for every complete member of the object, in order. The span
/// covers key and value.
fn walk<'a>(
    json: &'a str,
    mut member: impl FnMut(&str, Raw<'a>, &'a str),
) -> Result<(), json::Error> {
    let mut scanner = Scanner::new(json);
    scanner.open_object()?;
    loop {
        let from = scanner.at();
        let Some(key) = scanner.key()? else { break };
        let value = scanner.value()?;
        // A number at the very end may have lost digits.
        if scanner.at() == json.len() && value.kind() == json::Kind::Number {
            return Err(json::Error {
                at: scanner.at(),
                kind: json::ErrorKind::Incomplete,
            });
        }
        let span = json[from..scanner.at()].trim_start_matches([',', ' ', '\n', '\r', '\t']);
        member(&key, value, span);
    }
    scanner.end()
}

/// What is to be different in the event that leaves.
#[derive(Debug, Default)]
struct Changes {
    add_kind: bool,
    /// Replace the API version if there is one, else add it.
    set_api_version: bool,
    stage_timestamp: Option<String>,
    /// The annotations member, whole, as JSON.
    annotations: Option<Vec<u8>>,
    strip_objects: bool,
    /// What `annotations` sets.
    wanted: Vec<(String, String)>,
}

impl Changes {
    fn of(seen: &Seen<'_>, context: &Context<'_>) -> Result<Changes, Failure> {
        let claimed = context.claimed || seen.claims();
        let refuse = |what: String| {
            Err(if claimed {
                Failure::Unparsable(what)
            } else {
                Failure::NotAudit(what)
            })
        };
        let add_kind = match seen.kind.map(Raw::text) {
            None | Some("\"\"" | "null") => true,
            Some("\"Event\"") => false,
            Some(other) => return refuse(format!("kind is {}, not \"Event\"", brief(other))),
        };
        if let Some(missing) = seen.missing() {
            return match seen.cut {
                true if claimed => Err(Failure::Truncated(missing)),
                _ => refuse(format!("no {missing}")),
            };
        }
        let set_api_version = match seen.api_version.map(Raw::text) {
            Some("\"audit.k8s.io/v1\"") => false,
            None
            | Some("\"\"" | "null" | "\"audit.k8s.io/v1beta1\"" | "\"audit.k8s.io/v1alpha1\"") => {
                true
            }
            Some(other) => {
                return refuse(format!("apiVersion is {}, not {API_VERSION}", brief(other)));
            }
        };
        let mut wanted = context.options.annotations.clone();
        let stage_timestamp = match (read_time(seen.stage_timestamp), context.record_time) {
            (Some(_), _) => None,
            (None, record_time) => {
                let of_event = read_time(seen.request_received_timestamp)
                    .or_else(|| read_time(seen.timestamp));
                match (of_event, record_time) {
                    (Some(time), _) => Some(time),
                    (None, Some(time)) => {
                        wanted.push((STAGE_TIMESTAMP.to_owned(), "record".to_owned()));
                        Some(time::micros(time))
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
                }
            }
        };
        if seen.cut {
            wanted.push((TRUNCATED.to_owned(), "true".to_owned()));
        }
        let annotations =
            (!wanted.is_empty()).then(|| merged_annotations(seen.annotations, &wanted));
        Ok(Changes {
            add_kind,
            set_api_version,
            stage_timestamp,
            annotations,
            strip_objects: false,
            wanted,
        })
    }

    fn none(&self) -> bool {
        !self.add_kind
            && !self.set_api_version
            && self.stage_timestamp.is_none()
            && self.annotations.is_none()
    }

    /// The same changes, and the objects go too.
    fn stripping(mut self, seen: &Seen<'_>) -> Changes {
        self.strip_objects = true;
        if seen.has_objects && !seen.cut {
            self.wanted.push((TRUNCATED.to_owned(), "true".to_owned()));
        }
        self.annotations = Some(merged_annotations(seen.annotations, &self.wanted));
        self
    }

    fn apply(&self, json: &str) -> Vec<u8> {
        let mut out = Vec::with_capacity(json.len() + 256);
        out.push(b'{');
        let push = |out: &mut Vec<u8>, parts: &[&[u8]]| {
            if out.len() > 1 {
                out.push(b',');
            }
            for part in parts {
                out.extend_from_slice(part);
            }
        };
        if self.add_kind {
            push(&mut out, &[b"\"kind\":\"Event\""]);
        }
        if self.set_api_version {
            push(
                &mut out,
                &[b"\"apiVersion\":\"", API_VERSION.as_bytes(), b"\""],
            );
        }
        // The walk ends where the first one ended: at the end or at the cut.
        let _ = walk(json, |key, _, span| {
            let goes = match key {
                "kind" => self.add_kind,
                "apiVersion" => self.set_api_version,
                "stageTimestamp" => self.stage_timestamp.is_some(),
                "annotations" => self.annotations.is_some(),
                "requestObject" | "responseObject" => self.strip_objects,
                _ => false,
            };
            if !goes {
                push(&mut out, &[span.as_bytes()]);
            }
        });
        if let Some(time) = &self.stage_timestamp {
            push(
                &mut out,
                &[b"\"stageTimestamp\":\"", time.as_bytes(), b"\""],
            );
        }
        if let Some(annotations) = &self.annotations {
            push(&mut out, &[b"\"annotations\":", annotations]);
        }
        out.push(b'}');
        out
    }
}

/// The text of an RFC 3339 time, when it is one.
fn read_time(raw: Option<Raw<'_>>) -> Option<String> {
    let text = raw?.as_str()?;
    time::parse(&text).map(|_| text.into_owned())
}

/// The annotations object with `wanted` set in it; what the event had stays where it is.
fn merged_annotations(had: Option<Raw<'_>>, wanted: &[(String, String)]) -> Vec<u8> {
    let mut out = vec![b'{'];
    let comma = |out: &mut Vec<u8>| {
        if out.len() > 1 {
            out.push(b',');
        }
    };
    for (key, value) in had.and_then(Raw::members).into_iter().flatten() {
        if wanted.iter().all(|(name, _)| *name != key) {
            comma(&mut out);
            json::write_string(&mut out, &key);
            out.push(b':');
            out.extend_from_slice(value.text().as_bytes());
        }
    }
    for (key, value) in wanted {
        comma(&mut out);
        json::write_string(&mut out, key);
        out.push(b':');
        json::write_string(&mut out, value);
    }
    out.push(b'}');
    out
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
