//! The part of the Kinesis Data Streams API that a reader needs: four calls, their answers and
//! their errors. [`aws`] implements them with the SDK.

mod aws;
mod sequence_number;

use std::fmt;
use std::future::Future;
use std::time::Duration;

use audit_bridge_core::readiness::{Component, Unavailable};
use bytes::Bytes;
use jiff::Timestamp;

pub(crate) use self::aws::KinesisStream;
pub(crate) use self::sequence_number::SequenceNumber;

/// The calls that a reader makes on one stream.
pub(crate) trait StreamApi: Send + Sync + 'static {
    /// `ListShards`: all shards that the stream still has, closed ones included.
    ///
    /// # Errors
    /// [`StreamError::kind`] says how the caller should react.
    fn shards(&self) -> impl Future<Output = Result<Vec<StreamShard>, StreamError>> + Send;

    /// `GetShardIterator`. An iterator is valid for five minutes.
    ///
    /// # Errors
    /// [`StreamErrorKind::BadPosition`] if the shard does not accept `place`.
    fn iterator(
        &self,
        shard: &str,
        place: &IteratorStart,
    ) -> impl Future<Output = Result<String, StreamError>> + Send;

    /// `GetRecords`: at most `limit` records and 10 MiB.
    ///
    /// # Errors
    /// [`StreamErrorKind::IteratorExpired`], [`StreamErrorKind::Throttled`], or an error that a
    /// person has to fix.
    fn records(
        &self,
        iterator: &str,
        limit: u32,
    ) -> impl Future<Output = Result<RecordsAnswer, StreamError>> + Send;

    /// `DescribeStreamSummary`.
    ///
    /// # Errors
    /// [`StreamError::kind`] says how the caller should react.
    fn summary(&self) -> impl Future<Output = Result<Summary, StreamError>> + Send;
}

/// A shard, as the stream lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StreamShard {
    /// `shardId-000000000012`.
    pub(crate) id: String,
    /// The shards that this one was split or merged from: none, one or two.
    pub(crate) parents: Vec<String>,
    /// The smallest sequence number that its records can have.
    pub(crate) first: Option<SequenceNumber>,
    /// Whether it takes no more records.
    pub(crate) is_closed: bool,
}

/// Where to start reading a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum IteratorStart {
    /// Behind this record.
    After(SequenceNumber),
    /// At the oldest record that the stream still has.
    Oldest,
    /// At the first record that arrived at this time or later.
    From(Timestamp),
}

/// One answer of `GetRecords`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RecordsAnswer {
    pub(crate) records: Vec<Packed>,
    /// The next iterator; `None` at the end of a closed shard.
    pub(crate) next: Option<String>,
    /// How far the answer is behind the tip of the shard (`MillisBehindLatest`).
    pub(crate) behind: Duration,
}

/// A record of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Packed {
    pub(crate) number: SequenceNumber,
    /// When the stream received it, by the provider's clock.
    pub(crate) arrived: Option<Timestamp>,
    /// The producer's bytes.
    pub(crate) data: Bytes,
}

/// The answer of `DescribeStreamSummary`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Summary {
    /// `ACTIVE`, `UPDATING`, `CREATING`, `DELETING`.
    pub(crate) status: String,
    /// How long the stream keeps records.
    pub(crate) retention: Duration,
    /// The KMS key, if the stream is encrypted.
    pub(crate) key: Option<String>,
    /// The number of shards that take records.
    pub(crate) open_shards: usize,
}

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StreamError {
    pub(crate) kind: StreamErrorKind,
    /// The component that is not ready because of it.
    pub(crate) part: Component,
    /// The provider's error text.
    pub(crate) what: String,
    pub(crate) remedy: String,
}

/// How the reader should react to a failed call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StreamErrorKind {
    /// Wait, and send fewer requests.
    Throttled,
    /// Request a new iterator.
    IteratorExpired,
    /// The shard rejects the sequence number: it was trimmed, or belongs to another stream of that
    /// name.
    BadPosition,
    /// There is no such stream or shard.
    NotFound,
    /// Wait, and try again.
    Other,
}

impl StreamError {
    /// The value of the `status` label in the metric of requests.
    pub(crate) fn status(&self) -> &'static str {
        match self.kind {
            StreamErrorKind::Throttled => "throttled",
            StreamErrorKind::IteratorExpired => "expired",
            StreamErrorKind::BadPosition | StreamErrorKind::NotFound => "refused",
            StreamErrorKind::Other => "error",
        }
    }
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.what, self.remedy)
    }
}

impl From<StreamError> for Unavailable {
    fn from(fault: StreamError) -> Unavailable {
        Unavailable {
            component: fault.part,
            reason: fault.what,
            remedy: fault.remedy,
        }
    }
}
