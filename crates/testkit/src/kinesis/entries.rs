//! Entries of the account of written and served records.

use bytes::Bytes;

/// A record that was written, even if it was removed since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenRecord {
    /// The shard that took it.
    pub shard_id: String,
    pub sequence_number: String,
    /// The key that chose the shard.
    pub partition_key: String,
    pub data: Bytes,
}

/// A `GetRecords` call with a complete answer, with or without records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadCall {
    /// The shard that was read.
    pub shard_id: String,
    /// The service's time of the call in milliseconds.
    pub at_ms: i64,
    /// Number of records in the answer.
    pub records: usize,
    /// Whether the answer was the shard's end.
    pub end: bool,
}

/// Records of a child shard were served before its parent's end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderBreach {
    /// The shard that was read too early.
    pub child: String,
    /// The shard that should have been read first.
    pub parent: String,
    /// Number of the parent's records that were not served by then.
    pub unserved: usize,
}
