//! Decodes the record of an AKS diagnostic setting, in one pass.
//!
//! `{"time","category","operationName","resourceId","properties":{"log","stream","pod",
//! "containerID"},…}` (Azure Monitor, "Common and service-specific schemas for Azure resource
//! logs"; `properties`: "Monitoring AKS data reference"). Decoded are the time, the category, the
//! resource and the log. The rest concerns the pod that wrote the log (`pod`, `containerID`,
//! `stream`, `ccpNamespace`) or Azure (`serviceBuild`, `Cloud`, `Environment`, `operationName`,
//! which is the same in every record) and does not belong in an audit event.
//!
//! Names are compared without case, as exports vary it.

use std::borrow::Cow;

use audit_bridge_core::event::embedded::{Embedded, is_event_member};
use audit_bridge_core::event::json::{self, Scanner};
use audit_bridge_core::event::time;
use jiff::Timestamp;

/// The kind of a record's JSON object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AksPayload<'a> {
    /// A record of a diagnostic setting, completely decoded.
    Diagnostic(Diagnostic<'a>),
    /// Anything else: a bare audit event, or an unknown object.
    Other,
}

/// A record of a diagnostic setting.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Diagnostic<'a> {
    /// `time`: when the log line was written, shortly after the event's own times.
    pub time: Option<Timestamp>,
    /// `category`, unless it is empty.
    pub category: Option<Cow<'a, str>>,
    /// `resourceId`, unless it is empty.
    pub resource_id: Option<Cow<'a, str>>,
    /// `properties.log`, usually a string that ends with a line feed; in some exports the event as
    /// an object.
    pub log: Option<Embedded<'a>>,
    /// A string contained half of a UTF-16 surrogate pair, which was replaced by U+FFFD. Azure cuts
    /// a long log by UTF-16 units, possibly between the halves of a pair.
    pub replaced: bool,
}

/// Decodes a record that is a JSON object. Of two members with one name the last wins.
///
/// The keys decide the kind, in order: some only a diagnostic record has, some only an audit event.
/// An audit event is not decoded further here.
///
/// # Errors
/// The record is no JSON; for an audit event only the part before it is recognised is checked.
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

/// The log in `properties`, which is an object or a string that contains one.
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
