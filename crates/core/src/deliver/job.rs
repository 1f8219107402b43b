//! One batch under way, and the events in it.

use tokio::time::Instant;

use crate::batch::{Item, Records};
use crate::event::Event;
use crate::sink::Verdict;

/// Events that go in one request.
pub(super) type Part = Vec<Entry>;

/// An event under way.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) item: Item,
    /// The bytes it came with, which are freed with its receipt.
    pub(super) charge: usize,
    /// Its objects are gone, or it never had any.
    stripped: bool,
    /// Stripping is what made it truncated.
    pub(super) newly_truncated: bool,
    /// How many requests had begun when it was first refused, alone or with others.
    pub(super) refused: Option<u64>,
}

impl Entry {
    pub(super) fn new(item: Item) -> Entry {
        Entry {
            charge: item.event.text().len(),
            item,
            stripped: false,
            newly_truncated: false,
            refused: None,
        }
    }

    /// An event that is sent for the answer only: it settles nothing.
    pub(super) fn witness(event: Event) -> Entry {
        Entry {
            charge: 0,
            item: Item::new(event, Records::Many(Box::default())),
            // As it was accepted, so it goes.
            stripped: true,
            newly_truncated: false,
            refused: None,
        }
    }

    /// Whether the acceptance of this request, by number, shows that the receiver works and that
    /// it is the event that it does not want.
    pub(super) fn proven_by(&self, accepted: u64) -> bool {
        self.refused.is_some_and(|begun| accepted > begun)
    }

    /// Drops the event's objects, once. Whether that changed it.
    pub(super) fn strip(&mut self, strip: impl Fn(&Event) -> Option<Event>) -> bool {
        if self.stripped {
            return false;
        }
        self.stripped = true;
        let Some(event) = strip(&self.item.event) else {
            return false;
        };
        self.newly_truncated = !self.item.event.truncated();
        self.item.event = event;
        true
    }
}

/// What a job is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// To deliver.
    Batch,
    /// To find out whether the receiver takes a parked part by now.
    Probe,
    /// To find out whether the receiver takes anything.
    Witness,
}

/// A batch under way: it holds a slot.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) role: Role,
    /// What is still to be sent; the last goes next.
    pub(super) parts: Vec<Part>,
    /// Attempts in a row without an answer about the events.
    pub(super) failures: u32,
    /// Its wait was cut short in this row of failures.
    pub(super) hurried: bool,
    /// Events refused alone without proof that the receiver works.
    pub(super) refused_alone: u32,
    /// The newest such refusal, unless something of this job was accepted later.
    pub(super) refusal: Option<(u16, String)>,
}

impl Job {
    pub(super) fn new(role: Role, part: Part) -> Job {
        Job {
            role,
            parts: vec![part],
            failures: 0,
            hurried: false,
            refused_alone: 0,
            refusal: None,
        }
    }
}

/// A job between two attempts.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) at: Instant,
    /// The receiver asked for this wait, so it is not cut short.
    pub(super) asked: bool,
    pub(super) job: Job,
}

/// A job whose request has ended.
pub(super) struct Answer {
    /// Of the request, from 1.
    pub(super) number: u64,
    pub(super) job: Job,
    pub(super) part: Part,
    pub(super) verdict: Verdict,
    pub(super) seconds: f64,
}
