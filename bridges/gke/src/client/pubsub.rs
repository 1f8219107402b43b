//! A Pub/Sub subscription that a log sink feeds, as a source.
//!
//! Google's client manages the stream and the leases of messages; a task forwards its messages to
//! this source. A message is acknowledged once its record is settled, that is after the webhook's
//! 2xx or a write to the dead letter, whatever is still open before it: a parked event holds up no
//! other message. Until then its lease is extended, however long the receiver is down. Messages are
//! not returned while the source runs, because the service would redeliver them at once, forever.
//! `close` returns what is open, for another replica.
//!
//! The service limits what is read: it sends at most [`OPEN_BYTES_MAX`] that is not acknowledged.

mod ack_ledger;
mod connection;
mod proof;
mod reader;
mod token_credentials;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use audit_bridge_app::telemetry::Telemetry;
use audit_bridge_core::record::{Origin, Record};
use audit_bridge_core::source::{Page, ReadTo, Source};
use audit_bridge_tail::Identity;
use bytes::Bytes;
use google_cloud_pubsub::subscriber::ShutdownToken;
use google_cloud_pubsub::subscriber::handler::Handler;
use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use self::ack_ledger::{AckLedger, Admission, OpenMessages};
pub(crate) use self::connection::SubscriptionConnection;
use super::page::IdentifiedEntry;

/// Limit of bytes that are received and not acknowledged.
const OPEN_BYTES_MAX: i64 = 24 << 20;
/// The same limit in messages. So many of the smallest that become events do not fit in the room
/// for parked ones, so that these cannot fill it.
const OPEN_MESSAGES_MAX: i64 = 16_000;
/// The largest message that the service takes, and so the most room that it leaves unused.
const MESSAGE_BYTES_MAX: i64 = 10 << 20;
/// Messages waiting for the source. More of them wait in the client, where they count as open too.
const CHANNEL: usize = 256;
/// Most messages in a page.
const PAGE_MAX: usize = 500;
/// Most messages remembered to recognise redeliveries, about 40 bytes each.
const REMEMBERED_MAX: usize = 200_000;
/// Time limit for the last acknowledgments.
const CLOSE_MAX: Duration = Duration::from_secs(3);

/// What the reader task sends to the source.
enum Incoming {
    Message(Delivery),
    /// No message came for a while, and the service confirmed at this time that there is none.
    NothingMore(Timestamp),
}

/// A message from the client.
struct Delivery {
    id: String,
    /// When the service received it.
    published: Timestamp,
    data: Bytes,
    /// Its size, as the service counts it.
    bytes: usize,
    handler: Handler,
}

pub struct SubscriptionMessages {
    name: Arc<str>,
    incoming: mpsc::Receiver<Incoming>,
    /// Buffer for messages from the channel; empty between two calls of `read`.
    taken: Vec<Incoming>,
    /// The interval within which the reader repeats how far it has read.
    again_within: Duration,
    /// The number of the last message before this source's first.
    before: u64,
    ack_ledger: AckLedger<Handler>,
    /// Tells the reader what is open: the service may send no more while it is much.
    open: watch::Sender<OpenMessages>,
    /// Acknowledgments that await the service's confirmation.
    confirming: JoinSet<()>,
    /// Shuts down the current stream.
    token: Arc<Mutex<Option<ShutdownToken>>>,
    reader: JoinHandle<()>,
}

impl SubscriptionMessages {
    /// Starts reading. `given` is the number of the last message of an earlier process.
    pub(crate) fn open(
        connection: SubscriptionConnection,
        given: u64,
        telemetry: Telemetry,
    ) -> SubscriptionMessages {
        let (outgoing, incoming) = mpsc::channel(CHANNEL);
        let (open, opened) = watch::channel(OpenMessages::default());
        let token = Arc::default();
        let name = connection.subscription().into();
        let again_within = connection.watch.again_within();
        let reader = tokio::spawn(reader::read_for_ever(
            connection,
            outgoing,
            opened,
            Arc::clone(&token),
            telemetry,
        ));
        SubscriptionMessages {
            name,
            incoming,
            taken: Vec::new(),
            again_within,
            before: given,
            ack_ledger: AckLedger::new(given, REMEMBERED_MAX),
            open,
            confirming: JoinSet::new(),
            token,
            reader,
        }
    }

