//! What a process has and does, however its logs come to it.

use std::sync::Arc;
use std::time::Duration;

use audit_bridge_core::chain::chain;
use audit_bridge_core::checkpoint::{Checkpointer, Owner, StoreError};
use audit_bridge_core::dead_letter::{DeadLetter, Limits};
use audit_bridge_core::readiness::{Part, Trouble};
use audit_bridge_core::retry::Backoff;
use audit_bridge_core::run::{self, Ended, Patience, Pipeline};
use audit_bridge_core::source::Positions;
use audit_bridge_core::target::Target;
use audit_bridge_core::tenure::Tenure;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::super::Bridge;
use super::super::run_args::Checked;
use crate::kubernetes::Cluster;
use crate::lease::{self, Elector, Timing};
use crate::provider::supervise::Supervised;
use crate::provider::{Provider, ProviderLog, Resume};
use crate::state::{Home, Room, StoreKind};
use crate::telemetry::Telemetry;

/// Between any two writes, where many logs have one each: an API server has other things to do.
const CHECKPOINT_PACE: Duration = Duration::from_millis(125);

/// A process that reads live.
pub(super) struct Process<'a, B: Bridge> {
    pub(super) checked: &'a Checked<B>,
    pub(super) telemetry: Telemetry,
    pub(super) target: Arc<Target>,
}

/// Where a process keeps its state.
pub(super) struct Residence {
    pub(super) home: Home,
    /// A candidate for the Lease of the process, where the checkpoints are in the cluster.
    pub(super) elector: Option<Elector>,
}

/// One log with its state, ready to be read.
pub(super) struct Ready<L> {
    pub(super) log: Arc<L>,
    pub(super) owner: Owner,
    pub(super) room: Room,
    /// Where it begins; empty where nobody has been.
    pub(super) positions: Positions,
    /// On the strength of what it is read, where that can be lost.
    pub(super) tenure: Option<Tenure>,
    /// Which reader this is, where one replaces the other.
    pub(super) term: Option<i64>,
}

/// Why a step cannot be done.
pub(super) enum Setback {
    /// It may work later.
    Hold(Trouble),
    /// A person has to decide first.
    Fatal(String),
}

impl From<StoreError> for Setback {
    fn from(error: StoreError) -> Setback {
        match error.is_unavailable() {
            true => Setback::Hold(error.trouble()),
            false => Setback::Fatal(chain(&error)),
        }
    }
}

