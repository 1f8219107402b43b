//! What a test can do with the stand-in besides reading.

use std::time::Duration;

use bytes::Bytes;

use super::stream::{Stream, hash_key, shard_id};
use super::subscription::{SubscribedEvent, SubscriptionOrigin};
use super::{CloudWatchFault, CloudWatchRequest, Kinesis};

/// A shard that is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardStatus {
    pub shard_id: String,
    /// The first and the last hash key.
    pub hash_keys: (u128, u128),
    /// The shards that it was split or merged from.
    pub parents: Vec<String>,
    /// Whether it takes records.
    pub open: bool,
    /// How many records it still has.
    pub records: usize,
}

fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap()
}

/// Streams and shards.
impl Kinesis {
    /// Creates a stream with this many shards. Returns its ARN.
    pub fn create_stream(&self, stream: &str, shards: u32) -> String {
        let mut state = self.lock();
        let made = Stream::new(stream, shards, state.clock.now_ms());
        let arn = made.arn();
        state.streams.insert(stream.to_owned(), made);
        arn
    }

    pub fn delete_stream(&self, stream: &str) {
        self.lock().streams.remove(stream);
    }

    /// Encrypts the stream with this key.
    pub fn encrypt(&self, stream: &str, key: &str) {
        let key = Some(key.to_owned());
        self.with_stream(stream, |it, _| it.key = key);
    }

    /// Lets only the service reshard the stream: `SplitShard` and `MergeShards` are refused.
    pub fn on_demand(&self, stream: &str) {
        self.with_stream(stream, |it, _| it.on_demand = true);
    }

    /// All listed shards, in the order of their IDs.
    pub fn shards(&self, stream: &str) -> Vec<ShardStatus> {
        self.with_stream(stream, |it, _| it.shards.values().map(status).collect())
    }

    /// The shards that take records, in the order of their hash keys.
    pub fn open_shards(&self, stream: &str) -> Vec<String> {
        let mut open = self.shards(stream);
        open.retain(|shard| shard.open);
        open.sort_by_key(|shard| shard.hash_keys);
        open.into_iter().map(|shard| shard.shard_id).collect()
    }

    /// Writes a record. Returns its shard and its sequence number.
    pub fn put(
        &self,
        stream: &str,
        partition_key: &str,
        data: impl Into<Bytes>,
    ) -> (String, String) {
        let now = self.now_ms();
        self.put_arrived(stream, partition_key, data, now)
    }

    /// Writes a record with this arrival time in milliseconds: "there are no guarantees about the
    /// time stamp accuracy, or that the time stamp is always increasing" (`GetRecords`).
    pub fn put_arrived(
        &self,
        stream: &str,
        partition_key: &str,
        data: impl Into<Bytes>,
        arrival_ms: i64,
    ) -> (String, String) {
        let data = data.into();
        self.with_stream(stream, |it, _| {
            let number = it.open_shard(hash_key(partition_key));
            let sequence = it.put(number, partition_key, data, arrival_ms);
            (shard_id(number), sequence.to_string())
        })
    }

    /// Splits an open shard in the middle, at once. Returns its children.
    pub fn split(&self, stream: &str, shard_id: &str) -> Vec<String> {
        self.with_stream(stream, |it, now| {
            let (start, end) = it.shard(shard_id).unwrap().hash_keys;
            it.split(shard_id, start + (end - start) / 2 + 1, now)
                .unwrap();
            it.settle(now);
            child_ids(it, shard_id)
        })
    }

    /// Merges two open shards at once; `lower` has the lower hash keys. Returns the child.
    pub fn merge(&self, stream: &str, lower: &str, upper: &str) -> String {
        self.with_stream(stream, |it, now| {
            it.merge([lower, upper], now).unwrap();
            it.settle(now);
            child_ids(it, lower).remove(0)
        })
    }

    /// Splits or merges, depending on `choice`, so that one to `shards_max` shards are open:
    /// numbers from a seeded generator make a repeatable schedule. Returns the children.
    pub fn reshard(&self, stream: &str, choice: u64, shards_max: usize) -> Vec<String> {
        let open = self.open_shards(stream);
        let pick = |among: usize| usize::try_from(choice / 2 % among as u64).unwrap();
        let full = open.len() >= shards_max;
        if open.len() > 1 && (full || choice.is_multiple_of(2)) {
            let lower = pick(open.len() - 1);
            return vec![self.merge(stream, &open[lower], &open[lower + 1])];
        }
        if full {
            return Vec::new();
        }
        self.split(stream, &open[pick(open.len())])
    }

    /// Writes one record of these log events, like a subscription filter that distributes by log
    /// stream: a log stream's events stay in order in one shard.
    pub fn deliver(
        &self,
        stream: &str,
        subscription: &SubscriptionOrigin,
        events: &[SubscribedEvent],
    ) -> (String, String) {
        let record = subscription.record(events);
        self.put(stream, &subscription.log_stream, record)
    }

    /// Removes records that arrived before this time, and shards that were closed before it, as
    /// retention does.
    pub fn trim(&self, stream: &str, before_ms: i64) {
        self.with_stream(stream, |it, now| {
            it.horizon_ms = it.horizon_ms.max(before_ms);
            it.settle(now);
        });
    }

    /// Sets the retention; 24 hours by default.
    pub fn retention(&self, stream: &str, retention: Duration) {
        let retention = milliseconds(retention);
        self.with_stream(stream, |it, _| it.retention_ms = retention);
    }

