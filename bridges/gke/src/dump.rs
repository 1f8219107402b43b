//! The dump shapes of log entries, as Google's tools and others save them.
//!
//! | Shape | Written by |
//! |---|---|
//! | entries, one after the other or in an array | `gcloud logging read --format=json`, a Cloud Storage sink, forwarders |
//! | `{"entries":[…]}` | the API's answer (`entries.list`) |
//! | `{"message":{"data":…}}` | Pub/Sub, pushed or pulled; also in an array or under `receivedMessages` |
//! | `{"Entry":…,"AuditPayload":…}` | the Go bridge `stackdriver-webhook-bridge` |
//! | YAML documents, or one YAML list | `gcloud logging read` by default |
//!
//! Each becomes the entry's plain JSON, the form that [`crate::convert`] reads.

mod yaml;

use std::borrow::Cow;

use audit_bridge_core::event::json::{Raw, ValueKind};
use audit_bridge_replay::dump::{Dump, PieceContext, RecordError, Role, Shape, Splitter};
use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use self::yaml::YamlSplit;

const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// Members that only a `LogEntry` has at its top level.
const ENTRY_MEMBERS: [&str; 5] = [
    "protoPayload",
    "textPayload",
    "jsonPayload",
    "insertId",
    "logName",
];

/// The shapes of Cloud Logging's dumps.
#[derive(Debug, Clone, Copy, Default)]
pub struct GkeDump;

impl Dump for GkeDump {
    fn shapes(&self) -> &'static [Shape] {
        const SHAPES: [Shape; 5] = [
            Shape {
                name: "log-entry",
                about: "cloud logging entries: json lines, an array, or one entry",
                json: true,
            },
            Shape {
                name: "api-response",
                about: "an answer of entries.list: entries under \"entries\"",
                json: true,
            },
            Shape {
                name: "pubsub",
                about: "pub/sub messages, pushed or pulled: entries in base64 under message.data",
                json: true,
            },
            Shape {
                name: "stackdriver-webhook-bridge",
                about: "objects of Entry and AuditPayload",
                json: true,
            },
            Shape {
                name: "yaml",
                about: "entries as yaml: what gcloud logging read prints by default",
                json: false,
            },
        ];
        &SHAPES
    }

    fn role(&self, key: &str) -> Role {
        match key {
            "entries" | "receivedMessages" => Role::Records,
            "message" | "ackId" | "Entry" | "AuditPayload" | "data" => Role::Wrapped,
            key if ENTRY_MEMBERS.contains(&key) => Role::Record,
            _ => Role::Neutral,
        }
    }

    fn record<'a>(&self, piece: Raw<'a>, _: &PieceContext) -> Result<Cow<'a, str>, RecordError> {
        unwrapped(piece)
    }

    fn recognises(&self, piece: Raw<'_>) -> bool {
        has_entry_member(piece.text())
    }

    fn text_split(&self, shape: Option<&str>, head: &str) -> Option<Box<dyn Splitter>> {
        let is_yaml = match shape {
            Some(shape) => shape == "yaml",
            None => yaml::looks_like_entries(head),
        };
        is_yaml.then(|| Box::new(YamlSplit::default()) as Box<dyn Splitter>)
    }
}

/// Whether a JSON text is an object with a member that only log entries have.
fn has_entry_member(json: &str) -> bool {
    let members = Raw::parse(json).ok().and_then(Raw::members);
    let mut members = members.into_iter().flatten();
    members.any(|(key, _)| ENTRY_MEMBERS.contains(&&*key))
}

/// Extracts the entry from its container.
fn unwrapped(piece: Raw<'_>) -> Result<Cow<'_, str>, RecordError> {
    // Most pieces are plain entries: their first typical member ends the search.
    let mut data = None;
    for (key, value) in piece.members().into_iter().flatten() {
        match key.as_ref() {
            "message" if value.kind() == ValueKind::Object => return of_message(piece, value),
            "Entry" | "AuditPayload" => return of_wrapper(piece),
            "data" if value.kind() == ValueKind::Object => data = Some(value),
            key if ENTRY_MEMBERS.contains(&key) => return Ok(Cow::Borrowed(piece.text())),
            _ => {}
        }
    }
    // Alerts of other tools have the entry under `data`.
    let entry = data.filter(|data| data.get("protoPayload").is_some());
    Ok(Cow::Borrowed(entry.unwrap_or(piece).text()))
}

/// The entry of a Pub/Sub message (`google.pubsub.v1.PubsubMessage`).
fn of_message<'a>(piece: Raw<'a>, message: Raw<'a>) -> Result<Cow<'a, str>, RecordError> {
    let Some(data) = message.get("data") else {
        return Ok(Cow::Borrowed(piece.text()));
    };
    if data.kind() == ValueKind::Object {
        return Ok(Cow::Borrowed(data.text()));
    }
    let text = data.as_str().ok_or("message.data is no string")?;
    let text = text.trim();
    let decoded = if text.contains(['-', '_']) {
        URL_SAFE.decode(text)
    } else {
        STANDARD.decode(text)
    };
    let bytes = decoded.map_err(|error| format!("message.data is no base64: {error}"))?;
    let text = String::from_utf8(bytes)
        .map_err(|error| format!("message.data is no text: {}", error.utf8_error()))?;
    Ok(Cow::Owned(text))
}

/// Restores an entry that stackdriver-webhook-bridge took apart: Go's `logging.Entry`, and the
/// payload's JSON in a string, without its `@type`.
fn of_wrapper(piece: Raw<'_>) -> Result<Cow<'_, str>, RecordError> {
    let payload = piece.get("AuditPayload").ok_or("no AuditPayload")?;
    let payload = match payload.kind() {
        ValueKind::Object => Cow::Borrowed(payload.text()),
        _ => payload.as_str().ok_or("AuditPayload is no string")?,
    };
    let payload = Raw::parse(&payload).map_err(|error| format!("AuditPayload: {error}"))?;
    if payload.kind() != ValueKind::Object {
        return Err(format!("AuditPayload is {}", payload.kind()).into());
    }
    let mut out = String::with_capacity(piece.text().len());
    out.push_str("{\"protoPayload\":{");
    let members = payload.text().get(1..).unwrap_or("}");
    if payload.get("@type").is_none() {
        out.push_str("\"@type\":\"type.googleapis.com/google.cloud.audit.AuditLog\"");
        if members.trim_ascii_start() != "}" {
            out.push(',');
        }
    }
    out.push_str(members);
    let entry = piece.get("Entry");
    for (from, to) in [
        ("InsertID", "insertId"),
        ("Resource", "resource"),
        ("Timestamp", "timestamp"),
        ("Labels", "labels"),
        ("LogName", "logName"),
        ("Operation", "operation"),
    ] {
        let value = entry.and_then(|entry| entry.get(from));
        if let Some(value) = value.filter(|value| value.kind() != ValueKind::Null) {
            out.push_str(&format!(",\"{to}\":{}", value.text()));
        }
    }
    out.push('}');
    Ok(Cow::Owned(out))
}

#[cfg(test)]
mod tests;
