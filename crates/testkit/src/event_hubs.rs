//! An Event Hubs namespace on a loopback port: AMQP 1.0 with `$cbs`, `$management` and receivers of
//! partitions, as far as a consumer needs them, which fails on cue.
//!
//! It follows what Event Hubs documents and what its client libraries expect. It is not Azure: no
//! throttling, no quotas but the one on receivers, no sending over the network, one process.

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
use tokio::io::DuplexStream;
use tokio_rustls::TlsAcceptor;

use broker::{Broker, BrokerHub, GroupPartition, now};
use relay::{AmqpCarrier, Relay};

/// A receiver that was attached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// The event hub.
    pub hub: String,
    pub consumer_group: String,
    pub partition: String,
    /// The selector that says where it begins.
    pub filter: String,
    /// The owner level.
    pub epoch: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutToken {
    /// The audience: which entity.
    pub name: String,
    /// `jwt` or `servicebus.windows.net:sastoken`.
    pub kind: String,
    /// The token itself.
    pub token: String,
}

/// The namespace. It stops when it is dropped.
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

    /// A connection string of the emulator's kind, with a key that signs and proves nothing.
    pub fn connection_string(&self, hub: &str) -> String {
        format!(
            "Endpoint=sb://localhost:{}/;SharedAccessKeyName=listen;SharedAccessKey=c2VjcmV0;\
             EntityPath={hub};UseDevelopmentEmulator=true",
            self.port()
        )
    }

    /// Makes an event hub, in place of one of that name.
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

    /// The namespace is replicated to another region from now on (geo-replication).
    pub fn replicate(&self, hub: &str) {
        self.with_hub(hub, |hub| {
            hub.partitions
                .iter_mut()
                .for_each(partition::BrokerPartition::replicate);
        });
    }

    /// The other region becomes the primary one. So many of the newest messages of each partition
    /// had not reached it; all links end.
    pub fn promote(&self, hub: &str, lost: usize) {
        self.with_hub(hub, |hub| {
            for partition in &mut hub.partitions {
                partition.promote(lost);
            }
        });
        self.cut();
    }

    /// The alias points to another namespace: the same hubs without their messages, as metadata
    /// disaster recovery has it. Connections that there are stay with the old namespace.
    pub fn fail_over(&self) {
        let mut state = self.broker.state();
        let hubs = &state.namespaces[state.current];
        let hubs = hubs.iter();
        let paired = hubs.map(|(name, hub)| (name.clone(), hub.without_data()));
        let paired = paired.collect();
        state.namespaces.push(paired);
        state.current = state.namespaces.len() - 1;
    }

    /// The alias points to the first namespace again, with all that it held.
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

    /// Puts a message into a partition; its sequence number.
    pub fn publish(&self, hub: &str, partition: usize, body: impl Into<Bytes>) -> i64 {
        self.publish_at(hub, partition, vec![body.into()], Duration::ZERO)
    }

    /// Puts a message whose body has so many data sections into a partition, as if it had come so
    /// long ago; its sequence number.
    pub fn publish_at(
        &self,
        hub: &str,
        partition: usize,
        sections: Vec<Bytes>,
        ago: Duration,
    ) -> i64 {
        let enqueued = now() - i64::try_from(ago.as_millis()).unwrap();
        let sequence = self.with_hub(hub, |hub| {
            hub.partitions[partition].push(sections, enqueued)
        });
        self.broker.tell();
        sequence
    }

    /// The retention passed over all messages before this sequence number.
    pub fn trim(&self, hub: &str, partition: usize, before: i64) {
        self.with_hub(hub, |hub| {
            let partition = &mut hub.partitions[partition];
            partition
                .messages
                .retain(|message| message.sequence >= before);
        });
    }

    /// The next message of a partition gets this sequence number.
    pub fn skip_to(&self, hub: &str, partition: usize, sequence: i64) {
        self.with_hub(hub, |hub| hub.partitions[partition].next = sequence);
    }

    /// Ends the links of a partition with `amqp:link:detach-forced`, as an update of the service
    /// does; how many there were.
    pub fn detach(&self, hub: &str, partition: usize) -> usize {
        let why = "The link is force detached. Code: Publisher(link). Details: idle";
        let error = Error::new(LinkError::DetachForced, why.to_owned(), None);
        let partition = partition.to_string();
        self.broker.order(
            |place: &GroupPartition| place.hub == hub && place.partition == partition,
            &error,
        )
    }

    /// All tokens expire at once: every link ends with `amqp:unauthorized-access`.
    pub fn expire_tokens(&self) -> usize {
        self.broker.order(|_| true, &rights::expired())
    }

    /// From now on a link ends when its connection's newest token is so old.
    pub fn token_lifetime(&self, lifetime: Duration) {
        self.broker.state().token_lifetime = Some(lifetime);
        self.broker.tell();
    }

    /// `$cbs` answers with this status from now on; `None`: as it should.
    pub fn answer_tokens(&self, answer: Option<(i32, &str)>) {
        self.broker.state().token_answer = answer.map(|(code, why)| (code, why.to_owned()));
    }

    /// The identity has no role: tokens are taken, but no receiver is attached and no property
    /// told.
    pub fn deny_listen(&self, deny: bool) {
        let why = "Unauthorized access. 'Listen' claim(s) are required to perform this operation.";
        let mut state = self.broker.state();
        state.attach_error =
            deny.then(|| Error::new(AmqpError::UnauthorizedAccess, why.to_owned(), None));
        state.management_answer = deny.then(|| (401, why.to_owned()));
    }

    /// `$management` answers with this status from now on; `None`: as it should.
    pub fn answer_management(&self, answer: Option<(i32, &str)>) {
        self.broker.state().management_answer = answer.map(|(code, why)| (code, why.to_owned()));
    }

    /// A partition gives nothing to its receivers, or does again.
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

    /// Refuses new connections, and cuts those that there are.
    pub async fn stop_listening(&self) {
        self.relay.close().await;
        self.relay.cut();
    }

    /// Takes connections again, on the same port.
    pub async fn come_back(&self) {
        self.relay.open().await;
    }

    /// How long every chunk of bytes takes, at least a millisecond.
    pub fn latency(&self, latency: Duration) {
        self.relay.weather.latency(latency);
    }

    /// How many bytes a second pass in each direction of a connection; 0: no limit.
    pub fn rate(&self, bytes_per_second: u64) {
        self.relay.weather.rate(bytes_per_second);
    }

    /// Every receiver that was attached so far, in order.
    pub fn attached(&self) -> Vec<Attached> {
        self.broker.state().attached.clone()
    }

    /// How many receivers are attached now.
    pub fn attached_now(&self) -> usize {
        self.broker.attached_now()
    }

    /// Every token that was put so far, in order.
    pub fn tokens(&self) -> Vec<PutToken> {
        self.broker.state().tokens.clone()
    }

    /// Messages that were handed to the network so far.
    pub fn sent(&self) -> u64 {
        self.broker.state().sent
    }

    /// Bytes that went to clients so far.
    pub fn bytes_out(&self) -> u64 {
        self.relay.weather.bytes_out.load(Ordering::Relaxed)
    }

    /// TCP connections so far.
    pub fn connections(&self) -> usize {
        self.relay.weather.connections.load(Ordering::Relaxed)
    }

    /// TCP connections that are open now.
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
