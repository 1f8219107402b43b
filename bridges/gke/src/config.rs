//! The settings that only this bridge needs.

use std::sync::Arc;

use audit_bridge_core::cli::Bridge;
use audit_bridge_core::config::{Problems, TailArgs, count, flag, given};
use audit_bridge_core::convert::Convert;
use audit_bridge_core::event::native;
use audit_bridge_core::replay::dump::Dump;

use crate::client::endpoint::Endpoint;
use crate::convert::{Derive, GkeConvert, Options};
use crate::dump::GkeDump;
use crate::live::{GkeLive, Logging, Subscription};

/// No more than this: the quota of a project, which others use too, is 60 a minute.
const REQUESTS_PER_MINUTE: usize = 30;
/// The ages of the older cursors, in seconds.
const REVISIT_AFTER: [u64; 2] = [30, 600];
/// In place of a name: all of them.
const ANY: &str = "*";

/// The flags of Cloud Logging.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Cloud Logging")]
pub struct Args {
    /// Only entries of this project; for run and check: whose log to read [default: of the metadata server]
    #[arg(
        long,
        env = "AUDIT_BRIDGE_PROJECT_ID",
        hide_env_values = true,
        value_name = "ID"
    )]
    project_id: Option<String>,
    /// Only entries of this cluster; * is all [default for run and check: of the metadata server]
    #[arg(
        long,
        env = "AUDIT_BRIDGE_CLUSTER_NAME",
        hide_env_values = true,
        value_name = "NAME"
    )]
    cluster_name: Option<String>,
    /// Only entries of clusters in this location; * is all
    #[arg(
        long,
        env = "AUDIT_BRIDGE_LOCATION",
        hide_env_values = true,
        value_name = "LOCATION"
    )]
    location: Option<String>,
    /// Convert the Data Access log too: reads, and exec by GET
    #[arg(
        long,
        env = "AUDIT_BRIDGE_INCLUDE_DATA_ACCESS",
        hide_env_values = true,
        value_name = "BOOL",
        num_args = 0..=1,
        default_missing_value = "true"
    )]
    include_data_access: Option<String>,
    /// What to derive where the entry does not say it: some of groups,query,started, or none [default: groups,query,started]
    #[arg(
        long,
        env = "AUDIT_BRIDGE_DERIVE",
        hide_env_values = true,
        value_name = "LIST"
    )]
    derive: Option<String>,
}

/// The flags that only a live log needs.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Cloud Logging, live")]
pub struct LiveArgs {
    /// Read this Pub/Sub subscription, which a log sink feeds, instead of Cloud Logging's API
    #[arg(
        long,
        env = "AUDIT_BRIDGE_SUBSCRIPTION",
        hide_env_values = true,
        value_name = "projects/P/subscriptions/S"
    )]
    subscription: Option<String>,
    /// Requests to Cloud Logging, at most; a project's quota is 60 [default: 30]
    #[arg(
        long,
        env = "AUDIT_BRIDGE_REQUESTS_PER_MINUTE",
        hide_env_values = true,
        value_name = "NUMBER"
    )]
    requests_per_minute: Option<String>,
    /// Another address of the Cloud Logging API (private endpoints, tests)
    #[arg(
        long,
        env = "AUDIT_BRIDGE_LOGGING_ENDPOINT",
        hide_env_values = true,
        value_name = "URL"
    )]
    logging_endpoint: Option<String>,
    /// Another address of the Pub/Sub API; PUBSUB_EMULATOR_HOST works too
    #[arg(
        long,
        env = "AUDIT_BRIDGE_PUBSUB_ENDPOINT",
        hide_env_values = true,
        value_name = "URL"
    )]
    pubsub_endpoint: Option<String>,
    #[command(flatten)]
    tail: TailArgs,
}

/// The GKE bridge, configured.
#[derive(Debug)]
pub struct Gke {
    options: Options,
}

impl Bridge for Gke {
    const NAME: &'static str = "gke-audit-bridge";
    const ABOUT: &'static str = "Delivers the audit events of GKE clusters to an audit webhook";
    const PROVIDER: &'static str = "gke";
    type Args = Args;
    type LiveArgs = LiveArgs;
    type Live = GkeLive;

