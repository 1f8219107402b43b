//! Sends a canary at intervals, settles those that ended and counts lost ones, concurrently with
//! the pipelines and without blocking them.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::CanaryWatch;
use super::records::{CanaryRecord, DataChange};
use super::sender::{CanarySender, SendFailure};
use super::settle::{RecordJob, Settlement, Settler, needs_look};
use crate::telemetry::Telemetry;

/// The time between two checks for overdue or ended canaries.
const COUNT_INTERVAL: Duration = Duration::from_millis(500);

/// The minimum time between two reads of the records, however many events ask for one.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The wait after the API server did not answer.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);

/// How long the process's end waits for the last record changes.
const FINISH_MAX: Duration = Duration::from_secs(2);

/// Replicas that start read the records for the first time within half of this.
const START_WITHIN: Duration = Duration::from_secs(20);

/// After this many intervals without another sender's canary, a replica begins to send.
const SENDER_GONE: f64 = 2.5;

/// Another replica that sent a canary within this many intervals is still sending.
const SENDER_THERE: f64 = 1.5;

/// The task that sends canaries; dropping it ends the task.
#[derive(Debug)]
pub(crate) struct CanaryTask {
    task: JoinHandle<()>,
    stop: CancellationToken,
    watch: Arc<CanaryWatch>,
}

impl CanaryTask {
    /// Stops sending and writes the ends of canaries, so that the next process does not wait for
    /// them.
    pub(crate) async fn finish(mut self) {
        self.stop.cancel();
        let _ = timeout(FINISH_MAX, &mut self.task).await;
    }
}

impl Drop for CanaryTask {
    fn drop(&mut self) {
        self.task.abort();
        // Another process may read the canaries' events from here on.
        self.watch.forget();
    }
}

/// Starts sending canaries: at once, or where replicas share the logs, once no other replica does.
/// Canaries of an earlier task are forgotten.
pub(crate) fn spawn(
    watch: Arc<CanaryWatch>,
    sender: CanarySender,
    every: Duration,
    telemetry: Telemetry,
) -> CanaryTask {
    watch.forget();
    let stop = CancellationToken::new();
    let canaries = Canaries {
        watch: Arc::clone(&watch),
        sender,
        me: format!("{:016x}", fastrand::u64(..)),
        every,
        telemetry,
        stop: stop.clone(),
    };
    let task = tokio::spawn(async move {
        let sending = Sending {
            is_sender: !canaries.watch.settings().shared,
            canaries: &canaries,
            trouble: None,
        };
        tokio::join!(sending.run(), Settling::new(&canaries).run());
    });
    CanaryTask { task, stop, watch }
}

/// State shared by sending and settling.
struct Canaries {
    watch: Arc<CanaryWatch>,
    sender: CanarySender,
    /// The sender name of this task; another task of the same process has another one.
    me: String,
    every: Duration,
    telemetry: Telemetry,
    stop: CancellationToken,
}

struct Sending<'a> {
    canaries: &'a Canaries,
    /// Whether this replica sends: only one of those that share the logs does.
    is_sender: bool,
    /// Why the last canary could not be sent or was refused.
    trouble: Option<String>,
}

/// The result of one turn.
enum Turn {
    Sent,
    /// Another replica sends, or too many canaries are in flight.
    NotSent,
}

impl Sending<'_> {
    async fn run(mut self) {
        let every = self.canaries.every;
        if !self.is_sender {
            // Spread the first read, so that replicas that start together do not all find that
            // nobody sends.
            sleep(every.min(START_WITHIN).mul_f64(fastrand::f64() / 2.0)).await;
        }
        let mut tick = interval(every);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = self.canaries.stop.cancelled() => return,
                _ = tick.tick() => {}
            }
            let turn = self.turn().await;
            self.tell(turn);
        }
    }

    async fn turn(&mut self) -> Result<Turn, SendFailure> {
        let Canaries {
            watch,
            sender,
            me,
            every,
            ..
        } = self.canaries;
        let (shared, now) = (watch.settings().shared, Timestamp::now());
        if !self.is_sender {
            watch.set_expected(&sender.expected().await?);
            let records = sender.look().await?;
            let gone = every.mul_f64(SENDER_GONE);
            self.is_sender = records.other_sender(me, gone, now).is_none();
            watch.learn(records);
        }
        if !self.is_sender {
            return Ok(Turn::NotSent);
        }
        let turn = self.send().await?;
        let there = every.mul_f64(SENDER_THERE);
        if shared && let Some(records) = watch.records() {
            let other = records.other_sender(me, there, now);
            // If two replicas send, the first by name goes on.
            self.is_sender = other.is_none_or(|other| other > me.as_str());
        }
        Ok(turn)
    }

    async fn send(&self) -> Result<Turn, SendFailure> {
        let Canaries {
            watch,
            sender,
            me,
            every,
            ..
        } = self.canaries;
        let settings = watch.settings();
        let canary = sender.prepare().await?;
        watch.set_expected(&canary.expected);
        // Register the canary before sending: its event may be read before the answer.
        let (mark, sent) = (canary.mark.clone(), Timestamp::now());
        let (expected, digest) = (canary.expected.clone(), mark.digest());
        let Some(number) = watch.begin(mark, expected, sent) else {
            return Ok(Turn::NotSent);
        };
        let mut change: DataChange = watch.records().map_or_else(DataChange::new, |records| {
            // Long enough for a waiting process to see the canary's end.
            let keep = (settings.wait_max + *every + RETRY_INTERVAL) * 2;
            records.cleaning(me, keep, sent)
        });
        let record = CanaryRecord::new(sent, me);
        change.insert(digest.to_string(), Some(record.to_text()));
        match sender.send(&canary, &change).await {
            Ok(records) => {
                watch.learn(records);
                Ok(Turn::Sent)
            }
            Err(failure) => {
                // Without a record no other replica can report its arrival.
                if !failure.is_audited || settings.shared {
                    watch.withdraw(number);
                }
                Err(failure)
            }
        }
    }

    /// Counts the turn, and logs a changed failure once.
    fn tell(&mut self, turn: Result<Turn, SendFailure>) {
        let telemetry = &self.canaries.telemetry;
        match turn {
            Ok(Turn::NotSent) => {}
            Ok(Turn::Sent) => {
                telemetry.canary_requested("ok");
                if self.trouble.take().is_some() {
                    tracing::info!("canaries are sent to the API server again");
                }
            }
            Err(SendFailure {
                status,
                why,
                remedy,
                ..
            }) => {
                telemetry.canary_requested(status);
                if self.trouble.as_ref() != Some(&why) {
                    tracing::warn!(
                        why,
                        remedy,
                        "canary refused by the API server, or not sent to it"
                    );
                    self.trouble = Some(why);
                }
            }
        }
    }
}

