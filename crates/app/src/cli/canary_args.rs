//! The flags of canaries.

use std::time::Duration;

use clap::Args;

use crate::canary::CanarySettings;
use crate::config::{self, InvalidValue, Problems, flag};

/// The value that turns canaries off.
const OFF: &str = "off";
/// A shorter interval is no better, and each canary costs a request and an event.
const INTERVAL_MIN: Duration = Duration::from_secs(1);
/// The default: providers and restarting receivers can take minutes.
const WAIT_MAX: Duration = Duration::from_secs(600);

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Canary")]
pub(super) struct CanaryArgs {
    /// From one canary to the next: a harmless request to the API server of the cluster in which the bridge runs, whose audit event has to arrive at the webhook; a span, or off. Only where that cluster's log is read [default: off]
    #[arg(long, value_name = "SPAN")]
    canary_interval: Option<String>,
    /// A canary that has not arrived after so long is lost, which is warned about [default: 10m]
    #[arg(long, value_name = "SPAN")]
    canary_wait_max: Option<String>,
    /// Deliver the events of canaries; false leaves them out, counted as skipped, and then they have arrived when they were read [default: true]
    #[arg(long, value_name = "BOOL")]
    canary_deliver: Option<String>,
}

impl CanaryArgs {
    pub(super) fn check(&self, problems: &mut Problems) -> CanarySettings {
        CanarySettings {
            interval: problems.read(
                "canary-interval",
                self.canary_interval.as_deref(),
                None,
                interval,
            ),
            wait_max: problems.read(
                "canary-wait-max",
                self.canary_wait_max.as_deref(),
                WAIT_MAX,
                config::duration,
            ),
            deliver: problems.read("canary-deliver", self.canary_deliver.as_deref(), true, flag),
            shared: false,
        }
    }
}

fn interval(text: &str) -> Result<Option<Duration>, InvalidValue> {
    if text == OFF {
        return Ok(None);
    }
    match config::duration(text) {
        Ok(span) if span >= INTERVAL_MIN => Ok(Some(span)),
        Ok(_) => Err(format!("must be at least {INTERVAL_MIN:?}").into()),
        Err(_) => Err("is neither off nor a time span like 1m".into()),
    }
}
