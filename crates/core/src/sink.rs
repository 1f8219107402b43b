//! Where events go: the webhook, or an output for people. One narrow trait, so that delivery is
//! tested against a fake.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::event::Event;
use crate::output::Output;
use crate::webhook::Webhook;

/// Takes events and says what became of them.
pub trait Sink: Send + Sync {
    /// Brings these events to the receiver, all in one request. The future may be dropped: then
    /// the events may or may not have arrived.
    fn send(&self, events: &[Event]) -> impl Future<Output = Verdict> + Send;

    /// How many requests may be under way at once, if the sink itself has a limit.
    fn in_flight_max(&self) -> usize {
        usize::MAX
    }
}

/// Either of the two ways out.
#[derive(Debug)]
pub enum Target {
    /// POST to a webhook.
    Webhook(Webhook),
    /// Standard output or a file.
    Output(Output),
}

impl Target {
    /// The same for a run with a checkpoint: what is accepted survives a crash.
    #[must_use]
    pub fn durable(self) -> Target {
        match self {
            Target::Output(output) => Target::Output(output.durable()),
            webhook @ Target::Webhook(_) => webhook,
        }
    }

    /// Asks the receiver whether it would take events, with an empty list.
    pub async fn ask(&self) -> Answer {
        match self {
            Target::Webhook(webhook) => webhook.ask().await,
            Target::Output(_) => Answer {
                verdict: Verdict::Accepted { status: 200 },
                server_time: None,
            },
        }
    }
}

/// What a receiver said, and when by its own clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// What it means.
    pub verdict: Verdict,
    /// Its `Date`, if it gives one.
    pub server_time: Option<Timestamp>,
}

impl<S: Sink> Sink for Arc<S> {
    async fn send(&self, events: &[Event]) -> Verdict {
        (**self).send(events).await
    }

    fn in_flight_max(&self) -> usize {
        (**self).in_flight_max()
    }
}

impl Sink for Target {
    async fn send(&self, events: &[Event]) -> Verdict {
        match self {
            Target::Webhook(webhook) => webhook.send(events).await,
            Target::Output(output) => output.send(events).await,
        }
    }

    fn in_flight_max(&self) -> usize {
        match self {
            Target::Webhook(webhook) => webhook.in_flight_max(),
            Target::Output(output) => output.in_flight_max(),
        }
    }
}

/// What became of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The receiver has the events.
    Accepted {
        /// The status of the answer.
        status: u16,
    },
    /// The receiver does not want this body: one of its events is at fault, or the receiver is
    /// misconfigured. Sending fewer events tells which.
    Refused {
        /// The status of the answer.
        status: u16,
        /// What the receiver said, for a person.
        detail: String,
    },
    /// Nothing is wrong with the events, and a person must act. Never drop, try again for ever.
    Hold {
        /// What failed.
        cause: Cause,
        /// What failed, for a person.
        detail: String,
        /// What to do about it.
        remedy: Cow<'static, str>,
    },
    /// It will pass. Never drop, try again for ever.
    Retry {
        /// What failed.
        cause: Cause,
        /// How long the receiver asked to wait.
        after: Option<Duration>,
        /// What failed, for a person.
        detail: String,
    },
    /// The way out is broken and trying again does not help: an output that cannot be written.
    Broken {
        /// What failed, for a person, with the remedy.
        detail: String,
        /// The reader of the pipe went away: no fault, if it had enough.
        pipe_closed: bool,
    },
}

impl Verdict {
    /// The request's label in metrics: bounded, see [`Cause::label`].
    pub fn label(&self) -> Cow<'static, str> {
        match self {
            Verdict::Accepted { status } | Verdict::Refused { status, .. } => {
                Cause::Status(*status).label()
            }
            Verdict::Hold { cause, .. } | Verdict::Retry { cause, .. } => cause.label(),
            Verdict::Broken { .. } => Cause::Other.label(),
        }
    }
}

/// Why a request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// The receiver answered with this status.
    Status(u16),
    /// No connection: refused, unreachable.
    Connect,
    /// No answer in time. The events may have arrived.
    Timeout,
    /// The TLS handshake, mostly a certificate.
    Tls,
    /// The host's name does not resolve.
    Dns,
    /// The token file cannot be used; no request was made.
    Token,
    /// Everything else, such as a connection that broke. The events may have arrived.
    Other,
}

impl Cause {
    /// The status as text, or `connect`, `timeout`, `tls`, `dns`, `token`, `error`.
    pub fn label(self) -> Cow<'static, str> {
        match self {
            Cause::Status(status @ 100..=599) => status.to_string().into(),
            Cause::Connect => "connect".into(),
            Cause::Timeout => "timeout".into(),
            Cause::Tls => "tls".into(),
            Cause::Dns => "dns".into(),
            Cause::Token => "token".into(),
            Cause::Status(_) | Cause::Other => "error".into(),
        }
    }

    /// The status of the answer, if there was one.
    pub fn status(self) -> Option<u16> {
        match self {
            Cause::Status(status) => Some(status),
            _ => None,
        }
    }
}
