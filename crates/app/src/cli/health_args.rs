//! The flags that decide when a log counts as unhealthy.

use std::time::Duration;

use clap::Args;

use crate::config::{self, InvalidValue, Problems};
use crate::telemetry::{HealthLimits, STALL_MAX};

/// The value that turns the silence warning off.
const OFF: &str = "off";

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Health")]
pub(super) struct HealthArgs {
    /// Not ready when the trail stands still for so long although there is more [default: 5m]
    #[arg(long, value_name = "SPAN")]
    stall_max: Option<String>,
    /// Warn when no audit record arrives for so long: a span, or off [default: 15m; GKE: off]
    #[arg(long, value_name = "SPAN")]
    silence_max: Option<String>,
}

impl HealthArgs {
    pub(super) fn check(
        &self,
        silence_max: Option<Duration>,
        problems: &mut Problems,
    ) -> HealthLimits {
        HealthLimits {
            stall_max: problems.read(
                "stall-max",
                self.stall_max.as_deref(),
                STALL_MAX,
                config::duration,
            ),
            silence_max: problems.read(
                "silence-max",
                self.silence_max.as_deref(),
                silence_max,
                silence,
            ),
        }
    }
}

fn silence(text: &str) -> Result<Option<Duration>, InvalidValue> {
    match text {
        OFF => Ok(None),
        _ => config::duration(text)
            .map(Some)
            .map_err(|_| "is neither off nor a time span like 15m".into()),
    }
}
