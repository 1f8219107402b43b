//! CloudWatch Logs as a log that is queried by time. Only this module and its submodules use the
//! SDK's clients.
//!
//! The SDK's own retries are switched off: the tail paces, counts and repeats requests, and retries
//! that it cannot see would exceed its rate limit.

mod answer_clock;
pub(crate) mod cluster;
mod credentials_cache;
mod error;
pub(crate) mod group;
pub(crate) mod kinesis;
pub(crate) mod stream_name;

use std::sync::Arc;
use std::time::Duration;

use audit_bridge_core::chain::chain;
use audit_bridge_core::readiness::{Component, Unavailable};
use audit_bridge_core::record::{Origin, Record};
use audit_bridge_tail::{Identity, LogPage, PageEntry, QueryError, ServerClock, TimeLog, Window};
use aws_config::retry::RetryConfig;
use aws_config::sts::AssumeRoleProvider;
use aws_config::timeout::TimeoutConfig;
use aws_config::{AppName, BehaviorVersion, Region, SdkConfig};
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_sdk_cloudwatchlogs::Client;
use aws_sdk_cloudwatchlogs::config::Builder;
use aws_sdk_cloudwatchlogs::error::ProvideErrorMetadata as _;
use aws_sdk_cloudwatchlogs::types::FilteredLogEvent;
use bytes::Bytes;
use jiff::Timestamp;
use serde::Serialize;

use self::answer_clock::AnswerClock;
use self::credentials_cache::CredentialsCache;
use self::error::RequestContext;
use crate::client::group::LogGroupName;

/// CloudWatch Logs counts in milliseconds.
pub(crate) const RESOLUTION: Duration = Duration::from_millis(1);

/// Silences the client library's log: it repeats each failure that we report ourselves, and shows whole
/// answers of the identity service that it cannot read, with the credentials in them.
pub(crate) const LOG_FILTER: &str = "aws_config=off";

/// Name that the SDK adds to its user agent, which allows no `/`.
const APP_NAME: &str = concat!("eks-audit-bridge-", env!("CARGO_PKG_VERSION"));

/// Time limit of one request: a page has up to 1 MB.
const REQUEST_WAIT_MAX: Duration = Duration::from_secs(30);
const CONNECT_WAIT_MAX: Duration = Duration::from_secs(5);
/// Session name of an assumed role, as CloudTrail shows it.
const SESSION_NAME: &str = "eks-audit-bridge";

/// How the log groups of one account and region are reached.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Access {
    /// Overrides the region of the environment.
    pub region: Option<String>,
    /// The ARN of a role to assume first.
    pub role: Option<String>,
    /// The external ID that the role's trust policy requires.
    pub external_id: Option<String>,
    /// Requests the unmasked text where a data protection policy masks it.
    pub unmask: bool,
}

/// An account and region, with credentials that renew themselves.
#[derive(Debug, Clone)]
pub struct AwsConnection {
    client: Client,
    identity: AwsIdentity,
    /// CloudWatch's time, from its answers.
    clock: Arc<ServerClock>,
}

impl AwsConnection {
    /// Loads credentials and region, and creates the client.
    ///
    /// # Errors
    /// There is no region, or the SDK's chain has no provider of credentials.
    pub async fn new(access: Access) -> Result<AwsConnection, Unavailable> {
        let identity = AwsIdentity::load(access).await?;
        let clock = Arc::new(ServerClock::default());
        let client = Client::from_conf(
            Builder::from(&identity.config)
                .interceptor(AnswerClock(Arc::clone(&clock)))
                .retry_config(RetryConfig::disabled())
                .timeout_config(timeouts())
                .build(),
        );
        Ok(AwsConnection {
            client,
            identity,
            clock,
        })
    }

    pub fn region(&self) -> &str {
        &self.identity.region
    }

    /// Gets credentials once, for `check`. Returns when they expire, if the provider says so.
    ///
    /// # Errors
    /// There are no credentials; says why.
    pub async fn identity(&self) -> Result<String, Unavailable> {
        self.identity.check().await
    }
}

/// Credentials and configuration from which the clients of all services are made.
#[derive(Debug, Clone)]
struct AwsIdentity {
    config: SdkConfig,
    credentials: SharedCredentialsProvider,
    cache: CredentialsCache,
    region: String,
    access: Access,
}

