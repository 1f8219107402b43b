//! What is known of a stream on which nothing comes: it may be quiet, and it may be dead.

use std::time::Duration;

use audit_bridge_app::telemetry::Telemetry;
use audit_bridge_core::readiness::Unavailable;
use jiff::Timestamp;
use tokio::time::Instant;

use super::connection::{SubscriptionConnection, ready};

/// Nothing came for so long: the service is asked whether there is more.
const QUIET: Duration = Duration::from_secs(1);

/// What is known of the stream that is open.
#[derive(Debug)]
pub(super) struct Watched {
    /// When it last brought a message, or was opened.
    pub(super) heard: Instant,
    /// It was told that all is well; what differs is news.
    pub(super) well: bool,
    /// The service did not answer, and the stream has brought nothing since.
    pub(super) failed: bool,
    /// The service held a message when it was last asked, and no stream has brought any since.
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
    /// A new stream is open. It still has to bring what the last one did not.
    pub(super) fn begin(&mut self) {
        *self = Watched {
            waiting: self.waiting,
            ..Watched::default()
        };
    }

    /// It brought a message: a better proof than any answer.
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

/// What an answer of the service says of the stream.
pub(super) enum Proof {
    /// There is nothing more, as of this time.
    NothingMore(Timestamp),
    /// Nothing yet.
    Unknown,
    /// It is to be replaced, without a word.
    Old,
    /// It does not work.
    Broken(Unavailable),
}

/// Asks the service about a stream on which nothing came.
pub(super) async fn prove(
    connection: &SubscriptionConnection,
    watched: &mut Watched,
    is_open: bool,
) -> Result<Proof, Unavailable> {
    let (asked_at, silent) = (Timestamp::now(), watched.heard.elapsed());
    connection.probe().await?;
    // Who did not answer may have forgotten the stream.
    if watched.failed && !is_open {
        return Ok(Proof::Old);
    }
    if silent <= QUIET {
        return Ok(Proof::Unknown);
    }
    // What is open may be all that we are given at once.
    if is_open || !connection.holds_more().await? {
        watched.waiting = false;
        return Ok(Proof::NothingMore(asked_at));
    }
    // What is on its way now will have come by the next time.
    if std::mem::replace(&mut watched.waiting, true) {
        let why = "the subscription holds messages, and its stream brings none";
        return Ok(Proof::Broken(connection.unreachable(why)));
    }
    Ok(Proof::Unknown)
}
