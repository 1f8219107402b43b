//! What one pass over a native event finds: the members that decide, and where those are that may
//! have to go.

use std::borrow::Cow;

use super::super::json::{self, Raw, Scanner};
use super::super::time;
use super::{Failure, TRUNCATED};

/// The second in which Go's zero time is, `0001-01-01T00:00:00Z`: a time that was never set.
const GO_ZERO_SECOND: i64 = -62_135_596_800;

/// The members that decide, found in one pass. Of two with one name the last wins, as in Go.
#[derive(Debug, Default)]
pub(super) struct Seen<'a> {
    pub(super) kind: Option<Raw<'a>>,
    pub(super) api_version: Option<Raw<'a>>,
    audit_id: Option<Raw<'a>>,
    stage: Option<Raw<'a>>,
    verb: Option<Raw<'a>>,
    pub(super) stage_timestamp: Option<Raw<'a>>,
    pub(super) request_received_timestamp: Option<Raw<'a>>,
    /// v1beta1 only.
    pub(super) timestamp: Option<Raw<'a>>,
    pub(super) annotations: Option<Raw<'a>>,
    pub(super) has_objects: bool,
    pub(super) cut: bool,
    /// Where the complete members are: all of them, with the space and commas between.
    pub(super) members: (usize, usize),
    pub(super) spans: Spans,
}

/// The name of a member that may have to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Name {
    Kind,
    ApiVersion,
    StageTimestamp,
    Annotations,
    Object,
}

/// Where a member is, key and value.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    pub(super) name: Name,
    pub(super) from: usize,
    pub(super) to: usize,
}

/// Spans in the order of the text. An event has six at most, unless members come twice, so nothing
/// is allocated for one that passes through.
#[derive(Debug, Default)]
pub(super) struct Spans {
    first: [Option<Span>; 6],
    more: Vec<Span>,
}

impl Spans {
    fn push(&mut self, span: Span) {
        match self.first.iter_mut().find(|slot| slot.is_none()) {
            Some(slot) => *slot = Some(span),
            None => self.more.push(span),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Span> {
        self.first.iter().flatten().chain(&self.more)
    }
}

impl<'a> Seen<'a> {
    /// Reads an event's text, as far as it goes.
    pub(super) fn read(json: &'a str, claimed: bool) -> Result<Seen<'a>, Failure> {
        let mut seen = Seen::default();
        match seen.walk(json) {
            Ok(()) => Ok(seen),
            Err(json::Error {
                kind: json::ErrorKind::Incomplete,
                ..
            }) => {
                seen.cut = true;
                Ok(seen)
            }
            Err(error) => Err(Failure::of(claimed || seen.claims(), error.to_string())),
        }
    }

    fn walk(&mut self, json: &'a str) -> Result<(), json::Error> {
        let mut scanner = Scanner::new(json);
        scanner.open_object()?;
        self.members = (scanner.at(), scanner.at());
        while let Some((from, key)) = scanner.member()? {
            let value = scanner.value()?;
            let to = scanner.at();
            // A number at the very end may have lost digits.
            if to == json.len() && value.kind() == json::Kind::Number {
                return Err(json::Error {
                    at: to,
                    kind: json::ErrorKind::Incomplete,
                });
            }
            self.members.1 = to;
            if let Some(name) = self.remember(&key, value) {
                self.spans.push(Span { name, from, to });
            }
        }
        scanner.end()
    }

    fn remember(&mut self, key: &str, value: Raw<'a>) -> Option<Name> {
        let (slot, name) = match key {
            "kind" => (&mut self.kind, Some(Name::Kind)),
            "apiVersion" => (&mut self.api_version, Some(Name::ApiVersion)),
            "auditID" => (&mut self.audit_id, None),
            "stage" => (&mut self.stage, None),
            "verb" => (&mut self.verb, None),
            "stageTimestamp" => (&mut self.stage_timestamp, Some(Name::StageTimestamp)),
            "requestReceivedTimestamp" => (&mut self.request_received_timestamp, None),
            "timestamp" => (&mut self.timestamp, None),
            "annotations" => (&mut self.annotations, Some(Name::Annotations)),
            "requestObject" | "responseObject" => {
                self.has_objects = true;
                return Some(Name::Object);
            }
            _ => return None,
        };
        *slot = Some(value);
        name
    }

    /// Whether the text itself says that it is an audit event.
    pub(super) fn claims(&self) -> bool {
        self.audit_id.is_some() || self.kind.is_some_and(|kind| kind.text() == "\"Event\"")
    }

    /// Whether the event came with the mark already: the API server itself cut it.
    pub(super) fn marked(&self) -> bool {
        self.annotations
            .and_then(|raw| raw.get(TRUNCATED))
            .is_some()
    }

    /// The member that a receiver cannot do without and that is not there.
    pub(super) fn missing(&self) -> Option<&'static str> {
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

/// The text of an RFC 3339 time, when it is one and was set.
pub(super) fn read_time(raw: Option<Raw<'_>>) -> Option<Cow<'_, str>> {
    let text = raw?.as_str()?;
    let time = time::parse(&text)?;
    (time.as_second() != GO_ZERO_SECOND).then_some(text)
}
