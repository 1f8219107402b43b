//! CloudWatch's form of a log event, decoded in one pass.
//!
//! `{"logStreamName"?, "timestamp"?, "message", "eventId"?, "ingestionTime"?}`: `FilteredLogEvent`,
//! `OutputLogEvent` and `LiveTailSessionLogEvent` of the CloudWatch Logs API Reference, and the
//! elements of `logEvents` of a subscription, of which our own reader repeats in each event what the
//! subscription's message says of all: `owner`, `logGroup`. `eventId` and `ingestionTime` are not
//! read: they belong to the source, which has them outside the payload.

pub(crate) mod packed;

use std::borrow::Cow;

use audit_bridge_core::event::embedded::{Embedded, is_event_member};
use audit_bridge_core::event::json::{self, Raw, Scanner};
use audit_bridge_core::event::time;
use jiff::Timestamp;

/// What a record's JSON object is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EksPayload<'a> {
    /// A CloudWatch event, read to its end.
    CloudWatch(LogEvent<'a>),
    /// Anything else: an audit event by itself, or nothing of ours.
    Other,
}

/// A CloudWatch event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LogEvent<'a> {
    /// `logStreamName`; `None` also when it is empty, as a subscription's control message has it.
    pub stream: Option<Cow<'a, str>>,
    /// `logGroup` of a subscription; elsewhere the user named the group.
    pub group: Option<Cow<'a, str>>,
    /// `owner` of a subscription: the account of the group.
    pub account: Option<Cow<'a, str>>,
    /// `timestamp`, milliseconds since 1970: what the sender said, which can be off by an hour.
    pub time: Option<Timestamp>,
    /// `message`; the Insights console exports an event as the object itself.
    pub message: Option<Embedded<'a>>,
    /// `messageType` is `CONTROL_MESSAGE`: our own dump reader repeats it in each event of the
    /// subscription message that says so.
    pub control: bool,
    /// A string named half of a UTF-16 surrogate pair, which is U+FFFD now.
    pub replaced: bool,
}

/// Reads a record that is a JSON object. Of two members with one name the last wins.
///
/// The keys decide what it is, in order: those that only a CloudWatch event has, or those that
/// only an audit event has. An audit event is not read further here.
///
/// # Errors
/// What makes it no JSON, if it is none up to where it is known to be an audit event.
pub(crate) fn read(text: &str) -> Result<EksPayload<'_>, json::Error> {
    let mut scanner = Scanner::new(text);
    let mut event = LogEvent::default();
    let mut is_cloud_watch = false;
    scanner.open_object()?;
    while let Some(key) = scanner.key()? {
        match &*key {
            "message" => event.message = Some(Embedded::read(&mut scanner)?),
            "logStreamName" => event.stream = scanner.value()?.as_text(),
            "logGroup" => event.group = scanner.value()?.as_text(),
            "owner" => event.account = scanner.value()?.as_text(),
            "timestamp" => event.time = millis(scanner.value()?),
            "messageType" => {
                event.control = scanner.value()?.as_str().as_deref() == Some(CONTROL_MESSAGE);
            }
            "eventId" | "ingestionTime" => {
                scanner.value()?;
            }
            name if !is_cloud_watch && is_event_member(name) => {
                return Ok(EksPayload::Other);
            }
            _ => {
                scanner.value()?;
                continue;
            }
        }
        // An old audit event has a `timestamp` too, and anything may have an owner.
        is_cloud_watch |= !matches!(&*key, "timestamp" | "owner" | "logGroup");
    }
    scanner.end()?;
    event.replaced = scanner.replaced();
    Ok(if is_cloud_watch {
        EksPayload::CloudWatch(event)
    } else {
        EksPayload::Other
    })
}

/// `messageType` of the message with which CloudWatch Logs checks a subscription's destination
/// (CloudWatch Logs User Guide, "Subscription filters").
pub(crate) const CONTROL_MESSAGE: &str = "CONTROL_MESSAGE";

/// How the text of such a message starts.
pub(crate) const CONTROL_TEXT: &str = "CWL CONTROL MESSAGE:";

/// A time as CloudWatch and Insights write it, a number or a string: see [`date_or_millis`].
pub(crate) fn millis(raw: Raw<'_>) -> Option<Timestamp> {
    match raw.as_i64() {
        Some(ms) => of_millis(ms),
        None => time::parse_lenient(&raw.as_str()?),
    }
}

/// Milliseconds since 1970 in digits, or a time as text: `2026-11-21 18:46:35.975` (Insights),
/// `2026-11-21T18:46:35` (`aws logs tail --format short`).
pub(crate) fn date_or_millis(text: &str) -> Option<Timestamp> {
    match text.parse() {
        Ok(ms) => of_millis(ms),
        Err(_) => time::parse_lenient(text),
    }
}

fn of_millis(ms: i64) -> Option<Timestamp> {
    time::after_1970(Timestamp::from_millisecond(ms).ok()?)
}
