//! A Pub/Sub subscription that a log sink feeds, as a source.
//!
//! Google's client keeps the stream and the leases; a task feeds its messages in here. A message is
//! acknowledged when it is settled, so after the webhook's 2xx or the dead letter, whatever becomes of
//! others: one whose event is parked holds up no other. Its lease is put off until then, however long
//! a hold lasts. Nothing is given back while this runs: a message that nobody takes would come again
//! at once, for ever. What is open at the end is given back, for another replica.
//!
//! How much is read is bounded by the service: it sends no more than [`OPEN_BYTES_MAX`] that is not
//! acknowledged.

mod ack_ledger;
mod connection;
mod named_credentials;
mod proof;
mod reader;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use audit_bridge_app::telemetry::Telemetry;
use audit_bridge_core::record::{Origin, Record};
use audit_bridge_core::source::{Page, Position, ReadTo, Source};
use audit_bridge_tail::Identity;
use bytes::Bytes;
use google_cloud_pubsub::subscriber::ShutdownToken;
use google_cloud_pubsub::subscriber::handler::Handler;
use jiff::Timestamp;
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use self::ack_ledger::{AckLedger, Admission};
pub(crate) use self::connection::SubscriptionConnection;
use super::page::IdentifiedEntry;

/// Bytes that are received and not yet acknowledged.
const OPEN_BYTES_MAX: i64 = 24 << 20;
/// The same in messages.
const OPEN_MESSAGES_MAX: i64 = 10_000;
/// Messages that wait to be read; the rest waits in the client, and counts as open just so.
const CHANNEL: usize = 256;
/// Messages of a page.
const PAGE_MAX: usize = 500;
/// Messages that are remembered, of about 40 bytes each.
const REMEMBERED_MAX: usize = 200_000;
/// What an acknowledgment may take at the end.
const CLOSE_MAX: Duration = Duration::from_secs(3);

/// What the reader has for the source.
enum Incoming {
    Message(Delivery),
    /// Nothing came for a while, and the service answered at this time.
    NothingMore(Timestamp),
}

/// A message on its way from the client to the source.
struct Delivery {
    id: String,
    /// When the service took it in.
    published: Timestamp,
    data: Bytes,
    handler: Handler,
}

pub struct SubscriptionMessages {
    name: Arc<str>,
    incoming: mpsc::Receiver<Incoming>,
    /// Taken from the channel and not looked at yet: nothing between two polls.
    taken: Vec<Incoming>,
    /// The reader says within so long up to when it read.
    again_within: Duration,
    /// The number of the last message before the first of this source.
    before: u64,
    ack_ledger: AckLedger<Handler>,
    /// How many are open, for the reader, which may only begin anew when there are none.
    open: watch::Sender<usize>,
    /// Acknowledgments that the service confirms.
    confirming: JoinSet<()>,
    /// The way to end the stream that is at work.
    token: Arc<Mutex<Option<ShutdownToken>>>,
    reader: JoinHandle<()>,
}

impl SubscriptionMessages {
    /// Begins to read. `given` is the number of the last message of an earlier life.
    pub(crate) fn open(
        connection: SubscriptionConnection,
        given: u64,
        telemetry: Telemetry,
    ) -> SubscriptionMessages {
        let (outgoing, incoming) = mpsc::channel(CHANNEL);
        let (open, opened) = watch::channel(0);
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

    /// The record of a message, unless it was met before.
    fn record(&mut self, delivery: Delivery) -> Option<Record> {
        let entry = IdentifiedEntry::read(delivery.data);
        let identity = match entry.damaged {
            // Whatever it is: only the service tells it from others.
            true => Identity::of(&[b"message", delivery.id.as_bytes()]),
            false => entry.identity(),
        };
        match self.ack_ledger.admit(identity, delivery.handler) {
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

    /// Tells the service that a message is settled. One that does not arrive costs a repetition,
    /// which is known here.
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
    const HEARS_OF_EACH: bool = true;

    async fn read(&mut self) -> Option<Page> {
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
                        // There is no order: others may be as old as the oldest.
                        read_to = Some(read_to.unwrap_or(Timestamp::MAX).min(published));
                        records.push(record);
                    }
                }
            }
        }
        self.open.send_replace(self.ack_ledger.open());
        let given = json!(self.ack_ledger.given());
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

    fn commit(&mut self, _: u32, position: &Position) {
        let settled = self
            .ack_ledger
            .settle(position.as_u64().unwrap_or_default());
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

    /// Sends the acknowledgments that are still here, and gives back what is open.
    async fn close(&mut self) {
        let confirmed = async { while self.confirming.join_next().await.is_some() {} };
        let _ = timeout(CLOSE_MAX, confirmed).await;
        // It would take the end of the stream for a fault, and open another.
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
