//! Where records come from: a live log or saved dumps.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::time::Duration;

use jiff::Timestamp;

use crate::convert::EarlyOutcomes;
use crate::record::Record;

/// How far one partition of a source has been read, in the source's own terms: a sequence number,
/// the end of a time window, an offset. It stays the source's type until a checkpoint is written.
pub trait Position: Clone + PartialEq + fmt::Debug + Send + Sync + 'static {
    /// The JSON that the checkpoint keeps. The source reads it again where it is opened.
    fn to_stored(&self) -> StoredPosition;

    /// A record of the partition went to the dead letter. For a position that tells it to a later
    /// run.
    fn note_reject(&mut self) {}
}

/// A count: of a source that has nothing to resume from, or that is read from its beginning.
impl Position for u64 {
    fn to_stored(&self) -> StoredPosition {
        StoredPosition::from(*self)
    }
}

/// A position as the checkpoint keeps it.
pub type StoredPosition = serde_json::Value;

/// The position of each partition, by its index, as the checkpoint keeps it.
pub type StoredPositions = BTreeMap<u32, StoredPosition>;

/// Records of one partition, in its order.
#[derive(Debug)]
pub struct Page<P> {
    /// The partition: a small index. Order and positions are per partition.
    pub partition: u32,
    /// May be empty, when the page only carries a position or a problem.
    pub records: Vec<Record>,
    /// Outcomes that the reading thread decided already; the pipeline converts the other records.
    pub early: EarlyOutcomes,
    /// The partition's position once these records, and all its earlier ones, are settled.
    pub position: Option<P>,
    /// Up to when this page reads the partition. A partition that never reports this does not count
    /// for the lag: a cursor of a tail that trails the edge on purpose.
    pub read_to: Option<ReadTo>,
    /// What could not be read. The source goes on.
    pub problems: Vec<Problem>,
    /// Partitions, this one or others, that come or go as of this page.
    pub partitions: Vec<PartitionChange>,
}

impl<P> Default for Page<P> {
    fn default() -> Page<P> {
        Page {
            partition: 0,
            records: Vec::new(),
            early: EarlyOutcomes::default(),
            position: None,
            read_to: None,
            problems: Vec::new(),
            partitions: Vec::new(),
        }
    }
}

impl<P> Page<P> {
    /// The same page of a source that has another type of positions.
    pub fn map_position<Q>(self, map: impl FnOnce(P) -> Q) -> Page<Q> {
        Page {
            partition: self.partition,
            records: self.records,
            early: self.early,
            position: self.position.map(map),
            read_to: self.read_to,
            problems: self.problems,
            partitions: self.partitions,
        }
    }
}

/// Up to when a partition is read: this page and earlier ones contain everything that its log held
/// before that time. The lag is measured from here, once all of it is settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadTo {
    /// The end of a window, the time at which the provider received a message, or the time of an
    /// answer that there is nothing more.
    pub time: Timestamp,
    /// While the log answers, the source reports a later time within this duration, even when there
    /// is nothing new. A lag no longer than this counts as zero.
    pub again_within: Duration,
}

/// A partition comes or goes.
///
/// A page with records or a position announces its partition too. A source announces explicitly the
/// partitions that may have nothing to read for long, because the position of an unannounced
/// partition is dropped eventually ([`crate::checkpoint::UNANNOUNCED_MAX`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartitionChange {
    /// The source reads the partition and reports up to when ([`Page::read_to`]). Until its first
    /// report nothing counts as read, and the lag grows.
    Announced(u32),
    /// The source never reads the partition again, because another partition covers what it still
    /// owed. Its position is dropped once all its records are settled.
    Retired(u32),
    /// The provider no longer has the partition. Its position stays, but no more records are
    /// expected.
    Left(u32),
}

/// Why a part of the source could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file, stream or partition.
    pub place: String,
    /// What is wrong and what to do.
    pub error: String,
}

pub trait Source: Send {
    type Position: Position;

    /// Reads the next page; `None` once the source has ended.
    ///
    /// Cancel-safe: the pipeline drops the future when something else comes first.
    fn read(&mut self) -> impl Future<Output = Option<Page<Self::Position>>> + Send;

    /// Everything that the partition held up to this position is settled, and the checkpoint is
    /// written.
    fn commit(&mut self, partition: u32, position: &Self::Position) {
        let _ = (partition, position);
    }

    /// Whether the pipeline reports each settled record ([`Source::settled`]).
    const HEARS_OF_EACH: bool = false;

    /// Record `number` of the partition is settled, whether or not earlier ones are. Numbers count
    /// all records that the source read from the partition, from 0. For a provider that expects an
    /// acknowledgment of each message and sends no more while too many are unacknowledged: one
    /// record that stays open for long must not hold up the others.
    fn settled(&mut self, partition: u32, number: u64) {
        let _ = (partition, number);
    }

    /// The last call, after the last commit: sends the provider what it still has to know. The
    /// implementation must limit its own time.
    fn close(&mut self) -> impl Future<Output = ()> + Send {
        async {}
    }
}
