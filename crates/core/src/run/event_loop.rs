//! The loop's state, and what it does between two waits and in each of them.

use std::future::pending;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;

use super::processor::Processor;
use super::{Ended, Pipeline, RetryPolicy, RunOutcome};
use crate::chain::chain;
use crate::checkpoint::{Checkpointer, HealthTimes, SaveOutcome, Store};
use crate::convert::Convert;
use crate::deliver::{ALONE_TIME_MIN, ConcurrencyLimit, Delivery};
use crate::lease_hold::LeaseHold;
use crate::observer::{Observer, Progress};
use crate::read_budget::{HeldBytes, ReadBudget};
use crate::sink::Sink;
use crate::source::{Page, Source};

/// How often the loop reports progress, releases overdue records and checks whether to give up.
const TICK: Duration = Duration::from_millis(250);
/// The time limit for the last checkpoint, where something waits for this process to exit.
const LAST_CHECKPOINT: Duration = Duration::from_secs(3);

/// A pipeline that runs.
pub(super) struct EventLoop<Src: Source, Con, Snk, Sto, Obs> {
    source: Src,
    processor: Processor<Src::Position, Con, Obs>,
    delivery: Delivery<Snk>,
    checkpoint: Option<Checkpointer<Sto, Src::Position>>,
    lease_hold: Option<LeaseHold>,
    read_budget: ReadBudget,
    /// What this pipeline holds of the budget.
    held: HeldBytes,
    retry_policy: RetryPolicy,
    stop: CancellationToken,
    grace: Duration,
    started: Instant,
    /// When a record last arrived, as the loaded checkpoint says, and how long before `started`
    /// that was.
    arrived_before: Option<Timestamp>,
    silent_before: Duration,
    tick: Interval,
    /// Nothing more is read: the source ended, or the run was asked to stop.
    ended: bool,
    /// Until when batches in flight may still be delivered after the run was asked to stop.
    leave_at: Option<Instant>,
    /// Bytes of records whose events are parked, as of the last tick.
    parked_bytes: usize,
}

