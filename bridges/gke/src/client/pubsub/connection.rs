//! The connection to a subscription: credentials, requests, and what the answers mean.

use std::sync::Arc;
use std::time::Duration;

use audit_bridge_app::telemetry::Telemetry;
use audit_bridge_core::chain::chain;
use audit_bridge_core::readiness::{Component, Unavailable};
use google_cloud_gax::error::rpc::Code;
use google_cloud_pubsub::client::Subscriber;
use google_cloud_pubsub::subscriber::{MessageStream, ShutdownBehavior};
use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use serde_json::{Value, json};

use super::token_credentials::TokenCredentials;
use super::{OPEN_BYTES_MAX, OPEN_MESSAGES_MAX};
use crate::client::USER_AGENT;
use crate::client::endpoint::Endpoint;
use crate::client::token_source::{NoToken, TokenSource};

/// The only permission that is needed.
const PERMISSION: &str = "pubsub.subscriptions.consume";
const SCOPE: &str = "https://www.googleapis.com/auth/pubsub";
/// After a crash, another replica gets the open messages after this time.
const LEASE: Duration = Duration::from_secs(30);
/// How long a message's lease is extended: the service keeps messages this long by default.
const LEASE_MAX: Duration = Duration::from_secs(7 * 86_400);
const PROBE_MAX: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy)]
pub(super) struct StreamWatch {
    /// Interval of the probes.
    pub(super) probe_interval: Duration,
    /// A stream that was silent for this long may be dead.
    pub(super) silence_max: Duration,
}

impl StreamWatch {
    /// The interval within which `read_to` is repeated. A message shortly before a probe makes the
    /// probe be skipped.
    pub(super) fn again_within(self) -> Duration {
        self.probe_interval * 2
    }
}

const WATCH: StreamWatch = StreamWatch {
    probe_interval: Duration::from_secs(10),
    silence_max: Duration::from_secs(300),
};

/// A subscription, and the credentials for it.
#[derive(Debug)]
pub(crate) struct SubscriptionConnection {
    subscription: String,
    endpoint: Endpoint,
    identity: Arc<TokenSource>,
    http: reqwest::Client,
    pub(super) watch: StreamWatch,
}

impl SubscriptionConnection {
    /// The subscription with this full name.
    ///
    /// # Errors
    /// The HTTP client cannot be built.
    pub(crate) fn new(
        subscription: &str,
        endpoint: &Endpoint,
    ) -> Result<SubscriptionConnection, Unavailable> {
        let mut http = reqwest::Client::builder()
            .timeout(PROBE_MAX)
            .user_agent(USER_AGENT);
        if endpoint.plain {
            http = http.no_proxy();
        }
        let http = http.build().map_err(|error| Unavailable {
            component: Component::Source,
            reason: chain(&error),
            remedy: "check the system's certificates (SSL_CERT_FILE)".to_owned(),
        })?;
        Ok(SubscriptionConnection {
            subscription: subscription.to_owned(),
            identity: Arc::new(TokenSource::new(endpoint, SCOPE)),
            endpoint: endpoint.clone(),
            http,
            watch: WATCH,
        })
    }

    /// The subscription's full name.
    pub(crate) fn subscription(&self) -> &str {
        &self.subscription
    }

    /// Headers that authorize a request; empty if the endpoint needs none.
    ///
    /// # Errors
    /// There is no token; says what to do about it.
    pub(crate) async fn authorization(&self) -> Result<HeaderMap, Unavailable> {
        let headers = self.identity.headers().await;
        headers.map_err(NoToken::into_unavailable)
    }

    /// The principal that makes the requests, for messages; `None` if unknown.
    pub(crate) async fn principal(&self) -> Option<String> {
        self.identity.principal().await
    }

    /// Tests whether we may consume the subscription. Changes nothing.
    ///
    /// # Errors
    /// We may not, or there is no answer; says what to do about it.
    pub(crate) async fn probe(&self) -> Result<(), Unavailable> {
        let asked = json!({"permissions": [PERMISSION]});
        let (status, body) = self.ask("testIamPermissions", &asked).await?;
        let said = body["error"]["message"].as_str().unwrap_or_default();
        match status {
            StatusCode::OK if body["permissions"] == json!([PERMISSION]) => Ok(()),
            // The service also answers so if the subscription does not exist.
            StatusCode::OK => Err(self.denied("it may not be consumed, or does not exist")),
            StatusCode::UNAUTHORIZED => {
                self.identity.renew();
                Err(self.unauthenticated(said))
            }
            StatusCode::FORBIDDEN => {
                self.identity.renew();
                Err(self.denied(said))
            }
            // Google's emulator does not implement this method.
            StatusCode::NOT_FOUND | StatusCode::NOT_IMPLEMENTED => Ok(()),
            _ => Err(self.unreachable(&format!("it answered {status}: {said}"))),
        }
    }

