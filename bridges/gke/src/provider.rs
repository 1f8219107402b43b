//! Reads logs live: selects project and cluster, opens the log, and implements `check`.

mod coverage;
mod logging;
mod names;
mod subscription;

use std::sync::Arc;
use std::time::Duration;

use audit_bridge_app::config::{
    InvalidValue, Problems, TailArgs, TailFlags, count, duration, given, split_list,
};
use audit_bridge_app::provider::Finding;
use audit_bridge_app::provider::either::Either;
use audit_bridge_tail::Limiter;

pub(crate) use self::logging::LoggingProvider;
pub(crate) use self::names::{Named, Names};
use crate::client::endpoint::Endpoint;
use crate::client::resource_name::{RESOURCE_NAMES_MAX, ResourceName};

/// Default rate: the project's quota, which others use too, is 60 a minute.
const REQUESTS_PER_MINUTE: usize = 30;
/// Default ages of the older cursors, in seconds.
const REVISIT_AFTER: [u64; 2] = [30, 600];
/// Interval of the queries for even later entries.
const LATE_INTERVAL: Duration = Duration::from_secs(3600);

/// The flags that only a live log needs.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Cloud Logging, live")]
pub struct GkeProviderArgs {
    /// Read this Pub/Sub subscription, which a log sink feeds, instead of Cloud Logging's API
    #[arg(long, value_name = "projects/P/subscriptions/S")]
    subscription: Option<String>,
    /// Where to read instead of the project: a project, folder, organization, or a log view of a bucket; may be repeated
    #[arg(long, value_name = "NAME")]
    resource_name: Vec<String>,
    /// Requests to Cloud Logging, at most; a project's quota is 60 [default: 30]
    #[arg(long, value_name = "NUMBER")]
    requests_per_minute: Option<String>,
    /// Another address of the Cloud Logging API (private endpoints, tests)
    #[arg(long, value_name = "URL")]
    logging_endpoint: Option<String>,
    /// Another address of the Pub/Sub API; PUBSUB_EMULATOR_HOST works too
    #[arg(long, value_name = "URL")]
    pubsub_endpoint: Option<String>,
    /// Between two looks for entries that came later than the oldest of --revisit-after, of the last day; or off [default: 1h]
    #[arg(long, value_name = "SPAN")]
    late_interval: Option<String>,
    #[command(flatten)]
    tail: TailArgs,
}

impl GkeProviderArgs {
    /// Checks the flags, and reads the variables of Google's own tools.
    pub(crate) fn check(
        &self,
        mut names: Names,
        data_access: bool,
        problems: &mut Problems,
    ) -> GkeProvider {
        let variable = |name: &str| std::env::var(name).ok();
        let resource_names = self.resource_names(problems);
        if self.resource_name.is_empty() {
            names.project = names
                .project
                .or(Named::of(variable("GOOGLE_CLOUD_PROJECT").as_deref()));
            if names.project == Named::Any {
                problems.add(
                    "project-id",
                    "must be one project: the log of each is its own; for several, name each with \
                     --resource-name projects/ID, or a log view that has them all",
                );
            }
        }
        let requests_per_minute = problems.read(
            "requests-per-minute",
            self.requests_per_minute.as_deref(),
            REQUESTS_PER_MINUTE,
            count,
        );
        let logging = Logging {
            endpoint: problems.read(
                "logging-endpoint",
                self.logging_endpoint.as_deref(),
                Endpoint::google("logging.googleapis.com"),
                Endpoint::read,
            ),
            names,
            resource_names,
            data_access,
            tail: self.tail.check(&REVISIT_AFTER, problems),
            late_interval: problems.read(
                "late-interval",
                self.late_interval.as_deref(),
                Some(LATE_INTERVAL),
                |text| match text {
                    "off" => Ok(None),
                    span => duration(span).map(Some),
                },
            ),
        };
        let emulator = variable("PUBSUB_EMULATOR_HOST");
        let emulator = given(emulator.as_deref()).map(|host| format!("http://{host}"));
        let endpoint = problems.read(
            "pubsub-endpoint",
            given(self.pubsub_endpoint.as_deref()).or(emulator.as_deref()),
            Endpoint::google("pubsub.googleapis.com"),
            Endpoint::read,
        );
        let subscription =
            problems.read("subscription", self.subscription.as_deref(), None, |text| {
                subscription(text).map(Some)
            });
        if subscription.is_some() && !self.resource_name.is_empty() {
            problems.add(
                "resource-name",
                "says where Cloud Logging's API reads, and a subscription is read instead: leave \
                 one of the two out",
            );
        }
        match subscription {
            Some(name) => Either::B(Subscription { name, endpoint }),
            None => Either::A(LoggingProvider {
                logging,
                limiter: Arc::new(Limiter::new(requests_per_minute as f64 / 60.0)),
                looked: Arc::default(),
            }),
        }
    }

    /// The values of `--resource-name`, without duplicates.
    fn resource_names(&self, problems: &mut Problems) -> Vec<ResourceName> {
        let mut names = Vec::new();
        let texts = self.resource_name.iter().flat_map(|list| split_list(list));
        for (at, text) in texts.enumerate() {
            match ResourceName::read(&text) {
                Ok(name) => names.push(name),
                Err(error) => problems.add("resource-name", format!("name {}: {error}", at + 1)),
            }
        }
        names.sort();
        names.dedup();
        if names.len() > RESOURCE_NAMES_MAX {
            let what = format!(
                "names more than {RESOURCE_NAMES_MAX}, which is all that one request may ask"
            );
            problems.add("resource-name", what);
        }
        names
    }
}

/// The settings of Cloud Logging.
#[derive(Debug, Clone)]
pub(crate) struct Logging {
    pub(crate) endpoint: Endpoint,
    pub(crate) names: Names,
    /// Where to read; empty: in the project.
    pub(crate) resource_names: Vec<ResourceName>,
    pub(crate) data_access: bool,
    pub(crate) tail: TailFlags,
    /// Interval of the queries for late entries; `None`: they are not made.
    pub(crate) late_interval: Option<Duration>,
}

/// A Pub/Sub subscription that is read instead. It is provider and log in one.
#[derive(Debug, Clone)]
pub struct Subscription {
    pub(crate) name: String,
    pub(crate) endpoint: Endpoint,
}

/// The audit log of a project or cluster, from Cloud Logging's API or a subscription.
pub(crate) type GkeProvider = Either<LoggingProvider, Subscription>;

/// Checks a subscription's full name.
fn subscription(text: &str) -> Result<String, InvalidValue> {
    let parts: Vec<&str> = text.split('/').collect();
    let fits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_graphic());
    match parts.as_slice() {
        ["projects", project, "subscriptions", name] if fits(project) && fits(name) => {
            Ok(text.to_owned())
        }
        _ => Err("is no name like projects/PROJECT/subscriptions/NAME".into()),
    }
}

/// The finding of `check` if a token was issued, and to whom.
fn identity(principal: Option<String>) -> Finding {
    let whom = principal.map(|principal| format!(" to {principal}"));
    let found = format!("an access token was given{}", whom.unwrap_or_default());
    Finding::ok("identity", found)
}

/// The finding of `check` if the endpoint needs no token.
fn no_identity() -> Finding {
    Finding::ok("identity", "none is needed on this endpoint")
}
