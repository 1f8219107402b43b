//! One process reads all logs: the only one, or the replica that holds the Lease.

use std::sync::Arc;

use audit_bridge_core::chain::chain;
use audit_bridge_core::dead_letter::DeadLetter;
use audit_bridge_core::lease_hold::LeaseHold;
use audit_bridge_core::readiness::Component;
use audit_bridge_core::run::Ended;
use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;

use super::super::Bridge;
use super::or_stop;
use super::process::{OpenLog, Process, ProcessState, lost_of};
use crate::fatal::Fatal;
use crate::lease::{Elector, Leadership, Waiting};
use crate::provider::{Provider, ProviderLog as _};
use crate::state::StateLayout;

/// All logs, and the dead letter.
type Prepared<L> = (Vec<Arc<L>>, Option<DeadLetter>);

/// What one log needs to be opened and read.
struct LogContext<'a> {
    layout: &'a StateLayout,
    lease_hold: Option<LeaseHold>,
    dead_letter: &'a Option<DeadLetter>,
    /// How many logs there are.
    several: usize,
    /// `--start` is checked against the checkpoint.
    first: bool,
}

impl<B: Bridge> Process<'_, B> {
    /// Reads all logs whenever this process holds the Lease.
    pub(super) async fn read_as_leader(
        &self,
        process_state: &ProcessState,
        stop: &CancellationToken,
    ) -> Result<Ended, Fatal> {
        let elects = self.checked.state.leader_election;
        let mut elector = process_state.elector.clone().filter(|_| elects);
        let mut first = true;
        loop {
            let leadership = match &mut elector {
                None => None,
                Some(elector) => match or_stop(stop, self.elected(elector)).await {
                    None => return Ok(Ended::Stopped),
                    elected => elected,
                },
            };
            let lease_hold = leadership.as_ref().map(Leadership::lease_hold);
            match self
                .read_all(&process_state.layout, lease_hold, first, stop)
                .await?
            {
                // Another replica may read now; this one waits for the Lease again.
                Ended::LostLease(why) => {
                    tracing::warn!(
                        why,
                        "lease lost: reading stopped, another replica may read now"
                    );
                    // Any checkpoint from now on is this run's own, so do not check `--start`
                    // again.
                    first = false;
                }
                ended => {
                    if let Some(leadership) = leadership
                        && let Err(error) = leadership.release().await
                    {
                        tracing::warn!(
                            error = chain(&error),
                            "lease release failed; it expires by itself"
                        );
                    }
                    return Ok(ended);
                }
            }
        }
    }

    /// Waits until this process holds the Lease.
    async fn elected(&self, elector: &mut Elector) -> Leadership {
        let telemetry = &self.telemetry;
        let leadership = elector
            .acquire(|waiting| match waiting {
                Waiting::Held { holder } => {
                    tracing::info!(holder, "standing by: another replica holds the lease");
                    telemetry.standby(Some(holder));
                }
                Waiting::Unavailable { error, remedy } => {
                    telemetry.leaderless();
                    let why = format!("no lease: {}; {remedy}", chain(error));
                    telemetry.not_ready(Component::Checkpoint, why);
                }
            })
            .await;
        telemetry.standby(None);
        tracing::info!("lease acquired: this replica reads");
        leadership
    }

    /// Reads until asked to stop, the Lease is lost, or the job is done.
    async fn read_all(
        &self,
        layout: &StateLayout,
        lease_hold: Option<LeaseHold>,
        first: bool,
        stop: &CancellationToken,
    ) -> Result<Ended, Fatal> {
        let mut lost = lease_hold.clone();
        let prepared = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(Ended::Stopped),
            why = lost_of(&mut lost) => return Ok(Ended::LostLease(why)),
            prepared = self.prepare(layout) => prepared,
        };
        let (logs, dead_letter) = prepared?;
        // The Lease's holder reads the canaries' events, so they end with the pipelines.
        let canaries = self.send_canaries();
        let several = logs.len();
        // The first pipeline that fails stops all others in good order.
        let halt = CancellationToken::new();
        let pipelines = join_all(logs.into_iter().map(|log| {
            let context = LogContext {
                layout,
                lease_hold: lease_hold.clone(),
                dead_letter: &dead_letter,
                several,
                first,
            };
            let halt = &halt;
            async move {
                let ended = self.open_and_read(log, context, halt).await;
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
        if let Some(canaries) = canaries {
            canaries.finish().await;
        }
        Ok(worst_of(ended))
    }

    /// Connects to the provider, and opens what all its logs need.
    async fn prepare(
        &self,
        layout: &StateLayout,
    ) -> Result<Prepared<<B::Provider as Provider>::Log>, Fatal> {
        let logs = self.connect().await?;
        if logs.len() > 1 {
            let names: Vec<&str> = logs.iter().map(|log| log.name()).collect();
            self.retry_until_ok(async || Ok(layout.assign_slots(&names).await?))
                .await?;
        }
        let dead_letter = self.dead_letter().await?;
        self.telemetry.ready(Component::Checkpoint);
        Ok((logs, dead_letter))
    }

    /// Opens the state of one log, for which no other log waits, and reads it.
    async fn open_and_read(
        &self,
        log: Arc<<B::Provider as Provider>::Log>,
        context: LogContext<'_>,
        halt: &CancellationToken,
    ) -> Ended {
        let owner = self.owner(log.name());
        let mut lost = context.lease_hold.clone();
        let opened = tokio::select! {
            biased;
            () = halt.cancelled() => return Ended::Stopped,
            why = lost_of(&mut lost) => return Ended::LostLease(why),
            opened = self.open_log_state(context.layout, &owner, context.several > 1) => opened,
        };
        let log_state = match opened {
            Ok(log_state) => log_state,
            Err(fatal) => return Ended::Failed(fatal.into()),
        };
        let checkpoint = log_state.checkpoint.as_ref();
        if context.first
            && let Err(fatal) = (self.checked.state).check_start(log.name(), checkpoint.is_some())
        {
            return Ended::Failed(fatal.into());
        }
        let open_log = OpenLog {
            log,
            owner,
            positions: checkpoint.map(|it| it.position.clone()).unwrap_or_default(),
            log_state,
            lease_hold: context.lease_hold,
            term: None,
        };
        let LogContext {
            several,
            dead_letter,
            ..
        } = context;
        self.read(open_log, several, dead_letter, halt.clone())
            .await
    }
}

/// The overall result: a failure, else the loss of the Lease, else any.
fn worst_of(all: Vec<Ended>) -> Ended {
    let rank = |ended: &Ended| match ended {
        Ended::Failed(_) | Ended::GaveUp(_) | Ended::Unsaved(_) => 3,
        Ended::LostLease(_) => 2,
        Ended::Stopped => 1,
        Ended::Done => 0,
    };
    all.into_iter().max_by_key(rank).unwrap_or(Ended::Done)
}
