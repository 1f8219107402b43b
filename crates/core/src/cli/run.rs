//! `run`: the logs of a provider through the pipeline, until stopped.
//!
//! Nothing that may mend itself ends the process: it holds, `/readyz` says why, and it goes on. What
//! ends it is the configuration, a checkpoint that is somebody else's, and a way out that broke.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::sleep;

use super::live::{Checked, RunArgs};
use super::{Bridge, DONE, FAILED, init_logging, usage};
use crate::admin;
use crate::chain::chain;
use crate::checkpoint::{Checkpointer, Home, Owner, Room, StoreError, StoreKind};
use crate::config::Problems;
use crate::dead_letter::DeadLetter;
use crate::kubernetes::Cluster;
use crate::lease::{self, Elector, Leadership, Tenure, Timing, Waiting};
use crate::live::supervise::Supervised;
use crate::live::{Live, LiveLog, Resume, Trouble};
use crate::retry::Backoff;
use crate::run::{self, Ended, Patience, Pipeline};
use crate::shutdown::Stop;
use crate::sink::{Target, Verdict};
use crate::telemetry::{Part, Telemetry};

/// Between two writes of the checkpoint.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(1);

pub(super) fn run<B: Bridge>(args: &RunArgs<B::Args, B::LiveArgs>) -> u8 {
    let mut problems = Problems::default();
    init_logging::<B>(&args.log, &mut problems);
    let checked = args.check::<B>(&mut problems);
    if !problems.is_empty() {
        return usage(&problems);
    }
    let result = super::runtime().and_then(|runtime| {
        let result = runtime.block_on(tail(&checked));
        // What a client still has under way must not hold up the end.
        runtime.shutdown_timeout(Duration::from_millis(100));
        result
    });
    match result {
        Ok(()) => DONE,
        Err(error) => {
            tracing::error!(error, "ended");
            FAILED
        }
    }
}

async fn tail<B: Bridge>(checked: &Checked<B>) -> Result<(), String> {
    let mut stop =
        Stop::on_signal().map_err(|error| format!("signals cannot be heard: {error}"))?;
    let telemetry = Telemetry::new(B::NAME, env!("CARGO_PKG_VERSION"));
    let target = Arc::new(checked.delivery.destination.open()?.durable());
    let admin = admin::serve(checked.state.admin_address, telemetry.clone()).await?;
    tracing::info!(bridge = B::NAME, version = env!("CARGO_PKG_VERSION"), %admin, "started");
    tokio::spawn(ask_webhook(Arc::clone(&target), telemetry.clone()));
    let process = Process {
        checked,
        telemetry,
        target,
    };
    let home = process.home();
    let Some((home, mut elector)) = or_stop(&mut stop, home).await.transpose()? else {
        return Ok(());
    };
    loop {
        let leadership = match &mut elector {
            None => None,
            Some(elector) => match or_stop(&mut stop, process.elected(elector)).await {
                None => return Ok(()),
                elected => elected,
            },
        };
        let tenure = leadership.as_ref().map(Leadership::tenure);
        let ended = process.lead(&home, tenure, &mut stop).await?;
        match (ended, leadership) {
            // Another one may begin: so must we, once it is our turn again.
            (Ended::LostLease(why), _) => {
                tracing::warn!(why, "stopped reading, another replica may read now");
            }
            (ended, leadership) => {
                if let Some(leadership) = leadership
                    && let Err(error) = leadership.release().await
                {
                    tracing::warn!(error = chain(&error), "the lease is not given back");
                }
                return match ended {
                    Ended::Failed(why) | Ended::GaveUp(why) => Err(why),
                    Ended::Done | Ended::Stopped | Ended::LostLease(_) => {
                        tracing::info!(
                            "stopped: all that was read is settled or will be sent again"
                        );
                        Ok(())
                    }
                };
            }
        }
    }
}

/// What `work` comes to, unless it is time to stop before.
async fn or_stop<T>(stop: &mut Stop, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        () = stop.asked() => None,
        result = work => Some(result),
    }
}

