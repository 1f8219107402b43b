//! Invariants that are checked all the time, and states that were reached.

use std::cmp::Ordering;

use audit_bridge_core::convert::Reject;
use audit_bridge_core::deliver::PARKED_BYTES_MAX;
use audit_bridge_core::observer::{Observer, Progress};
use audit_bridge_core::record::Origin;
use audit_bridge_core::run_stats::RunStats;

use super::log::id;
use super::world::Shared;

pub(crate) struct Watch {
    world: Shared,
    in_flight_bytes_max: usize,
    request_events_max: usize,
}

impl Watch {
    pub(crate) fn new(world: &Shared, in_flight_bytes_max: usize) -> Watch {
        Watch {
            world: world.clone(),
            in_flight_bytes_max,
            request_events_max: usize::MAX,
        }
    }

    fn saw(&self, state: &'static str) {
        self.world.lock().unwrap().saw(state);
    }
}

impl Observer for Watch {
    fn reject(&mut self, origin: &Origin, reason: Reject, error: &str) {
        let mut world = self.world.lock().unwrap();
        world.saw(reason.name());
        world.note(|| format!("reject {origin} {reason} {error}"));
        let Origin::Stream { stream, id: number } = origin else {
            unreachable!("{origin}");
        };
        let number: usize = number.parse().unwrap();
        let place = world.shards.get(stream.parse().unwrap()).records[number];
        world.settle(&id(place));
    }

    fn progressed(&mut self, _: &RunStats, progress: &Progress<'_>) {
        // The limit, plus one page that was read while there was room, with its events, plus the
        // records of a parked event on its way to the dead letter.
        assert!(
            progress.in_flight_bytes <= self.in_flight_bytes_max + 2 * 30 * 1200,
            "{} bytes",
            progress.in_flight_bytes
        );
        let delivery = &progress.delivery;
        assert!(delivery.parked.bytes <= PARKED_BYTES_MAX);
        if delivery.parked.events > 0 {
            self.saw("parked");
        }
        if delivery.outage.is_some() {
            self.saw("outage");
        }
        let before = std::mem::replace(&mut self.request_events_max, delivery.request_events_max);
        match delivery.request_events_max.cmp(&before) {
            Ordering::Less => self.saw("shrunk"),
            Ordering::Greater => self.saw("grown"),
            Ordering::Equal => {}
        }
    }
}