impl<Src, Con, Snk, Sto, Obs> EventLoop<Src, Con, Snk, Sto, Obs>
where
    Src: Source,
    Con: Convert,
    Snk: Sink + 'static,
    Sto: Store + 'static,
    Obs: Observer,
{
    pub(super) fn new(pipeline: Pipeline<Src, Con, Snk, Sto, Obs>) -> Self {
        let limit = ConcurrencyLimit {
            in_flight_batches_max: pipeline.in_flight_batches_max,
            ..ConcurrencyLimit::default()
        };
        let before = pipeline.checkpoint.as_ref().map(Checkpointer::health);
        let before = before.unwrap_or_default();
        let mut processor = Processor::new(
            pipeline.converter,
            pipeline.batch,
            pipeline.dead_letter,
            pipeline.observer,
            pipeline.retry_policy,
            before.settled_to.unwrap_or_else(Timestamp::now),
        );
        if Src::HEARS_OF_EACH {
            processor.tracker.tell_each();
        }
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        EventLoop {
            source: pipeline.source,
            processor,
            delivery: Delivery::new(pipeline.sink, limit, pipeline.on_request),
            checkpoint: pipeline.checkpoint,
            lease_hold: pipeline.lease_hold,
            held: pipeline.in_flight_bytes.hold(0),
            read_budget: pipeline.in_flight_bytes,
            retry_policy: pipeline.retry_policy,
            stop: pipeline.stop,
            grace: pipeline.grace,
            started: Instant::now(),
            arrived_before: before.arrived,
            silent_before: before.arrived.map_or(Duration::ZERO, elapsed_since),
            tick,
            ended: false,
            leave_at: None,
            parked_bytes: 0,
        }
    }

    /// Delivers batches that are due, as far as there are slots.
    pub(super) fn start_batches(&mut self) {
        while self.delivery.has_room() {
            let batch = match self.ended {
                true => self.processor.batcher.flush(),
                false => self.processor.batcher.due(Instant::now()),
            };
            let Some(batch) = batch else { break };
            self.delivery.start(batch);
        }
    }

    /// Passes on what was settled: to the checkpoint, and to a source that hears of each record.
    pub(super) fn take_progress(&mut self) {
        if let Some(checkpoint) = &mut self.checkpoint {
            for progress in self.processor.progress() {
                checkpoint.take(progress);
            }
        }
        self.tell_settled();
    }

    fn tell_settled(&mut self) {
        for (partition, number) in self.processor.tracker.take_settled() {
            self.source.settled(partition, number);
        }
    }

    /// How the run ended, if nothing is left to do. A requested stop does not wait for parked
    /// events: the next run reads them again.
    pub(super) fn is_through(&self) -> Option<Ended> {
        let is_stopped = self.leave_at.is_some();
        let is_through =
            self.ended && self.holds_nothing() && (self.delivery.is_idle() || is_stopped);
        is_through.then(|| match is_stopped {
            true => Ended::Stopped,
            false => self.processor.done(),
        })
    }

    /// Whether no bytes of the budget are held. Parked events are no part of it.
    fn holds_nothing(&self) -> bool {
        self.processor.batcher.is_empty()
            && self.processor.rejects_are_safe()
            && self.delivery.only_parked()
    }

    /// The bytes of open records and their events. An open event usually has bytes of its own in
    /// addition to its record's.
    fn in_flight_bytes(&self) -> usize {
        let open_bytes = self.processor.tracker.open_bytes();
        let read_bytes = open_bytes.saturating_sub(self.parked_bytes);
        let waiting_bytes = self.processor.batcher.waiting_bytes();
        let event_bytes = waiting_bytes + self.delivery.in_flight_bytes();
        read_bytes + event_bytes + self.processor.reject_bytes()
    }

    /// Whether a page may be read now.
    fn may_read(&self) -> bool {
        let can_keep = self
            .checkpoint
            .as_ref()
            .is_none_or(|checkpoint| checkpoint.failure().is_none());
        let is_stuck = self.processor.stuck.is_some();
        !self.ended && !self.processor.batcher.has_complete() && !is_stuck && can_keep
    }

    /// Waits for whatever comes first, and handles it. Returns how the run ended, if that ends it.
    pub(super) async fn wait(&mut self) -> Option<Ended> {
        self.held.set(self.in_flight_bytes());
        let holds_nothing = self.holds_nothing();
        let may_read = self.may_read();
        let deadline = self.processor.batcher.deadline();
        let deadline = deadline.filter(|_| self.delivery.has_room());
        tokio::select! {
            biased;
            lost = async { match &mut self.lease_hold {
                Some(lease_hold) => lease_hold.lost().await,
                None => pending().await,
            } } => return Some(Ended::LostLease(lost.to_string())),
            receipt = self.delivery.next() => {
                if let Err(broken) = self.processor.receipt(receipt) {
                    return Some(Ended::Failed(broken.to_string()));
                }
            }
            saved = async { match &mut self.checkpoint {
                Some(checkpoint) => checkpoint.next().await,
                None => pending().await,
            } } => self.saved(saved),
            written = async { match &mut self.processor.dead_letter {
                Some(dead_letter) => dead_letter.next().await,
                None => pending().await,
            } } => {
                if let Err(error) = self.processor.written(written) {
                    return Some(Ended::Failed(chain(&error)));
                }
            }
            page = self.read_budget.read(holds_nothing, self.source.read()), if may_read => {
                self.page(page);
            }
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {}
            () = self.stop.cancelled(), if self.leave_at.is_none() => {
                self.ended = true;
                self.leave_at = Some(Instant::now() + self.grace);
            }
            _ = self.tick.tick() => return self.tick(),
        }
        None
    }

    fn page(&mut self, page: Option<Page<Src::Position>>) {
        match page {
            Some(page) => self.processor.page(page),
            None => {
                self.ended = true;
                self.processor.finish();
            }
        }
    }

    /// Commits at the source what the checkpoint has.
    fn saved(&mut self, saved: SaveOutcome<Src::Position>) {
        if let SaveOutcome::Saved(positions) = saved {
            self.processor.observer.checkpoint_written();
            for (partition, position) in positions {
                self.source.commit(partition, &position);
            }
        }
    }

    /// What is done at each tick. Returns how the run ended, if it takes too long.
    fn tick(&mut self) -> Option<Ended> {
        if self.leave_at.is_some_and(|at| at <= Instant::now()) {
            return Some(Ended::Stopped);
        }
        self.processor.tick(self.started.elapsed());
        let parked = self.delivery.parked_records();
        self.parked_bytes = self.processor.bytes_of(parked);
        self.report();
        self.give_up()
    }

    /// Reports progress to the observer, and the times of health to the checkpoint.
    fn report(&mut self) {
        let failure = self.checkpoint.as_ref().and_then(Checkpointer::failure);
        let failure = failure.map(|failure| failure.error.to_unavailable().to_string());
        let frontier = self.processor.frontier();
        let silence = self.processor.silence(self.started, self.silent_before);
        if let Some(checkpoint) = &mut self.checkpoint {
            let arrived = silence.and_then(|silence| Timestamp::now().checked_sub(silence).ok());
            checkpoint.set_health(HealthTimes {
                settled_to: Some(frontier.to.time),
                arrived: arrived.or(self.arrived_before),
            });
        }
        let progress = Progress {
            delivery: self.delivery.status(),
            storage_error: self.processor.stuck.as_deref().or(failure.as_deref()),
            in_flight_bytes: self.in_flight_bytes(),
            frontier,
            open_records: self.processor.tracker.open_records(),
            unsaved_since: self
                .checkpoint
                .as_ref()
                .and_then(Checkpointer::overdue_since),
            silence,
        };
        self.processor
            .observer
            .progressed(&self.processor.stats, &progress);
    }

    /// Gives up what is left at the end of a source, or the run, once nothing was accepted for too
    /// long.
    fn give_up(&mut self) -> Option<Ended> {
        let now = Instant::now();
        if self.ended && self.leave_at.is_none() && self.processor.batcher.is_empty() {
            let after = match self.retry_policy {
                RetryPolicy::GiveUpAfter(after) => after,
                RetryPolicy::Forever => ALONE_TIME_MIN,
            };
            self.delivery.give_up_culprits(now, after);
        }
        let RetryPolicy::GiveUpAfter(after) = self.retry_policy else {
            return None;
        };
        self.delivery.gave_up(now, after).map(Ended::GaveUp)
    }

    /// Writes what is settled for the last time, and closes the source.
    pub(super) async fn end(mut self, mut why: Ended) -> RunOutcome<Obs> {
        let is_broken = matches!(why, Ended::LostLease(_) | Ended::Failed(_));
        if self.processor.stuck.is_none() && !is_broken {
            self.processor.write_rejects(LAST_CHECKPOINT).await;
        }
        // The Lease is lost: the new holder owns the checkpoint, so do not write it.
        if !matches!(why, Ended::LostLease(_)) {
            self.tell_settled();
            why = self.last_checkpoint(why).await;
        }
        self.source.close().await;
        RunOutcome {
            settled: self.processor.tracker.settled(),
            stats: self.processor.stats,
            ended: why,
            observer: self.processor.observer,
        }
    }

    /// Writes the last checkpoint. Returns how the run ended with it.
    async fn last_checkpoint(&mut self, why: Ended) -> Ended {
        let Some(checkpoint) = &mut self.checkpoint else {
            return why;
        };
        for progress in self.processor.progress() {
            checkpoint.take(progress);
        }
        let within = match why {
            Ended::Done => self.grace,
            _ => LAST_CHECKPOINT,
        };
        for (partition, position) in checkpoint.flush(within).await {
            self.source.commit(partition, &position);
        }
        let Some(failure) = checkpoint.failure() else {
            return why;
        };
        let unavailable = failure.error.to_unavailable();
        match why {
            // All is delivered, but the checkpoint does not say so.
            Ended::Done => Ended::Unsaved(format!(
                "all is delivered, and the final checkpoint is not written: {unavailable}"
            )),
            _ => {
                tracing::error!(error = %unavailable, "final checkpoint not written: events delivered since the previous one are sent again");
                why
            }
        }
    }
}

/// The time since then; zero for a future time.
fn elapsed_since(time: Timestamp) -> Duration {
    let elapsed = Timestamp::now().duration_since(time);
    Duration::try_from(elapsed).unwrap_or_default()
}
