//! Decodes CloudWatch's form of a log event, in one pass.
//!
//! `{"logStreamName"?, "timestamp"?, "message", "eventId"?, "ingestionTime"?}` is
//! `FilteredLogEvent`, `OutputLogEvent` or `LiveTailSessionLogEvent` of the CloudWatch Logs API
//! Reference, or an element of a subscription's `logEvents`. Our reader copies `owner` and
//! `logGroup` of the subscription's message into each of its events. `eventId` and `ingestionTime`
//! are not decoded: the source keeps them outside the payload.

pub(crate) mod packed;

use std::borrow::Cow;

use audit_bridge_core::event::embedded::{Embedded, is_event_member};
use audit_bridge_core::event::json::{self, Raw, Scanner};
use audit_bridge_core::event::time;
use jiff::Timestamp;

/// The kind of a record's JSON object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EksPayload<'a> {
    /// A CloudWatch event, completely decoded.
    CloudWatch(LogEvent<'a>),
    /// Anything else: a bare audit event, or an unknown object.
    Other,
}

/// A CloudWatch event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LogEvent<'a> {
    /// `logStreamName`; `None` also if it is empty, as in a subscription's control message.
    pub stream: Option<Cow<'a, str>>,
    /// `logGroup` of a subscription; other sources have a group that the user named.
    pub group: Option<Cow<'a, str>>,
    /// `owner` of a subscription: the group's account.
    pub account: Option<Cow<'a, str>>,
    /// `timestamp`, milliseconds since 1970, set by the sender, whose clock can be off by an hour.
    pub time: Option<Timestamp>,
    /// `message`; in exports of the Insights console it is the audit event as an object.
    pub message: Option<Embedded<'a>>,
    /// `messageType` is `CONTROL_MESSAGE`. Our dump reader copies it from the subscription's
    /// message into each event.
    pub control: bool,
    /// A string contained half of a UTF-16 surrogate pair, which was replaced by U+FFFD.
    pub replaced: bool,
}

/// Decodes a record that is a JSON object. Of two members with one name the last wins.
///
/// The keys decide the kind, in order: some only a CloudWatch event has, some only an audit event.
/// An audit event is not decoded further here.
///
/// # Errors
/// The record is no JSON; for an audit event only the part before it is recognised is checked.
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

/// `messageType` of the message with which CloudWatch Logs tests a subscription's destination
/// (CloudWatch Logs User Guide, "Subscription filters").
pub(crate) const CONTROL_MESSAGE: &str = "CONTROL_MESSAGE";

/// How the text of such a message begins.
pub(crate) const CONTROL_TEXT: &str = "CWL CONTROL MESSAGE:";

/// A time in CloudWatch's or Insights' form, a number or a string: see [`date_or_millis`].
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
