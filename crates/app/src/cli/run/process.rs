//! The process: its state, its provider, and one pipeline per log.

use std::sync::Arc;
use std::time::Duration;

use audit_bridge_core::any_sink::AnySink;
use audit_bridge_core::chain::chain;
use audit_bridge_core::checkpoint::{Checkpointer, Owner, StoreError};
use audit_bridge_core::dead_letter::{DeadLetter, DeadLetterLimits};
use audit_bridge_core::lease_hold::LeaseHold;
use audit_bridge_core::read_budget::ReadBudget;
use audit_bridge_core::readiness::{Component, Unavailable};
use audit_bridge_core::retry::Backoff;
use audit_bridge_core::run::{self, Ended, Pipeline, RetryPolicy};
use audit_bridge_core::sink::SharedSink;
use audit_bridge_core::source::StoredPositions;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::super::Bridge;
use super::super::run_args::Checked;
use crate::canary::sender::CanarySender;
use crate::canary::{self, CanaryObserver, CanaryTask, CanaryWatch};
use crate::fatal::Fatal;
use crate::kubernetes::Cluster;
use crate::lease::{self, Elector, LeaseTiming};
use crate::provider::supervise::Supervised;
use crate::provider::{Provider, ProviderLog, Resume};
use crate::state::{LogState, StateLayout, StoreKind};
use crate::telemetry::Telemetry;

/// The minimum interval per checkpoint, if many logs have one each, to spare the API server.
const CHECKPOINT_PACE: Duration = Duration::from_millis(125);

/// A process that reads live logs.
pub(super) struct Process<'a, B: Bridge> {
    pub(super) checked: &'a Checked<B>,
    pub(super) telemetry: Telemetry,
    /// The sink, with the limit of concurrent requests.
    pub(super) sink: SharedSink<AnySink>,
    /// The byte budget of all pipelines together.
    pub(super) read_budget: ReadBudget,
    /// `None`: no canaries are sent.
    pub(super) canaries: Option<Arc<CanaryWatch>>,
}

/// The state of a process.
pub(super) struct ProcessState {
    pub(super) layout: StateLayout,
    /// A candidate for the process's Lease, if the checkpoints are in the cluster.
    pub(super) elector: Option<Elector>,
}

/// One log with its state, ready to be read.
pub(super) struct OpenLog<L> {
    pub(super) log: Arc<L>,
    pub(super) owner: Owner,
    pub(super) log_state: LogState,
    /// Where reading begins; empty for a log that was never read.
    pub(super) positions: StoredPositions,
    /// The Lease that allows reading it, if one is used.
    pub(super) lease_hold: Option<LeaseHold>,
    /// The Lease's term, which distinguishes this reader from the one before.
    pub(super) term: Option<i64>,
}

/// Why a step of the set-up failed.
pub(super) enum SetupError {
    /// The step may succeed later.
    Hold(Unavailable),
    /// A person has to act first.
    Fatal(Fatal),
}

impl From<StoreError> for SetupError {
    fn from(error: StoreError) -> SetupError {
        match error.is_unavailable() {
            true => SetupError::Hold(error.to_unavailable()),
            false => SetupError::Fatal(Fatal::of(&error)),
        }
    }
}