    /// The record of a message, unless it is a redelivery.
    fn record(&mut self, delivery: Delivery) -> Option<Record> {
        let entry = IdentifiedEntry::read(delivery.data);
        // The service's own ID: what stands in an entry is chosen by whoever may publish, and would
        // let one message pass for another.
        let identity = Identity::of(&[delivery.id.as_bytes()]);
        let admission = self
            .ack_ledger
            .admit(identity, delivery.bytes, delivery.handler);
        match admission {
            Admission::New => {}
            Admission::Open => return None,
            Admission::Settled(handler) => {
                self.acknowledge(handler);
                return None;
            }
        }
        let named = !entry.log.is_empty() && !entry.insert_id.is_empty();
        Some(Record {
            payload: entry.text,
            origin: Origin::Stream {
                stream: match named {
                    true => entry.log.into(),
                    false => Arc::clone(&self.name),
                },
                id: if named { entry.insert_id } else { delivery.id },
            },
            time: entry.time,
            damaged: entry.damaged,
            oversized: false,
        })
    }

    /// Acknowledges a message. If the acknowledgment is lost the message is redelivered, and
    /// recognised here.
    fn acknowledge(&mut self, handler: Handler) {
        match handler {
            Handler::ExactlyOnce(handler) => {
                self.confirming.spawn(async {
                    if let Err(error) = handler.confirmed_ack().await {
                        tracing::debug!(%error, "acknowledgment not confirmed");
                    }
                });
            }
            handler => handler.ack(),
        }
    }
}

impl Source for SubscriptionMessages {
    /// How many messages were handed out.
    type Position = u64;

    const HEARS_OF_EACH: bool = true;

    async fn read(&mut self) -> Option<Page<u64>> {
        let taken = self.incoming.recv_many(&mut self.taken, PAGE_MAX).await;
        if taken == 0 {
            return None;
        }
        let (mut records, mut read_to) = (Vec::new(), None);
        for incoming in std::mem::take(&mut self.taken) {
            match incoming {
                Incoming::NothingMore(time) => read_to = Some(time),
                Incoming::Message(message) => {
                    let published = message.published;
                    if let Some(record) = self.record(message) {
                        // Messages are not ordered: others may be as old as the oldest of these.
                        read_to = Some(read_to.unwrap_or(Timestamp::MAX).min(published));
                        records.push(record);
                    }
                }
            }
        }
        self.open.send_replace(self.ack_ledger.open());
        let given = self.ack_ledger.given();
        Some(Page {
            partition: 0,
            position: (!records.is_empty()).then_some(given),
            records,
            read_to: read_to.map(|time| ReadTo {
                time,
                again_within: self.again_within,
            }),
            ..Page::default()
        })
    }

    fn commit(&mut self, _: u32, position: &u64) {
        let settled = self.ack_ledger.settle(*position);
        for handler in settled {
            self.acknowledge(handler);
        }
        self.open.send_replace(self.ack_ledger.open());
        while self.confirming.try_join_next().is_some() {}
    }

    fn settled(&mut self, _: u32, number: u64) {
        let number = self.before.saturating_add(number).saturating_add(1);
        for handler in self.ack_ledger.settle_one(number) {
            self.acknowledge(handler);
        }
        self.open.send_replace(self.ack_ledger.open());
        while self.confirming.try_join_next().is_some() {}
    }

    /// Sends outstanding acknowledgments, and returns the open messages.
    async fn close(&mut self) {
        let confirmed = async { while self.confirming.join_next().await.is_some() {} };
        let _ = timeout(CLOSE_MAX, confirmed).await;
        // Abort the reader first: it would treat the stream's end as a failure and open another.
        self.reader.abort();
        let token = self
            .token
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(token) = token
            && timeout(CLOSE_MAX, token.shutdown()).await.is_err()
        {
            tracing::warn!(
                subscription = %self.name,
                "acknowledgments not all sent: some messages are delivered again"
            );
        }
    }
}

impl Drop for SubscriptionMessages {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

#[cfg(test)]
mod tests;
