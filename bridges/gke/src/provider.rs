//! The live logs: which project and cluster they are of, how they are opened, and what `check`
//! finds of them.

mod logging;
mod names;
mod subscription;

use std::sync::Arc;
use std::time::Duration;

use audit_bridge_app::config::{Problems, TailArgs, TailFlags, count, given};
use audit_bridge_app::provider::{Finding, Provider, ProviderLog, Resume};
use audit_bridge_core::readiness::Unavailable;
use audit_bridge_core::source::{Page, Position, Source};
use audit_bridge_tail::{Limiter, Tail};

use self::logging::LoggingLog;
pub(crate) use self::names::{Named, Names};
use crate::client::endpoint::Endpoint;
use crate::client::logging::CloudLoggingClient;
use crate::client::pubsub::SubscriptionMessages;

/// No more than this: the quota of a project, which others use too, is 60 a minute.
const REQUESTS_PER_MINUTE: usize = 30;
/// Pub/Sub sends nothing more while too much is not acknowledged, and that follows the checkpoint.
const ACKNOWLEDGE_INTERVAL: Duration = Duration::from_secs(1);
/// The ages of the older cursors, in seconds.
const REVISIT_AFTER: [u64; 2] = [30, 600];

/// The flags that only a live log needs.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Cloud Logging, live")]
pub struct GkeProviderArgs {
    /// Read this Pub/Sub subscription, which a log sink feeds, instead of Cloud Logging's API
    #[arg(long, value_name = "projects/P/subscriptions/S")]
    subscription: Option<String>,
    /// Requests to Cloud Logging, at most; a project's quota is 60 [default: 30]
    #[arg(long, value_name = "NUMBER")]
    requests_per_minute: Option<String>,
    /// Another address of the Cloud Logging API (private endpoints, tests)
    #[arg(long, value_name = "URL")]
    logging_endpoint: Option<String>,
    /// Another address of the Pub/Sub API; PUBSUB_EMULATOR_HOST works too
    #[arg(long, value_name = "URL")]
    pubsub_endpoint: Option<String>,
    #[command(flatten)]
    tail: TailArgs,
}

impl GkeProviderArgs {
    /// Checks the flags, and reads the variables that Google's own tools have.
    pub(crate) fn check(
        &self,
        mut names: Names,
        data_access: bool,
        problems: &mut Problems,
    ) -> GkeProvider {
        let variable = |name: &str| std::env::var(name).ok();
        names.project = names
            .project
            .or(Named::of(variable("GOOGLE_CLOUD_PROJECT").as_deref()));
        if names.project == Named::Any {
            problems.add(
                "project-id",
                "must be one project: the log of each is its own",
            );
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
            data_access,
            tail: self.tail.check(&REVISIT_AFTER, problems),
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
        GkeProvider {
            logging,
            subscription: subscription.map(|name| Subscription { name, endpoint }),
            limiter: Arc::new(Limiter::new(requests_per_minute as f64 / 60.0)),
        }
    }
}

/// What the settings say of Cloud Logging.
#[derive(Debug, Clone)]
pub(crate) struct Logging {
    pub(crate) endpoint: Endpoint,
    pub(crate) names: Names,
    pub(crate) data_access: bool,
    pub(crate) tail: TailFlags,
}

/// What they say of Pub/Sub, when it is to be read instead.
#[derive(Debug, Clone)]
pub(crate) struct Subscription {
    pub(crate) name: String,
    pub(crate) endpoint: Endpoint,
}

/// A project's or a cluster's audit log, as configured.
#[derive(Debug)]
pub struct GkeProvider {
    logging: Logging,
    subscription: Option<Subscription>,
    /// One for all requests that draw on the project's quota.
    limiter: Arc<Limiter>,
}

impl Provider for GkeProvider {
    type Log = GkeLog;

    /// A subscription gives what comes, in any order.
    fn has_ends(&self) -> bool {
        self.subscription.is_none()
    }

    async fn connect(&self) -> Result<Vec<GkeLog>, Unavailable> {
        let log = match &self.subscription {
            Some(subscription) => Kind::PubSub(subscription.clone()),
            None => Kind::Logging(LoggingLog::find(&self.logging, &self.limiter).await?),
        };
        Ok(vec![GkeLog(log)])
    }
}

#[derive(Debug)]
pub struct GkeLog(Kind<LoggingLog, Subscription>);

/// Its records.
pub struct GkeSource(Kind<Box<Tail<CloudLoggingClient>>, SubscriptionMessages>);

#[derive(Debug)]
enum Kind<L, P> {
    Logging(L),
    PubSub(P),
}

impl ProviderLog for GkeLog {
    type Source = GkeSource;

    fn name(&self) -> &str {
        match &self.0 {
            Kind::Logging(log) => log.name(),
            Kind::PubSub(subscription) => &subscription.name,
        }
    }

    fn silence_remedy(&self) -> String {
        match &self.0 {
            Kind::Logging(log) => log.silence_remedy(),
            Kind::PubSub(subscription) => subscription.silence_remedy(),
        }
    }

    fn checkpoint_interval_max(&self) -> Duration {
        match &self.0 {
            Kind::Logging(_) => Duration::MAX,
            Kind::PubSub(_) => ACKNOWLEDGE_INTERVAL,
        }
    }

    async fn open(&self, resume: Resume) -> Result<GkeSource, Unavailable> {
        Ok(GkeSource(match &self.0 {
            Kind::Logging(log) => Kind::Logging(Box::new(log.open(resume).await?)),
            Kind::PubSub(subscription) => Kind::PubSub(subscription.open(resume)?),
        }))
    }

    async fn check(&self) -> Vec<Finding> {
        match &self.0 {
            Kind::Logging(log) => log.check().await,
            Kind::PubSub(subscription) => subscription.check().await,
        }
    }
}

impl Source for GkeSource {
    async fn read(&mut self) -> Option<Page> {
        match &mut self.0 {
            Kind::Logging(tail) => tail.read().await,
            Kind::PubSub(messages) => messages.read().await,
        }
    }

    fn commit(&mut self, partition: u32, position: &Position) {
        match &mut self.0 {
            Kind::Logging(tail) => tail.commit(partition, position),
            Kind::PubSub(messages) => messages.commit(partition, position),
        }
    }

    async fn close(&mut self) {
        match &mut self.0 {
            Kind::Logging(tail) => tail.close().await,
            Kind::PubSub(messages) => messages.close().await,
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

/// What `check` finds where a token was given.
fn identity() -> Finding {
    Finding::ok("identity", "an access token was given")
}

/// What it finds where nobody asks for one.
fn no_identity() -> Finding {
    Finding::ok("identity", "none is needed on this endpoint")
}
