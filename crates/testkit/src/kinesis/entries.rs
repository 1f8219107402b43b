//! The entries of the account.

use bytes::Bytes;

/// A record that was written, whether it is still there or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenRecord {
    /// The shard that took it.
    pub shard_id: String,
    /// Its sequence number.
    pub sequence_number: String,
    /// The key that chose the shard.
    pub partition_key: String,
    /// What it holds.
    pub data: Bytes,
}

/// A `GetRecords` that was answered, with records or without.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadCall {
    /// The shard that was read.
    pub shard_id: String,
    /// When, by the clock of the service, in milliseconds.
    pub at_ms: i64,
    /// How many records the answer had.
    pub records: usize,
    /// It was the end of the shard.
    pub end: bool,
}

/// Records of a child shard were handed out before the end of a parent was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderBreach {
    /// The shard that was read too early.
    pub child: String,
    /// The shard that comes before it.
    pub parent: String,
    /// Records of the parent that nobody had been handed then.
    pub unserved: usize,
}
