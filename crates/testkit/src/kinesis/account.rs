//! Accounts for written and served records.

use std::collections::BTreeMap;

use super::Kinesis;
use super::entries::{OrderBreach, ReadCall, WrittenRecord};
use super::sequence::ServedSequenceNumber;
use super::stream::{Stream, shard_id};
use super::subscription::{self, EventWithOrigin};
use super::token::ShardIterator;

/// The shard of an iterator, for use in [`Kinesis::choose`].
pub fn shard_of_iterator(iterator: &str) -> Option<String> {
    ShardIterator::decode(iterator).map(|it| shard_id(it.shard))
}

impl Kinesis {
    /// All records ever written to a stream, in order.
    pub fn written(&self, stream: &str) -> Vec<WrittenRecord> {
        self.lock().stream(stream).account.clone()
    }

    /// The log lines of all subscription records ever written, in order.
    pub fn written_lines(&self, stream: &str) -> Vec<EventWithOrigin> {
        let records = self.written(stream);
        let lines = records.iter().flat_map(|it| subscription::read(&it.data));
        lines.collect()
    }

    /// How often each record was in a complete answer, by shard and sequence number. Others are
    /// left out.
    pub fn served(&self, stream: &str) -> BTreeMap<(String, String), usize> {
        let state = self.lock();
        let stream = state.stream(stream);
        let named = |(number, times): (&ServedSequenceNumber, &usize)| {
            let shard = number.shard().map(shard_id).unwrap_or_default();
            ((shard, number.to_string()), *times)
        };
        stream.served.iter().map(named).collect()
    }

    /// Written records that were in no complete answer yet.
    pub fn unserved(&self, stream: &str) -> Vec<WrittenRecord> {
        let served = self.served(stream);
        let mut written = self.written(stream);
        written.retain(|it| {
            let place = (it.shard_id.clone(), it.sequence_number.clone());
            !served.contains_key(&place)
        });
        written
    }

    /// All `GetRecords` calls with a complete answer, in order.
    pub fn reads(&self, stream: &str) -> Vec<ReadCall> {
        self.lock().stream(stream).reads.clone()
    }

    /// Where readers read a child shard before its parents, in order. Only the first time that a
    /// parent ends counts: reading it again later is no breach.
    pub fn order_breaches(&self, stream: &str) -> Vec<OrderBreach> {
        self.lock().stream(stream).breaches.clone()
    }
}

impl super::State {
    /// A stream by name; panics if there is none.
    pub(super) fn stream(&self, name: &str) -> &Stream {
        let found = self.streams.get(name);
        found.unwrap_or_else(|| panic!("there is no stream {name}"))
    }
}