/// A process that reads live.
struct Process<'a, B: Bridge> {
    checked: &'a Checked<B>,
    telemetry: Telemetry,
    target: Arc<Target>,
}

/// One log with its state, ready to be read.
struct Ready<L> {
    log: Arc<L>,
    owner: Owner,
    room: Room,
}

/// Why a step cannot be done.
enum Setback {
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
    /// The state of the process, and its candidacy where there is one.
    async fn home(&self) -> Result<(Home, Option<Elector>), String> {
        let state = &self.checked.state;
        let home = self.insist(async || Ok(Home::lock(&state.dir)?)).await?;
        if state.store == StoreKind::File {
            return Ok((home, None));
        }
        let cluster = Cluster::connect(None)
            .await
            .map_err(|error| format!("--checkpoint-store kubernetes: {}", chain(&error)))?;
        let identity = lease::identity();
        let elector = match state.leader_election {
            false => None,
            true => Elector::new(&cluster, &state.name, &identity, Timing::default())
                .map(Some)
                .map_err(|error| chain(&error))?,
        };
        Ok((
            home.with_config_maps(cluster, &state.name, &identity),
            elector,
        ))
    }

    /// Waits to be the one that reads.
    async fn elected(&self, elector: &mut Elector) -> Leadership {
        let telemetry = &self.telemetry;
        let leadership = elector
            .acquire(|waiting| match waiting {
                Waiting::Held { holder } => {
                    tracing::info!(holder, "standing by: another replica reads");
                    telemetry.standby(Some(holder));
                }
                Waiting::Unavailable { error, remedy } => {
                    telemetry.standby(None);
                    let why = format!("no lease: {}; {remedy}", chain(error));
                    telemetry.not_ready(Part::Checkpoint, why);
                }
            })
            .await;
        telemetry.standby(None);
        tracing::info!("this replica reads");
        leadership
    }

    /// Reads until it is time to stop, the Lease is lost, or the job is done.
    async fn lead(
        &self,
        home: &Home,
        tenure: Option<Tenure>,
        stop: &mut Stop,
    ) -> Result<Ended, String> {
        let mut lost = tenure.clone();
        let prepared = tokio::select! {
            biased;
            () = stop.asked() => return Ok(Ended::Stopped),
            why = lost_of(&mut lost) => return Ok(Ended::LostLease(why)),
            prepared = self.prepare(home) => prepared,
        };
        let (logs, dead_letter) = prepared?;
        let several = logs.len();
        // The first that breaks ends them all, in good order.
        let (halt, halted) = Stop::by_hand();
        let pipelines = join_all(logs.into_iter().map(|log| {
            let pipeline = self.read(log, several, &dead_letter, tenure.clone(), halted.clone());
            let halt = &halt;
            async move {
                let ended = pipeline.await;
                if matches!(ended, Ended::Failed(_) | Ended::GaveUp(_)) {
                    halt.send_replace(true);
                }
                ended
            }
        }));
        let mut pipelines = std::pin::pin!(pipelines);
        let ended = tokio::select! {
            biased;
            () = stop.asked() => {
                halt.send_replace(true);
                pipelines.await
            }
            ended = &mut pipelines => ended,
        };
        Ok(worst(ended))
    }

    /// Connects to the provider and opens the state of each of its logs.
    async fn prepare(
        &self,
        home: &Home,
    ) -> Result<(Vec<Ready<<B::Live as Live>::Log>>, Option<DeadLetter>), String> {
        let live = &self.checked.live;
        let logs = self
            .insist(async || live.connect().await.map_err(Setback::Hold))
            .await?;
        for part in [Part::Identity, Part::Source] {
            self.telemetry.ready(part);
        }
        let several = logs.len() > 1;
        let mut ready = Vec::new();
        for log in logs {
            let owner = Owner {
                provider: B::PROVIDER.to_owned(),
                source: log.name().to_owned(),
            };
            // Known from now on, so that it has to become ready.
            self.telemetry.log(log.name());
            let room = self
                .insist(async || Ok(home.room(&owner, several).await?))
                .await?;
            let positions = room.checkpoint.as_ref().map(|it| it.position.len());
            tracing::info!(log = log.name(), positions, "the checkpoint is read");
            ready.push(Ready {
                log: Arc::new(log),
                owner,
                room,
            });
        }
        let path = self.checked.delivery.dead_letter.as_deref();
        let dead_letter = match path {
            None => None,
            Some(path) => Some(
                self.insist(async || {
                    DeadLetter::open(path, B::PROVIDER).map_err(|error| {
                        Setback::Hold(Trouble {
                            part: Part::Checkpoint,
                            what: chain(&error),
                            remedy: "nothing is read until it can be kept".to_owned(),
                        })
                    })
                })
                .await?,
            ),
        };
        self.telemetry.ready(Part::Checkpoint);
        Ok((ready, dead_letter))
    }

