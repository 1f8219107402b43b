//! An Event Hubs namespace on a loopback port: AMQP 1.0 with `$cbs`, `$management` and receivers of
//! partitions, as far as a consumer needs them. It fails on cue.
//!
//! It follows Event Hubs' documentation and what its client libraries expect. Unlike Azure it has
//! no throttling, no quotas except that of receivers, no sending over the network, and one process.

mod broker;
mod link;
mod network;
mod nodes;
mod partition;
mod position;
mod relay;
mod rights;
mod server;
mod web_socket;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use fe2o3_amqp_types::definitions::{AmqpError, Error, LinkError};
use fe2o3_amqp_types::primitives::Value;
use tokio::io::DuplexStream;
use tokio_rustls::TlsAcceptor;

use broker::{Broker, BrokerHub, GroupPartition, now};
use partition::StoredBody;
use relay::{AmqpCarrier, Relay, SPOILED};

/// A receiver that was attached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// The event hub.
    pub hub: String,
    pub consumer_group: String,
    pub partition: String,
    /// The selector that names the start.
    pub filter: String,
    /// The owner level.
    pub epoch: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutToken {
    /// The audience: the entity that the token is for.
    pub name: String,
    /// `jwt` or `servicebus.windows.net:sastoken`.
    pub kind: String,
    pub token: String,
}

/// The namespace. Dropping it stops it.
pub struct EventHubs {
    broker: Arc<Broker>,
    relay: Relay,
    scheme: &'static str,
}

impl fmt::Debug for EventHubs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventHubs")
            .field("address", &self.relay.address)
            .finish_non_exhaustive()
    }
}

impl EventHubs {
    /// A namespace without hubs, on plain TCP.
    pub async fn start() -> EventHubs {
        EventHubs::serve(AmqpCarrier::Tcp).await
    }

    /// The same over TLS; see [`crate::Pki::acceptor`].
    pub async fn start_tls(acceptor: TlsAcceptor) -> EventHubs {
        EventHubs::serve(AmqpCarrier::Tls(acceptor)).await
    }

    /// The same over WebSockets.
    pub async fn start_web_sockets(acceptor: TlsAcceptor) -> EventHubs {
        EventHubs::serve(AmqpCarrier::WebSockets(acceptor)).await
    }

    async fn serve(carrier: AmqpCarrier) -> EventHubs {
        let broker = Arc::new(Broker::new());
        let scheme = carrier.scheme();
        let shared = Arc::clone(&broker);
        let serve = move |stream: DuplexStream| {
            tokio::spawn(server::connection(stream, Arc::clone(&shared)));
        };
        EventHubs {
            relay: Relay::start(carrier, Arc::new(serve)).await,
            broker,
            scheme,
        }
    }

    /// `amqp://127.0.0.1:PORT`.
    pub fn endpoint(&self) -> String {
        format!("{}://{}", self.scheme, self.relay.address)
    }

    pub fn port(&self) -> u16 {
        self.relay.address.port()
    }

    /// A connection string like the emulator's, whose key is never verified.
    pub fn connection_string(&self, hub: &str) -> String {
        format!(
            "Endpoint=sb://localhost:{}/;SharedAccessKeyName=listen;SharedAccessKey=c2VjcmV0;\
             EntityPath={hub};UseDevelopmentEmulator=true",
            self.port()
        )
    }

    /// Creates an event hub, or replaces the one of that name.
    pub fn add_hub(&self, hub: &str, partitions: usize) {
        let mut state = self.broker.state();
        let current = state.current;
        let hubs = &mut state.namespaces[current];
        let mut made = BrokerHub::new(partitions);
        if let Some(former) = hubs.get(hub) {
            made.created = made.created.max(former.created + 1);
        }
        hubs.insert(hub.to_owned(), made);
        drop(state);
        self.broker.tell();
    }

    /// Replicates the namespace to another region from now on (geo-replication).
    pub fn replicate(&self, hub: &str) {
        self.with_hub(hub, |hub| {
            hub.partitions
                .iter_mut()
                .for_each(partition::BrokerPartition::replicate);
        });
    }

