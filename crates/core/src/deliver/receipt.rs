//! What goes into delivery and what comes out of it.

use crate::batch::Item;

/// What became of events.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Receipt {
    /// The receiver has them, all of one request.
    Delivered {
        /// In the order in which they were sent, as they were sent.
        items: Vec<Item>,
        /// How many lost their objects on the way, because the receiver found them too large.
        stripped: usize,
        /// The size of the body.
        bytes: usize,
    },
    /// The receiver wants this event in no way, and accepted others: it belongs in the dead
    /// letter, as `refused`.
    Refused {
        /// The event.
        item: Item,
        /// The status of the answer.
        status: u16,
        /// What the receiver said.
        detail: String,
    },
    /// A slot is free again, and no event ended with it: what it held is parked, in flight still.
    /// Nothing to do but to look at [`Delivery::has_room`](super::Delivery::has_room).
    Room,
    /// The way out is broken (an output that cannot be written). The events are still in flight
    /// and are tried again if the caller goes on; it had better stop.
    Broken {
        /// What failed, with the remedy.
        detail: String,
        /// The reader of the pipe went away.
        pipe_closed: bool,
    },
}

/// How delivery goes about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeliverySettings {
    /// Batches in flight (`--in-flight-batches-max`); 0 counts as 1, which keeps strict order.
    pub in_flight_batches_max: usize,
    /// Determines the random part of all waits.
    pub seed: u64,
}

impl Default for DeliverySettings {
    fn default() -> DeliverySettings {
        DeliverySettings {
            in_flight_batches_max: 4,
            seed: fastrand::u64(..),
        }
    }
}
