//! The stand-in's state: hubs, partitions, messages, receivers and faults.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fe2o3_amqp_types::definitions::{AmqpError, Error, LinkError};
use tokio::sync::{mpsc, watch};

use super::partition::{BrokerPartition, StoredMessage};
use super::{Attached, PutToken, position};

/// Event Hubs' limit of receivers without an epoch, per partition and consumer group.
const RECEIVERS_MAX: usize = 5;

#[derive(Debug)]
pub(super) struct BrokerHub {
    pub(super) groups: BTreeSet<String>,
    pub(super) partitions: Vec<BrokerPartition>,
    pub(super) created: i64,
}

impl BrokerHub {
    pub(super) fn new(partitions: usize) -> BrokerHub {
        BrokerHub {
            groups: BTreeSet::from(["$Default".to_owned()]),
            partitions: (0..partitions)
                .map(|_| BrokerPartition::default())
                .collect(),
            created: now(),
        }
    }

    /// A hub with the same metadata and no messages, for another namespace.
    pub(super) fn without_data(&self) -> BrokerHub {
        BrokerHub {
            groups: self.groups.clone(),
            ..BrokerHub::new(self.partitions.len())
        }
    }
}

/// A receiver that is attached.
#[derive(Debug)]
struct Receiver {
    id: u64,
    place: GroupPartition,
    epoch: Option<i64>,
    orders: mpsc::UnboundedSender<Error>,
}

/// A partition, as a consumer group sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct GroupPartition {
    /// Index of the namespace that the name pointed to.
    pub(super) namespace: usize,
    pub(super) hub: String,
    pub(super) group: String,
    pub(super) partition: String,
}

#[derive(Debug, Default)]
pub(super) struct BrokerState {
    /// The hubs of each namespace: the first, and those that the name was pointed to later.
    pub(super) namespaces: Vec<BTreeMap<String, BrokerHub>>,
    /// The namespace that the name points to: new connections arrive there.
    pub(super) current: usize,
    receivers: Vec<Receiver>,
    receivers_ever: u64,
    pub(super) attached: Vec<Attached>,
    pub(super) tokens: Vec<PutToken>,
    /// The answer of `$cbs` instead of 202.
    pub(super) token_answer: Option<(i32, String)>,
    /// A token that is answered 401.
    pub(super) refused_token: Option<String>,
    /// Partitions that the list of their hub lacks.
    pub(super) unlisted: BTreeSet<usize>,
    /// The error for every receiver instead of attaching it.
    pub(super) attach_error: Option<Error>,
    /// The answer of `$management` instead of 200.
    pub(super) management_answer: Option<(i32, String)>,
    /// A link ends once its connection's last token has this age.
    pub(super) token_lifetime: Option<Duration>,
    /// Partitions that send nothing to their receivers.
    pub(super) silent: BTreeSet<(String, String)>,
    /// Number of messages handed to the network.
    pub(super) sent: u64,
}

/// The shared state, and a signal for its changes.
#[derive(Debug)]
pub(super) struct Broker {
    state: Mutex<BrokerState>,
    changed: watch::Sender<u64>,
}

