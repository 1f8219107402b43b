//! Where events go: one narrow trait, so that delivery is tested against a fake.

mod shared;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::event::Event;
pub use shared::{SharedSink, Slot};

/// Takes events and says what became of them.
pub trait Sink: Send + Sync {
    /// Brings these events to the receiver, all in one request. The future may be dropped: then
    /// the events may or may not have arrived.
    fn send(&self, events: &[Event]) -> impl Future<Output = Verdict> + Send;

    /// How many requests may be under way at once, if the sink itself has a limit.
    fn in_flight_max(&self) -> usize {
        usize::MAX
    }

    /// Waits until a batch may be sent, where others send too.
    fn slot(&self) -> impl Future<Output = Slot> + Send {
        async { Slot::uncounted() }
    }

    /// When the newest request began that another pipeline made and that was accepted; `None`: none
    /// was, or there is no other.
    fn accepted_of_others(&self) -> Option<Instant> {
        None
    }
}

/// What a receiver said, and when by its own clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiverAnswer {
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

    async fn slot(&self) -> Slot {
        (**self).slot().await
    }

    fn accepted_of_others(&self) -> Option<Instant> {
        (**self).accepted_of_others()
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
    /// It does not have them, or nobody knows: send them again, whole or in parts.
    Failed(RequestFailure),
    /// The sink is broken and a retry does not help: an output that cannot be written.
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
            Verdict::Accepted { status } => Cause::Status(*status).label(),
            Verdict::Failed(failure) => failure.cause.label(),
            Verdict::Broken { .. } => Cause::Other.label(),
        }
    }
}

/// A request that was not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestFailure {
    /// What failed.
    pub cause: Cause,
    /// What failed, for a person.
    pub detail: String,
    /// What a person has to do about it; `None` where it mostly passes by itself.
    pub remedy: Option<Cow<'static, str>>,
    /// How long the receiver asked to wait.
    pub after: Option<Duration>,
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

    /// Whether the receiver says that the body itself is bad, so that a smaller one may be good.
    pub fn blames_body(self) -> bool {
        matches!(self, Cause::Status(400 | 413 | 422))
    }

    /// Whether the receiver, or something before it, may have seen the events: else they are not
    /// what failed.
    pub fn reached_receiver(self) -> bool {
        !matches!(
            self,
            Cause::Connect | Cause::Tls | Cause::Dns | Cause::Token
        )
    }
}
