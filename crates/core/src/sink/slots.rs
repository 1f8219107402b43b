//! So many requests at once, whoever makes them.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Sink, Verdict};
use crate::event::Event;

/// A sink that several pipelines share, with the requests that may be under way at once for all of
/// them. Clones share both.
#[derive(Debug)]
pub struct SharedSink<S> {
    sink: Arc<S>,
    slots: Arc<Semaphore>,
}

impl<S> Clone for SharedSink<S> {
    fn clone(&self) -> SharedSink<S> {
        SharedSink {
            sink: Arc::clone(&self.sink),
            slots: Arc::clone(&self.slots),
        }
    }
}

/// The right to make a request, until it is dropped.
#[derive(Debug)]
pub struct Slot {
    _permit: Option<OwnedSemaphorePermit>,
}

impl Slot {
    /// Of a sink that does not count.
    pub(super) fn uncounted() -> Slot {
        Slot { _permit: None }
    }
}

impl<S: Sink> SharedSink<S> {
    /// So many requests at once, at least one.
    pub fn new(sink: Arc<S>, requests_max: usize) -> SharedSink<S> {
        SharedSink {
            sink,
            slots: Arc::new(Semaphore::new(requests_max.max(1))),
        }
    }
}

impl<S: Sink> Sink for SharedSink<S> {
    async fn send(&self, events: &[Event]) -> Verdict {
        self.sink.send(events).await
    }

    fn in_flight_max(&self) -> usize {
        self.sink.in_flight_max()
    }

    async fn slot(&self) -> Slot {
        // The semaphore is never closed.
        let permit = Arc::clone(&self.slots).acquire_owned().await;
        Slot {
            _permit: permit.ok(),
        }
    }
}