    /// Whether the service has a message that no consumer holds. Pulls one and returns it at once,
    /// so that it is delivered by a stream as usual.
    ///
    /// # Errors
    /// As [`SubscriptionConnection::probe`].
    pub(super) async fn holds_more(&self) -> Result<bool, Unavailable> {
        // Otherwise the call would wait, and take messages away from the stream.
        let asked = json!({"maxMessages": 1, "returnImmediately": true});
        let (status, body) = self.ask("pull", &asked).await?;
        match status {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND | StatusCode::NOT_IMPLEMENTED => return Ok(false),
            _ => {
                let said = body["error"]["message"].as_str().unwrap_or_default();
                return Err(self.unreachable(&format!("it answered {status}: {said}")));
            }
        }
        let received = body["receivedMessages"].as_array();
        let received = received.map_or(&[] as &[Value], Vec::as_slice);
        if received.is_empty() {
            return Ok(false);
        }
        let ids: Vec<_> = received.iter().map(|it| &it["ackId"]).collect();
        let back = json!({"ackIds": ids, "ackDeadlineSeconds": 0});
        if let Err(unavailable) = self.ask("modifyAckDeadline", &back).await {
            // The message is redelivered when its lease expires.
            tracing::debug!(%unavailable, "message could not be returned");
        }
        Ok(true)
    }

    /// Calls a method of the subscription over REST; returns the status and the JSON of the answer.
    async fn ask(&self, method: &str, body: &Value) -> Result<(StatusCode, Value), Unavailable> {
        let url = format!("{}/v1/{}:{method}", self.endpoint.url, self.subscription);
        let request = self
            .http
            .post(url)
            .headers(self.authorization().await?)
            .header("content-type", "application/json")
            .body(body.to_string());
        let answer = async {
            let response = request.send().await?;
            Ok((response.status(), response.bytes().await?))
        };
        let (status, body) = answer
            .await
            .map_err(|error: reqwest::Error| self.unreachable(&chain(&error.without_url())))?;
        Ok((status, serde_json::from_slice(&body).unwrap_or_default()))
    }

    /// Opens a stream of messages.
    pub(super) async fn stream(&self) -> Result<MessageStream, Unavailable> {
        // Fails with a better message than the client's.
        self.authorization().await?;
        let client = Subscriber::builder()
            .with_endpoint(&self.endpoint.url)
            .with_credentials(TokenCredentials::of(&self.identity))
            .build()
            .await
            .map_err(|error| self.unreachable(&chain(&error)))?;
        Ok(client
            .subscribe(&self.subscription)
            .set_max_outstanding_messages(OPEN_MESSAGES_MAX)
            .set_max_outstanding_bytes(OPEN_BYTES_MAX)
            .set_max_lease_extension(LEASE)
            .set_max_lease(LEASE_MAX)
            .set_shutdown_behavior(ShutdownBehavior::NackImmediately)
            .build())
    }

    /// Why a stream ended, as a readiness problem.
    pub(super) fn ended(&self, error: &google_cloud_pubsub::Error) -> Unavailable {
        let said = chain(error);
        match error.status().map(|status| status.code) {
            Some(Code::Unauthenticated) => {
                self.identity.renew();
                self.unauthenticated(&said)
            }
            Some(Code::NotFound) => Unavailable {
                component: Component::Source,
                reason: format!("{} does not exist: {said}", self.subscription),
                remedy: "check --subscription, or create it on the topic that the log sink feeds"
                    .to_owned(),
            },
            Some(Code::PermissionDenied) => {
                self.identity.renew();
                self.denied(&said)
            }
            Some(Code::InvalidArgument) => Unavailable {
                component: Component::Source,
                reason: format!("{}: {said}", self.subscription),
                remedy: "check that it is a pull subscription, and --subscription".to_owned(),
            },
            _ => self.unreachable(&said),
        }
    }

    fn denied(&self, said: &str) -> Unavailable {
        Unavailable {
            component: Component::Source,
            reason: format!("{}: {said}", self.subscription),
            remedy: "check --subscription, and grant roles/pubsub.subscriber on the subscription \
                     to the identity of the bridge"
                .to_owned(),
        }
    }

    fn unauthenticated(&self, said: &str) -> Unavailable {
        Unavailable {
            component: Component::Identity,
            reason: format!("pub/sub does not know the identity: {said}"),
            remedy: self.identity.remedy(),
        }
    }

    pub(super) fn unreachable(&self, said: &str) -> Unavailable {
        Unavailable {
            component: Component::Source,
            reason: format!("pub/sub cannot be reached: {said}"),
            remedy: "it is tried again; check network policies, proxies and --pubsub-endpoint"
                .to_owned(),
        }
    }
}

/// Reports that the service answers and accepts our identity.
pub(super) fn ready(telemetry: &Telemetry) {
    telemetry.ready(Component::Source);
    telemetry.ready(Component::Identity);
    telemetry.process().ready(Component::Identity);
}
