//! A stream: shards, their records, splits and merges, and retention. No clock.

use std::collections::{BTreeMap, HashMap, VecDeque};

use bytes::Bytes;
use md5::{Digest as _, Md5};

use super::entries::{OrderBreach, ReadCall, WrittenRecord};
use super::error::ServiceError;
use super::quota::{Meter, Quota};
use super::sequence::{Parts, ServedSequenceNumber};
use super::{ACCOUNT, REGION};

/// A record in a shard.
#[derive(Debug, Clone)]
pub(super) struct StreamRecord {
    pub(super) sequence: ServedSequenceNumber,
    pub(super) arrival_ms: i64,
    pub(super) partition_key: String,
    pub(super) data: Bytes,
}

/// A shard's remaining records, and its state.
#[derive(Debug)]
pub(super) struct ServedShard {
    pub(super) number: u32,
    pub(super) hash_keys: (u128, u128),
    /// One for a split, two for a merge.
    pub(super) parents: Vec<u32>,
    pub(super) first: Parts,
    /// When it was closed, and its last sequence number.
    pub(super) closed: Option<(i64, ServedSequenceNumber)>,
    pub(super) created_ms: i64,
    pub(super) records: VecDeque<StreamRecord>,
    /// The last sequence number that retention removed.
    pub(super) trimmed: Option<ServedSequenceNumber>,
    /// Whether an answer without a next iterator was sent.
    pub(super) end_served: bool,
    /// Empty answers since the last one with records.
    pub(super) empty_answers: usize,
    pub(super) read: Meter,
    pub(super) written: Meter,
    pub(super) iterators: Meter,
}

/// Shards to close, and the hash key ranges of their children.
#[derive(Debug, Clone)]
struct Resharding {
    due_ms: i64,
    parents: Vec<u32>,
    children: Vec<(u128, u128)>,
}

#[derive(Debug)]
pub(super) struct Stream {
    pub(super) name: String,
    pub(super) created_ms: i64,
    pub(super) retention_ms: i64,
    /// Records that arrived before this time are removed.
    pub(super) horizon_ms: i64,
    pub(super) shards: BTreeMap<u32, ServedShard>,
    pub(super) on_demand: bool,
    pub(super) key: Option<String>,
    pub(super) account: Vec<WrittenRecord>,
    /// How often each record was served.
    pub(super) served: HashMap<ServedSequenceNumber, usize>,
    pub(super) breaches: Vec<OrderBreach>,
    pub(super) reads: Vec<ReadCall>,
    pub(super) lists: Meter,
    counter: u64,
    shard_count: u32,
    pending: Option<Resharding>,
}

pub(super) fn shard_id(number: u32) -> String {
    format!("shardId-{number:012}")
}

/// The number of a shard as the service parses it: the text after the first dash.
pub(super) fn shard_number(id: &str) -> Option<u32> {
    let digits = id.split('-').nth(1).unwrap_or(id);
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let number = plain.then(|| digits.parse::<i32>().ok()).flatten()?;
    u32::try_from(number).ok()
}

/// The hash key of a partition key: its MD5 ("Amazon Kinesis Data Streams Terminology and
/// concepts").
pub(super) fn hash_key(partition_key: &str) -> u128 {
    u128::from_be_bytes(Md5::digest(partition_key).into())
}

impl ServedShard {
    pub(super) fn first_number(&self) -> ServedSequenceNumber {
        self.first.number()
    }

    /// Where the remaining records start.
    pub(super) fn horizon(&self) -> ServedSequenceNumber {
        let trimmed = self.trimmed.map(ServedSequenceNumber::next);
        trimmed.unwrap_or(self.first_number())
    }

    /// Whether retention removed records from there on.
    pub(super) fn is_trimmed(&self, from: ServedSequenceNumber) -> bool {
        self.trimmed.is_some_and(|last| from <= last)
    }

    /// The position after all current records.
    pub(super) fn tip(&self) -> ServedSequenceNumber {
        let last = self.records.back();
        last.map_or(self.horizon(), |record| record.sequence.next())
    }

