//! Errors of the event hub, with remedies.
//!
//! The client library wraps an AMQP condition in several layers, and prints them for its own
//! authors. This module finds the layer that states the cause and describes that.

use std::error::Error;
use std::fmt;
use std::io;

use audit_bridge_core::readiness::{Component, Unavailable};
use azure_core::error::ErrorKind as AzureErrorKind;
use azure_core_amqp::error::{AmqpErrorCondition, AmqpErrorKind};
use azure_core_amqp::{AmqpDescribedError, AmqpError};
use azure_messaging_eventhubs::EventHubsError;
use azure_messaging_eventhubs::error::ErrorKind;

/// The offset is of the kind of a namespace without replication, but this one is replicated.
const OFFSET_OF_ANOTHER_KIND: &str = "com.microsoft:georeplication:invalid-offset";
/// What the AMQP library says, and no type of ours shows, where a message is not as it expects.
const DECODING_FAILED: &str = "Decoding Message failed";
/// The longest chain of causes that is looked through.
const CAUSES_MAX: usize = 16;

/// The kind of an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HubErrorKind {
    /// There is no token, or no usable connection string.
    Identity,
    /// Azure knows our identity, and denies access.
    Denied,
    /// No such hub, consumer group or partition.
    NotFound,
    /// The namespace's name does not resolve.
    Unresolved,
    /// No answer.
    Unreachable,
    /// The other side's certificate is not trusted.
    Tls,
    /// Another consumer took the partition.
    Stolen,
    /// The consumer group has as many receivers as it may have.
    Crowded,
    /// Azure asks us to slow down.
    Busy,
    /// The partition has no such position.
    Position,
    /// The next message cannot be decoded.
    Undecodable,
    /// The link ended, which is normal.
    Ended,
    /// Anything else.
    Other,
}

/// An error of the event hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubError {
    /// Of this kind.
    pub kind: HubErrorKind,
    /// What happened, in a line.
    pub what: String,
    /// What to do; empty when it passes by itself.
    pub remedy: String,
}

impl HubError {
    /// A fault without a remedy.
    pub(crate) fn new(kind: HubErrorKind, what: impl Into<String>) -> HubError {
        HubError {
            kind,
            what: what.into(),
            remedy: String::new(),
        }
    }

    /// What the client library says.
    pub(super) fn of(error: &EventHubsError) -> HubError {
        let (kind, what) = read(error);
        HubError::new(kind, one_line(&what))
    }

    /// The part of the bridge that it concerns.
    pub fn component(&self) -> Component {
        match self.kind {
            HubErrorKind::Identity => Component::Identity,
            _ => Component::Source,
        }
    }

    /// The value of the `status` label in the metric of requests.
    pub fn status(&self) -> &'static str {
        match self.kind {
            HubErrorKind::Identity => "identity",
            HubErrorKind::Denied => "denied",
            HubErrorKind::NotFound => "not_found",
            HubErrorKind::Unresolved => "dns",
            HubErrorKind::Unreachable => "unreachable",
            HubErrorKind::Tls => "tls",
            HubErrorKind::Stolen => "stolen",
            HubErrorKind::Crowded => "crowded",
            HubErrorKind::Busy => "busy",
            HubErrorKind::Position => "position",
            HubErrorKind::Undecodable => "undecodable",
            HubErrorKind::Ended => "ended",
            HubErrorKind::Other => "error",
        }
    }
}

impl fmt::Display for HubError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if !self.remedy.is_empty() {
            write!(f, "; {}", self.remedy)?;
        }
        Ok(())
    }
}

impl Error for HubError {}

impl From<HubError> for Unavailable {
    fn from(fault: HubError) -> Unavailable {
        Unavailable {
            component: fault.component(),
            remedy: match (fault.remedy.is_empty(), fault.kind) {
                (false, _) => fault.remedy,
                (true, HubErrorKind::Ended) => "it is tried again".to_owned(),
                (true, _) => "it is tried again; if it stays, please report it".to_owned(),
            },
            reason: fault.what,
        }
    }
}