struct Settling<'a> {
    canaries: &'a Canaries,
    /// The earliest time of the next read.
    next_look: Instant,
    retry: Instant,
    started: Instant,
}

/// Why nothing was settled now.
enum Unsettled {
    /// Try again: the records changed in between, no read was due, or the API server did not
    /// answer.
    Later,
    /// There are no records, or this process may not read them.
    NoRecords,
}

impl<'a> Settling<'a> {
    fn new(canaries: &'a Canaries) -> Settling<'a> {
        Settling {
            canaries,
            next_look: Instant::now(),
            retry: Instant::now(),
            started: Instant::now(),
        }
    }

    async fn run(mut self) {
        let mut tick = interval(COUNT_INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = self.canaries.stop.cancelled() => break,
                _ = tick.tick() => {}
            }
            self.turn().await;
        }
        // Write the last changes; retry if the records were changed in between.
        for _ in 0..3 {
            self.next_look = Instant::now();
            self.turn().await;
        }
    }

    async fn turn(&mut self) {
        let watch = &self.canaries.watch;
        if !watch.settings().shared {
            watch.count_lost();
        }
        if self.retry > Instant::now() {
            return;
        }
        let mut jobs = watch.take_jobs();
        match self.settle(&mut jobs).await {
            Ok(()) => {}
            Err(Unsettled::Later) => watch.put_back(jobs),
            Err(Unsettled::NoRecords) => {
                // Our own canaries that we saw have arrived, whatever the records say.
                let own = jobs.iter().filter_map(|job| match job {
                    RecordJob::Seen(seen) => seen.count_own(),
                    RecordJob::Close { .. } | RecordJob::Lose(_) => None,
                });
                own.for_each(|count| watch.count_end(&count));
                if watch.settings().shared {
                    watch.drop_overdue();
                }
            }
        }
    }

    async fn settle(&mut self, jobs: &mut Vec<RecordJob>) -> Result<(), Unsettled> {
        let Canaries {
            watch, sender, me, ..
        } = self.canaries;
        let settings = watch.settings();
        let has_overdue = settings.shared && watch.has_overdue();
        let records = watch.records();
        watch.retain_ours(jobs);
        if has_overdue || (!jobs.is_empty() && needs_look(jobs, records.as_ref())) {
            self.look().await?;
            watch.retain_ours(jobs);
            if settings.shared {
                watch.count_lost();
            }
        }
        let Some(records) = watch.records() else {
            return Ok(());
        };
        let settler = Settler {
            me,
            shared: settings.shared,
            wait_for_others: self.wait_for_others(),
        };
        let Settlement { change, counts } = settler.settle(jobs, &records, Timestamp::now());
        if !change.is_empty() {
            match sender.change(&records, &change).await {
                Ok(records) => watch.learn(records),
                Err(failure) => return Err(self.unsettled(&failure)),
            }
        }
        counts.iter().for_each(|count| watch.count_end(count));
        Ok(())
    }

    /// How long to wait for other senders' canaries. A sender that may be alive gets more time to
    /// count its own. `None` while this process may still have to catch up.
    fn wait_for_others(&self) -> Option<Duration> {
        let settings = self.canaries.watch.settings();
        let wait = match settings.shared {
            true => settings.wait_max + self.canaries.every + RETRY_INTERVAL,
            false => settings.wait_max,
        };
        (self.started.elapsed() >= wait).then_some(wait)
    }

    async fn look(&mut self) -> Result<(), Unsettled> {
        let Canaries { watch, sender, .. } = self.canaries;
        if self.next_look > Instant::now() {
            return Err(Unsettled::Later);
        }
        self.next_look = Instant::now() + LOOK_INTERVAL;
        let looked = async {
            watch.set_expected(&sender.expected().await?);
            sender.look().await
        };
        match looked.await {
            Ok(records) => {
                watch.learn(records);
                Ok(())
            }
            Err(failure) => Err(self.unsettled(&failure)),
        }
    }

    fn unsettled(&mut self, failure: &SendFailure) -> Unsettled {
        // The sending side logs the failure.
        tracing::debug!(why = failure.why, "records of canaries not settled");
        if failure.is_conflict() {
            self.canaries.watch.forget_records();
            return Unsettled::Later;
        }
        if failure.is_audited {
            self.canaries.watch.forget_records();
            return Unsettled::NoRecords;
        }
        self.retry = Instant::now() + RETRY_INTERVAL;
        Unsettled::Later
    }
}