    /// Index of a sequence number among the remaining records.
    pub(super) fn position(&self, from: ServedSequenceNumber) -> usize {
        self.records.partition_point(|it| it.sequence < from)
    }
}

impl Stream {
    /// An active stream whose shards share the hash keys evenly.
    pub(super) fn new(name: &str, shards: u32, now_ms: i64) -> Stream {
        let mut stream = Stream {
            name: name.to_owned(),
            created_ms: now_ms,
            retention_ms: 24 * 3600 * 1000,
            horizon_ms: i64::MIN,
            shards: BTreeMap::new(),
            on_demand: false,
            key: None,
            account: Vec::new(),
            served: HashMap::new(),
            breaches: Vec::new(),
            reads: Vec::new(),
            lists: Meter::new(Quota::LISTS),
            counter: 0,
            shard_count: 0,
            pending: None,
        };
        // 2^128 divided by the number of shards, rounded down; with one shard the width is not
        // used.
        let of = u128::from(shards);
        let width = (u128::MAX / of).wrapping_add(u128::from(u128::MAX % of == of - 1));
        for n in 0..shards {
            let start = u128::from(n).wrapping_mul(width);
            let last = n + 1 == shards;
            let end = if last { u128::MAX } else { start + width - 1 };
            stream.add_shard((start, end), Vec::new(), now_ms / 1000, now_ms);
        }
        stream
    }

    pub(super) fn arn(&self) -> String {
        format!("arn:aws:kinesis:{REGION}:{ACCOUNT}:stream/{}", self.name)
    }