impl<B: Bridge> Process<'_, B> {
    /// Opens the state of the process.
    pub(super) async fn open_state(&self) -> Result<ProcessState, Fatal> {
        let state = &self.checked.state;
        let layout = self
            .retry_until_ok(async || Ok(StateLayout::lock(&state.dir).await?))
            .await?;
        if state.store == StoreKind::File {
            return Ok(ProcessState {
                layout,
                elector: None,
            });
        }
        let cluster = Cluster::connect(B::NAME, None)
            .await
            .map_err(|error| format!("--checkpoint-store kubernetes: {}", chain(&error)))?;
        let identity = lease::identity();
        let elector = Elector::new(&cluster, &state.name, &identity, LeaseTiming::default())
            .map_err(|error| Fatal::of(&error))?;
        Ok(ProcessState {
            layout: layout.with_config_maps(cluster, &state.name, &identity),
            elector: Some(elector),
        })
    }

    /// Connects to the provider and lists all logs.
    pub(super) async fn connect(&self) -> Result<Vec<Arc<<B::Provider as Provider>::Log>>, Fatal> {
        let provider = &self.checked.provider;
        let logs = self
            .retry_until_ok(async || provider.connect().await.map_err(SetupError::Hold))
            .await?;
        for component in [Component::Identity, Component::Source] {
            self.telemetry.ready(component);
        }
        Ok(logs.into_iter().map(Arc::new).collect())
    }

    /// The owner of a log's checkpoint.
    pub(super) fn owner(&self, log: &str) -> Owner {
        Owner {
            provider: B::PROVIDER.to_owned(),
            source: log.to_owned(),
        }
    }

    pub(super) async fn open_log_state(
        &self,
        layout: &StateLayout,
        owner: &Owner,
        several: bool,
    ) -> Result<LogState, Fatal> {
        // Registers the log, which must become ready from now on.
        let telemetry = self.telemetry.log(&owner.source);
        let log_state = retry_until_ok(&telemetry, async || {
            let opened = layout.open_log(owner, several).await;
            // While a person has to look at one log's checkpoint, the other logs are read.
            opened.map_err(|error| match several {
                true => SetupError::Hold(error.to_unavailable()),
                false => error.into(),
            })
        })
        .await?;
        tell_loaded(owner, &log_state);
        Ok(log_state)
    }

    /// Opens the state of a log in the slot whose Lease is held; `None`: the slot is another log's
    /// now.
    pub(super) async fn open_slot_state(
        &self,
        layout: &StateLayout,
        owner: &Owner,
        lease: &str,
    ) -> Result<Option<LogState>, Fatal> {
        let telemetry = self.telemetry.log(&owner.source);
        let log_state = retry_until_ok(&telemetry, async || {
            let opened = layout.open_slot(owner, lease).await;
            // This replica reads other logs, too.
            opened.map_err(|error| SetupError::Hold(error.to_unavailable()))
        })
        .await?;
        match &log_state {
            Some(log_state) => tell_loaded(owner, log_state),
            None => tracing::info!(log = owner.source, lease, "slot is another log's now"),
        }
        Ok(log_state)
    }

    /// Opens the dead letter, if there is one.
    pub(super) async fn dead_letter(&self) -> Result<Option<DeadLetter>, Fatal> {
        let Some(path) = self.checked.delivery.dead_letter.as_deref() else {
            return Ok(None);
        };
        let limits = DeadLetterLimits {
            stats: self.telemetry.dead_letter_stats(),
            ..self.checked.delivery.dead_letter_limits.clone()
        };
        let dead_letter = self
            .retry_until_ok(async || {
                let (path, limits) = (path.to_owned(), limits.clone());
                let open = move || DeadLetter::open_within(&path, B::PROVIDER, limits);
                let opened = spawn_blocking(open).await;
                let opened = opened.map_err(|broken| chain(&broken));
                let opened = opened.and_then(|opened| opened.map_err(|error| chain(&error)));
                opened.map_err(|what| {
                    SetupError::Hold(Unavailable {
                        component: Component::Checkpoint,
                        reason: what,
                        remedy: "nothing is read until it can be kept".to_owned(),
                    })
                })
            })
            .await?;
        Ok(Some(dead_letter))
    }

    /// Starts sending canaries, if configured; dropping the task stops that.
    pub(super) fn send_canaries(&self) -> Option<CanaryTask> {
        let watch = Arc::clone(self.canaries.as_ref()?);
        let every = self.checked.canary.interval?;
        let sender = CanarySender::new(B::NAME, &self.checked.state.name);
        Some(canary::spawn(
            watch,
            sender,
            every,
            self.telemetry.process(),
        ))
    }

    /// Runs one log's pipeline to its end; `several` pipelines share the sink.
    pub(super) async fn read(
        &self,
        open_log: OpenLog<<B::Provider as Provider>::Log>,
        several: usize,
        dead_letter: &Option<DeadLetter>,
        stop: CancellationToken,
    ) -> Ended {
        let OpenLog {
            log,
            owner,
            log_state,
            positions,
            lease_hold,
            term,
        } = open_log;
        let Checked {
            bridge,
            state,
            delivery,
            ..
        } = self.checked;
        let telemetry = self.telemetry.log(log.name());
        let whole = self.checked.provider.shared();
        let whole = whole.as_ref().map(|whole| whole.name.as_str());
        telemetry.begin(whole, log.silence_remedy());
        let mut options = delivery.native.clone();
        options.annotations.extend(log.annotations());
        let resume = Resume {
            positions,
            start: state.start,
            until: state.until,
            term,
            seen_dir: log_state.seen_dir,
            identities: log_state.identities,
            telemetry: telemetry.clone(),
        };
        let requests = telemetry.clone();
        let canaries = self.canaries.clone();
        let observer = CanaryObserver::new(
            telemetry.clone(),
            canaries,
            log.name(),
            log.silence_remedy(),
        );
        let pipeline = Pipeline {
            source: Supervised::new(log, resume),
            converter: bridge.converter(options),
            sink: self.sink.clone(),
            dead_letter: dead_letter.clone(),
            checkpoint: Some(Checkpointer::new(
                log_state.store,
                owner,
                log_state.checkpoint,
                pace(state.checkpoint_interval, several),
            )),
            lease_hold,
            observer,
            on_request: Box::new(move |status, seconds| requests.webhook_request(status, seconds)),
            batch: delivery.batch,
            in_flight_batches_max: (delivery.in_flight_batches_max / several).max(1),
            in_flight_bytes: self.read_budget.clone(),
            retry_policy: RetryPolicy::Forever,
            stop,
            grace: state.shutdown_grace,
        };
        // A task of its own, so that no log waits for another's work.
        let mut task = JoinSet::new();
        task.spawn(run::run(pipeline));
        let ended = match task.join_next().await {
            Some(Ok(outcome)) => outcome.ended,
            // A panic ends the process, as it would without a task.
            Some(Err(broken)) => match broken.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(cancelled) => Ended::Failed(format!("the reading of a log ended: {cancelled}")),
            },
            None => Ended::Stopped,
        };
        telemetry.ended();
        if ended == Ended::Done {
            telemetry.finished();
        }
        ended
    }

    /// Retries a step of the process.
    pub(super) async fn retry_until_ok<T>(
        &self,
        attempt: impl AsyncFnMut() -> Result<T, SetupError>,
    ) -> Result<T, Fatal> {
        retry_until_ok(&self.telemetry, attempt).await
    }
}

