//! The live logs: which project and cluster they are of, how they are opened, and what `check`
//! finds of them.

mod logging;

use std::sync::Arc;

use audit_bridge_core::config::TailFlags;
use audit_bridge_core::live::{Finding, Live, LiveLog, Resume, Trouble};
use audit_bridge_core::source::{Page, Position, Source};
use audit_bridge_core::tail::{Limiter, Tail};

use self::logging::LoggingLog;
use crate::client::endpoint::Endpoint;
use crate::client::logging::CloudLogging;
use crate::config::Named;

/// What the settings say of Cloud Logging.
#[derive(Debug, Clone)]
pub(crate) struct Logging {
    pub(crate) endpoint: Endpoint,
    pub(crate) project: Named,
    pub(crate) cluster: Named,
    pub(crate) location: Named,
    pub(crate) data_access: bool,
    pub(crate) tail: TailFlags,
    pub(crate) requests_per_minute: f64,
}

/// What they say of Pub/Sub, when it is to be read instead.
#[derive(Debug, Clone)]
pub(crate) struct Subscription {
    pub(crate) name: String,
    pub(crate) endpoint: Endpoint,
}

/// A project's or a cluster's audit log, as configured.
#[derive(Debug)]
pub struct GkeLive {
    logging: Logging,
    subscription: Option<Subscription>,
    /// One for all requests that draw on the project's quota.
    limiter: Arc<Limiter>,
}

impl GkeLive {
    pub(crate) fn new(logging: Logging, subscription: Option<Subscription>) -> GkeLive {
        GkeLive {
            limiter: Arc::new(Limiter::new(logging.requests_per_minute / 60.0)),
            logging,
            subscription,
        }
    }
}

impl Live for GkeLive {
    type Log = GkeLog;

    async fn connect(&self) -> Result<Vec<GkeLog>, Trouble> {
        let log = LoggingLog::find(&self.logging, &self.limiter).await?;
        Ok(vec![GkeLog(Kind::Logging(log))])
    }
}

/// One log.
#[derive(Debug)]
pub struct GkeLog(Kind<LoggingLog>);

/// Its records.
pub struct GkeSource(Kind<Box<Tail<CloudLogging>>>);

#[derive(Debug)]
enum Kind<L> {
    Logging(L),
}

impl LiveLog for GkeLog {
    type Source = GkeSource;

    fn name(&self) -> &str {
        match &self.0 {
            Kind::Logging(log) => log.name(),
        }
    }

    async fn open(&self, resume: Resume) -> Result<GkeSource, Trouble> {
        Ok(GkeSource(match &self.0 {
            Kind::Logging(log) => Kind::Logging(Box::new(log.open(resume)?)),
        }))
    }

    async fn check(&self) -> Vec<Finding> {
        match &self.0 {
            Kind::Logging(log) => log.check().await,
        }
    }
}

impl Source for GkeSource {
    async fn read(&mut self) -> Option<Page> {
        match &mut self.0 {
            Kind::Logging(tail) => tail.read().await,
        }
    }

    fn commit(&mut self, partition: u32, position: &Position) {
        match &mut self.0 {
            Kind::Logging(tail) => tail.commit(partition, position),
        }
    }
}