impl AwsIdentity {
    /// Follows the SDK's own chain: environment, web identity (IRSA), Pod Identity, profile,
    /// instance. The SDK's variables also set partition, FIPS and endpoints, and the region unless
    /// a flag gives it: the identity webhook of EKS sets `AWS_REGION` to the cluster's own.
    async fn load(access: Access) -> Result<AwsIdentity, Unavailable> {
        let cache = CredentialsCache::new();
        let mut loader =
            aws_config::defaults(BehaviorVersion::latest()).identity_cache(cache.clone());
        if let Some(region) = &access.region {
            loader = loader.region(Region::new(region.clone()));
        }
        // The name is part of the user agent of every request, including those for credentials.
        if let Ok(name) = AppName::new(APP_NAME) {
            loader = loader.app_name(name);
        }
        let mut config = loader.load().await;
        if let Some(role) = &access.role {
            let mut provider = AssumeRoleProvider::builder(role)
                .session_name(SESSION_NAME)
                .configure(&config);
            if let Some(id) = &access.external_id {
                provider = provider.external_id(id);
            }
            let provider = SharedCredentialsProvider::new(provider.build().await);
            config = config.into_builder().credentials_provider(provider).build();
        }
        let missing = |what: &str, remedy: &str| Unavailable {
            component: Component::Identity,
            reason: what.to_owned(),
            remedy: remedy.to_owned(),
        };
        let region = config.region().map(ToString::to_string).ok_or_else(|| {
            missing(
                "no AWS region is known",
                "set --aws-region (AUDIT_BRIDGE_AWS_REGION) or AWS_REGION to the region of the cluster",
            )
        })?;
        let credentials = config.credentials_provider().ok_or_else(|| {
            missing(
                "there is no provider of AWS credentials",
                error::IDENTITY_REMEDY,
            )
        })?;
        Ok(AwsIdentity {
            config,
            credentials,
            cache,
            region,
            access,
        })
    }

    /// The role that makes the requests, for messages.
    fn role(&self) -> String {
        error::role(self.access.role.as_deref())
    }

    /// Gets credentials once. Returns when they expire, if the provider says so.
    async fn check(&self) -> Result<String, Unavailable> {
        let role = self.role();
        match self.credentials.provide_credentials().await {
            Ok(credentials) => {
                let expiry = credentials
                    .expiry()
                    .and_then(|at| Timestamp::try_from(at).ok());
                Ok(match expiry {
                    Some(at) => format!("credentials of {role}, good until {at:.0}"),
                    None => format!("credentials of {role}"),
                })
            }
            Err(error) => Err(Unavailable {
                component: Component::Identity,
                reason: format!("no credentials for {role}: {}", chain(&error)),
                remedy: match self.access.role {
                    Some(_) => error::ASSUME_REMEDY.to_owned(),
                    None => error::IDENTITY_REMEDY.to_owned(),
                },
            }),
        }
    }
}

fn timeouts() -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(CONNECT_WAIT_MAX)
        .operation_timeout(REQUEST_WAIT_MAX)
        .build()
}

/// The audit streams of one log group.
#[derive(Debug, Clone)]
pub struct LogGroup {
    connection: AwsConnection,
    name: String,
    group: LogGroupName,
    stream_prefix: String,
}

impl LogGroup {
    /// The streams of `group` that begin with `stream_prefix`. Log lines call it `name`.
    pub fn new(
        connection: AwsConnection,
        name: &str,
        group: &LogGroupName,
        stream_prefix: &str,
    ) -> LogGroup {
        LogGroup {
            connection,
            name: name.to_owned(),
            group: group.clone(),
            stream_prefix: stream_prefix.to_owned(),
        }
    }
}

impl LogGroup {
    /// Remedy for a group that never had events, or has no new ones.
    pub fn silence_remedy(&self) -> String {
        error::silent(
            &self.group.name,
            self.connection.region(),
            &self.stream_prefix,
        )
    }
}

impl TimeLog for LogGroup {
    type Raw = FilteredLogEvent;

    fn name(&self) -> &str {
        &self.name
    }

    fn resolution(&self) -> Duration {
        RESOLUTION
    }