    /// Promotes the other region to primary. It lacks this many of the newest messages of each
    /// partition; all links end.
    pub fn promote(&self, hub: &str, lost: usize) {
        self.with_hub(hub, |hub| {
            for partition in &mut hub.partitions {
                partition.promote(lost);
            }
        });
        self.cut();
    }

    /// Points the alias to another namespace: the same hubs without their messages, as in metadata
    /// disaster recovery. Existing connections stay with the old namespace.
    pub fn fail_over(&self) {
        let mut state = self.broker.state();
        let hubs = &state.namespaces[state.current];
        let hubs = hubs.iter();
        let paired = hubs.map(|(name, hub)| (name.clone(), hub.without_data()));
        let paired = paired.collect();
        state.namespaces.push(paired);
        state.current = state.namespaces.len() - 1;
    }

    /// Points the alias to the first namespace again, with all its messages.
    pub fn fail_back(&self) {
        self.broker.state().current = 0;
    }

    /// Adds a consumer group besides `$Default`.
    pub fn add_consumer_group(&self, hub: &str, name: &str) {
        self.with_hub(hub, |hub| hub.groups.insert(name.to_owned()));
    }

    /// Adds empty partitions.
    pub fn add_partitions(&self, hub: &str, count: usize) {
        self.with_hub(hub, |hub| {
            hub.partitions
                .extend((0..count).map(|_| partition::BrokerPartition::default()));
        });
    }

    /// Adds a message to a partition. Returns its sequence number.
    pub fn publish(&self, hub: &str, partition: usize, body: impl Into<Bytes>) -> i64 {
        self.publish_at(hub, partition, vec![body.into()], Duration::ZERO)
    }

    /// Adds a message to a partition, with one data section per element, that was enqueued this
    /// long ago. Returns its sequence number.
    pub fn publish_at(
        &self,
        hub: &str,
        partition: usize,
        sections: Vec<Bytes>,
        ago: Duration,
    ) -> i64 {
        self.push(hub, partition, StoredBody::Sections(sections), ago)
    }

    /// Adds a message whose body is a list of texts, which is no data section.
    pub fn publish_list(&self, hub: &str, partition: usize, texts: &[&str]) -> i64 {
        let texts = texts.iter().map(|text| Value::String((*text).to_owned()));
        let body = StoredBody::Value(Value::List(texts.collect()));
        self.push(hub, partition, body, Duration::ZERO)
    }

    /// Adds a message whose body is a text that is no UTF-8, which no client can decode. Over AMQP
    /// on TCP, without WebSockets.
    pub fn publish_undecodable(&self, hub: &str, partition: usize) -> i64 {
        let body = StoredBody::Value(Value::String(SPOILED.to_owned()));
        self.push(hub, partition, body, Duration::ZERO)
    }

    fn push(&self, hub: &str, partition: usize, body: StoredBody, ago: Duration) -> i64 {
        let enqueued = now() - i64::try_from(ago.as_millis()).unwrap();
        let sequence = self.with_hub(hub, |hub| hub.partitions[partition].push(body, enqueued));
        self.broker.tell();
        sequence
    }

    /// Removes all messages before this sequence number, as retention does.
    pub fn trim(&self, hub: &str, partition: usize, before: i64) {
        self.with_hub(hub, |hub| {
            let partition = &mut hub.partitions[partition];
            partition
                .messages
                .retain(|message| message.sequence >= before);
        });
    }

    /// Sets the sequence number of the partition's next message.
    pub fn skip_to(&self, hub: &str, partition: usize, sequence: i64) {
        self.with_hub(hub, |hub| hub.partitions[partition].next = sequence);
    }

    /// Ends the links of a partition with `amqp:link:detach-forced`, as an update of the service
    /// does. Returns how many there were.
    pub fn detach(&self, hub: &str, partition: usize) -> usize {
        let why = "The link is force detached. Code: Publisher(link). Details: idle";
        let error = Error::new(LinkError::DetachForced, why.to_owned(), None);
        let partition = partition.to_string();
        self.broker.order(
            |place: &GroupPartition| place.hub == hub && place.partition == partition,
            &error,
        )
    }

