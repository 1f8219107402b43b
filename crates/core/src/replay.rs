//! Saved dumps as a source: the same pipeline, never a second one.
//!
//! files → content (gzip, zstd) → shape → pieces → records. The shapes themselves are told by the
//! bridges ([`dump::Dump`]); reading, limits, damage and the order of files are here. Each input is a
//! partition with a position of its own (`position`).

mod boundary;
pub mod dump;
mod input;
mod json_split;
mod position;
mod reader;
mod shard;

use std::borrow::Cow;
use std::io::{Cursor, Read};
use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine as _;
use bytes::Bytes;
use tokio::sync::mpsc;

use self::dump::{Dump, Shape};
pub use self::input::Progress;
pub use self::position::PositionError;
use self::position::{Compared, Follower, InputPartition};
use self::reader::{Found, Receive, Stop};
pub use self::shard::Shard;
use crate::chain::printable;
use crate::event::json::{Kind, Raw};
use crate::record::{Origin, Record};
use crate::source::{Page, PartitionChange, Problem, Source};
use crate::tail::Positions;

/// Records and bytes of a page: enough to make the hand-over cheap, small beside the budget.
const PAGE_RECORDS_MAX: usize = 512;
const PAGE_BYTES_MAX: usize = 256 << 10;
/// Records of a page where positions are kept: a crash in its middle is to repeat few.
const KEPT_PAGE_RECORDS_MAX: usize = 50;
/// Pages between the reading thread and the pipeline.
const PAGES_AHEAD: usize = 2;
/// How much of a record that is too large is kept for the dead letter.
const TOO_LARGE_KEPT_BYTES: usize = 64 << 10;

/// What to replay.
#[derive(Clone)]
pub struct Settings {
    /// Files, folders, `-` for standard input.
    pub paths: Vec<PathBuf>,
    /// The provider's shapes.
    pub dump: Arc<dyn Dump>,
    /// The shape that the user forces.
    pub shape: Option<Shape>,
    /// Records to leave out at the front, over all inputs in their order, unverified: for a replay
    /// that keeps no positions, as its last line said.
    pub skip_records: u64,
    /// Where an earlier run stopped, if this one keeps positions at all.
    pub resume: Option<Positions>,
    /// Which of the inputs.
    pub shard: Option<Shard>,
}

/// A replay that cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A position of the checkpoint is not ours.
    #[error(transparent)]
    Position(#[from] PositionError),
    /// The operating system gives no thread.
    #[error("the reading thread does not start")]
    Thread(#[source] std::io::Error),
}

/// Saved dumps as a [`Source`]. Reading, unpacking and cutting happen in a thread of their own.
#[derive(Debug)]
pub struct Replay {
    pages: mpsc::Receiver<Page>,
    progress: Arc<Progress>,
    inputs: usize,
}

impl Replay {
    /// Starts to read.
    ///
    /// # Errors
    /// A position is none of a replay's, or there is no thread to read in.
    pub fn start(settings: Settings) -> Result<Replay, StartError> {
        let (mut inputs, problems) = input::expand(&settings.paths);
        if let Some(shard) = settings.shard {
            inputs = shard.select(inputs);
        }
        let progress = Arc::new(Progress::of(&inputs));
        let none = Positions::new();
        let inputs = position::assign(inputs, settings.resume.as_ref().unwrap_or(&none))?;
        let count = inputs.len();
        let (sender, pages) = mpsc::channel(PAGES_AHEAD);
        let announced = inputs.iter();
        let announced = announced.map(|input| PartitionChange::Announced(input.partition));
        let mut reading = Reading {
            page: Page {
                problems,
                partitions: announced.collect(),
                ..Page::default()
            },
            page_records_max: match settings.resume {
                Some(_) => KEPT_PAGE_RECORDS_MAX,
                None => PAGE_RECORDS_MAX,
            },
            settings,
            progress: Arc::clone(&progress),
            page_bytes: 0,
            seen: 0,
            sender,
        };
        std::thread::Builder::new()
            .name("replay-reader".to_owned())
            .spawn(move || reading.run(&inputs))
            .map_err(StartError::Thread)?;
        Ok(Replay {
            pages,
            progress,
            inputs: count,
        })
    }

    /// How many inputs there are.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// How far the reading is.
    pub fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.progress)
    }
}

impl Source for Replay {
    async fn read(&mut self) -> Option<Page> {
        self.pages.recv().await
    }
}

/// The reading thread.
struct Reading {
    settings: Settings,
    progress: Arc<Progress>,
    page: Page,
    page_bytes: usize,
    page_records_max: usize,
    /// Records of all inputs so far.
    seen: u64,
    sender: mpsc::Sender<Page>,
}

impl Reading {
    fn run(&mut self, inputs: &[InputPartition]) {
        if !self.send() {
            return;
        }
        for input in inputs {
            let name = input.input.name();
            match self.input(input, &name) {
                Ok(()) => {}
                Err(Stop::Closed) => return,
                Err(stop) => {
                    let problem = problem_of(&stop, &name, &*self.settings.dump);
                    self.page.problems.extend(problem);
                    if !self.send() {
                        return;
                    }
                }
            }
        }
    }

