//! The calls to Event Hubs that the bridge makes.
//!
//! The library's own recovery is switched off. After a lost link it starts again where the link
//! first started: that repeats everything, or, for a start at the end, skips what arrived while
//! there was no link. Our readers open a new link at the position that they have reached.

mod certificate;
pub(crate) mod cluster;
pub(crate) mod connection_string;
mod credential;
mod error;
mod identity_tokens;
mod remedy;
mod transport;

use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use audit_bridge_app::config::InvalidValue;
use audit_bridge_core::chain::panic_text;
use azure_core::credentials::TokenCredential;
use azure_core_amqp::AmqpValue;
use azure_core_amqp::message::AmqpMessageBody;
use azure_messaging_eventhubs::{
    ConsumerClient, EventHubsError, EventReceiver, OpenReceiverOptions, RetryOptions,
    StartLocation, StartPosition, models::ReceivedEventData,
};
use bytes::Bytes;
use futures_util::{FutureExt as _, Stream, StreamExt};
use jiff::Timestamp;
use tokio::time::timeout;

use crate::client::connection_string::ConnectionString;
pub(crate) use credential::read_connection_string;
pub use credential::{Credential, IdentityKind};
pub use error::{HubError, HubErrorKind};
pub use identity_tokens::IdentityTokens;
pub use transport::Transport;

/// Silences the client library: it repeats each failure that we report ourselves. At its finest
/// level the WebSocket library logs whole frames, some of which contain tokens.
pub(crate) const LOG_FILTER: &str = "azure_messaging_eventhubs=off,azure_core_amqp=off,\
     azure_identity=warn,fe2o3_amqp=off,tungstenite=off,tokio_tungstenite=off";
/// The application name that the broker sees.
const APPLICATION_ID: &str = concat!("aks-audit-bridge/", env!("CARGO_PKG_VERSION"));
/// What a token is asked for.
const TOKEN_SCOPE: &str = "https://eventhubs.azure.net/.default";
/// How long a connection, an attach or a question may take.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// How long a token may take: less than a list of partitions.
const TOKEN_MAX: Duration = Duration::from_secs(15);
/// How long closing a connection may take.
const CLOSE_MAX: Duration = Duration::from_secs(3);

/// Which event hub, for which consumer group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubAddress {
    /// The namespace's host name.
    pub namespace: String,
    /// The event hub's name.
    pub name: String,
    pub consumer_group: String,
    pub transport: Transport,
    /// Where to connect to, if not to the namespace itself.
    pub endpoint: Option<String>,
}

/// Identifies the event hub and consumer group.
impl fmt::Display for HubAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let HubAddress {
            namespace,
            name,
            consumer_group,
            ..
        } = self;
        write!(f, "{namespace}/{name}/{consumer_group}")
    }
}

/// Connects to the event hub.
#[derive(Debug, Clone)]
pub struct HubClient {
    hub: HubAddress,
    credential: Credential,
    /// What the hub last told of itself.
    known: Arc<Mutex<Option<HubProperties>>>,
}

/// Where a receiver begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ReceiverStart {
    /// Behind this sequence number.
    After(i64),
    /// At the message of this sequence number.
    At(i64),
    /// At the message of this offset.
    AtOffset(String),
    /// At the first message that was enqueued at this time or later.
    From(Timestamp),
}

/// The range of messages in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PartitionBounds {
    /// The sequence number of the first message that is still there.
    pub(crate) first: i64,
    /// The sequence number of the newest message; one less than `first` if there never was any.
    pub(crate) last: i64,
    /// When that one came.
    pub(crate) last_enqueued: Option<Timestamp>,
    /// Whether it holds no messages now.
    pub(crate) is_empty: bool,
}

impl PartitionBounds {
    /// Whether all messages that the partition ever held are older than this.
    pub(crate) fn hold_nothing_since(&self, time: Timestamp) -> bool {
        self.last < self.first && self.is_empty
            || self.last_enqueued.is_some_and(|newest| newest < time)
    }
}

/// The properties of an event hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HubProperties {
    /// The names of its partitions.
    pub(crate) partitions: Vec<String>,
    /// When it was created. A different time means a different hub.
    pub(crate) created_on: Option<Timestamp>,
}

