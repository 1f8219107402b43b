//! What goes into delivery and what comes out of it.

use crate::batch::Item;
use crate::convert::Reject;

/// What became of events.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Receipt {
    /// The receiver has them, all of one request.
    Delivered {
        /// In the order in which they were sent, as they were sent.
        items: Vec<Item>,
        /// Ascending indexes in `items` of events that were sent without their objects, because the
        /// receiver found them too large.
        stripped: Vec<usize>,
        /// The size of the body.
        bytes: usize,
    },
    /// The receiver does not accept this event, alone, and accepted others: it belongs in the dead
    /// letter.
    Rejected {
        /// The event, as it came.
        item: Item,
        /// [`Reject::REFUSED`] when the receiver said that the body is bad, else
        /// [`Reject::UNDELIVERABLE`].
        reason: Reject,
        /// What the receiver said, and what was tried.
        error: String,
    },
    /// A slot became free without the end of an event: check
    /// [`Delivery::has_room`](super::Delivery::has_room).
    SlotFreed,
    /// The sink is broken (an output that cannot be written). The events are still in flight
    /// and are tried again if the caller goes on; it had better stop.
    Broken {
        /// What failed, with the remedy.
        detail: String,
        /// The reader of the pipe went away.
        pipe_closed: bool,
    },
}

/// How many requests may be under way, and what their waits depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConcurrencyLimit {
    /// Batches in flight (`--in-flight-batches-max`); 0 counts as 1, which keeps strict order.
    pub in_flight_batches_max: usize,
    /// Determines the random part of all waits.
    pub seed: u64,
}

impl Default for ConcurrencyLimit {
    fn default() -> ConcurrencyLimit {
        ConcurrencyLimit {
            in_flight_batches_max: 4,
            seed: fastrand::u64(..),
        }
    }
}
