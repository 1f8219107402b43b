//! Accepts connections, sessions and links.

use std::collections::HashMap;
use std::sync::Arc;

use fe2o3_amqp::Sender;
use fe2o3_amqp::acceptor::{
    ConnectionAcceptor, LinkAcceptor, LinkEndpoint, ListenerSessionHandle, SaslAnonymousMechanism,
    SessionAcceptor,
};
use fe2o3_amqp_types::definitions::{AmqpError, Error, Role};
use fe2o3_amqp_types::messaging::{Source, TargetArchetype};
use fe2o3_amqp_types::performatives::Attach;
use fe2o3_amqp_types::primitives::{Symbol, Value};
use tokio::io::DuplexStream;
use tokio::sync::mpsc;

use super::broker::{Broker, GroupPartition};
use super::rights::Rights;
use super::{link, nodes};

/// The name of the filter that selects a receiver's start.
const SELECTOR: &str = "apache.org:selector-filter:string";

/// Serves one connection to its end.
pub(super) async fn connection(stream: DuplexStream, broker: Arc<Broker>) {
    let acceptor = ConnectionAcceptor::builder()
        .container_id("event-hubs-stand-in")
        .max_frame_size(65_536)
        .sasl_acceptor(SaslAnonymousMechanism::new())
        .build();
    let Ok(mut connection) = acceptor.accept(stream).await else {
        return;
    };
    // The connection stays with this namespace, even if the name is pointed elsewhere.
    let namespace = broker.state().current;
    let rights = Arc::new(Rights::new(namespace));
    let sessions = SessionAcceptor::new();
    while let Ok(handle) = sessions.accept(&mut connection).await {
        tokio::spawn(session(handle, Arc::clone(&broker), Arc::clone(&rights)));
    }
    // The peer waits for the answer to its close.
    let _ = connection.on_close().await;
}

async fn session(mut session: ListenerSessionHandle, broker: Arc<Broker>, rights: Arc<Rights>) {
    let links = LinkAcceptor::builder()
        .verify_incoming_source(false)
        .verify_incoming_target(false)
        .build();
    // By node, where answers are sent.
    let mut answers: HashMap<String, mpsc::UnboundedSender<nodes::AnswerMessage>> = HashMap::new();
    let mut inboxes: HashMap<String, mpsc::UnboundedReceiver<nodes::AnswerMessage>> =
        HashMap::new();
    while let Some(attach) = session.next_incoming_attach().await {
        let wanted = Wanted::of(&attach, rights.namespace);
        let attach = wanted.admit(attach);
        let Ok(endpoint) = links.accept_incoming_attach(attach, &mut session).await else {
            continue;
        };
        let broker = Arc::clone(&broker);
        let rights = Arc::clone(&rights);
        match (endpoint, wanted) {
            (LinkEndpoint::Receiver(receiver), Wanted::Node(node)) => {
                let sender = answers.entry(node.clone()).or_insert_with(|| {
                    let (sender, inbox) = mpsc::unbounded_channel();
                    inboxes.insert(node.clone(), inbox);
                    sender
                });
                let work = nodes::requests(receiver, node, sender.clone(), broker, rights);
                tokio::spawn(work);
            }
            (LinkEndpoint::Sender(sender), Wanted::Node(node)) => {
                if !answers.contains_key(&node) {
                    let (outbox, inbox) = mpsc::unbounded_channel();
                    answers.insert(node.clone(), outbox);
                    inboxes.insert(node.clone(), inbox);
                }
                if let Some(inbox) = inboxes.remove(&node) {
                    tokio::spawn(nodes::answers(sender, inbox));
                }
            }
            (LinkEndpoint::Sender(sender), Wanted::Partition { place, .. })
                if rights.since(&place.hub).is_none() =>
            {
                let why = format!("no token was put for {}", place.hub);
                tokio::spawn(refuse(sender, AmqpError::UnauthorizedAccess, why));
            }
            (
                LinkEndpoint::Sender(sender),
                Wanted::Partition {
                    place,
                    filter,
                    epoch,
                },
            ) => {
                tokio::spawn(link::receiver(sender, place, filter, epoch, broker, rights));
            }
            (LinkEndpoint::Sender(sender), Wanted::Unknown(address)) => {
                let why = format!("The messaging entity '{address}' could not be found");
                tokio::spawn(refuse(sender, AmqpError::NotFound, why));
            }
            (LinkEndpoint::Receiver(receiver), _) => {
                let why = "this stand-in takes no messages over the network".to_owned();
                let error = Error::new(AmqpError::NotImplemented, why, None);
                tokio::spawn(async move { receiver.close_with_error(error).await });
            }
        }
    }
    let _ = session.on_end().await;
}

