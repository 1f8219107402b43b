//! The nodes that answer requests: `$cbs` accepts tokens, `$management` returns properties.

use std::collections::BTreeSet;
use std::sync::Arc;

use fe2o3_amqp::{Receiver, Sender};
use fe2o3_amqp_types::messaging::{
    AmqpValue, ApplicationProperties, Body, Message, MessageId, Properties,
};
use fe2o3_amqp_types::primitives::{Array, OrderedMap, SimpleValue, Timestamp, Value};
use tokio::sync::mpsc;

use super::PutToken;
use super::broker::{Broker, BrokerHub};
use super::partition::BrokerPartition;
use super::rights::Rights;

pub(super) type AnswerMessage = Message<AmqpValue<Value>>;

/// Status, its description, and the properties.
type Told = (i32, String, OrderedMap<Value, Value>);

/// Answers the requests of one link, until it ends.
pub(super) async fn requests(
    mut receiver: Receiver,
    node: String,
    answers: mpsc::UnboundedSender<AnswerMessage>,
    broker: Arc<Broker>,
    rights: Arc<Rights>,
) {
    while let Ok(delivery) = receiver.recv::<Body<Value>>().await {
        if receiver.accept(&delivery).await.is_err() {
            break;
        }
        let request = delivery.into_message();
        let id = request
            .properties
            .as_ref()
            .and_then(|properties| properties.message_id.clone());
        let asked = request.application_properties.unwrap_or_default();
        let told = if node == "$cbs" {
            let token = match request.body {
                Body::Value(AmqpValue(Value::String(token))) => token,
                _ => String::new(),
            };
            put_token(&broker, &rights, &asked, token)
        } else {
            read(&broker, rights.namespace, &asked)
        };
        if answers.send(answer(id, told)).is_err() {
            break;
        }
    }
    let _ = receiver.close().await;
}

/// Sends answers, until the link ends.
pub(super) async fn answers(mut sender: Sender, mut inbox: mpsc::UnboundedReceiver<AnswerMessage>) {
    loop {
        tokio::select! {
            answer = inbox.recv() => {
                let Some(answer) = answer else { break };
                if sender.send_batchable(answer).await.is_err() {
                    break;
                }
            }
            _ = sender.on_detach() => break,
        }
    }
    let _ = sender.close().await;
}

fn answer(id: Option<MessageId>, (status, why, body): Told) -> AnswerMessage {
    let properties = Properties {
        correlation_id: id,
        ..Properties::default()
    };
    let told = ApplicationProperties::builder()
        .insert("status-code", status)
        .insert("status-description", why)
        .build();
    Message::builder()
        .properties(properties)
        .application_properties(told)
        .value(Value::Map(body))
        .build()
}

fn text(asked: &ApplicationProperties, name: &str) -> String {
    match asked.get(name) {
        Some(SimpleValue::String(text)) => text.clone(),
        _ => String::new(),
    }
}

fn put_token(
    broker: &Broker,
    rights: &Rights,
    asked: &ApplicationProperties,
    token: String,
) -> Told {
    let name = text(asked, "name");
    let mut state = broker.state();
    let empty = token.is_empty();
    let is_refused = state.refused_token.as_deref() == Some(token.as_str());
    state.tokens.push(PutToken {
        name: name.clone(),
        kind: text(asked, "type"),
        token,
    });
    if let Some((status, why)) = state.token_answer.clone() {
        return (status, why, OrderedMap::new());
    }
    if is_refused {
        return (401, "InvalidToken".to_owned(), OrderedMap::new());
    }
    if empty {
        let why = "The token is missing".to_owned();
        return (400, why, OrderedMap::new());
    }
    rights.put(&name);
    (202, "Accepted".to_owned(), OrderedMap::new())
}

fn read(broker: &Broker, namespace: usize, asked: &ApplicationProperties) -> Told {
    let state = broker.state();
    if let Some((status, why)) = state.management_answer.clone() {
        return (status, why, OrderedMap::new());
    }
    let name = text(asked, "name");
    let found = state.namespaces[namespace].get(&name);
    let found = found.and_then(|found| match text(asked, "type").as_str() {
        "com.microsoft:eventhub" => Some(hub(found, &name, &state.unlisted)),
        "com.microsoft:partition" => partition(found, &name, &text(asked, "partition")),
        _ => None,
    });
    match found {
        Some(members) => {
            let members = members
                .into_iter()
                .map(|(key, value)| (Value::String(key.to_owned()), value));
            (200, "OK".to_owned(), members.collect())
        }
        None => {
            let why = format!("The messaging entity '{name}' could not be found");
            (404, why, OrderedMap::new())
        }
    }
}

type Members = Vec<(&'static str, Value)>;

fn hub(hub: &BrokerHub, name: &str, unlisted: &BTreeSet<usize>) -> Members {
    let listed = (0..hub.partitions.len()).filter(|index| !unlisted.contains(index));
    let ids = listed.map(|index| Value::String(index.to_string()));
    vec![
        ("name", Value::String(name.to_owned())),
        ("type", Value::String("com.microsoft:eventhub".to_owned())),
        ("created_at", timestamp(hub.created)),
        (
            "partition_count",
            Value::Int(i32::try_from(hub.partitions.len()).unwrap()),
        ),
        ("partition_ids", Value::Array(Array(ids.collect()))),
    ]
}

fn partition(hub: &BrokerHub, name: &str, id: &str) -> Option<Members> {
    let index: usize = id.parse().ok()?;
    let partition: &BrokerPartition = hub.partitions.get(index)?;
    Some(vec![
        ("name", Value::String(name.to_owned())),
        ("type", Value::String("com.microsoft:partition".to_owned())),
        ("partition", Value::String(id.to_owned())),
        ("begin_sequence_number", Value::Long(partition.beginning())),
        (
            "last_enqueued_sequence_number",
            Value::Long(partition.next - 1),
        ),
        (
            "last_enqueued_sequence_number_epoch",
            Value::Long(partition.epoch.unwrap_or(-1)),
        ),
        (
            "last_enqueued_offset",
            Value::String(partition.last_offset.to_string()),
        ),
        ("last_enqueued_time_utc", timestamp(partition.last_enqueued)),
        (
            "is_partition_empty",
            Value::Bool(partition.messages.is_empty()),
        ),
    ])
}

fn timestamp(milliseconds: i64) -> Value {
    Value::Timestamp(Timestamp::from_milliseconds(milliseconds))
}