/// The outermost layer that states the kind; otherwise the innermost text.
fn read(error: &EventHubsError) -> (HubErrorKind, String) {
    if let ErrorKind::ConsumerDisconnected(why) = &error.kind {
        let why = why.as_ref().map_or_else(
            || "another consumer took the partition".to_owned(),
            described_text,
        );
        return (HubErrorKind::Stolen, why);
    }
    let mut cause: &(dyn Error + 'static) = error;
    for _ in 0..CAUSES_MAX {
        if cause.to_string() == DECODING_FAILED {
            let why = cause.source().map(ToString::to_string);
            return (
                HubErrorKind::Undecodable,
                undecodable(&why.unwrap_or_default()),
            );
        }
        let found = if let Some(amqp) = cause.downcast_ref::<AmqpError>() {
            of_amqp(amqp)
        } else if let Some(azure) = cause.downcast_ref::<azure_core::Error>() {
            of_azure(azure)
        } else {
            cause.downcast_ref::<io::Error>().map(of_io)
        };
        if let Some(found) = found {
            return found;
        }
        match cause.source() {
            Some(next) => cause = next,
            None => break,
        }
    }
    of_text(cause.to_string())
}

fn of_amqp(error: &AmqpError) -> Option<(HubErrorKind, String)> {
    match error.kind() {
        AmqpErrorKind::AmqpDescribedError(described) => {
            Some((of_condition(described), described_text(described)))
        }
        AmqpErrorKind::ManagementStatusCode(status, why) => {
            let kind = match u16::from(*status) {
                401 | 403 => HubErrorKind::Denied,
                404 => HubErrorKind::NotFound,
                429 | 503 => HubErrorKind::Busy,
                _ => HubErrorKind::Other,
            };
            let why = why.as_deref().unwrap_or("no reason given");
            Some((kind, format!("{}: {why}", u16::from(*status))))
        }
        AmqpErrorKind::LinkClosedByRemote(why)
        | AmqpErrorKind::LinkDetachedByRemote(why)
        | AmqpErrorKind::SessionClosedByRemote(why)
        | AmqpErrorKind::ConnectionClosedByRemote(why)
        | AmqpErrorKind::ConnectionDropped(why)
        | AmqpErrorKind::IdleTimeoutElapsed(why)
        | AmqpErrorKind::LinkStateError(why) => Some((HubErrorKind::Ended, why.to_string())),
        _ => None,
    }
}

fn of_condition(described: &AmqpDescribedError) -> HubErrorKind {
    match &described.condition {
        AmqpErrorCondition::ArgumentError => HubErrorKind::Position,
        AmqpErrorCondition::UnknownValue(condition) if condition == OFFSET_OF_ANOTHER_KIND => {
            HubErrorKind::Position
        }
        AmqpErrorCondition::UnauthorizedAccess => HubErrorKind::Denied,
        AmqpErrorCondition::NotFound => HubErrorKind::NotFound,
        AmqpErrorCondition::LinkStolen => HubErrorKind::Stolen,
        AmqpErrorCondition::ResourceLimitExceeded => HubErrorKind::Crowded,
        AmqpErrorCondition::ServerBusyError => HubErrorKind::Busy,
        AmqpErrorCondition::LinkDetachForced
        | AmqpErrorCondition::ConnectionForced
        | AmqpErrorCondition::TimeoutError
        | AmqpErrorCondition::InternalError => HubErrorKind::Ended,
        _ => HubErrorKind::Other,
    }
}

/// The library's text without the delivery's debug output before it.
fn undecodable(why: &str) -> String {
    let why = why.rsplit_once("}: ").map_or(why, |(_, why)| why);
    format!("a message cannot be decoded: {why}")
}

fn described_text(described: &AmqpDescribedError) -> String {
    let condition = described.condition.as_ref();
    match &described.description {
        Some(why) => format!("{condition}: {why}"),
        None => condition.to_owned(),
    }
}

fn of_azure(error: &azure_core::Error) -> Option<(HubErrorKind, String)> {
    matches!(error.kind(), AzureErrorKind::Credential)
        .then(|| (HubErrorKind::Identity, chain(error)))
}

fn of_io(error: &io::Error) -> (HubErrorKind, String) {
    let text = chain(error);
    if text.contains("lookup address") {
        return (HubErrorKind::Unresolved, text);
    }
    if text.contains("certificate") {
        return (HubErrorKind::Tls, text);
    }
    let kind = match error.kind() {
        io::ErrorKind::ConnectionRefused
        | io::ErrorKind::TimedOut
        | io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable => HubErrorKind::Unreachable,
        _ => HubErrorKind::Ended,
    };
    (kind, text)
}

/// Finds the kind in the innermost text, if no type states it.
fn of_text(text: String) -> (HubErrorKind, String) {
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    // WebSockets: the library keeps the cause as a text only.
    let is_io = text.starts_with("IO error: ");
    let kind = if text.contains("certificate") {
        HubErrorKind::Tls
    } else if text.starts_with("HTTP error: ") {
        return (
            HubErrorKind::Unreachable,
            format!("no WebSocket was opened: {text}"),
        );
    } else if is_io && says(&["lookup address"]) {
        HubErrorKind::Unresolved
    } else if is_io && says(&["refused", "timed out", "unreachable"]) {
        HubErrorKind::Unreachable
    } else if is_io {
        HubErrorKind::Ended
    } else {
        HubErrorKind::Other
    };
    (kind, text)
}

fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let more = cause.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        next = cause.source();
    }
    text
}

/// The text in one line, without IDs of the request and times, which would make every message
/// unique.
fn one_line(text: &str) -> String {
    const PASSING: [&str; 4] = [
        "TrackingId:",
        "Reference:",
        "\nTo troubleshoot",
        "Trace ID:",
    ];
    let end = PASSING
        .iter()
        .filter_map(|mark| text.find(mark))
        .min()
        .unwrap_or(text.len());
    let text = text.get(..end).unwrap_or(text);
    let words: Vec<&str> = text.split_whitespace().collect();
    words
        .join(" ")
        .trim_end_matches(['.', ',', ';', ' '])
        .to_owned()
}
