//! Where records come from: a live log or saved dumps.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use jiff::Timestamp;

use crate::convert::EarlyOutcomes;
use crate::record::Record;

/// How far one partition of a source has been read, in the source's own terms (a sequence number,
/// the end of a time window): what the checkpoint keeps and the source resumes from.
pub type Position = serde_json::Value;

/// The positions of a source, by partition.
pub type Positions = BTreeMap<u32, Position>;

/// Some records in the order of their partition.
#[derive(Debug, Default)]
pub struct Page {
    /// Which of the source's partitions: a small index. Order and positions are per partition.
    pub partition: u32,
    /// The records; none is fine (a position alone, or a problem).
    pub records: Vec<Record>,
    /// What was decided about them where they were read; the pipeline converts the others.
    pub early: EarlyOutcomes,
    /// Where the partition stands once these records, and all that it gave before, are settled.
    pub position: Option<Position>,
    /// Up to when the partition is read with this page. A partition of which this is never said
    /// counts for no lag: a cursor of a tail that trails the edge on purpose.
    pub read_to: Option<ReadTo>,
    /// What went wrong beside them: the source goes on, but not all of it was read.
    pub problems: Vec<Problem>,
    /// Partitions that come and go, this one or others, as of this page.
    pub partitions: Vec<PartitionChange>,
}

/// Up to when a partition is read: what its log held before that was given, with this page or an
/// earlier one. The lag is measured from here, once all of it is settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadTo {
    /// The end of a window, the time at which the provider took a message in, or the time of an
    /// answer that there is nothing more.
    pub time: Timestamp,
    /// As long as the log answers, the source says a later time within so long, also where there is
    /// nothing more. A lag that is no longer than this is none.
    pub again_within: Duration,
}

/// A partition comes or goes.
///
/// Records or a position of a partition announce it too. A source announces by itself those that
/// may have nothing to give for long: a position that nobody announces is dropped in the end
/// ([`crate::checkpoint::UNANNOUNCED_MAX`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartitionChange {
    /// The source reads it, and says up to when ([`Page::read_to`]): until it has, nothing of it is
    /// read, and the lag grows.
    Announced(u32),
    /// The source never reads it again, since another partition answers for what it owed: once all
    /// that it gave is settled, its position is dropped.
    Retired(u32),
    /// The provider has it no more. Its position stays, but nothing is to be expected of it.
    Left(u32),
}

/// Something that kept a part of the source from being read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file, stream or partition.
    pub place: String,
    /// What is wrong and what to do.
    pub error: String,
}

/// A source of records.
pub trait Source: Send {
    /// The next records; `None` once there will be no more.
    ///
    /// Dropping the future loses nothing: the pipeline waits for several things at once.
    fn read(&mut self) -> impl Future<Output = Option<Page>> + Send;

    /// All that a partition gave up to this position is settled and the checkpoint says so.
    fn commit(&mut self, partition: u32, position: &Position) {
        let _ = (partition, position);
    }

    /// Whether it wants to hear of each record by itself ([`Source::settled`]).
    const HEARS_OF_EACH: bool = false;

    /// A record is settled, whatever becomes of those before it: the one of this number among all
    /// that the source gave of the partition, from 0. For a provider that takes an acknowledgment of
    /// each, and gives nothing more while too many are without one: a record that stays open for
    /// long must not hold up all others.
    fn settled(&mut self, partition: u32, number: u64) {
        let _ = (partition, number);
    }

    /// The last call, after the last commit: brings to the provider what it has to know. Whoever
    /// implements it bounds its time.
    fn close(&mut self) -> impl Future<Output = ()> + Send {
        async {}
    }
}