impl HubProperties {
    /// With the partitions that were known before: an event hub never loses one, so a list that lacks
    /// one is wrong, unless the hub was created again.
    fn with_those_of(mut self, known: &HubProperties) -> HubProperties {
        if self.created_on.is_none() || self.created_on != known.created_on {
            return self;
        }
        let lacks = |id: &&String| !self.partitions.contains(*id);
        let lacking: Vec<String> = known.partitions.iter().filter(lacks).cloned().collect();
        if !lacking.is_empty() {
            tracing::warn!(
                partitions = lacking.join(", "),
                "the event hub's list lacks partitions that it has; reading them on"
            );
            self.partitions.extend(lacking);
        }
        self
    }
}

/// A message of a partition.
#[derive(Debug)]
pub(crate) struct HubMessage {
    pub(crate) sequence_number: Option<i64>,
    pub(crate) offset: Option<String>,
    pub(crate) enqueued: Option<Timestamp>,
    pub(crate) body: Bytes,
}

impl HubClient {
    /// A client that has not tried anything yet.
    pub fn new(hub: HubAddress, credential: Credential) -> HubClient {
        HubClient {
            hub,
            credential,
            known: Arc::default(),
        }
    }

    pub fn hub(&self) -> &HubAddress {
        &self.hub
    }

    pub fn credential(&self) -> &Credential {
        &self.credential
    }

    /// Opens a connection of its own.
    pub(crate) async fn connect(&self) -> Result<HubConnection, HubError> {
        let mut builder = ConsumerClient::builder()
            .with_consumer_group(self.hub.consumer_group.clone())
            .with_application_id(APPLICATION_ID.to_owned())
            .with_transport(self.hub.transport.of_sdk())
            .with_retry_options(RetryOptions {
                max_retries: 0,
                ..RetryOptions::default()
            });
        if let Some(endpoint) = &self.hub.endpoint {
            builder = builder.with_custom_endpoint(endpoint.clone());
        }
        let opened = match &self.credential {
            Credential::Identity { kind, tokens } => {
                self.token(*kind, tokens).await?;
                let tokens: Arc<dyn TokenCredential> = Arc::clone(tokens) as _;
                let open = builder.open(&self.hub.namespace, self.hub.name.clone(), tokens);
                self.answer("the connection", open).await?
            }
            Credential::ConnectionStringFile(path) => {
                let text = read_connection_string(path).and_then(|text| self.fits(text));
                let text = text.map_err(|why| {
                    self.failed(HubError::new(HubErrorKind::Identity, why.to_string()))
                })?;
                let open = builder.open_with_connection_string(&text, Some(&self.hub.name));
                self.answer("the connection", open).await?
            }
        };
        Ok(HubConnection {
            client: self.clone(),
            consumer: opened,
        })
    }

    /// What an earlier process knew of the hub, before this one asks for the first time.
    pub(crate) fn remember(&self, known: HubProperties) {
        let mut now = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        now.get_or_insert(known);
    }

    /// Queries the properties of the event hub, on a connection of its own.
    pub(crate) async fn properties(&self) -> Result<HubProperties, HubError> {
        let told = caught(async {
            let connection = self.connect().await?;
            let told = connection.properties().await;
            connection.close().await;
            told
        });
        let told = told.await?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let told = match known.take() {
            Some(known) => told.with_those_of(&known),
            None => told,
        };
        *known = Some(told.clone());
        Ok(told)
    }

    /// Checks that a connection string that was changed since the start is for the same event hub.
    fn fits(&self, text: String) -> Result<String, InvalidValue> {
        let read =
            ConnectionString::parse(&text).map_err(|why| format!("the connection string {why}"))?;
        if !read.namespace.eq_ignore_ascii_case(&self.hub.namespace) {
            return Err("the connection string is of another namespace now".into());
        }
        match read.entity_path {
            Some(path) if path != self.hub.name => Err(format!(
                "the connection string is for another event hub than {}",
                self.hub.name
            )
            .into()),
            _ => Ok(text),
        }
    }

    /// Shows that the credential works, for `check`.
    pub(crate) async fn identity(&self) -> Result<String, HubError> {
        match &self.credential {
            Credential::Identity { kind, tokens } => {
                self.token(*kind, tokens).await?;
                Ok(format!("{}: a token was given", kind.name()))
            }
            Credential::ConnectionStringFile(path) => {
                let read = read_connection_string(path).and_then(|text| self.fits(text));
                read.map_err(|why| {
                    self.failed(HubError::new(HubErrorKind::Identity, why.to_string()))
                })?;
                Ok(format!("connection string in {}", path.display()))
            }
        }
    }