/// Retries with backoff until it succeeds; meanwhile `/readyz` says why it fails.
async fn retry_until_ok<T>(
    telemetry: &Telemetry,
    mut attempt: impl AsyncFnMut() -> Result<T, SetupError>,
) -> Result<T, Fatal> {
    let mut backoff = Backoff::seeded(fastrand::u64(..));
    let mut failures = 0_u32;
    loop {
        match attempt().await {
            Ok(done) => return Ok(done),
            Err(SetupError::Fatal(why)) => return Err(why),
            Err(SetupError::Hold(unavailable)) => {
                telemetry.not_ready(unavailable.component, unavailable.to_string());
                failures = failures.saturating_add(1);
                sleep(backoff.wait(failures)).await;
            }
        }
    }
}

fn tell_loaded(owner: &Owner, log_state: &LogState) {
    let positions = log_state.checkpoint.as_ref().map(|it| it.position.len());
    tracing::info!(log = owner.source, positions, "checkpoint loaded");
}

/// The checkpoint interval of each log when several logs are read.
fn pace(interval: Duration, several: usize) -> Duration {
    let several = u32::try_from(several).unwrap_or(u32::MAX);
    interval.max(CHECKPOINT_PACE.saturating_mul(several))
}

/// Waits until the Lease is lost; for ever without one.
pub(super) async fn lost_of(lease_hold: &mut Option<LeaseHold>) -> String {
    match lease_hold {
        Some(lease_hold) => lease_hold.lost().await.to_string(),
        None => std::future::pending().await,
    }
}
