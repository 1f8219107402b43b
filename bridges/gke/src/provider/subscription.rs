//! A Pub/Sub subscription as a live log.

use audit_bridge_app::provider::{Finding, Resume};
use audit_bridge_core::readiness::Trouble;
use audit_bridge_core::source::Position;

use super::{Subscription, identity, no_identity};
use crate::client::pubsub::{Connection, Messages};

impl Subscription {
    pub(super) fn open(&self, resume: Resume) -> Result<Messages, Trouble> {
        let connection = Connection::new(&self.name, &self.endpoint)?;
        let given = resume.positions.get(&0).and_then(Position::as_u64);
        Ok(Messages::open(
            connection,
            given.unwrap_or_default(),
            resume.telemetry,
        ))
    }

    pub(super) fn when_silent(&self) -> String {
        let name = &self.name;
        let project = name.split('/').nth(1).unwrap_or("PROJECT");
        format!(
            "look at the log sink that feeds it, its filter and its exclusions: gcloud logging sinks \
             list --project {project}; gcloud logging sinks describe SINK --project {project}; and at \
             its topic: gcloud pubsub subscriptions describe {name}"
        )
    }

    pub(super) async fn check(&self) -> Vec<Finding> {
        let connection = match Connection::new(&self.name, &self.endpoint) {
            Ok(connection) => connection,
            Err(trouble) => return vec![Finding::bad("source", trouble)],
        };
        let identity = match connection.authorization().await {
            Ok(headers) if headers.is_empty() => no_identity(),
            Ok(_) => identity(),
            Err(trouble) => return vec![Finding::bad("identity", trouble)],
        };
        let source = match connection.probe().await {
            Ok(()) => Finding::good("source", format!("{} can be consumed", self.name)),
            Err(trouble) => Finding::bad("source", trouble),
        };
        vec![identity, source]
    }
}