impl Broker {
    pub(super) fn new() -> Broker {
        Broker {
            state: Mutex::new(BrokerState {
                namespaces: vec![BTreeMap::new()],
                ..BrokerState::default()
            }),
            changed: watch::Sender::new(0),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, BrokerState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Wakes every link to look again.
    pub(super) fn tell(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    /// The first message from `cursor` on, unless the partition is silenced.
    pub(super) fn next(&self, place: &GroupPartition, cursor: i64) -> Option<StoredMessage> {
        let mut state = self.state();
        let key = (place.hub.clone(), place.partition.clone());
        if state.silent.contains(&key) {
            return None;
        }
        let index: usize = place.partition.parse().ok()?;
        let hub = state.namespaces[place.namespace].get(&place.hub)?;
        let partition = hub.partitions.get(index)?;
        let skip = usize::try_from(cursor - partition.beginning()).unwrap_or(0);
        let message = partition.messages.get(skip)?.clone();
        state.sent += 1;
        Some(message)
    }

    /// Attaches a receiver, by the rules of epochs, or returns the refusal.
    pub(super) fn attach(
        &self,
        place: &GroupPartition,
        epoch: Option<i64>,
        filter: &str,
        orders: mpsc::UnboundedSender<Error>,
    ) -> Result<(u64, i64), Error> {
        let mut state = self.state();
        if let Some(error) = &state.attach_error {
            return Err(error.clone());
        }
        let cursor = start(&state, place, filter)?;
        let (rivals, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut state.receivers)
            .into_iter()
            .partition(|receiver| receiver.place == *place);
        state.receivers = rest;
        let highest = rivals.iter().filter_map(|rival| rival.epoch).max();
        let refused = match (epoch, highest) {
            (Some(epoch), Some(highest)) if epoch < highest => Some(format!(
                "Receiver with epoch '{epoch}' is not allowed: a higher epoch '{highest}' exists"
            )),
            (None, Some(highest)) => Some(format!(
                "At least one receiver for the endpoint is created with epoch of '{highest}', and \
                 so non-epoch receiver is not allowed"
            )),
            _ => None,
        };
        if let Some(why) = refused {
            state.receivers.extend(rivals);
            return Err(Error::new(LinkError::Stolen, why, None));
        }
        match epoch {
            Some(epoch) => {
                let why = format!("New receiver with higher epoch of '{epoch}' is created");
                for rival in rivals {
                    // A link that has already ended needs no order.
                    let _ = rival
                        .orders
                        .send(Error::new(LinkError::Stolen, why.clone(), None));
                }
            }
            None => {
                let count = rivals.len();
                state.receivers.extend(rivals);
                if count >= RECEIVERS_MAX {
                    let why = format!(
                        "Exceeded the maximum number of allowed receivers per partition in a \
                         consumer group which is {RECEIVERS_MAX}"
                    );
                    return Err(Error::new(AmqpError::ResourceLimitExceeded, why, None));
                }
            }
        }
        state.receivers_ever += 1;
        let id = state.receivers_ever;
        state.receivers.push(Receiver {
            id,
            place: place.clone(),
            epoch,
            orders,
        });
        state.attached.push(Attached {
            hub: place.hub.clone(),
            consumer_group: place.group.clone(),
            partition: place.partition.clone(),
            filter: filter.to_owned(),
            epoch,
        });
        Ok((id, cursor))
    }

    pub(super) fn leave(&self, id: u64) {
        self.state().receivers.retain(|receiver| receiver.id != id);
    }

    /// Ends the links of the matching partitions with this error.
    pub(super) fn order(&self, which: impl Fn(&GroupPartition) -> bool, error: &Error) -> usize {
        let state = self.state();
        let named = state
            .receivers
            .iter()
            .filter(|receiver| which(&receiver.place));
        named
            .filter(|receiver| receiver.orders.send(error.clone()).is_ok())
            .count()
    }

    pub(super) fn attached_now(&self) -> usize {
        self.state().receivers.len()
    }
}

/// The sequence number at which a new receiver starts, by its filter.
fn start(state: &BrokerState, place: &GroupPartition, filter: &str) -> Result<i64, Error> {
    let not_found = |what: &str| {
        let why = format!("The messaging entity '{what}' could not be found");
        Error::new(AmqpError::NotFound, why, None)
    };
    let hub = state.namespaces[place.namespace]
        .get(&place.hub)
        .ok_or_else(|| not_found(&place.hub))?;
    if !hub.groups.contains(&place.group) {
        return Err(not_found(&format!(
            "{}:consumergroup:{}",
            place.hub, place.group
        )));
    }
    let index = place.partition.parse::<usize>();
    let partition = index
        .ok()
        .and_then(|index| hub.partitions.get(index))
        .ok_or_else(|| not_found(&format!("{}|{}", place.hub, place.partition)))?;
    position::begin(partition, filter)
}

/// Milliseconds since 1970.
pub(super) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}
