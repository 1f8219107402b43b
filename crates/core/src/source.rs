//! Where records come from: a live log or saved dumps.

use std::future::Future;

use crate::record::Record;

/// Some records in the order of their source.
#[derive(Debug, Default)]
pub struct Page {
    /// The records.
    pub records: Vec<Record>,
    /// What went wrong beside them: the source goes on, but not all of it was read.
    pub problems: Vec<Problem>,
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
}
