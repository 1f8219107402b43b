//! The flow: read → convert → batch → deliver → commit, in one task that owns it all.
//!
//! One loop waits for whatever comes first: a receipt, a page, an event that has waited long
//! enough, a finished checkpoint write. It reads only while no batch waits for a slot, the byte
//! budget is not full, and positions and rejects can be stored. So a webhook that is down or a full
//! disk stops the reading, and memory stays bounded.

mod dead_letter_writer;
mod guard;
mod processor;

use std::collections::HashMap;
use std::future::pending;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;

use self::processor::Processor;
use crate::batch;
use crate::chain::chain;
use crate::checkpoint::{Checkpointer, HealthTimes, SaveOutcome as Written, Store};
use crate::convert::Convert;
use crate::dead_letter::DeadLetter;
use crate::deliver::{ALONE_TIME_MIN, ConcurrencyLimit, Delivery};
use crate::lease_hold::LeaseHold;
use crate::observer::{Observer, Progress};
use crate::read_budget::ReadBudget;
use crate::run_stats::RunStats;
use crate::sink::Sink;
use crate::source::Source;

/// How often the loop reports progress, releases overdue records and checks whether to give up.
const TICK: Duration = Duration::from_millis(250);
/// The time limit for the last checkpoint, where something waits for this process to exit.
const LAST_CHECKPOINT: Duration = Duration::from_secs(3);

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
    let Pipeline {
        mut source,
        converter,
        sink,
        dead_letter,
        mut checkpoint,
        mut lease_hold,
        observer,
        on_request,
        batch,
        in_flight_batches_max,
        in_flight_bytes: read_budget,
        retry_policy,
        stop,
        grace,
    } = pipeline;
    let limit = ConcurrencyLimit {
        in_flight_batches_max,
        ..ConcurrencyLimit::default()
    };
    let mut delivery = Delivery::new(sink, limit, on_request);
    let started = Instant::now();
    let before = checkpoint.as_ref().map(Checkpointer::health);
    let before = before.unwrap_or_default();
    let silent_before = before.arrived.map_or(Duration::ZERO, elapsed_since);
    let mut processor = Processor::new(
        converter,
        batch,
        dead_letter,
        observer,
        retry_policy,
        before.settled_to.unwrap_or_else(Timestamp::now),
    );
    if Src::HEARS_OF_EACH {
        processor.tracker.tell_each();
    }
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut held = read_budget.hold(0);
    let mut ended = false;
    let mut leave_at = None;
    // Bytes of records whose events are parked, as of the last tick.
    let mut parked_bytes = 0;
    let mut why = loop {
        while delivery.has_room() {
            let batch = match ended {
                true => processor.batcher.flush(),
                false => processor.batcher.due(Instant::now()),
            };
            let Some(batch) = batch else { break };
            delivery.start(batch);
        }
        if let Some(checkpoint) = &mut checkpoint {
            for progress in processor.progress() {
                checkpoint.take(progress);
            }
        }
        for (partition, number) in processor.tracker.take_settled() {
            source.settled(partition, number);
        }
        // Parked events are no part of the budget.
        let holds_nothing =
            processor.batcher.is_empty() && processor.rejects_are_safe() && delivery.only_parked();
        // A requested stop does not wait for parked events: the next run reads them again.
        if ended && holds_nothing && (delivery.is_idle() || leave_at.is_some()) {
            break if leave_at.is_some() {
                Ended::Stopped
            } else {
                processor.done()
            };
        }
        let cannot_keep = checkpoint.as_ref().is_some_and(|it| it.failure().is_some());
        // An open event usually has bytes of its own in addition to its record's.
        let read_bytes = processor.tracker.open_bytes().saturating_sub(parked_bytes);
        let event_bytes = processor.batcher.waiting_bytes() + delivery.in_flight_bytes();
        let in_flight_bytes = read_bytes + event_bytes + processor.reject_bytes();
        held.set(in_flight_bytes);
        let room = !processor.batcher.has_complete() && processor.stuck.is_none() && !cannot_keep;
        let deadline = processor.batcher.deadline().filter(|_| delivery.has_room());
        tokio::select! {
            biased;
            lost = async { match &mut lease_hold {
                Some(lease_hold) => lease_hold.lost().await,
                None => pending().await,
            } } => break Ended::LostLease(lost.to_string()),
            receipt = delivery.next() => {
                if let Err(broken) = processor.receipt(receipt) {
                    break Ended::Failed(broken.to_string());
                }
            }
            written = async { match &mut checkpoint {
                Some(checkpoint) => checkpoint.next().await,
                None => pending().await,
            } } => {
                if let Written::Saved(positions) = written {
                    processor.observer.checkpoint_written();
                    for (partition, position) in positions {
                        source.commit(partition, &position);
                    }
                }
            }
            written = async { match &mut processor.dead_letter {
                Some(dead_letter) => dead_letter.next().await,
                None => pending().await,
            } } => {
                if let Err(error) = processor.written(written) {
                    break Ended::Failed(chain(&error));
                }
            }
            page = read_budget.read(holds_nothing, source.read()), if !ended && room => match page {
                Some(page) => processor.page(page),
                None => {
                    ended = true;
                    processor.finish();
                }
            },
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {}
            () = stop.cancelled(), if leave_at.is_none() => {
                ended = true;
                leave_at = Some(Instant::now() + grace);
            }
            _ = tick.tick() => {
                if leave_at.is_some_and(|at| at <= Instant::now()) {
                    break Ended::Stopped;
                }
                processor.tick(started.elapsed());
                parked_bytes = processor.bytes_of(delivery.parked_records());
                let failure = checkpoint.as_ref().and_then(Checkpointer::failure);
                let failure = failure.map(|failure| failure.error.to_unavailable().to_string());
                let frontier = processor.frontier();
                let silence = processor.silence(started, silent_before);
                if let Some(checkpoint) = &mut checkpoint {
                    let arrived = silence.and_then(|silence| Timestamp::now().checked_sub(silence).ok());
                    checkpoint.set_health(HealthTimes {
                        settled_to: Some(frontier.to.time),
                        arrived: arrived.or(before.arrived),
                    });
                }
                processor.observer.progressed(&processor.stats, &Progress {
                    delivery: delivery.status(),
                    storage_error: processor.stuck.as_deref().or(failure.as_deref()),
                    in_flight_bytes,
                    frontier,
                    open_records: processor.tracker.open_records(),
                    unsaved_since: checkpoint.as_ref().and_then(Checkpointer::overdue_since),
                    silence,
                });
                let now = Instant::now();
                if ended && leave_at.is_none() && processor.batcher.is_empty() {
                    let after = match retry_policy {
                        RetryPolicy::GiveUpAfter(after) => after,
                        RetryPolicy::Forever => ALONE_TIME_MIN,
                    };
                    delivery.give_up_culprits(now, after);
                }
                if let RetryPolicy::GiveUpAfter(after) = retry_policy
                    && let Some(why) = delivery.gave_up(now, after)
                {
                    break Ended::GaveUp(why);
                }
            }
        }
    };
    if processor.stuck.is_none() && !matches!(why, Ended::LostLease(_) | Ended::Failed(_)) {
        processor.write_rejects(LAST_CHECKPOINT).await;
    }
    if !matches!(why, Ended::LostLease(_)) {
        for (partition, number) in processor.tracker.take_settled() {
            source.settled(partition, number);
        }
    }
    // The Lease is lost: the new holder owns the checkpoint, so do not write it.
    if let (Some(checkpoint), false) = (&mut checkpoint, matches!(why, Ended::LostLease(_))) {
        for progress in processor.progress() {
            checkpoint.take(progress);
        }
        let within = if why == Ended::Done {
            grace
        } else {
            LAST_CHECKPOINT
        };
        for (partition, position) in checkpoint.flush(within).await {
            source.commit(partition, &position);
        }
        if let Some(failure) = checkpoint.failure() {
            let unavailable = failure.error.to_unavailable();
            match why {
                // All is delivered, but the checkpoint does not say so.
                Ended::Done => {
                    why = Ended::Unsaved(format!(
                        "all is delivered, and the final checkpoint is not written: {unavailable}"
                    ));
                }
                _ => {
                    tracing::error!(error = %unavailable, "final checkpoint not written: events delivered since the previous one are sent again");
                }
            }
        }
    }
    source.close().await;
    RunOutcome {
        settled: processor.tracker.settled(),
        stats: processor.stats,
        ended: why,
        observer: processor.observer,
    }
}

/// The time since then; zero for a future time.
fn elapsed_since(time: Timestamp) -> Duration {
    let elapsed = Timestamp::now().duration_since(time);
    Duration::try_from(elapsed).unwrap_or_default()
}