    /// Reads an input, or what an earlier run has left of it.
    fn input(&mut self, input: &InputPartition, name: &Arc<str>) -> Result<(), Stop> {
        let mut skip = 0;
        if let Some(settled) = &input.settled {
            let content = input::open(&input.input, &Arc::default()).map_err(Stop::Io)?;
            let compared = position::compare(content, settled).map_err(Stop::Io)?;
            match compared {
                Compared::Whole if settled.finished => {
                    self.progress.leave_out(&input.input, settled.records);
                    return Ok(());
                }
                Compared::Whole => skip = settled.records,
                Compared::Longer => skip = settled.records - settled.uncertain.min(settled.records),
                Compared::Changed | Compared::Shorter => {
                    self.progress.changed(name);
                }
            }
            self.progress.resumed(name, skip);
        }
        let content = input::open(&input.input, &self.progress).map_err(Stop::Io)?;
        let dump = Arc::clone(&self.settings.dump);
        let shape = self.settings.shape;
        let mut reader = InputReader {
            reading: self,
            input,
            name,
            skip,
            number: 0,
            follower: None,
        };
        reader.follower = reader
            .reading
            .settings
            .resume
            .is_some()
            .then(Follower::default);
        let read = reader::read_into(content, &dump, shape.as_ref(), &mut reader);
        if read.is_ok() && reader.number == 0 {
            tracing::warn!(file = %printable(name), "the file holds no records");
        }
        match reader.send(read.is_ok()) {
            true => read,
            false => Err(Stop::Closed),
        }
    }

    fn send(&mut self) -> bool {
        self.page_bytes = 0;
        self.sender
            .blocking_send(std::mem::take(&mut self.page))
            .is_ok()
    }
}

/// Makes pages of one input.
struct InputReader<'a> {
    reading: &'a mut Reading,
    input: &'a InputPartition,
    name: &'a Arc<str>,
    /// Records that an earlier run has settled.
    skip: u64,
    /// Records so far.
    number: u64,
    /// Where positions are kept.
    follower: Option<Follower>,
}

impl Receive for InputReader<'_> {
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
        self.reading.seen += 1;
        if self.number <= self.skip || self.reading.seen <= self.reading.settings.skip_records {
            return !self.reading.sender.is_closed();
        }
        let record = record_of(&found, self.name, self.number);
        let reading = &mut *self.reading;
        reading.page_bytes += record.payload.len();
        reading.page.records.push(record);
        if reading.page.records.len() >= reading.page_records_max
            || reading.page_bytes >= PAGE_BYTES_MAX
        {
            return self.send(false);
        }
        true
    }
}

impl InputReader<'_> {
    /// Hands on what is read; `false` when nobody reads on.
    fn send(&mut self, finished: bool) -> bool {
        let page = &mut self.reading.page;
        page.partition = self.input.partition;
        // Never behind what was settled before: the same input may be cut since.
        page.position = self
            .follower
            .as_ref()
            .filter(|follower| finished || follower.records() > self.skip)
            .map(|follower| follower.position(&self.input.key, finished))
            .and_then(|position| serde_json::to_value(position).ok());
        self.reading.send()
    }
}

/// All records of one message or file that is in memory already, and is not compressed. What
/// kept a part of it from being read is among the page's problems.
pub fn read_bytes(dump: &Arc<dyn Dump>, name: &str, content: Vec<u8>) -> Page {
    read_from(dump, name, Cursor::new(content))
}

/// As [`read_bytes`], of content that comes bit by bit. How it comes makes no difference.
pub fn read_from(dump: &Arc<dyn Dump>, name: &str, content: impl Read + Send + 'static) -> Page {
    let mut page = Page::default();
    let file = Arc::from(name);
    let read = reader::read(Box::new(content), dump, None, |found| {
        let record = page.records.len() as u64 + 1;
        page.records.push(record_of(&found, &file, record));
        true
    });
    if let Err(stop) = read {
        page.problems.extend(problem_of(&stop, name, &**dump));
    }
    page
}

fn record_of(found: &Found<'_>, file: &Arc<str>, record: u64) -> Record {
    let (bytes, damaged, oversized) = match found {
        Found::Piece(piece) => (&*piece.bytes, piece.damaged, false),
        Found::TooLarge(head) => (&head[..head.len().min(TOO_LARGE_KEPT_BYTES)], true, true),
    };
    Record {
        payload: Bytes::copy_from_slice(bytes),
        origin: Origin::File {
            file: Arc::clone(file),
            record,
        },
        time: None,
        damaged,
        oversized,
    }
}

/// What the user is told of a file that was not read to its end; nothing when that was wanted.
fn problem_of(stop: &Stop, name: &str, dump: &dyn Dump) -> Option<Problem> {
    match stop {
        Stop::Closed => None,
        Stop::Io(error) => Some(input::problem(name, error)),
        Stop::Shape(seen) => {
            let known: Vec<_> = dump.shapes().iter().map(|shape| shape.about).collect();
            Some(Problem {
                place: name.to_owned(),
                error: format!(
                    "no shape that this bridge knows: {seen}; supported are {}, plain audit \
                     Events, EventLists and our own dead letter, each also gzipped or with zstd",
                    known.join(", ")
                ),
            })
        }
    }
}

/// What a line of our own dead letter kept: the provider's record as it was. `None` when the
/// object is no such line.
fn dead_letter_form(raw: Raw<'_>) -> Option<Cow<'_, [u8]>> {
    let (mut marks, mut kept) = (0, None);
    for (key, value) in raw.members()? {
        match &*key {
            "reason" | "provider" if value.kind() == Kind::String => marks += 1,
            "payload" => {
                kept = Some(match value.as_str() {
                    Some(Cow::Borrowed(text)) => Cow::Borrowed(text.as_bytes()),
                    Some(Cow::Owned(text)) => Cow::Owned(text.into_bytes()),
                    None => Cow::Borrowed(value.text().as_bytes()),
                });
            }
            "payload_base64" => {
                let text = value.as_str()?;
                kept = Some(Cow::Owned(
                    base64::engine::general_purpose::STANDARD
                        .decode(&*text)
                        .ok()?,
                ));
            }
            _ => {}
        }
    }
    kept.filter(|_| marks == 2)
}

#[cfg(test)]
mod tests;
