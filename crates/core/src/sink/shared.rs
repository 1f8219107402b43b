//! Limits the requests in flight across all pipelines that share a sink.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::{Sink, Verdict};
use crate::event::Event;

/// A sink that several pipelines share. It limits the requests in flight for all of them together
/// and knows which pipeline's requests were accepted. Each pipeline has its own clone.
#[derive(Debug)]
pub struct SharedSink<S> {
    sink: Arc<S>,
    slots: Arc<Semaphore>,
    parked_slots: Arc<Semaphore>,
    accepted: Arc<Mutex<Accepted>>,
    clones: Arc<AtomicU64>,
    /// Which clone this is.
    own: u64,
}

/// When the newest accepted requests of two pipelines began, so that each pipeline finds one of
/// another.
#[derive(Debug, Default)]
struct Accepted {
    newest: Option<(u64, Instant)>,
    of_another: Option<(u64, Instant)>,
}

impl<S> Clone for SharedSink<S> {
    fn clone(&self) -> SharedSink<S> {
        SharedSink {
            sink: Arc::clone(&self.sink),
            slots: Arc::clone(&self.slots),
            parked_slots: Arc::clone(&self.parked_slots),
            accepted: Arc::clone(&self.accepted),
            clones: Arc::clone(&self.clones),
            own: self.clones.fetch_add(1, Ordering::Relaxed),
        }
    }
}

impl Accepted {
    fn note(&mut self, pipeline: u64, began: Instant) {
        match self.newest {
            Some((newest, at)) if newest == pipeline => {
                self.newest = Some((pipeline, at.max(began)));
            }
            Some((_, at)) if began < at => {
                let other = self
                    .of_another
                    .filter(|(of, at)| *of != pipeline && *at > began);
                self.of_another = other.or(Some((pipeline, began)));
            }
            newest => {
                self.of_another = newest;
                self.newest = Some((pipeline, began));
            }
        }
    }

    fn of_others(&self, pipeline: u64) -> Option<Instant> {
        let both = [self.newest, self.of_another];
        let mut others = both.into_iter().flatten().filter(|(of, _)| *of != pipeline);
        others.next().map(|(_, began)| began)
    }
}

/// The right to make a request, until dropped.
#[derive(Debug)]
pub struct Slot {
    _permit: Option<OwnedSemaphorePermit>,
}

impl Slot {
    /// The slot of a sink without a limit.
    pub(super) fn uncounted() -> Slot {
        Slot { _permit: None }
    }

    async fn of(slots: &Arc<Semaphore>) -> Slot {
        // The semaphore is never closed.
        let permit = Arc::clone(slots).acquire_owned().await;
        Slot {
            _permit: permit.ok(),
        }
    }
}

impl<S: Sink> SharedSink<S> {
    /// Allows this many requests at once, at least one, and as many of parked events.
    pub fn new(sink: Arc<S>, requests_max: usize) -> SharedSink<S> {
        SharedSink {
            sink,
            slots: Arc::new(Semaphore::new(requests_max.max(1))),
            parked_slots: Arc::new(Semaphore::new(requests_max.max(1))),
            accepted: Arc::default(),
            clones: Arc::new(AtomicU64::new(1)),
            own: 0,
        }
    }
}

impl<S: Sink> Sink for SharedSink<S> {
    async fn send(&self, events: &[Event]) -> Verdict {
        let began = Instant::now();
        let verdict = self.sink.send(events).await;
        // An empty list shows little.
        if let Verdict::Accepted { .. } = verdict
            && !events.is_empty()
        {
            let accepted = self.accepted.lock();
            let mut accepted = accepted.unwrap_or_else(PoisonError::into_inner);
            accepted.note(self.own, began);
        }
        verdict
    }

    fn in_flight_max(&self) -> usize {
        self.sink.in_flight_max()
    }

    fn accepted_of_others(&self) -> Option<Instant> {
        let accepted = self.accepted.lock();
        let accepted = accepted.unwrap_or_else(PoisonError::into_inner);
        accepted.of_others(self.own)
    }

    async fn slot(&self) -> Slot {
        Slot::of(&self.slots).await
    }

    async fn parked_slot(&self) -> Slot {
        Slot::of(&self.parked_slots).await
    }
}