async fn refuse(sender: Sender, condition: AmqpError, why: String) {
    // The peer may be gone already.
    let _ = sender
        .close_with_error(Error::new(condition, why, None))
        .await;
}

/// The target of a link.
enum Wanted {
    /// `$cbs` or `$management`.
    Node(String),
    /// The messages of a partition.
    Partition {
        place: GroupPartition,
        filter: String,
        epoch: Option<i64>,
    },
    Unknown(String),
}

impl Wanted {
    fn of(attach: &Attach, namespace: usize) -> Wanted {
        let source = attach.source.as_deref();
        let address = match attach.role {
            Role::Receiver => source.and_then(|source| source.address.clone()),
            Role::Sender => attach
                .target
                .as_deref()
                .and_then(|archetype| match archetype {
                    TargetArchetype::Target(target) => target.address.clone(),
                    #[allow(
                        unreachable_patterns,
                        reason = "other kinds of target depend on features of the library"
                    )]
                    _ => None,
                }),
        };
        let address = address.unwrap_or_default();
        // Clients address `$management` below the hub, or alone.
        for node in ["$cbs", "$management"] {
            if address.ends_with(node) {
                return Wanted::Node(node.to_owned());
            }
        }
        match place(&address, namespace) {
            Some(place) if attach.role == Role::Receiver => Wanted::Partition {
                place,
                filter: source.and_then(selector).unwrap_or_default(),
                epoch: epoch(attach),
            },
            _ => Wanted::Unknown(address),
        }
    }

    /// Attaches an unknown address without a source, which is how AMQP refuses.
    fn admit(&self, mut attach: Attach) -> Attach {
        if matches!(self, Wanted::Unknown(_)) {
            attach.source = None;
        }
        attach
    }
}

/// `[amqps://host/]HUB/ConsumerGroups/GROUP/Partitions/ID`.
fn place(address: &str, namespace: usize) -> Option<GroupPartition> {
    let path = match address.split_once("://") {
        Some((_, rest)) => rest.split_once('/')?.1,
        None => address,
    };
    let parts: Vec<&str> = path.split('/').collect();
    match parts[..] {
        [hub, groups, group, partitions, partition]
            if groups.eq_ignore_ascii_case("ConsumerGroups")
                && partitions.eq_ignore_ascii_case("Partitions") =>
        {
            Some(GroupPartition {
                namespace,
                hub: hub.to_owned(),
                group: group.to_owned(),
                partition: partition.to_owned(),
            })
        }
        _ => None,
    }
}

fn selector(source: &Source) -> Option<String> {
    let filters = source.filter.as_ref()?;
    match filters.get(&Symbol::from(SELECTOR))? {
        Value::Described(described) => match &described.value {
            Value::String(text) => Some(text.clone()),
            _ => None,
        },
        _ => None,
    }
}

fn epoch(attach: &Attach) -> Option<i64> {
    let properties = attach.properties.as_ref()?;
    match properties.get(&Symbol::from("com.microsoft:epoch"))? {
        Value::Long(epoch) => Some(*epoch),
        _ => None,
    }
}
