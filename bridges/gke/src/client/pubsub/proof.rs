//! Decides whether a stream without messages is quiet or dead.

use std::time::Duration;

use audit_bridge_app::telemetry::Telemetry;
use audit_bridge_core::readiness::Unavailable;
use jiff::Timestamp;
use tokio::time::Instant;

use super::ack_ledger::OpenMessages;
use super::connection::{SubscriptionConnection, ready};
use super::{MESSAGE_BYTES_MAX, OPEN_BYTES_MAX, OPEN_MESSAGES_MAX};

/// After this silence the service is asked whether there is more.
const QUIET: Duration = Duration::from_secs(1);

/// The state of the open stream.
#[derive(Debug)]
pub(super) struct Watched {
    /// When it last brought a message, or was opened.
    pub(super) heard: Instant,
    /// Readiness was reported already.
    pub(super) well: bool,
    /// A request to the service failed, and the stream has brought nothing since.
    pub(super) failed: bool,
    /// The service held a message at the last probe, and no stream has brought one since.
    pub(super) waiting: bool,
}

impl Default for Watched {
    fn default() -> Watched {
        Watched {
            heard: Instant::now(),
            well: false,
            failed: false,
            waiting: false,
        }
    }
}

impl Watched {
    /// A new stream is open. It still owes the message that the last one did not bring.
    pub(super) fn begin(&mut self) {
        *self = Watched {
            waiting: self.waiting,
            ..Watched::default()
        };
    }

    /// The stream brought a message, which proves more than any answer.
    pub(super) fn heard(&mut self, telemetry: &Telemetry) {
        if !self.well {
            ready(telemetry);
        }
        *self = Watched {
            well: true,
            ..Watched::default()
        };
    }
}

/// The result of a probe.
pub(super) enum Proof {
    /// The service had no more messages at this time.
    NothingMore(Timestamp),
    /// Undecided.
    Unknown,
    /// The stream is replaced, without reporting a failure.
    Old,
    /// The stream does not work.
    Broken(Unavailable),
}

/// Asks the service about a stream that is silent.
pub(super) async fn prove(
    connection: &SubscriptionConnection,
    watched: &mut Watched,
    open: OpenMessages,
) -> Result<Proof, Unavailable> {
    let (asked_at, silent) = (Timestamp::now(), watched.heard.elapsed());
    connection.probe().await?;
    // After a failed request, the service may have dropped the stream.
    if watched.failed && open.count == 0 {
        return Ok(Proof::Old);
    }
    if silent <= QUIET {
        return Ok(Proof::Unknown);
    }
    if may_be_all(open) || !connection.holds_more().await? {
        watched.waiting = false;
        return Ok(Proof::NothingMore(asked_at));
    }
    // Messages that are on their way will have arrived by the next probe.
    if std::mem::replace(&mut watched.waiting, true) {
        let why = "the subscription holds messages, and its stream brings none";
        return Ok(Proof::Broken(connection.unreachable(why)));
    }
    Ok(Proof::Unknown)
}

/// Whether the open messages may be all that the service sends at a time. Fewer are not: a parked
/// event may stay open for long, and must not hide that its stream is dead.
fn may_be_all(open: OpenMessages) -> bool {
    let bytes_max = OPEN_BYTES_MAX - MESSAGE_BYTES_MAX;
    let reaches = |count: usize, max: i64| i64::try_from(count).is_ok_and(|count| count >= max);
    reaches(open.count, OPEN_MESSAGES_MAX) || reaches(open.bytes, bytes_max)
}