    /// Expires all tokens: every link ends with `amqp:unauthorized-access`.
    pub fn expire_tokens(&self) -> usize {
        self.broker.order(|_| true, &rights::expired())
    }

    /// Ends a link once its connection's newest token has this age.
    pub fn token_lifetime(&self, lifetime: Duration) {
        self.broker.state().token_lifetime = Some(lifetime);
        self.broker.tell();
    }

    /// Sets the status with which `$cbs` answers; `None`: as it should.
    pub fn answer_tokens(&self, answer: Option<(i32, &str)>) {
        self.broker.state().token_answer = answer.map(|(code, why)| (code, why.to_owned()));
    }

    /// Refuses this token, whatever its age; other ones are accepted.
    pub fn refuse_token(&self, token: &str) {
        self.broker.state().refused_token = Some(token.to_owned());
    }

    /// Leaves these partitions out of the list that the management node gives; they go on.
    pub fn leave_out(&self, partitions: impl IntoIterator<Item = usize>) {
        self.broker.state().unlisted = partitions.into_iter().collect();
    }

    /// Takes the role from the identity: tokens are accepted, but no receiver is attached and no
    /// properties are sent.
    pub fn deny_listen(&self, deny: bool) {
        let why = "Unauthorized access. 'Listen' claim(s) are required to perform this operation.";
        let mut state = self.broker.state();
        state.attach_error =
            deny.then(|| Error::new(AmqpError::UnauthorizedAccess, why.to_owned(), None));
        state.management_answer = deny.then(|| (401, why.to_owned()));
    }

    /// Sets the status with which `$management` answers; `None`: as it should.
    pub fn answer_management(&self, answer: Option<(i32, &str)>) {
        self.broker.state().management_answer = answer.map(|(code, why)| (code, why.to_owned()));
    }

    /// Sets whether a partition sends nothing to its receivers.
    pub fn silence(&self, hub: &str, partition: usize, silent: bool) {
        let key = (hub.to_owned(), partition.to_string());
        let mut state = self.broker.state();
        if silent {
            state.silent.insert(key);
        } else {
            state.silent.remove(&key);
        }
        drop(state);
        self.broker.tell();
    }

    /// Cuts every TCP connection.
    pub fn cut(&self) {
        self.relay.cut();
    }

    /// Refuses new connections, and cuts the existing ones.
    pub async fn stop_listening(&self) {
        self.relay.close().await;
        self.relay.cut();
    }

    /// Accepts connections again, on the same port.
    pub async fn come_back(&self) {
        self.relay.open().await;
    }

    /// Sets the delay of every chunk of bytes, at least a millisecond.
    pub fn latency(&self, latency: Duration) {
        self.relay.weather.latency(latency);
    }

    /// Limits the bytes per second in each direction of a connection; 0: no limit.
    pub fn rate(&self, bytes_per_second: u64) {
        self.relay.weather.rate(bytes_per_second);
    }

    /// All receivers that were attached, in order.
    pub fn attached(&self) -> Vec<Attached> {
        self.broker.state().attached.clone()
    }

    /// Number of receivers that are attached now.
    pub fn attached_now(&self) -> usize {
        self.broker.attached_now()
    }

    /// All tokens that were put, in order.
    pub fn tokens(&self) -> Vec<PutToken> {
        self.broker.state().tokens.clone()
    }

    /// Number of messages handed to the network.
    pub fn sent(&self) -> u64 {
        self.broker.state().sent
    }

    /// Number of bytes sent to clients.
    pub fn bytes_out(&self) -> u64 {
        self.relay.weather.bytes_out.load(Ordering::Relaxed)
    }

    /// Number of TCP connections so far.
    pub fn connections(&self) -> usize {
        self.relay.weather.connections.load(Ordering::Relaxed)
    }

    /// Number of open TCP connections.
    pub fn connections_now(&self) -> usize {
        self.relay.alive()
    }

    fn with_hub<T>(&self, hub: &str, change: impl FnOnce(&mut BrokerHub) -> T) -> T {
        let mut state = self.broker.state();
        let current = state.current;
        let hub = state.namespaces[current]
            .get_mut(hub)
            .unwrap_or_else(|| panic!("no hub {hub}"));
        change(hub)
    }
}
