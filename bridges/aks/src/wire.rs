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

use audit_bridge_core::event::embedded::{Embedded, is_event_member};
use audit_bridge_core::event::json::{self, Scanner};
use audit_bridge_core::event::time;
use jiff::Timestamp;

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
    /// `properties.log`, a text mostly with a line feed at its end; some exports give an event as the
    /// object itself.
    pub log: Option<Embedded<'a>>,
    /// A string named half of a UTF-16 surrogate pair, which is U+FFFD now. Azure cuts a long log at
    /// a count of UTF-16 units, and that may be between the halves of a pair.
    pub replaced: bool,
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
            record.category = scanner.value()?.as_text();
        } else if is("resourceId") {
            record.resource_id = scanner.value()?.as_text();
        } else if is("time") {
            let time = scanner.value()?.as_str();
            record.time = time.and_then(|text| time::parse_lenient(&text));
            continue;
        } else if is("operationName") {
            scanner.value()?;
        } else {
            if !is_diagnostic && is_event_member(&key) {
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
fn properties<'a>(scanner: &mut Scanner<'a>) -> Result<Option<Embedded<'a>>, json::Error> {
    match scanner.peek() {
        Some(b'{') => log_member(scanner),
        Some(b'"') => match scanner.string()? {
            Cow::Borrowed(inner) => Ok(log_member(&mut Scanner::new(inner)).unwrap_or(None)),
            Cow::Owned(inner) => Ok(log_member(&mut Scanner::new(&inner))
                .unwrap_or(None)
                .map(Embedded::into_owned)),
        },
        _ => scanner.value().map(|_| None),
    }
}

fn log_member<'a>(scanner: &mut Scanner<'a>) -> Result<Option<Embedded<'a>>, json::Error> {
    let mut log = None;
    scanner.open_object()?;
    while let Some(key) = scanner.key()? {
        if !key.eq_ignore_ascii_case("log") {
            scanner.value()?;
        } else {
            log = Some(Embedded::read(scanner)?);
        }
    }
    Ok(log)
}
