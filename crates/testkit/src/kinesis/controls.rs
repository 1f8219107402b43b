//! What a test does with the stand-in, beside reading it.

use std::time::Duration;

use bytes::Bytes;

use super::stream::{Stream, hash_key, shard_id};
use super::subscription::{SubscribedEvent, SubscriptionOrigin};
use super::{CloudWatchFault, CloudWatchRequest, Kinesis};

/// A shard that is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardStatus {
    /// Its ID.
    pub shard_id: String,
    /// Its first and its last hash key.
    pub hash_keys: (u128, u128),
    /// The shards that it was made of.
    pub parents: Vec<String>,
    /// It takes records.
    pub open: bool,
    /// How many records are left in it.
    pub records: usize,
}

fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap()
}

/// Streams and shards.
impl Kinesis {
    /// Makes a stream of so many shards. Returns its ARN.
    pub fn create_stream(&self, stream: &str, shards: u32) -> String {
        let mut state = self.lock();
        let made = Stream::new(stream, shards, state.clock.now_ms());
        let arn = made.arn();
        state.streams.insert(stream.to_owned(), made);
        arn
    }

    /// Takes a stream away.
    pub fn delete_stream(&self, stream: &str) {
        self.lock().streams.remove(stream);
    }

    /// The stream is encrypted with this key.
    pub fn encrypt(&self, stream: &str, key: &str) {
        let key = Some(key.to_owned());
        self.with_stream(stream, |it, _| it.key = key);
    }

    /// The stream is resharded by the service only: `SplitShard` and `MergeShards` are refused.
    pub fn on_demand(&self, stream: &str) {
        self.with_stream(stream, |it, _| it.on_demand = true);
    }

    /// All shards that are listed, in the order of their IDs.
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

    /// Writes a record that says it arrived at this time, in milliseconds: "there are no guarantees
    /// about the time stamp accuracy, or that the time stamp is always increasing" (`GetRecords`).
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

    /// Merges two open shards, at once, the one of the lower hash keys first. Returns the child.
    pub fn merge(&self, stream: &str, lower: &str, upper: &str) -> String {
        self.with_stream(stream, |it, now| {
            it.merge([lower, upper], now).unwrap();
            it.settle(now);
            child_ids(it, lower).remove(0)
        })
    }

    /// Splits or merges, as this number chooses, so that one to `shards_max` shards are open: a
    /// number from a seeded generator makes a schedule that can be repeated. Returns the children.
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

    /// Writes one record of these log events, as a subscription filter does that distributes by log
    /// stream: the order of a log stream is that of its shard.
    pub fn deliver(
        &self,
        stream: &str,
        subscription: &SubscriptionOrigin,
        events: &[SubscribedEvent],
    ) -> (String, String) {
        let record = subscription.record(events);
        self.put(stream, &subscription.log_stream, record)
    }

    /// Forgets the records that arrived before this time, and the shards that were closed before
    /// it, as retention does.
    pub fn trim(&self, stream: &str, before_ms: i64) {
        self.with_stream(stream, |it, now| {
            it.horizon_ms = it.horizon_ms.max(before_ms);
            it.settle(now);
        });
    }

    /// How long records are kept: 24 hours where nothing else is said.
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
    /// What the service's clock says, in milliseconds.
    pub fn now_ms(&self) -> i64 {
        self.lock().clock.now_ms()
    }

    /// Moves the service's clock forward: iterators, tokens, records and shards grow older.
    pub fn advance(&self, by: Duration) {
        self.lock().clock.moved_ms += milliseconds(by);
    }

    /// Answers of `GetRecords` hold no more records than this.
    pub fn answer_records_max(&self, records: usize) {
        self.lock().settings.answer_records_max = records;
    }

    /// Answers of `GetRecords` hold no more bytes than this, but at least one record.
    pub fn answer_bytes_max(&self, bytes: usize) {
        self.lock().settings.answer_bytes_max = bytes;
    }

    /// So many empty answers come from a shard before each one that is not, although there is more.
    pub fn empty_answers(&self, answers: usize) {
        self.lock().settings.empty_answers = answers;
    }

    /// The end of a closed shard comes in an empty answer of its own, not with its last records.
    pub fn end_apart(&self, apart: bool) {
        self.lock().settings.end_apart = apart;
    }

    /// How long iterators are good: five minutes where nothing else is said.
    pub fn iterators_last(&self, last: Duration) {
        self.lock().settings.iterators_last_ms = milliseconds(last);
    }

    /// All iterators that were handed out so far are expired.
    pub fn expire_iterators(&self) {
        self.lock().generation += 1;
    }

    /// Reading from a number that retention took away gives empty answers that stay as far behind as
    /// the retention is long, for as long as this is on; `TRIM_HORIZON` helps. So it was reported of
    /// the service (kinesis-consumer's issue 125).
    pub fn trimmed_stuck(&self, on: bool) {
        self.lock().settings.trimmed_stuck = on;
    }

    /// Lists of shards hold no more shards than this.
    pub fn list_shards_max(&self, shards: usize) {
        self.lock().settings.list_shards_max = shards;
    }

    /// Reading has the service's quotas: per shard five `GetRecords` and five `GetShardIterator` a
    /// second and 2 MiB, whoever reads.
    pub fn read_quotas(&self, on: bool) {
        self.lock().settings.read_quotas = on;
    }

    /// Writing through the API has the service's quotas: per shard 1,000 records and 1 MiB a second.
    pub fn write_quotas(&self, on: bool) {
        self.lock().settings.write_quotas = on;
    }

    /// `SplitShard` and `MergeShards` are done after so long; until then the stream is `UPDATING`.
    pub fn resharding_takes(&self, duration: Duration) {
        self.lock().settings.resharding_takes_ms = milliseconds(duration);
    }
}

/// Faults. A call is refused by the script of its operation, else by `refuse`, else by `choose`.
impl Kinesis {
    /// What becomes of the next calls of an operation (`GetRecords`), one each.
    pub fn script(&self, operation: &str, faults: impl IntoIterator<Item = CloudWatchFault>) {
        let mut state = self.lock();
        let script = state.scripts.entry(operation.to_owned()).or_default();
        script.extend(faults);
    }

    /// What becomes of all calls of an operation from now on.
    pub fn refuse(&self, operation: &str, fault: CloudWatchFault) {
        self.lock().refused.insert(operation.to_owned(), fault);
    }

    /// Decides about every call that nothing else covers.
    pub fn choose(
        &self,
        chooser: impl FnMut(&CloudWatchRequest) -> Option<CloudWatchFault> + Send + 'static,
    ) {
        self.lock().chooser = Some(Box::new(chooser));
    }

    /// Answers of an operation are made, and kept back until [`Kinesis::release`].
    pub fn hold(&self, operation: &str) {
        self.lock()
            .held
            .send_modify(|held| held.push(operation.to_owned()));
    }

    /// All answers that are kept back leave.
    pub fn release(&self) {
        self.lock().held.send_modify(Vec::clear);
    }

    /// No more faults, and nothing is kept back.
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

    /// How often an operation was called.
    pub fn calls(&self, operation: &str) -> usize {
        let action = format!("kinesis:{operation}");
        let state = self.lock();
        let calls = state.recorded.iter().filter(|it| it.action == action);
        calls.count()
    }
}
