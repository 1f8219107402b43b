//! What can be wrong between us and the event hub, and what to do about it.
//!
//! The client library wraps an AMQP condition in several layers, and prints them in a way that is
//! for its authors; here the layer that says it is found and put into words.

use std::error::Error;
use std::fmt;
use std::io;

use audit_bridge_core::readiness::{Part, Trouble};
use azure_core::error::ErrorKind as AzureErrorKind;
use azure_core_amqp::error::{AmqpErrorCondition, AmqpErrorKind};
use azure_core_amqp::{AmqpDescribedError, AmqpError};
use azure_messaging_eventhubs::EventHubsError;
use azure_messaging_eventhubs::error::ErrorKind;

/// The longest chain of causes that is looked through.
const CAUSES_MAX: usize = 16;

/// What kind of trouble it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// There is no token, or no usable connection string.
    Identity,
    /// Azure knows us, and does not let us read.
    Denied,
    /// No such hub, consumer group or partition.
    NotFound,
    /// The namespace's name does not resolve.
    Unresolved,
    /// Nobody answers.
    Unreachable,
    /// The other side's certificate is not trusted.
    Tls,
    /// Another consumer took the partition.
    Stolen,
    /// The consumer group has as many receivers as it may have.
    Crowded,
    /// Azure asks us to slow down.
    Busy,
    /// The link ended, as links do.
    Ended,
    /// Anything else.
    Other,
}

/// Trouble with the event hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Of this kind.
    pub kind: FaultKind,
    /// What happened, in a line.
    pub what: String,
    /// What to do; empty when it passes by itself.
    pub remedy: String,
}

impl Fault {
    /// A fault without a remedy.
    pub(crate) fn new(kind: FaultKind, what: impl Into<String>) -> Fault {
        Fault {
            kind,
            what: what.into(),
            remedy: String::new(),
        }
    }

    /// What the client library says.
    pub(super) fn of(error: &EventHubsError) -> Fault {
        let (kind, what) = read(error);
        Fault::new(kind, one_line(&what))
    }

    /// The part of the bridge that it concerns.
    pub fn part(&self) -> Part {
        match self.kind {
            FaultKind::Identity => Part::Identity,
            _ => Part::Source,
        }
    }

    /// Its name among the outcomes of requests.
    pub fn status(&self) -> &'static str {
        match self.kind {
            FaultKind::Identity => "identity",
            FaultKind::Denied => "denied",
            FaultKind::NotFound => "not_found",
            FaultKind::Unresolved => "dns",
            FaultKind::Unreachable => "unreachable",
            FaultKind::Tls => "tls",
            FaultKind::Stolen => "stolen",
            FaultKind::Crowded => "crowded",
            FaultKind::Busy => "busy",
            FaultKind::Ended => "ended",
            FaultKind::Other => "error",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if !self.remedy.is_empty() {
            write!(f, "; {}", self.remedy)?;
        }
        Ok(())
    }
}

impl Error for Fault {}

impl From<Fault> for Trouble {
    fn from(fault: Fault) -> Trouble {
        Trouble {
            part: fault.part(),
            remedy: match (fault.remedy.is_empty(), fault.kind) {
                (false, _) => fault.remedy,
                (true, FaultKind::Ended) => "it is tried again".to_owned(),
                (true, _) => "it is tried again; if it stays, please report it".to_owned(),
            },
            what: fault.what,
        }
    }
}

/// The first layer, from the outside, that says what kind it is; otherwise the innermost text.
fn read(error: &EventHubsError) -> (FaultKind, String) {
    if let ErrorKind::ConsumerDisconnected(why) = &error.kind {
        let why = why.as_ref().map_or_else(
            || "another consumer took the partition".to_owned(),
            described_text,
        );
        return (FaultKind::Stolen, why);
    }
    let mut cause: &(dyn Error + 'static) = error;
    for _ in 0..CAUSES_MAX {
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

fn of_amqp(error: &AmqpError) -> Option<(FaultKind, String)> {
    match error.kind() {
        AmqpErrorKind::AmqpDescribedError(described) => {
            Some((of_condition(described), described_text(described)))
        }
        AmqpErrorKind::ManagementStatusCode(status, why) => {
            let kind = match u16::from(*status) {
                401 | 403 => FaultKind::Denied,
                404 => FaultKind::NotFound,
                429 | 503 => FaultKind::Busy,
                _ => FaultKind::Other,
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
        | AmqpErrorKind::LinkStateError(why) => Some((FaultKind::Ended, why.to_string())),
        _ => None,
    }
}

fn of_condition(described: &AmqpDescribedError) -> FaultKind {
    match described.condition {
        AmqpErrorCondition::UnauthorizedAccess => FaultKind::Denied,
        AmqpErrorCondition::NotFound => FaultKind::NotFound,
        AmqpErrorCondition::LinkStolen => FaultKind::Stolen,
        AmqpErrorCondition::ResourceLimitExceeded => FaultKind::Crowded,
        AmqpErrorCondition::ServerBusyError => FaultKind::Busy,
        AmqpErrorCondition::LinkDetachForced
        | AmqpErrorCondition::ConnectionForced
        | AmqpErrorCondition::TimeoutError
        | AmqpErrorCondition::InternalError => FaultKind::Ended,
        _ => FaultKind::Other,
    }
}

fn described_text(described: &AmqpDescribedError) -> String {
    let condition = described.condition.as_ref();
    match &described.description {
        Some(why) => format!("{condition}: {why}"),
        None => condition.to_owned(),
    }
}

fn of_azure(error: &azure_core::Error) -> Option<(FaultKind, String)> {
    matches!(error.kind(), AzureErrorKind::Credential).then(|| (FaultKind::Identity, chain(error)))
}

fn of_io(error: &io::Error) -> (FaultKind, String) {
    let text = chain(error);
    if text.contains("lookup address") {
        return (FaultKind::Unresolved, text);
    }
    if text.contains("certificate") {
        return (FaultKind::Tls, text);
    }
    let kind = match error.kind() {
        io::ErrorKind::ConnectionRefused
        | io::ErrorKind::TimedOut
        | io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable => FaultKind::Unreachable,
        _ => FaultKind::Ended,
    };
    (kind, text)
}

/// What no type tells: the innermost text may.
fn of_text(text: String) -> (FaultKind, String) {
    let kind = if text.contains("certificate") {
        FaultKind::Tls
    } else {
        FaultKind::Other
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

/// Azure adds identities of the request and the time, which make every message a new one.
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
