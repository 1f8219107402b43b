//! Saved dumps as a source: the same pipeline, never a second one.
//!
//! files → content (gzip, zstd) → shape → pieces → records. The shapes themselves are told by the
//! bridges ([`dump::Dump`]); reading, limits, damage and the order of files are here.

mod boundary;
pub mod dump;
mod input;
mod json_split;
mod reader;

use std::borrow::Cow;
use std::io::{Cursor, Read};
use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine as _;
use bytes::Bytes;
use tokio::sync::mpsc;

use self::dump::{Dump, Shape};
use self::input::Input;
pub use self::input::Progress;
use self::reader::{Found, Stop};
use crate::chain::printable;
use crate::event::json::{Kind, Raw};
use crate::record::{Origin, Record};
use crate::source::{Page, Problem, Source};

/// Records and bytes of a page: enough to make the hand-over cheap, small beside the budget.
const PAGE_RECORDS_MAX: usize = 512;
const PAGE_BYTES_MAX: usize = 256 << 10;
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
    /// Records to leave out at the front: what an earlier run has settled.
    pub skip_records: u64,
}

/// Saved dumps as a [`Source`]. Reading, unpacking and cutting happen in a thread of their own.
#[derive(Debug)]
pub struct Replay {
    pages: mpsc::Receiver<Page>,
    progress: Arc<Progress>,
}

impl Replay {
    /// Starts to read.
    ///
    /// # Errors
    /// When the operating system gives no thread.
    pub fn start(settings: Settings) -> std::io::Result<Replay> {
        let (inputs, problems) = input::expand(&settings.paths);
        let progress = Arc::new(Progress::of(&inputs));
        let (sender, pages) = mpsc::channel(PAGES_AHEAD);
        let mut reading = Reading {
            settings,
            progress: Arc::clone(&progress),
            page: Page {
                problems,
                ..Page::default()
            },
            page_bytes: 0,
            seen: 0,
            sender,
        };
        std::thread::Builder::new()
            .name("replay-reader".to_owned())
            .spawn(move || reading.run(&inputs))?;
        Ok(Replay { pages, progress })
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
    /// Records of all files so far.
    seen: u64,
    sender: mpsc::Sender<Page>,
}

impl Reading {
    fn run(&mut self, inputs: &[Input]) {
        for input in inputs {
            let name = input.name();
            match self.file(input, &name) {
                Ok(0) => tracing::warn!(file = %printable(&name), "the file holds no records"),
                Ok(_) => {}
                Err(Stop::Closed) => return,
                Err(stop) => {
                    let problem = problem_of(&stop, &name, &*self.settings.dump);
                    self.page.problems.extend(problem);
                }
            }
        }
        self.send();
    }

    fn file(&mut self, input: &Input, name: &Arc<str>) -> Result<u64, Stop> {
        let content = input::open(input, &self.progress).map_err(Stop::Io)?;
        let dump = Arc::clone(&self.settings.dump);
        let shape = self.settings.shape;
        let mut record = 0;
        reader::read(content, &dump, shape.as_ref(), |found| {
            record += 1;
            self.push(record_of(&found, name, record))
        })?;
        Ok(record)
    }

    /// Adds a record to the page; `false` when nobody reads on.
    fn push(&mut self, record: Record) -> bool {
        self.seen += 1;
        if self.seen <= self.settings.skip_records {
            return !self.sender.is_closed();
        }
        self.page_bytes += record.payload.len();
        self.page.records.push(record);
        if self.page.records.len() >= PAGE_RECORDS_MAX || self.page_bytes >= PAGE_BYTES_MAX {
            return self.send();
        }
        true
    }

    fn send(&mut self) -> bool {
        self.page_bytes = 0;
        self.sender
            .blocking_send(std::mem::take(&mut self.page))
            .is_ok()
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
