//! The flow: read → convert → batch → deliver → commit, in one task that owns it all.
//!
//! One loop waits for whatever comes first: a receipt, a page, an event that has waited long
//! enough, a finished checkpoint write. It reads only while no batch waits for a slot, the byte
//! budget is not full, and positions and rejects can be stored. So a webhook that is down or a full
//! disk stops the reading, and memory stays bounded.

mod dead_letter_writer;
mod event_loop;
mod guard;
mod processor;

use std::collections::HashMap;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use self::event_loop::EventLoop;
use crate::batch;
use crate::checkpoint::{Checkpointer, Store};
use crate::convert::Convert;
use crate::dead_letter::DeadLetter;
use crate::lease_hold::LeaseHold;
use crate::observer::Observer;
use crate::read_budget::ReadBudget;
use crate::run_stats::RunStats;
use crate::sink::Sink;
use crate::source::Source;

/// Called for every request to the webhook: its status (or kind of failure) and its duration in
/// seconds.
pub type OnRequest = Box<dyn Fn(&str, f64) + Send + Sync>;

/// Everything that a run needs.
pub struct Pipeline<Src: Source, Con, Snk, Sto, Obs> {
    pub source: Src,
    pub converter: Con,
    pub sink: Snk,
    /// Keeps rejects; without it only the observer receives them.
    pub dead_letter: Option<DeadLetter>,
    /// Keeps the positions; without it they are lost.
    pub checkpoint: Option<Checkpointer<Sto, Src::Position>>,
    /// The Lease that allows reading and committing, if one is used.
    pub lease_hold: Option<LeaseHold>,
    pub observer: Obs,
    pub on_request: OnRequest,
    pub batch: batch::BatchLimits,
    /// Batches in flight at the same time.
    pub in_flight_batches_max: usize,
    /// Bytes of open records and their events, shared by all pipelines of the process.
    pub in_flight_bytes: ReadBudget,
    pub retry_policy: RetryPolicy,
    /// Cancelled to stop reading.
    pub stop: CancellationToken,
    /// How long batches in flight may still be delivered after that.
    pub grace: Duration,
}

/// What to do about a failure that does not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryPolicy {
    /// Retry for ever and recover without help: a live tail.
    Forever,
    /// End when nothing was accepted for this long, or when rejects cannot be stored: a replay,
    /// which somebody watches.
    GiveUpAfter(Duration),
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// The source ended and every record is settled.
    Done,
    /// The source ended and every record is settled, but the last checkpoint could not be written:
    /// why, and what to do. The next run delivers some of it again.
    Unsaved(String),
    /// The run was asked to stop, and did.
    Stopped,
    /// Nothing was accepted for too long: why, and what to do.
    GaveUp(String),
    /// The sink is broken: why, and what to do.
    Failed(String),
    /// Another process has the Lease: nothing more was read, delivered or committed.
    LostLease(String),
}

/// The result of a run.
pub struct RunOutcome<Obs> {
    pub stats: RunStats,
    pub ended: Ended,
    /// How many records of each partition, from its first, are settled without a gap.
    pub settled: HashMap<u32, u64>,
    /// The observer that the pipeline was given.
    pub observer: Obs,
}

/// Runs until the source ends, or until it has to stop.
pub async fn run<Src, Con, Snk, Sto, Obs>(
    pipeline: Pipeline<Src, Con, Snk, Sto, Obs>,
) -> RunOutcome<Obs>
where
    Src: Source,
    Con: Convert,
    Snk: Sink + 'static,
    Sto: Store + 'static,
    Obs: Observer,
{
    let mut event_loop = EventLoop::new(pipeline);
    let why = loop {
        event_loop.start_batches();
        event_loop.take_progress();
        if let Some(why) = event_loop.is_through() {
            break why;
        }
        if let Some(why) = event_loop.wait().await {
            break why;
        }
    };
    event_loop.end(why).await
}
