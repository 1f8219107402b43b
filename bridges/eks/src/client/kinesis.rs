//! Kinesis Data Streams as far as a reader needs it: four calls, what they answer, and what their
//! failures mean. [`aws`] makes them with the SDK.

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
    /// `ListShards`: all that the stream still has, closed ones included.
    ///
    /// # Errors
    /// What it means is in the fault.
    fn shards(&self) -> impl Future<Output = Result<Vec<StreamShard>, StreamError>> + Send;

    /// `GetShardIterator`: good for five minutes.
    ///
    /// # Errors
    /// [`StreamErrorKind::BadPosition`] where the shard does not take this place.
    fn iterator(
        &self,
        shard: &str,
        place: &IteratorStart,
    ) -> impl Future<Output = Result<String, StreamError>> + Send;

    /// `GetRecords`: so many records at most, and 10 MiB.
    ///
    /// # Errors
    /// [`StreamErrorKind::IteratorExpired`], [`StreamErrorKind::Throttled`], or what a person has to mend.
    fn records(
        &self,
        iterator: &str,
        limit: u32,
    ) -> impl Future<Output = Result<RecordsAnswer, StreamError>> + Send;

    /// `DescribeStreamSummary`.
    ///
    /// # Errors
    /// What it means is in the fault.
    fn summary(&self) -> impl Future<Output = Result<Summary, StreamError>> + Send;
}

/// A shard, as the stream lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StreamShard {
    /// `shardId-000000000012`.
    pub(crate) id: String,
    /// The shards that were split or merged into this one: none, one or two.
    pub(crate) parents: Vec<String>,
    /// The smallest number that a record of it can have.
    pub(crate) first: Option<SequenceNumber>,
    /// It takes no more records.
    pub(crate) is_closed: bool,
}

/// Where to begin to read a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum IteratorStart {
    /// Behind this record.
    After(SequenceNumber),
    /// With the oldest record that is still there.
    Oldest,
    /// With the first record that arrived at this time or later.
    From(Timestamp),
}

/// One answer of `GetRecords`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RecordsAnswer {
    /// The records, in order.
    pub(crate) records: Vec<Packed>,
    /// Where it goes on; `None` at the end of a closed shard.
    pub(crate) next: Option<String>,
    /// How far the last record is behind the newest of the shard.
    pub(crate) behind: Duration,
}

/// A record of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Packed {
    /// Its number.
    pub(crate) number: SequenceNumber,
    /// When the stream took it in, by the provider's clock.
    pub(crate) arrived: Option<Timestamp>,
    /// What the producer put.
    pub(crate) data: Bytes,
}

/// What a stream says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Summary {
    /// `ACTIVE`, `UPDATING`, `CREATING`, `DELETING`.
    pub(crate) status: String,
    /// How long it keeps records.
    pub(crate) retention: Duration,
    /// Its key, where it is encrypted.
    pub(crate) key: Option<String>,
    /// Shards that take records.
    pub(crate) open_shards: usize,
}

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StreamError {
    /// What to do.
    pub(crate) kind: StreamErrorKind,
    /// What is not ready because of it.
    pub(crate) part: Component,
    /// In the provider's words.
    pub(crate) what: String,
    /// What a person can do.
    pub(crate) remedy: String,
}

/// What a failed call asks of the reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StreamErrorKind {
    /// Wait, and ask less often.
    Throttled,
    /// Ask for another iterator.
    IteratorExpired,
    /// The shard does not take the number: it is trimmed, or of another stream of that name.
    BadPosition,
    /// There is no such stream or shard.
    NotFound,
    /// Wait, and try again.
    Other,
}

impl StreamError {
    /// Its name in the metric of requests.
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