    /// One pipeline, from its first record to its end. Several share what is bounded.
    async fn read(
        &self,
        ready: Ready<<B::Live as Live>::Log>,
        several: usize,
        dead_letter: &Option<DeadLetter>,
        tenure: Option<Tenure>,
        stop: Stop,
    ) -> Ended {
        let Ready { log, owner, room } = ready;
        let Checked {
            bridge,
            state,
            delivery,
            ..
        } = self.checked;
        let telemetry = self.telemetry.log(log.name());
        let mut options = delivery.native.clone();
        options.annotations.extend(log.annotations());
        let resume = Resume {
            positions: room
                .checkpoint
                .as_ref()
                .map(|checkpoint| checkpoint.position.clone())
                .unwrap_or_default(),
            start: state.start,
            until: state.until,
            seen_dir: room.seen_dir,
            telemetry: telemetry.clone(),
        };
        let requests = telemetry.clone();
        let pipeline = Pipeline {
            source: Supervised::new(log, resume),
            converter: bridge.converter(options),
            sink: Arc::clone(&self.target),
            dead_letter: dead_letter.clone(),
            checkpoint: Some(Checkpointer::new(
                room.store,
                owner,
                room.checkpoint,
                CHECKPOINT_INTERVAL,
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
        let outcome = Box::pin(run::run(pipeline)).await;
        telemetry.ended();
        outcome.ended
    }

    /// Tries until it works, and says on `/readyz` why it does not.
    async fn insist<T>(
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

async fn lost_of(tenure: &mut Option<Tenure>) -> String {
    match tenure {
        Some(tenure) => tenure.lost().await.to_string(),
        None => std::future::pending().await,
    }
}

/// What all came to: a failure, else the loss of the Lease, else whatever it was.
fn worst(all: Vec<Ended>) -> Ended {
    let rank = |ended: &Ended| match ended {
        Ended::Failed(_) | Ended::GaveUp(_) => 3,
        Ended::LostLease(_) => 2,
        Ended::Stopped => 1,
        Ended::Done => 0,
    };
    all.into_iter().max_by_key(rank).unwrap_or(Ended::Done)
}

/// Asks the webhook with an empty list until it accepts one, or an event: on a quiet cluster
/// nothing else would tell whether it is there.
async fn ask_webhook(target: Arc<Target>, telemetry: Telemetry) {
    let mut backoff = Backoff::seeded(fastrand::u64(..));
    for failures in 1.. {
        let why = match target.ask().await.verdict {
            Verdict::Accepted { .. } => {
                telemetry.ready(Part::Webhook);
                return;
            }
            Verdict::Refused { detail, .. } => format!(
                "{detail}, to an empty EventList; check that --webhook-url \
                 (AUDIT_BRIDGE_WEBHOOK_URL) names an endpoint that takes audit.k8s.io/v1 EventLists"
            ),
            Verdict::Hold { detail, remedy, .. } => format!("{detail}; {remedy}"),
            Verdict::Retry { detail, .. } | Verdict::Broken { detail, .. } => detail,
        };
        if telemetry.is_ready(Part::Webhook) {
            return;
        }
        telemetry.not_ready(Part::Webhook, why);
        sleep(backoff.wait(failures)).await;
    }
}
