//! The messages of one partition.

use std::collections::VecDeque;

use bytes::Bytes;
use fe2o3_amqp_types::primitives::Value;

/// A message of a partition.
#[derive(Debug, Clone)]
pub(super) struct StoredMessage {
    pub(super) sequence: i64,
    /// A count of bytes, as in Event Hubs.
    pub(super) offset: i64,
    /// Number of promotions so far, if the hub is replicated to another region.
    pub(super) epoch: Option<i64>,
    /// Milliseconds since 1970.
    pub(super) enqueued: i64,
    pub(super) body: StoredBody,
}

/// The body of a message.
#[derive(Debug, Clone)]
pub(super) enum StoredBody {
    /// Data sections, as Azure's own services send them.
    Sections(Vec<Bytes>),
    /// A value of another type, as any sender may send.
    Value(Value),
}

#[derive(Debug, Default)]
pub(super) struct BrokerPartition {
    pub(super) messages: VecDeque<StoredMessage>,
    /// The sequence number of the next message.
    pub(super) next: i64,
    pub(super) next_offset: i64,
    pub(super) last_offset: i64,
    pub(super) last_enqueued: i64,
    /// See [`StoredMessage::epoch`].
    pub(super) epoch: Option<i64>,
}

impl BrokerPartition {
    /// The sequence number of the oldest message that is still there.
    pub(super) fn beginning(&self) -> i64 {
        self.messages
            .front()
            .map_or(self.next, |message| message.sequence)
    }

    pub(super) fn push(&mut self, body: StoredBody, enqueued: i64) -> i64 {
        let sequence = self.next;
        self.last_offset = self.next_offset;
        self.last_enqueued = enqueued;
        let bytes: usize = match &body {
            StoredBody::Sections(sections) => sections.iter().map(Bytes::len).sum(),
            StoredBody::Value(_) => 8,
        };
        self.messages.push_back(StoredMessage {
            sequence,
            offset: self.next_offset,
            epoch: self.epoch,
            enqueued,
            body,
        });
        self.next_offset += i64::try_from(bytes).unwrap() + 64;
        self.next += 1;
        sequence
    }

    /// Changes offsets to those of a hub that is replicated to another region.
    pub(super) fn replicate(&mut self) {
        self.epoch = Some(1);
        for message in &mut self.messages {
            message.epoch = self.epoch;
        }
    }

    /// Promotes the secondary region, which lacks this many of the newest messages.
    pub(super) fn promote(&mut self, lost: usize) {
        for _ in 0..lost {
            let Some(message) = self.messages.pop_back() else {
                break;
            };
            self.next = message.sequence;
            self.next_offset = message.offset;
        }
        if let Some(newest) = self.messages.back() {
            self.last_offset = newest.offset;
            self.last_enqueued = newest.enqueued;
        }
        self.epoch = self.epoch.map(|epoch| epoch + 1);
    }
}
