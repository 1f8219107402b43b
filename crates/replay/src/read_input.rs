//! Reads inputs one after the other in a thread and makes pages of them. Several such threads share
//! the inputs.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use audit_bridge_core::chain::{panic_text, printable};
use audit_bridge_core::convert::{Convert, Output, RecordId};
use audit_bridge_core::record::Record;
use audit_bridge_core::source::{Page, Problem};
use tokio::sync::mpsc;

use super::position::{self, InputComparison, InputFollower, InputPartition, InputPosition};
use super::queue::{Queue, SkipCount};
use super::reader::{self, Found, Receive, Unreadable};
use super::{ReplayProgress, ReplaySettings, problem_of, record_of};

/// The limits of a page: large enough to make handing it over cheap, small compared with the
/// budget.
const PAGE_RECORDS_MAX: usize = 512;
const PAGE_BYTES_MAX: usize = 256 << 10;
/// The most records of a page if positions are kept, so that a crash repeats few.
const KEPT_PAGE_RECORDS_MAX: usize = 50;

/// One reading thread.
pub(super) struct InputReader {
    pub(super) queue: Arc<Queue>,
    pub(super) settings: ReplaySettings,
    pub(super) progress: Arc<ReplayProgress>,
    pub(super) sender: mpsc::Sender<Page<InputPosition>>,
}

/// A converter for the reading thread.
pub(super) type Fork = Option<Box<dyn Convert>>;

impl InputReader {
    pub(super) fn run(&self, mut fork: Fork) {
        while let Some((input, skip)) = self.queue.next() {
            let name = input.input.name();
            // A panic over one input must not end the other inputs, nor look like the input's end.
            let read = catch_unwind(AssertUnwindSafe(|| {
                self.input(&input, &name, skip, &mut fork)
            }));
            let problem = match read {
                Ok(Ok(())) => None,
                Ok(Err(Unreadable::Closed)) => return,
                Ok(Err(stop)) => problem_of(&stop, &name, &*self.settings.dump),
                Err(panic) => Some(Problem {
                    place: name.to_string(),
                    error: format!(
                        "the rest of it is not read, since the reader failed; please report this, \
                         with the file: {}",
                        panic_text(&*panic)
                    ),
                }),
            };
            let Some(problem) = problem else { continue };
            self.progress.failed(input.partition);
            let page = Page {
                partition: input.partition,
                problems: vec![problem],
                ..Page::default()
            };
            if self.sender.blocking_send(page).is_err() {
                return;
            }
        }
    }

    /// Reads an input, or the rest that an earlier run has not settled.
    fn input(
        &self,
        input: &InputPartition,
        name: &Arc<str>,
        ahead: SkipCount<'_>,
        fork: &mut Fork,
    ) -> Result<(), Unreadable> {
        let opened = input.input.open().map_err(Unreadable::Io)?;
        let (mut skip, mut rejects) = (0, false);
        if let Some(settled) = &input.settled {
            let content = opened.content(&Arc::default()).map_err(Unreadable::Io)?;
            let compared = position::compare(content, settled).map_err(Unreadable::Io)?;
            rejects = settled.rejects && compared.goes_on();
            self.progress.rejected_before(rejects);
            match compared {
                InputComparison::Whole if settled.finished => {
                    self.progress.leave_out(&input.input, settled.records);
                    return Ok(());
                }
                InputComparison::Whole => skip = settled.records,
                InputComparison::Longer => {
                    skip = settled.records - settled.uncertain.min(settled.records);
                }
                InputComparison::Changed | InputComparison::Shorter => {
                    self.progress.changed(name);
                }
            }
            self.progress.resumed(name, skip);
        }
        let content = opened.content(&self.progress).map_err(Unreadable::Io)?;
        let keeps_positions = self.settings.resume.is_some();
        let mut pages = InputPages {
            reader: self,
            input,
            name,
            fork,
            out: Output::default(),
            page: Page::default(),
            page_bytes: 0,
            page_records_max: match keeps_positions {
                true => KEPT_PAGE_RECORDS_MAX,
                false => PAGE_RECORDS_MAX,
            },
            skip,
            ahead,
            number: 0,
            follower: keeps_positions.then(|| InputFollower::new(rejects)),
        };
        let (dump, shape) = (&self.settings.dump, self.settings.shape.as_ref());
        let read = reader::read_into(content, dump, shape, &mut pages);
        if read.is_ok() && pages.number == 0 {
            tracing::warn!(file = %printable(name), "file holds no records");
        }
        if matches!(read, Err(Unreadable::Closed)) || !pages.send(read.is_ok()) {
            return Err(Unreadable::Closed);
        }
        if read.is_ok() {
            self.progress.ended(input.partition, pages.number);
        }
        read
    }
}

/// Makes pages of one input.
struct InputPages<'a> {
    reader: &'a InputReader,
    input: &'a InputPartition,
    name: &'a Arc<str>,
    fork: &'a mut Fork,
    out: Output,
    page: Page<InputPosition>,
    page_bytes: usize,
    page_records_max: usize,
    /// How many records an earlier run has settled.
    skip: u64,
    /// The records that the user wants to skip.
    ahead: SkipCount<'a>,
    /// The number of records so far.
    number: u64,
    /// Set if positions are kept.
    follower: Option<InputFollower>,
}

impl Receive for InputPages<'_> {
    fn passed(&mut self, bytes: &[u8]) {
        if let Some(follower) = &mut self.follower {
            follower.passed(bytes);
        }
    }

    fn found(&mut self, found: Found<'_>, ended: bool) -> bool {
        self.number += 1;
        if let Some(follower) = &mut self.follower {
            let (damaged, whole) = match &found {
                Found::Piece(piece) => (piece.damaged, piece.is_whole()),
                Found::TooLarge(_) => (true, false),
            };
            follower.record(damaged, whole, ended);
        }
        if self.ahead.takes_one() || self.number <= self.skip {
            return !self.reader.sender.is_closed();
        }
        let record = record_of(&found, self.name, self.number);
        self.page_bytes += record.payload.len();
        self.convert(&record);
        self.page.records.push(record);
        if self.page.records.len() >= self.page_records_max || self.page_bytes >= PAGE_BYTES_MAX {
            return self.send(false);
        }
        true
    }
}

impl InputPages<'_> {
    /// Converts the next record of the page, if this thread can. If the fork panics, the pipeline
    /// converts the record again and rejects it.
    fn convert(&mut self, record: &Record) {
        let Some(fork) = &mut self.fork else { return };
        let id = RecordId(self.page.records.len() as u64);
        let out = &mut self.out;
        match catch_unwind(AssertUnwindSafe(|| fork.convert(id, record, out))) {
            Ok(()) => self.page.early.take(&mut self.out),
            Err(_) => drop(self.out.drain()),
        }
    }

    /// Sends the page; returns `false` when the receiver is gone.
    fn send(&mut self, finished: bool) -> bool {
        let mut page = std::mem::take(&mut self.page);
        self.page_bytes = 0;
        page.partition = self.input.partition;
        // Never send a position before the settled one: the input may have been cut since.
        page.position = self
            .follower
            .as_ref()
            .filter(|follower| finished || follower.records() > self.skip)
            .map(|follower| follower.position(&self.input.key, finished));
        self.reader.sender.blocking_send(page).is_ok()
    }
}