    /// Has a token at hand, so that the calls after this wait for Event Hubs alone.
    async fn token(&self, kind: IdentityKind, tokens: &IdentityTokens) -> Result<(), HubError> {
        let ask = tokens.get_token(&[TOKEN_SCOPE], None);
        let why = match timeout(TOKEN_MAX, ask).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) => return Err(self.failed(HubError::of(&EventHubsError::from(error)))),
            Err(_) => format!("none within {} s, with retries", TOKEN_MAX.as_secs()),
        };
        let authority = kind.authority();
        tokens.renew();
        Err(HubError {
            remedy: format!(
                "check that this network lets requests out to {authority}, and with an authority of \
                 one's own on the way SSL_CERT_FILE"
            ),
            ..HubError::new(
                HubErrorKind::Identity,
                format!("no token from {authority}: {why}"),
            )
        })
    }

    async fn answer<T>(
        &self,
        what: &str,
        call: impl Future<Output = Result<T, EventHubsError>>,
    ) -> Result<T, HubError> {
        match timeout(ANSWER_MAX, call).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(self.failed(HubError::of(&error))),
            Err(_) => {
                let seconds = ANSWER_MAX.as_secs();
                let why = format!("{what}: no answer within {seconds} s");
                Err(self.failed(HubError::new(HubErrorKind::Unreachable, why)))
            }
        }
    }

    /// A failure, with its remedy. Tokens that are refused are not shown again.
    fn failed(&self, mut fault: HubError) -> HubError {
        if let (
            Credential::Identity { tokens, .. },
            HubErrorKind::Denied | HubErrorKind::Identity,
        ) = (&self.credential, fault.kind)
        {
            tokens.renew();
        }
        fault.remedy = self.remedy(fault.kind);
        fault
    }
}

/// An open connection to the event hub.
pub(crate) struct HubConnection {
    client: HubClient,
    consumer: ConsumerClient,
}

impl HubConnection {
    /// Queries the properties of the event hub.
    pub(crate) async fn properties(&self) -> Result<HubProperties, HubError> {
        let ask = self.consumer.get_eventhub_properties();
        let told = self
            .client
            .answer("the event hub's properties", ask)
            .await?;
        Ok(HubProperties {
            partitions: told.partition_ids,
            created_on: told.created_on.and_then(timestamp),
        })
    }

    /// Queries the range of messages in a partition.
    pub(crate) async fn bounds(&self, partition: &str) -> Result<PartitionBounds, HubError> {
        let ask = self.consumer.get_partition_properties(partition);
        let told = self.client.answer("a partition's properties", ask).await?;
        Ok(PartitionBounds {
            first: told.beginning_sequence_number,
            last: told.last_enqueued_sequence_number,
            last_enqueued: told.last_enqueued_time_utc.and_then(timestamp),
            is_empty: told.is_empty,
        })
    }

    /// A receiver of a partition. It attaches when it is first asked for a message.
    pub(crate) async fn receiver(
        &self,
        partition: &str,
        start: ReceiverStart,
        prefetch: u32,
        owner_level: Option<i64>,
    ) -> Result<HubReceiver, HubError> {
        let inclusive = !matches!(start, ReceiverStart::After(_));
        let location = match start {
            ReceiverStart::After(sequence) | ReceiverStart::At(sequence) => {
                StartLocation::SequenceNumber(sequence)
            }
            ReceiverStart::AtOffset(offset) => StartLocation::Offset(offset),
            ReceiverStart::From(time) => StartLocation::EnqueuedTime(SystemTime::from(time)),
        };
        let options = OpenReceiverOptions {
            owner_level,
            prefetch: Some(prefetch),
            start_position: Some(StartPosition {
                location,
                inclusive,
            }),
            receive_timeout: None,
        };
        let open = self
            .consumer
            .open_receiver_on_partition(partition.to_owned(), Some(options));
        let inner = self.client.answer("the receiver", open).await?;
        Ok(HubReceiver {
            client: self.client.clone(),
            inner,
        })
    }

    /// Attaches to a partition, and waits until a message arrives or the link has lasted this long.
    pub(crate) async fn try_receiver(
        &self,
        partition: &str,
        last: i64,
        lasts: Duration,
    ) -> Result<(), HubError> {
        let receiver = self
            .receiver(partition, ReceiverStart::After(last), 1, None)
            .await?;
        let mut messages = receiver.messages();
        match timeout(lasts, messages.next()).await {
            Ok(came) => came.map(drop),
            Err(_) => Ok(()),
        }
    }

    /// Closes it within a bounded time: it may be broken already.
    pub(crate) async fn close(self) {
        if !matches!(timeout(CLOSE_MAX, self.consumer.close()).await, Ok(Ok(()))) {
            tracing::debug!("connection close failed or timed out");
        }
    }
}