impl<B: Bridge> Process<'_, B> {
    /// The state of the process.
    pub(super) async fn home(&self) -> Result<Residence, String> {
        let state = &self.checked.state;
        let home = self
            .insist(async || Ok(Home::lock(&state.dir).await?))
            .await?;
        if state.store == StoreKind::File {
            return Ok(Residence {
                home,
                elector: None,
            });
        }
        let cluster = Cluster::connect(B::NAME, None)
            .await
            .map_err(|error| format!("--checkpoint-store kubernetes: {}", chain(&error)))?;
        let identity = lease::identity();
        let elector = Elector::new(&cluster, &state.name, &identity, Timing::default())
            .map_err(|error| chain(&error))?;
        Ok(Residence {
            home: home.with_config_maps(cluster, &state.name, &identity),
            elector: Some(elector),
        })
    }

    /// Connects to the provider: all logs that there are.
    pub(super) async fn connect(&self) -> Result<Vec<Arc<<B::Provider as Provider>::Log>>, String> {
        let provider = &self.checked.provider;
        let logs = self
            .insist(async || provider.connect().await.map_err(Setback::Hold))
            .await?;
        for part in [Part::Identity, Part::Source] {
            self.telemetry.ready(part);
        }
        Ok(logs.into_iter().map(Arc::new).collect())
    }

    /// Whose checkpoint a log's is.
    pub(super) fn owner(&self, log: &str) -> Owner {
        Owner {
            provider: B::PROVIDER.to_owned(),
            source: log.to_owned(),
        }
    }

    /// Opens the state of one log.
    pub(super) async fn room(
        &self,
        home: &Home,
        owner: &Owner,
        several: bool,
    ) -> Result<Room, String> {
        // Known from now on, so that it has to become ready.
        self.telemetry.log(&owner.source);
        let room = self
            .insist(async || Ok(home.room(owner, several).await?))
            .await?;
        let positions = room.checkpoint.as_ref().map(|it| it.position.len());
        tracing::info!(log = owner.source, positions, "the checkpoint is read");
        Ok(room)
    }

    /// Where rejects go.
    pub(super) async fn dead_letter(&self) -> Result<Option<DeadLetter>, String> {
        let Some(path) = self.checked.delivery.dead_letter.as_deref() else {
            return Ok(None);
        };
        let limits = Limits {
            figures: self.telemetry.dead_letter_figures(),
            ..self.checked.delivery.dead_letter_limits.clone()
        };
        let dead_letter = self
            .insist(async || {
                let (path, limits) = (path.to_owned(), limits.clone());
                let open = move || DeadLetter::open_within(&path, B::PROVIDER, limits);
                let opened = spawn_blocking(open).await;
                let opened = opened.map_err(|broken| chain(&broken));
                let opened = opened.and_then(|opened| opened.map_err(|error| chain(&error)));
                opened.map_err(|what| {
                    Setback::Hold(Trouble {
                        part: Part::Checkpoint,
                        what,
                        remedy: "nothing is read until it can be kept".to_owned(),
                    })
                })
            })
            .await?;
        Ok(Some(dead_letter))
    }

    /// One pipeline, from its first record to its end; so many at most share what is bounded.
    pub(super) async fn read(
        &self,
        ready: Ready<<B::Provider as Provider>::Log>,
        several: usize,
        dead_letter: &Option<DeadLetter>,
        stop: CancellationToken,
    ) -> Ended {
        let Ready {
            log,
            owner,
            room,
            positions,
            tenure,
            term,
        } = ready;
        let Checked {
            bridge,
            state,
            delivery,
            ..
        } = self.checked;
        let telemetry = self.telemetry.log(log.name());
        let whole = self.checked.provider.shared();
        let whole = whole.as_ref().map(|whole| whole.name.as_str());
        telemetry.begin(whole, log.when_silent());
        let mut options = delivery.native.clone();
        options.annotations.extend(log.annotations());
        let resume = Resume {
            positions,
            start: state.start,
            until: state.until,
            term,
            seen_dir: room.seen_dir,
            identities: room.identities,
            telemetry: telemetry.clone(),
        };
        let requests = telemetry.clone();
        let longest = log.checkpoint_interval_max();
        let pipeline = Pipeline {
            source: Supervised::new(log, resume),
            converter: bridge.converter(options),
            sink: Arc::clone(&self.target),
            dead_letter: dead_letter.clone(),
            checkpoint: Some(Checkpointer::new(
                room.store,
                owner,
                room.checkpoint,
                pace(state.checkpoint_interval.min(longest), several),
            )),
            tenure,
            observer: telemetry.clone(),
            on_request: Box::new(move |status, seconds| requests.webhook_request(status, seconds)),
            batch: delivery.batch,
            in_flight_batches_max: (delivery.in_flight_batches_max / several).max(1),
            in_flight_bytes_max: (delivery.in_flight_bytes_max / several).max(1),
            patience: Patience::Endless,
            stop,
            grace: state.shutdown_grace,
        };
        // A task of its own: no log waits for the work of another.
        let mut task = JoinSet::new();
        task.spawn(run::run(pipeline));
        let ended = match task.join_next().await {
            Some(Ok(outcome)) => outcome.ended,
            // A panic is the end of the process, as if there were no tasks.
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

    /// Tries until it works, and says on `/readyz` why it does not.
    pub(super) async fn insist<T>(
        &self,
        mut attempt: impl AsyncFnMut() -> Result<T, Setback>,
    ) -> Result<T, String> {
        let mut backoff = Backoff::seeded(fastrand::u64(..));
        let mut failures = 0_u32;
        loop {
            match attempt().await {
                Ok(done) => return Ok(done),
                Err(Setback::Fatal(why)) => return Err(why),
                Err(Setback::Hold(trouble)) => {
                    self.telemetry.not_ready(trouble.part, trouble.to_string());
                    failures = failures.saturating_add(1);
                    sleep(backoff.wait(failures)).await;
                }
            }
        }
    }
}

/// From one write of a checkpoint to the next, where so many are written.
fn pace(interval: Duration, several: usize) -> Duration {
    let several = u32::try_from(several).unwrap_or(u32::MAX);
    interval.max(CHECKPOINT_PACE.saturating_mul(several))
}

/// Waits for the loss of what may be lost.
pub(super) async fn lost_of(tenure: &mut Option<Tenure>) -> String {
    match tenure {
        Some(tenure) => tenure.lost().await.to_string(),
        None => std::future::pending().await,
    }
}