    async fn query(
        &self,
        window: &Window,
        token: Option<&str>,
    ) -> Result<LogPage<FilteredLogEvent>, QueryError> {
        let request = self.connection.client.filter_log_events();
        let request = match self.group.place {
            Some(_) => request.log_group_identifier(self.group.to_string()),
            None => request.log_group_name(&self.group.name),
        };
        let answer = request
            .log_stream_name_prefix(&self.stream_prefix)
            .start_time(window.start.as_millisecond())
            // The API's end is inclusive, a window's is exclusive.
            .end_time(window.end.as_millisecond() - 1)
            .set_next_token(token.map(str::to_owned))
            // Left out unless requested, so that only those who use it need the permission.
            .set_unmask(self.connection.identity.access.unmask.then_some(true))
            .send()
            .await;
        let page = answer.map_err(|error| {
            if error.code().is_some_and(error::refuses_identity) {
                self.connection.identity.cache.renew();
            }
            error::query(
                &error,
                &self.group,
                self.connection.region(),
                RequestContext {
                    with_token: token.is_some(),
                    access: &self.connection.identity.access,
                },
            )
        })?;
        let entries = page.events.unwrap_or_default().into_iter();
        Ok(LogPage {
            entries: entries.map(|event| entry(event, window.start)).collect(),
            next: page.next_token.filter(|token| !token.is_empty()),
        })
    }

    fn record(&self, event: FilteredLogEvent) -> Record {
        record(&event)
    }

    fn server_time(&self) -> Option<Timestamp> {
        self.connection.clock.now()
    }

    fn server_time_at_least(&self) -> Option<Timestamp> {
        self.connection.clock.at_least()
    }
}

fn entry(event: FilteredLogEvent, otherwise: Timestamp) -> PageEntry<FilteredLogEvent> {
    let time = event
        .timestamp
        .and_then(|ms| Timestamp::from_millisecond(ms).ok());
    let identity = match &event.event_id {
        Some(id) => Identity::of(&[id.as_bytes()]),
        // The API always returns an event ID; without one, hash the event's own fields.
        None => Identity::of(&[
            event
                .log_stream_name
                .as_deref()
                .unwrap_or_default()
                .as_bytes(),
            &event.timestamp.unwrap_or_default().to_le_bytes(),
            event.message.as_deref().unwrap_or_default().as_bytes(),
        ]),
    };
    PageEntry {
        time: time.unwrap_or(otherwise),
        identity,
        raw: event,
    }
}

/// `FilteredLogEvent` as the API's JSON has it, so that live records and dumps look the same.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Wire<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    log_stream_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ingestion_time: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_id: Option<&'a str>,
}

fn record(event: &FilteredLogEvent) -> Record {
    let wire = Wire {
        log_stream_name: event.log_stream_name.as_deref(),
        timestamp: event.timestamp,
        message: event.message.as_deref(),
        ingestion_time: event.ingestion_time,
        event_id: event.event_id.as_deref(),
    };
    Record {
        // Strings and numbers cannot fail to serialise.
        payload: Bytes::from(serde_json::to_vec(&wire).unwrap_or_default()),
        origin: Origin::Stream {
            stream: Arc::from(wire.log_stream_name.unwrap_or_default()),
            id: wire.event_id.unwrap_or_default().to_owned(),
        },
        time: event
            .timestamp
            .and_then(|ms| Timestamp::from_millisecond(ms).ok()),
        damaged: false,
        oversized: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_is_the_json_of_the_api() {
        let event = FilteredLogEvent::builder()
            .log_stream_name("kube-apiserver-audit-1")
            .timestamp(1_700_000_000_123)
            .message("{\"kind\":\"Event\"}\n")
            .ingestion_time(1_700_000_000_999)
            .event_id("37")
            .build();
        let got = record(&event);
        assert_eq!(
            std::str::from_utf8(&got.payload).unwrap(),
            r#"{"logStreamName":"kube-apiserver-audit-1","timestamp":1700000000123,"message":"{\"kind\":\"Event\"}\n","ingestionTime":1700000000999,"eventId":"37"}"#
        );
        assert_eq!(got.origin.to_string(), "kube-apiserver-audit-1: 37");
        assert_eq!(got.time.unwrap().as_millisecond(), 1_700_000_000_123);
    }

    #[test]
    fn identity_is_the_event_id_or_unique_without_one() {
        let start = Timestamp::UNIX_EPOCH;
        let event = |message: &str| FilteredLogEvent::builder().message(message).build();
        assert_ne!(
            entry(event("a"), start).identity,
            entry(event("b"), start).identity
        );
        let named = |message: &str| {
            let event = FilteredLogEvent::builder().event_id("1").message(message);
            entry(event.build(), start).identity
        };
        assert_eq!(named("a"), named("b"));
        assert_eq!(entry(event("a"), start).time, start);
    }
}
