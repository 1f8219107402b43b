//! Where events go: one narrow trait, so that tests of delivery use a fake.

mod shared;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::event::Event;
pub use shared::{SharedSink, Slot};

pub trait Sink: Send + Sync {
    /// Sends these events to the receiver, all in one request; none to see whether the receiver
    /// works. If the caller drops the future, the events may or may not have arrived.
    fn send(&self, events: &[Event]) -> impl Future<Output = Verdict> + Send;

    /// How many requests may be in flight at once, if the sink itself has a limit.
    fn in_flight_max(&self) -> usize {
        usize::MAX
    }

    /// Waits for a slot, where several pipelines share the sink.
    fn slot(&self) -> impl Future<Output = Slot> + Send {
        async { Slot::uncounted() }
    }

    /// The same for a parked event, which waits for others of its kind only.
    fn parked_slot(&self) -> impl Future<Output = Slot> + Send {
        async { Slot::uncounted() }
    }

    /// When the newest accepted request of any other pipeline began. `None`: there is none, or no
    /// other pipeline.
    fn accepted_of_others(&self) -> Option<Instant> {
        None
    }
}

/// A receiver's answer, with its clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiverAnswer {
    pub verdict: Verdict,
    /// The answer's `Date` header, if it has one.
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

    async fn parked_slot(&self) -> Slot {
        (**self).parked_slot().await
    }

    fn accepted_of_others(&self) -> Option<Instant> {
        (**self).accepted_of_others()
    }
}

/// How one request ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The receiver has the events.
    Accepted {
        /// The status of the answer.
        status: u16,
    },
    /// The receiver does not have the events, or that is unknown: send them again, whole or in
    /// parts.
    Failed(RequestFailure),
    /// The sink is broken and a retry does not help: the output cannot be written.
    Broken {
        /// What failed and the remedy, for people.
        detail: String,
        /// The reader of the pipe went away: not an error, if it had read enough.
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
    pub cause: Cause,
    /// What failed, for people.
    pub detail: String,
    /// What a person has to do; `None` where the failure usually passes by itself.
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
    /// The TLS handshake failed, usually because of a certificate.
    Tls,
    /// The host's name does not resolve.
    Dns,
    /// The token file is unusable; no request was made.
    Token,
    /// Any other failure, such as a broken connection. The events may have arrived.
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

    /// Whether the receiver says that the body itself is bad; then a smaller body may be accepted.
    pub fn blames_body(self) -> bool {
        matches!(self, Cause::Status(400 | 413 | 422))
    }

    /// Whether the receiver, or a proxy before it, may have seen the events. If not, the events did
    /// not cause the failure.
    pub fn reached_receiver(self) -> bool {
        !matches!(
            self,
            Cause::Connect | Cause::Tls | Cause::Dns | Cause::Token
        )
    }
}
