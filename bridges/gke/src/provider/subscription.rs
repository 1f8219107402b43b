//! A live log from a Pub/Sub subscription.

use audit_bridge_app::provider::{Finding, Provider, ProviderLog, Resume};
use audit_bridge_core::readiness::Unavailable;
use audit_bridge_core::source::StoredPosition;

use super::{Subscription, identity, no_identity};
use crate::client::pubsub::{SubscriptionConnection, SubscriptionMessages};

impl Provider for Subscription {
    type Log = Subscription;

    /// It delivers messages in any order, so a window has no end.
    fn has_ends(&self) -> bool {
        false
    }

    fn is_queue(&self) -> bool {
        true
    }

    async fn connect(&self) -> Result<Vec<Subscription>, Unavailable> {
        Ok(vec![self.clone()])
    }
}

impl ProviderLog for Subscription {
    type Source = SubscriptionMessages;

    fn name(&self) -> &str {
        &self.name
    }

    async fn open(&self, resume: Resume) -> Result<SubscriptionMessages, Unavailable> {
        let connection = SubscriptionConnection::new(&self.name, &self.endpoint)?;
        let given = resume.positions.get(&0).and_then(StoredPosition::as_u64);
        Ok(SubscriptionMessages::open(
            connection,
            given.unwrap_or_default(),
            resume.telemetry,
        ))
    }

    fn silence_remedy(&self) -> String {
        let name = &self.name;
        let project = name.split('/').nth(1).unwrap_or("PROJECT");
        format!(
            "look at the log sink that feeds it, its filter and its exclusions: gcloud logging sinks \
             list --project {project}; gcloud logging sinks describe SINK --project {project}; and at \
             its topic: gcloud pubsub subscriptions describe {name}"
        )
    }

    async fn check(&self) -> Vec<Finding> {
        let connection = match SubscriptionConnection::new(&self.name, &self.endpoint) {
            Ok(connection) => connection,
            Err(unavailable) => return vec![Finding::failed("source", unavailable)],
        };
        let identity = match connection.authorization().await {
            Ok(headers) if headers.is_empty() => no_identity(),
            Ok(_) => identity(connection.principal().await),
            Err(unavailable) => return vec![Finding::failed("identity", unavailable)],
        };
        let source = match connection.probe().await {
            Ok(()) => Finding::ok("source", format!("{} can be consumed", self.name)),
            Err(unavailable) => Finding::failed("source", unavailable),
        };
        vec![identity, source]
    }
}