/// A receiver of one partition.
pub(crate) struct HubReceiver {
    client: HubClient,
    inner: EventReceiver,
}

type Events<'a> = dyn Stream<Item = Result<ReceivedEventData, EventHubsError>> + Send + 'a;

/// The messages of a receiver, until the first failure.
pub(crate) struct HubMessages<'a> {
    client: &'a HubClient,
    events: Pin<Box<Events<'a>>>,
}

impl HubReceiver {
    pub(crate) fn messages(&self) -> HubMessages<'_> {
        HubMessages {
            client: &self.client,
            events: Box::pin(self.inner.stream_events()),
        }
    }
}

impl HubMessages<'_> {
    /// The next message. Cancellation-safe: dropping the future loses no message.
    pub(crate) async fn next(&mut self) -> Result<HubMessage, HubError> {
        let next = async {
            match self.events.next().await {
                Some(Ok(event)) => Ok(message(&event)),
                Some(Err(error)) => Err(self.client.failed(HubError::of(&error))),
                None => Err(HubError::new(HubErrorKind::Ended, "the receiver ended")),
            }
        };
        let undecodable = |panic| {
            let what = format!("a message cannot be decoded: {panic}");
            self.client
                .failed(HubError::new(HubErrorKind::Undecodable, what))
        };
        panic_or(next, undecodable).await
    }
}

fn message(event: &ReceivedEventData) -> HubMessage {
    let body = match &event.raw_amqp_message().body {
        // Several sections are one body.
        AmqpMessageBody::Binary(sections) => sections.concat(),
        AmqpMessageBody::Value(AmqpValue::String(text)) => text.clone().into_bytes(),
        AmqpMessageBody::Value(AmqpValue::Symbol(text)) => text.0.clone().into_bytes(),
        AmqpMessageBody::Value(AmqpValue::Binary(bytes)) => bytes.clone(),
        AmqpMessageBody::Empty => Vec::new(),
        // Not of Azure's services. It goes to the dead letter as the library prints it.
        AmqpMessageBody::Value(value) => format!("AMQP value: {value:?}").into_bytes(),
        AmqpMessageBody::Sequence(lists) => format!("AMQP sequence: {lists:?}").into_bytes(),
    };
    HubMessage {
        sequence_number: event.sequence_number(),
        offset: event.offset().clone(),
        enqueued: event.enqueued_time().and_then(timestamp),
        body: body.into(),
    }
}

/// Runs what calls the client library. A panic in it is a failure like any other: it must end no
/// reader for good.
pub(crate) async fn caught<T>(
    calls: impl Future<Output = Result<T, HubError>>,
) -> Result<T, HubError> {
    let failed = |panic| {
        let what = format!("the client library failed: {panic}");
        HubError::new(HubErrorKind::Other, what)
    };
    panic_or(calls, failed).await
}

/// Runs what may panic, and makes an error of the panic's text.
async fn panic_or<T>(
    calls: impl Future<Output = Result<T, HubError>>,
    error: impl FnOnce(String) -> HubError,
) -> Result<T, HubError> {
    let done = AssertUnwindSafe(calls).catch_unwind().await;
    done.unwrap_or_else(|panic| Err(error(panic_text(&*panic))))
}

fn timestamp(time: SystemTime) -> Option<Timestamp> {
    Timestamp::try_from(time).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn panic_of_the_client_library_is_a_failure() {
        let failed: Result<(), HubError> = caught(async { panic!("overflow when adding") }).await;
        let failed = failed.unwrap_err();
        assert_eq!(failed.kind, HubErrorKind::Other);
        assert!(failed.what.contains("overflow when adding"), "{failed}");
        assert_eq!(caught(async { Ok(7) }).await, Ok(7));
    }

    #[test]
    fn partition_list_of_the_same_hub_never_shrinks() {
        let told = |created: Option<i64>, partitions: &[&str]| HubProperties {
            partitions: partitions.iter().map(ToString::to_string).collect(),
            created_on: created.map(|seconds| Timestamp::from_second(seconds).unwrap()),
        };
        let merged = |told: HubProperties, known| told.with_those_of(&known).partitions;
        let known = || told(Some(7), &["0", "1"]);
        assert_eq!(merged(told(Some(7), &["0"]), known()), ["0", "1"]);
        assert_eq!(merged(told(Some(7), &["1", "2"]), known()), ["1", "2", "0"]);
        assert_eq!(merged(told(Some(8), &["0"]), known()), ["0"], "made again");
        assert_eq!(merged(told(None, &["0"]), told(None, &["0", "1"])), ["0"]);
    }
}
