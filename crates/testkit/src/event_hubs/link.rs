//! The link that sends a partition's messages to one receiver.

use std::sync::Arc;
use std::time::Duration;

use fe2o3_amqp::Sender;
use fe2o3_amqp_types::definitions::Error;
use fe2o3_amqp_types::messaging::{Data, Message, MessageAnnotations};
use fe2o3_amqp_types::primitives::{Binary, Timestamp, Value};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::broker::{Broker, GroupPartition};
use super::partition::{StoredBody, StoredMessage};
use super::rights::{Rights, expired};

/// Interval at which the token's age is checked.
const LOOK: Duration = Duration::from_millis(50);

/// Sends the partition's messages until the client, an order or the token ends the link.
pub(super) async fn receiver(
    mut sender: Sender,
    place: GroupPartition,
    filter: String,
    epoch: Option<i64>,
    broker: Arc<Broker>,
    rights: Arc<Rights>,
) {
    let (orders, mut ordered) = mpsc::unbounded_channel();
    let (id, mut cursor) = match broker.attach(&place, epoch, &filter, orders) {
        Ok(attached) => attached,
        Err(error) => {
            // The peer may be gone already.
            let _ = sender.close_with_error(error).await;
            return;
        }
    };
    let mut changes = broker.changes();
    let end = loop {
        changes.mark_unchanged();
        let next = broker.next(&place, cursor);
        let sending = next.is_some();
        let sequence = next.as_ref().map(|next| next.sequence);
        tokio::select! {
            biased;
            order = ordered.recv() => break order,
            error = token_ends(&broker, &rights, &place.hub) => break Some(error),
            sent = send(&mut sender, next.as_ref()) => match sent {
                // A trimmed partition continues at its oldest message.
                Ok(()) => cursor = sequence.unwrap_or(cursor) + 1,
                Err(()) => break None,
            },
            _ = changes.changed(), if !sending => {}
        }
    };
    broker.leave(id);
    let _ = match end {
        Some(error) => sender.close_with_error(error).await,
        // Answers a detach with a detach.
        None => sender.close().await,
    };
}

/// Hands a message to the network, once there is credit for it, without waiting for settlement,
/// which clients do not send. Without a message, waits for the end of the link.
async fn send(sender: &mut Sender, stored: Option<&StoredMessage>) -> Result<(), ()> {
    let Some(stored) = stored else {
        sender.on_detach().await;
        return Err(());
    };
    let message = Message::builder().message_annotations(annotations(stored));
    let sent = match &stored.body {
        StoredBody::Sections(sections) => {
            let sections = sections.iter();
            let sections = sections.map(|section| Data(Binary::from(section.to_vec())));
            let message = message.data_batch(sections.collect::<Vec<_>>()).build();
            sender.send_batchable(message).await
        }
        StoredBody::Value(value) => {
            let message = message.value(value.clone()).build();
            sender.send_batchable(message).await
        }
    };
    sent.map(drop).map_err(drop)
}

/// Waits until the newest token for the hub has expired.
async fn token_ends(broker: &Broker, rights: &Rights, hub: &str) -> Error {
    loop {
        let lifetime = broker.state().token_lifetime;
        if let (Some(lifetime), Some(since)) = (lifetime, rights.since(hub))
            && since.elapsed() >= lifetime
        {
            return expired();
        }
        sleep_until(Instant::now() + LOOK).await;
    }
}

fn annotations(stored: &StoredMessage) -> MessageAnnotations {
    MessageAnnotations::builder()
        .insert("x-opt-sequence-number", Value::Long(stored.sequence))
        .insert("x-opt-offset", Value::String(stored.offset()))
        .insert(
            "x-opt-enqueued-time",
            Value::Timestamp(Timestamp::from_milliseconds(stored.enqueued)),
        )
        .build()
}
