//! One process reads all logs: alone, or elected among replicas by a Lease.

use audit_bridge_core::chain::chain;
use audit_bridge_core::dead_letter::DeadLetter;
use audit_bridge_core::readiness::Part;
use audit_bridge_core::run::Ended;
use audit_bridge_core::tenure::Tenure;
use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;

use super::super::Bridge;
use super::or_stop;
use super::process::{Process, Ready, Residence, lost_of};
use crate::lease::{Elector, Leadership, Waiting};
use crate::provider::{Provider, ProviderLog as _};
use crate::state::Home;

/// All logs with their state, and where rejects go.
type Prepared<L> = (Vec<Ready<L>>, Option<DeadLetter>);

impl<B: Bridge> Process<'_, B> {
    /// Reads all logs, whenever it is this process's turn.
    pub(super) async fn lead(
        &self,
        residence: &Residence,
        stop: &CancellationToken,
    ) -> Result<Ended, String> {
        let elects = self.checked.state.leader_election;
        let mut elector = residence.elector.clone().filter(|_| elects);
        let mut first = true;
        loop {
            let leadership = match &mut elector {
                None => None,
                Some(elector) => match or_stop(stop, self.elected(elector)).await {
                    None => return Ok(Ended::Stopped),
                    elected => elected,
                },
            };
            let tenure = leadership.as_ref().map(Leadership::tenure);
            match self.read_all(&residence.home, tenure, first, stop).await? {
                // Another one may begin: so must we, once it is our turn again.
                Ended::LostLease(why) => {
                    tracing::warn!(why, "stopped reading, another replica may read now");
                    // The checkpoint is our own from now on.
                    first = false;
                }
                ended => {
                    if let Some(leadership) = leadership
                        && let Err(error) = leadership.release().await
                    {
                        tracing::warn!(error = chain(&error), "the lease is not given back");
                    }
                    return Ok(ended);
                }
            }
        }
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
    async fn read_all(
        &self,
        home: &Home,
        tenure: Option<Tenure>,
        first: bool,
        stop: &CancellationToken,
    ) -> Result<Ended, String> {
        let mut lost = tenure.clone();
        let prepared = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(Ended::Stopped),
            why = lost_of(&mut lost) => return Ok(Ended::LostLease(why)),
            prepared = self.prepare(home, &tenure, first) => prepared,
        };
        let (logs, dead_letter) = prepared?;
        let several = logs.len();
        // The first that breaks ends them all, in good order.
        let halt = CancellationToken::new();
        let pipelines = join_all(logs.into_iter().map(|log| {
            let pipeline = self.read(log, several, &dead_letter, halt.clone());
            let halt = &halt;
            async move {
                let ended = pipeline.await;
                if matches!(ended, Ended::Failed(_) | Ended::GaveUp(_)) {
                    halt.cancel();
                }
                ended
            }
        }));
        let mut pipelines = std::pin::pin!(pipelines);
        let ended = tokio::select! {
            biased;
            () = stop.cancelled() => {
                halt.cancel();
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
        tenure: &Option<Tenure>,
        first: bool,
    ) -> Result<Prepared<<B::Provider as Provider>::Log>, String> {
        let logs = self.connect().await?;
        let several = logs.len() > 1;
        let mut ready = Vec::new();
        for log in logs {
            let owner = self.owner(log.name());
            let room = self.room(home, &owner, several).await?;
            let checkpoint = room.checkpoint.as_ref();
            if first {
                let state = &self.checked.state;
                state.check_start(log.name(), checkpoint.is_some())?;
            }
            ready.push(Ready {
                log,
                owner,
                positions: checkpoint.map(|it| it.position.clone()).unwrap_or_default(),
                room,
                tenure: tenure.clone(),
                term: None,
            });
        }
        let dead_letter = self.dead_letter().await?;
        self.telemetry.ready(Part::Checkpoint);
        Ok((ready, dead_letter))
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