    pub(super) fn status(&self) -> &'static str {
        match self.pending {
            Some(_) => "UPDATING",
            None => "ACTIVE",
        }
    }

    fn add_shard(&mut self, hash_keys: (u128, u128), parents: Vec<u32>, created_s: i64, now: i64) {
        let number = self.shard_count;
        self.shard_count += 1;
        let first = Parts {
            created_s,
            shard: number,
            counter: 0,
            at_s: created_s,
        };
        let shard = ServedShard {
            number,
            hash_keys,
            parents,
            first,
            closed: None,
            created_ms: now,
            records: VecDeque::new(),
            trimmed: None,
            end_served: false,
            empty_answers: 0,
            read: Meter::new(Quota::READ),
            written: Meter::new(Quota::WRITE),
            iterators: Meter::new(Quota::ITERATORS),
        };
        self.shards.insert(number, shard);
    }

    /// Applies what is due: a resharding completes, records and shards expire.
    pub(super) fn settle(&mut self, now_ms: i64) {
        if let Some(pending) = self.pending.take_if(|it| it.due_ms <= now_ms) {
            self.reshard(&pending);
        }
        self.horizon_ms = self.horizon_ms.max(now_ms - self.retention_ms);
        let horizon = self.horizon_ms;
        for shard in self.shards.values_mut() {
            let expired = |record: &StreamRecord| record.arrival_ms < horizon;
            while let Some(record) = shard.records.pop_front_if(|it| expired(it)) {
                shard.trimmed = Some(record.sequence);
            }
        }
        // "Resharding a stream": a shard is EXPIRED once its retention is over after it was closed.
        self.shards
            .retain(|_, shard| shard.closed.is_none_or(|(at, _)| at >= horizon));
    }

    fn reshard(&mut self, change: &Resharding) {
        let mut created_s = change.due_ms / 1000;
        for number in &change.parents {
            let shard = self.shards.get_mut(number).unwrap();
            let ending = Parts {
                at_s: change.due_ms / 1000,
                ..shard.first
            };
            shard.closed = Some((change.due_ms, ending.ending().number()));
            // Later than the parents', so that the sequence numbers are greater.
            created_s = created_s.max(shard.first.created_s + 1);
        }
        for range in &change.children {
            self.add_shard(*range, change.parents.clone(), created_s, change.due_ms);
        }
    }

    /// The shard that now takes this hash key.
    pub(super) fn open_shard(&self, hash_key: u128) -> u32 {
        let takes = |shard: &&ServedShard| {
            let (start, end) = shard.hash_keys;
            shard.closed.is_none() && (start..=end).contains(&hash_key)
        };
        self.shards.values().find(takes).unwrap().number
    }

    /// Adds a record to a shard. Sequence numbers have gaps, like the service's.
    pub(super) fn put(
        &mut self,
        number: u32,
        partition_key: &str,
        data: Bytes,
        arrival_ms: i64,
    ) -> ServedSequenceNumber {
        self.counter += 1 + self.counter % 7;
        let shard = self.shards.get_mut(&number).unwrap();
        let parts = Parts {
            counter: self.counter,
            at_s: arrival_ms / 1000,
            ..shard.first
        };
        let sequence = parts.number();
        shard.records.push_back(StreamRecord {
            sequence,
            arrival_ms,
            partition_key: partition_key.to_owned(),
            data: data.clone(),
        });
        self.account.push(WrittenRecord {
            shard_id: shard_id(number),
            sequence_number: sequence.to_string(),
            partition_key: partition_key.to_owned(),
            data,
        });
        sequence
    }

    /// A shard that has not expired.
    pub(super) fn shard(&self, id: &str) -> Result<&ServedShard, ServiceError> {
        let missing = || ServiceError::no_shard(id, &self.name);
        let number = shard_number(id).ok_or_else(missing)?;
        self.shards.get(&number).ok_or_else(missing)
    }

    /// Starts to split a shard.
    pub(super) fn split(&mut self, id: &str, at: u128, due_ms: i64) -> Result<(), ServiceError> {
        let shard = self.shard(id)?;
        let (start, end) = shard.hash_keys;
        if at <= start.saturating_add(1) || at >= end {
            return Err(ServiceError::invalid(format!(
                "NewStartingHashKey {at} used in SplitShard() on shard {id} in stream {} under \
                 account {ACCOUNT} is not both greater than one plus the shard's StartingHashKey \
                 {start} and less than the shard's EndingHashKey {end}.",
                self.name
            )));
        }
        let change = Resharding {
            due_ms,
            parents: vec![shard.number],
            children: vec![(start, at - 1), (at, end)],
        };
        self.begin(change)
    }

    /// Starts to merge two shards, the lower first.
    pub(super) fn merge(&mut self, ids: [&str; 2], due_ms: i64) -> Result<(), ServiceError> {
        let (lower, upper) = (self.shard(ids[0])?, self.shard(ids[1])?);
        if lower.hash_keys.1.checked_add(1) != Some(upper.hash_keys.0) {
            return Err(ServiceError::invalid(format!(
                "Shards {} and {} in stream {} under account {ACCOUNT} are not an adjacent pair of \
                 shards eligible for merging",
                ids[0], ids[1], self.name
            )));
        }
        let change = Resharding {
            due_ms,
            parents: vec![lower.number, upper.number],
            children: vec![(lower.hash_keys.0, upper.hash_keys.1)],
        };
        self.begin(change)
    }

    fn begin(&mut self, change: Resharding) -> Result<(), ServiceError> {
        if self.pending.is_some() {
            let text = format!(
                "Stream {} under account {ACCOUNT} not ACTIVE, instead in state UPDATING",
                self.name
            );
            return Err(ServiceError::new("ResourceInUseException", text));
        }
        let closed = |number: &&u32| self.shards[*number].closed.is_some();
        if let Some(number) = change.parents.iter().find(closed) {
            return Err(ServiceError::invalid(format!(
                "Shard {} in stream {} under account {ACCOUNT} has already been merged or split, and \
                 thus is not eligible for merging or splitting.",
                shard_id(*number),
                self.name
            )));
        }
        self.pending = Some(change);
        Ok(())
    }

    /// The remaining children of a shard.
    pub(super) fn children(&self, number: u32) -> impl Iterator<Item = &ServedShard> {
        let child = move |shard: &&ServedShard| shard.parents.contains(&number);
        self.shards.values().filter(child)
    }
}
