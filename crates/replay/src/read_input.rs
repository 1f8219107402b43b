//! Reads inputs one after the other in a thread, and makes pages of them. Several such threads share
//! the inputs.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use audit_bridge_core::chain::{panic_text, printable};
use audit_bridge_core::convert::{Convert, Output, RecordId};
use audit_bridge_core::record::Record;
use audit_bridge_core::source::{Page, Problem};
use tokio::sync::mpsc;

use super::position::{self, InputComparison, InputFollower, InputPartition};
use super::queue::{Queue, SkipCount};
use super::reader::{self, Found, Receive, Unreadable};
use super::{ReplayProgress, ReplaySettings, input, problem_of, record_of};

/// Records and bytes of a page: enough to make the hand-over cheap, small beside the budget.
const PAGE_RECORDS_MAX: usize = 512;
const PAGE_BYTES_MAX: usize = 256 << 10;
/// Records of a page where positions are kept: a crash in its middle is to repeat few.
const KEPT_PAGE_RECORDS_MAX: usize = 50;

/// One reading thread.
pub(super) struct InputReader {
    pub(super) queue: Arc<Queue>,
    pub(super) settings: ReplaySettings,
    pub(super) progress: Arc<ReplayProgress>,
    pub(super) sender: mpsc::Sender<Page>,
}

/// Converts records where they are read.
pub(super) type Fork = Option<Box<dyn Convert>>;

impl InputReader {
    pub(super) fn run(&self, mut fork: Fork) {
        while let Some((input, skip)) = self.queue.next() {
            let name = input.input.name();
            // A defect that one input shows must not end the others, nor pass for the end of it.
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

    /// Reads an input, or what an earlier run has left of it.
    fn input(
        &self,
        input: &InputPartition,
        name: &Arc<str>,
        ahead: SkipCount<'_>,
        fork: &mut Fork,
    ) -> Result<(), Unreadable> {
        let mut skip = 0;
        if let Some(settled) = &input.settled {
            let content = input::open(&input.input, &Arc::default()).map_err(Unreadable::Io)?;
            let compared = position::compare(content, settled).map_err(Unreadable::Io)?;
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
        let content = input::open(&input.input, &self.progress).map_err(Unreadable::Io)?;
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
            follower: keeps_positions.then(InputFollower::default),
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
    page: Page,
    page_bytes: usize,
    page_records_max: usize,
    /// Records that an earlier run has settled.
    skip: u64,
    /// Records that the user leaves out.
    ahead: SkipCount<'a>,
    /// Records so far.
    number: u64,
    /// Where positions are kept.
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
    /// Decides about the next record of the page, where that can be done here. One at which the
    /// conversion fails is left to the pipeline, which keeps it.
    fn convert(&mut self, record: &Record) {
        let Some(fork) = &mut self.fork else { return };
        let id = RecordId(self.page.records.len() as u64);
        let out = &mut self.out;
        match catch_unwind(AssertUnwindSafe(|| fork.convert(id, record, out))) {
            Ok(()) => self.page.early.take(&mut self.out),
            Err(_) => drop(self.out.drain()),
        }
    }

    /// Hands on what is read; `false` when nobody reads on.
    fn send(&mut self, finished: bool) -> bool {
        let mut page = std::mem::take(&mut self.page);
        self.page_bytes = 0;
        page.partition = self.input.partition;
        // Never behind what was settled before: the same input may be cut since.
        page.position = self
            .follower
            .as_ref()
            .filter(|follower| finished || follower.records() > self.skip)
            .map(|follower| follower.position(&self.input.key, finished))
            .and_then(|position| serde_json::to_value(position).ok());
        self.reader.sender.blocking_send(page).is_ok()
    }
}
