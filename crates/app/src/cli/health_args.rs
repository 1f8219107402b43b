//! The admin endpoint, and the flags that decide when a log counts as unhealthy.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use clap::Args;

use crate::config::{self, InvalidValue, Problems};
use crate::telemetry::{HealthLimits, STALL_MAX};

/// The default of `--admin-address`.
const ADMIN_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8080);
/// The value that turns the silence warning off.
const OFF: &str = "off";

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Health")]
pub(super) struct HealthArgs {
    /// Address of /livez, /readyz and /metrics [default: 0.0.0.0:8080]
    #[arg(long, value_name = "ADDRESS")]
    admin_address: Option<String>,
    /// Not ready when the trail stands still for so long although there is more [default: 5m]
    #[arg(long, value_name = "SPAN")]
    stall_max: Option<String>,
    /// Warn when no audit record arrives for so long: a span, or off [default: 15m; GKE: off]
    #[arg(long, value_name = "SPAN")]
    silence_max: Option<String>,
}

/// [`HealthArgs`], checked.
#[derive(Debug, Clone, Copy)]
pub(super) struct HealthSettings {
    pub(super) admin_address: SocketAddr,
    pub(super) limits: HealthLimits,
}

impl HealthArgs {
    pub(super) fn check(
        &self,
        silence_max: Option<Duration>,
        problems: &mut Problems,
    ) -> HealthSettings {
        let admin_address = self.admin_address.as_deref();
        let admin_address = problems.read("admin-address", admin_address, ADMIN_ADDRESS, |text| {
            text.parse()
                .map_err(|_| "is no address with a port; write it like 0.0.0.0:8080".into())
        });
        let limits = HealthLimits {
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
        };
        HealthSettings {
            admin_address,
            limits,
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
