//! `run`: delivers a provider's logs until stopped.
//!
//! A failure that may pass does not end the process: it waits, `/readyz` says why, and it recovers
//! without help. A bad configuration, another owner's checkpoint or a broken sink ends it.
//!
//! A process reads all logs ([`read_as_leader`]), elected by a Lease if there are several replicas;
//! or it reads its share of the logs among replicas ([`read_share`]). Both read a log in the same
//! way ([`process`]).

mod lead;
mod process;
mod shared_logs;

use std::sync::Arc;
use std::time::Duration;

use audit_bridge_core::any_sink::AnySink;
use audit_bridge_core::read_budget::ReadBudget;
use audit_bridge_core::readiness::Component;
use audit_bridge_core::retry::Backoff;
use audit_bridge_core::run::Ended;
use audit_bridge_core::sink::{RequestFailure, SharedSink, Verdict};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use self::process::Process;
use super::run_args::{Checked, RunArgs};
use super::{Bridge, DONE, FAILED, init_logging, usage};
use crate::admin;
use crate::canary::{self, CanaryWatch};
use crate::config::Problems;
use crate::fatal::Fatal;
use crate::provider::Provider as _;
use crate::shutdown;
use crate::telemetry::Telemetry;

pub(super) fn run<B: Bridge>(args: &RunArgs<B::Args, B::ProviderArgs>) -> u8 {
    let mut problems = Problems::default();
    init_logging::<B>(&args.log, &mut problems);
    let checked = args.check::<B>(&mut problems);
    if !problems.is_empty() {
        return usage(&problems);
    }
    let result = super::runtime().and_then(|runtime| {
        let result = runtime.block_on(tail(&checked));
        // Requests that a client still has in flight must not delay the exit.
        runtime.shutdown_timeout(Duration::from_millis(100));
        result
    });
    match result {
        Ok(()) => DONE,
        Err(error) => {
            tracing::error!(%error, "process failed");
            FAILED
        }
    }
}

async fn tail<B: Bridge>(checked: &Checked<B>) -> Result<(), Fatal> {
    let stop =
        shutdown::on_signal().map_err(|error| format!("signals cannot be heard: {error}"))?;
    let telemetry = Telemetry::new(B::NAME, env!("CARGO_PKG_VERSION"));
    telemetry.set_limits(checked.health.limits);
    let target = Arc::new(checked.delivery.destination.open()?.durable());
    let admin = admin::serve(checked.health.admin_address, telemetry.clone()).await?;
    tracing::info!(bridge = B::NAME, version = env!("CARGO_PKG_VERSION"), %admin, "process started");
    tokio::spawn(ask_webhook(Arc::clone(&target), telemetry.clone()));
    let canaries = checked.canary.interval.map(|_| {
        let object = canary::sender::object_name(&checked.state.name);
        Arc::new(CanaryWatch::new(checked.canary, object, telemetry.clone()))
    });
    let process = Process {
        checked,
        telemetry,
        sink: SharedSink::new(target, checked.delivery.in_flight_batches_max),
        read_budget: ReadBudget::new(checked.delivery.in_flight_bytes_max),
        canaries,
    };
    let layout = or_stop(&stop, process.open_state()).await.transpose()?;
    let ended = match (layout, checked.provider.shared()) {
        (None, _) => Ended::Stopped,
        (Some(layout), Some(shared)) => process.read_share(&layout, &shared, &stop).await?,
        (Some(layout), None) => process.read_as_leader(&layout, &stop).await?,
    };
    match ended {
        Ended::Failed(why) | Ended::GaveUp(why) | Ended::Unsaved(why) => Err(why.into()),
        Ended::Stopped if checked.state.until.is_some() => {
            let why = "stopped before all up to --until was delivered; start it again, without \
                       --start where there is a checkpoint";
            Err(why.into())
        }
        Ended::Done => {
            tracing::info!("process ended; all up to --until is settled");
            Ok(())
        }
        Ended::Stopped | Ended::LostLease(_) => {
            tracing::info!("process stopped; records not settled are read again");
            Ok(())
        }
    }
}

/// The output of `work`, or `None` if `stop` is cancelled first.
async fn or_stop<T>(stop: &CancellationToken, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        () = stop.cancelled() => None,
        result = work => Some(result),
    }
}

/// Sends the webhook an empty list until it accepts one, or accepts an event: on a quiet cluster
/// nothing else would show whether it is up.
async fn ask_webhook(target: Arc<AnySink>, telemetry: Telemetry) {
    let mut backoff = Backoff::seeded(fastrand::u64(..));
    for failures in 1.. {
        let why = match target.ask().await.verdict {
            Verdict::Accepted { .. } => {
                telemetry.ready(Component::Webhook);
                return;
            }
            Verdict::Failed(RequestFailure {
                detail,
                remedy: Some(remedy),
                ..
            }) => format!("{detail}, to an empty EventList; {remedy}"),
            Verdict::Failed(RequestFailure { detail, .. }) | Verdict::Broken { detail, .. } => {
                detail
            }
        };
        if telemetry.is_ready(Component::Webhook) {
            return;
        }
        telemetry.not_ready(Component::Webhook, why);
        sleep(backoff.wait(failures)).await;
    }
}