    fn with_stream<T>(&self, stream: &str, work: impl FnOnce(&mut Stream, i64) -> T) -> T {
        let mut state = self.lock();
        let now = state.clock.now_ms();
        let found = state.settled(stream);
        let found = found.unwrap_or_else(|| panic!("there is no stream {stream}"));
        work(found, now)
    }
}

fn status(shard: &super::stream::ServedShard) -> ShardStatus {
    ShardStatus {
        shard_id: shard_id(shard.number),
        hash_keys: shard.hash_keys,
        parents: shard.parents.iter().copied().map(shard_id).collect(),
        open: shard.closed.is_none(),
        records: shard.records.len(),
    }
}

fn child_ids(stream: &Stream, parent: &str) -> Vec<String> {
    let number = stream.shard(parent).unwrap().number;
    let children = stream.children(number);
    children.map(|child| shard_id(child.number)).collect()
}

/// Time, limits and quotas.
impl Kinesis {
    /// The service's time in milliseconds.
    pub fn now_ms(&self) -> i64 {
        self.lock().clock.now_ms()
    }

    /// Moves the service's clock forward: iterators, tokens, records and shards grow older.
    pub fn advance(&self, by: Duration) {
        self.lock().clock.moved_ms += milliseconds(by);
    }

    /// Limits answers of `GetRecords` to this many records.
    pub fn answer_records_max(&self, records: usize) {
        self.lock().settings.answer_records_max = records;
    }

    /// Limits answers of `GetRecords` to this many bytes, but at least one record.
    pub fn answer_bytes_max(&self, bytes: usize) {
        self.lock().settings.answer_bytes_max = bytes;
    }

    /// Sends this many empty answers from a shard before each one with records.
    pub fn empty_answers(&self, answers: usize) {
        self.lock().settings.empty_answers = answers;
    }

    /// Sends the end of a closed shard in a separate empty answer, not with its last records.
    pub fn end_apart(&self, apart: bool) {
        self.lock().settings.end_apart = apart;
    }

    /// Sets the validity of iterators; five minutes by default.
    pub fn iterators_last(&self, last: Duration) {
        self.lock().settings.iterators_last_ms = milliseconds(last);
    }

    /// Expires all iterators.
    pub fn expire_iterators(&self) {
        self.lock().generation += 1;
    }

    /// Makes reading from a trimmed sequence number return empty answers that stay as far behind as
    /// the retention, until switched off; `TRIM_HORIZON` still works. This was reported of the
    /// service (kinesis-consumer's issue 125).
    pub fn trimmed_stuck(&self, on: bool) {
        self.lock().settings.trimmed_stuck = on;
    }

    /// Limits lists of shards to this many.
    pub fn list_shards_max(&self, shards: usize) {
        self.lock().settings.list_shards_max = shards;
    }

    /// Applies the service's read quotas: per shard and second five `GetRecords`, five
    /// `GetShardIterator` and 2 MiB, for all readers together.
    pub fn read_quotas(&self, on: bool) {
        self.lock().settings.read_quotas = on;
    }

    /// Applies the service's write quotas of the API: per shard and second 1,000 records and 1 MiB.
    pub fn write_quotas(&self, on: bool) {
        self.lock().settings.write_quotas = on;
    }

    /// Sets the duration of `SplitShard` and `MergeShards`, during which the stream is `UPDATING`.
    pub fn resharding_takes(&self, duration: Duration) {
        self.lock().settings.resharding_takes_ms = milliseconds(duration);
    }
}

/// Faults. The script of the operation decides first, then `refuse`, then `choose`.
impl Kinesis {
    /// Sets the faults of the next calls of an operation (`GetRecords`), one each.
    pub fn script(&self, operation: &str, faults: impl IntoIterator<Item = CloudWatchFault>) {
        let mut state = self.lock();
        let script = state.scripts.entry(operation.to_owned()).or_default();
        script.extend(faults);
    }

    /// Sets the fault of all calls of an operation from now on.
    pub fn refuse(&self, operation: &str, fault: CloudWatchFault) {
        self.lock().refused.insert(operation.to_owned(), fault);
    }

    /// Decides about every call that neither a script nor `refuse` covers.
    pub fn choose(
        &self,
        chooser: impl FnMut(&CloudWatchRequest) -> Option<CloudWatchFault> + Send + 'static,
    ) {
        self.lock().chooser = Some(Box::new(chooser));
    }

    /// Holds back the answers of an operation until [`Kinesis::release`].
    pub fn hold(&self, operation: &str) {
        self.lock()
            .held
            .send_modify(|held| held.push(operation.to_owned()));
    }

    /// Sends all answers that are held back.
    pub fn release(&self) {
        self.lock().held.send_modify(Vec::clear);
    }

    /// Removes all faults and releases all answers.
    pub fn clear_faults(&self) {
        self.release();
        let mut state = self.lock();
        state.scripts.clear();
        state.refused.clear();
        state.chooser = None;
    }

    /// All requests so far; the action is `kinesis:GetRecords`.
    pub fn recorded(&self) -> Vec<CloudWatchRequest> {
        self.lock().recorded.clone()
    }

    /// The number of calls of an operation.
    pub fn calls(&self, operation: &str) -> usize {
        let action = format!("kinesis:{operation}");
        let state = self.lock();
        let calls = state.recorded.iter().filter(|it| it.action == action);
        calls.count()
    }
}
