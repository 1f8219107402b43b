//! The record of an AKS diagnostic setting, decoded in one pass.
//!
//! `{"time","category","operationName","resourceId","properties":{"log","stream","pod",
//! "containerID"},…}` (Azure Monitor, "Common and service-specific schemas for Azure resource
//! logs"; `properties`: "Monitoring AKS data reference"). Read are the time, the category, the
//! resource and the log. The rest is about the pod that wrote the log (`pod`, `containerID`,
//! `stream`, `ccpNamespace`) or about Azure (`serviceBuild`, `Cloud`, `Environment`,
//! `operationName`, which is the same in every record) and has no place in an audit event.
//!
//! Exports write some names with other casing, so names are compared without it.

use std::borrow::Cow;

use audit_bridge_core::event::json::{self, Raw, Scanner};
use audit_bridge_core::event::time;
use jiff::Timestamp;
use jiff::civil::DateTime;

/// What a record's JSON object is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AksPayload<'a> {
    /// A record of a diagnostic setting, read to its end.
    Diagnostic(Diagnostic<'a>),
    /// Anything else: an audit event by itself, or nothing of ours.
    Other,
}

/// A record of a diagnostic setting.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Diagnostic<'a> {
    /// `time`: when the log line was written, a moment after the event's own times.
    pub time: Option<Timestamp>,
    /// `category`, unless it is empty.
    pub category: Option<Cow<'a, str>>,
    /// `resourceId`, unless it is empty.
    pub resource_id: Option<Cow<'a, str>>,
    /// `properties.log`.
    pub log: Option<LogLine<'a>>,
    /// A string named half of a UTF-16 surrogate pair, which is U+FFFD now. Azure cuts a long log at
    /// a count of UTF-16 units, and that may be between the halves of a pair.
    pub replaced: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LogLine<'a> {
    /// A string, decoded; mostly with a line feed at its end.
    Text(Cow<'a, str>),
    /// Some other JSON: some exports give the event as the object itself.
    Json(Raw<'a>),
}

/// Reads a record that is a JSON object. Of two members with one name the last wins.
///
/// The keys decide what it is, in order: those that only a diagnostic record has, or those that
/// only an audit event has. An audit event is not read further here.
///
/// # Errors
/// What makes it no JSON, if it is none up to where it is known to be an audit event.
pub(crate) fn read(text: &str) -> Result<AksPayload<'_>, json::Error> {
    let mut scanner = Scanner::new(text);
    let mut record = Diagnostic::default();
    let mut is_diagnostic = false;
    scanner.open_object()?;
    while let Some(key) = scanner.key()? {
        let is = |name: &str| key.eq_ignore_ascii_case(name);
        if is("properties") {
            record.log = properties(&mut scanner)?;
        } else if is("category") {
            record.category = text_of(scanner.value()?);
        } else if is("resourceId") {
            record.resource_id = text_of(scanner.value()?);
        } else if is("time") {
            record.time = scanner.value()?.as_str().and_then(|text| date(&text));
            continue;
        } else if is("operationName") {
            scanner.value()?;
        } else {
            if !is_diagnostic && matches!(&*key, "kind" | "apiVersion" | "auditID" | "stage") {
                return Ok(AksPayload::Other);
            }
            scanner.value()?;
            continue;
        }
        is_diagnostic = true;
    }
    scanner.end()?;
    record.replaced = scanner.replaced();
    Ok(if is_diagnostic {
        AksPayload::Diagnostic(record)
    } else {
        AksPayload::Other
    })
}

/// The log out of `properties`, which is an object, or one as a string.
fn properties<'a>(scanner: &mut Scanner<'a>) -> Result<Option<LogLine<'a>>, json::Error> {
    match scanner.peek() {
        Some(b'{') => log_member(scanner),
        Some(b'"') => match scanner.string()? {
            Cow::Borrowed(inner) => Ok(log_member(&mut Scanner::new(inner)).unwrap_or(None)),
            Cow::Owned(inner) => Ok(log_member(&mut Scanner::new(&inner))
                .unwrap_or(None)
                .map(LogLine::into_owned)),
        },
        _ => scanner.value().map(|_| None),
    }
}

fn log_member<'a>(scanner: &mut Scanner<'a>) -> Result<Option<LogLine<'a>>, json::Error> {
    let mut log = None;
    scanner.open_object()?;
    while let Some(key) = scanner.key()? {
        if !key.eq_ignore_ascii_case("log") {
            scanner.value()?;
        } else if scanner.peek() == Some(b'"') {
            log = Some(LogLine::Text(scanner.string()?));
        } else {
            log = Some(LogLine::Json(scanner.value()?));
        }
    }
    Ok(log)
}

impl LogLine<'_> {
    fn into_owned(self) -> LogLine<'static> {
        match self {
            LogLine::Text(text) => LogLine::Text(Cow::Owned(text.into_owned())),
            // An object's text is what a string that holds it decodes to.
            LogLine::Json(raw) => LogLine::Text(Cow::Owned(raw.text().to_owned())),
        }
    }
}

fn text_of(raw: Raw<'_>) -> Option<Cow<'_, str>> {
    raw.as_str().filter(|text| !text.is_empty())
}

/// A record's time: RFC 3339 with any number of fraction digits (Azure writes none, three, seven
/// and nine); without a zone it is UTC. A time before 1970 is a placeholder, not a time.
fn date(text: &str) -> Option<Timestamp> {
    let read = time::parse(text).or_else(|| {
        let civil = text.parse::<DateTime>().ok()?;
        civil
            .to_zoned(jiff::tz::TimeZone::UTC)
            .ok()
            .map(|zoned| zoned.timestamp())
    })?;
    (read > Timestamp::UNIX_EPOCH).then_some(read)
}