    fn configure(args: &Args, problems: &mut Problems) -> Gke {
        let named = |value: &Option<String>| Named::of(value.as_deref()).name();
        let include_data_access = problems.read(
            "include-data-access",
            args.include_data_access.as_deref(),
            false,
            flag,
        );
        let derive = problems.read(
            "derive",
            args.derive.as_deref(),
            Derive::default(),
            |text| {
                text.parse()
                    .map_err(|_| "is not a list of groups, query and started, nor none".to_owned())
            },
        );
        Gke {
            options: Options {
                include_data_access,
                derive,
                native: native::Options::default(),
                project: named(&args.project_id),
                cluster: named(&args.cluster_name),
                location: named(&args.location),
            },
        }
    }

    fn live(&self, args: &Args, live: &LiveArgs, problems: &mut Problems) -> GkeLive {
        let variable = |name: &str| std::env::var(name).ok();
        let google = |host: &str| Endpoint::google(host);
        let requests_per_minute = problems.read(
            "requests-per-minute",
            live.requests_per_minute.as_deref(),
            REQUESTS_PER_MINUTE,
            count,
        );
        let logging = Logging {
            endpoint: problems.read(
                "logging-endpoint",
                live.logging_endpoint.as_deref(),
                google("logging.googleapis.com"),
                Endpoint::read,
            ),
            project: Named::of(args.project_id.as_deref())
                .or(Named::of(variable("GOOGLE_CLOUD_PROJECT").as_deref())),
            cluster: Named::of(args.cluster_name.as_deref()),
            location: Named::of(args.location.as_deref()),
            data_access: self.options.include_data_access,
            tail: live.tail.check(&REVISIT_AFTER, problems),
            requests_per_minute: requests_per_minute as f64,
        };
        if logging.project == Named::Any {
            problems.add(
                "project-id",
                "must be one project: the log of each is its own",
            );
        }
        let emulator = variable("PUBSUB_EMULATOR_HOST").filter(|host| !host.trim().is_empty());
        let emulator = emulator.map(|host| format!("http://{}", host.trim()));
        let given_endpoint = given(live.pubsub_endpoint.as_deref()).or(emulator.as_deref());
        let endpoint = problems.read(
            "pubsub-endpoint",
            given_endpoint,
            google("pubsub.googleapis.com"),
            Endpoint::read,
        );
        let subscription =
            problems.read("subscription", live.subscription.as_deref(), None, |text| {
                subscription(text).map(Some)
            });
        GkeLive::new(
            logging,
            subscription.map(|name| Subscription { name, endpoint }),
        )
    }

    fn dump() -> Arc<dyn Dump> {
        Arc::new(GkeDump)
    }

    fn converter(&self, native: native::Options) -> impl Convert + 'static {
        GkeConvert::new(Options {
            native,
            ..self.options.clone()
        })
    }
}

/// What a setting says of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Named {
    /// Nothing: whatever is found.
    Unset,
    /// All, also where one would be found.
    Any,
    /// This one.
    One(String),
}

impl Named {
    fn of(value: Option<&str>) -> Named {
        match given(value) {
            None => Named::Unset,
            Some(ANY) => Named::Any,
            Some(name) => Named::One(name.to_owned()),
        }
    }

    fn or(self, other: Named) -> Named {
        match self {
            Named::Unset => other,
            set => set,
        }
    }

    /// The name, when there is just one.
    pub(crate) fn name(&self) -> Option<String> {
        match self {
            Named::One(name) => Some(name.clone()),
            Named::Unset | Named::Any => None,
        }
    }
}

/// A subscription's full name.
fn subscription(text: &str) -> Result<String, String> {
    let parts: Vec<&str> = text.split('/').collect();
    let fits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_graphic());
    match parts.as_slice() {
        ["projects", project, "subscriptions", name] if fits(project) && fits(name) => {
            Ok(text.to_owned())
        }
        _ => Err("is no name like projects/PROJECT/subscriptions/NAME".to_owned()),
    }
}
