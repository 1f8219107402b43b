//! Saved dumps as a source, for the same pipeline as live logs.
//!
//! files → content (gzip, zstd) → shape → pieces → records. The bridges define the shapes
//! ([`dump::Dump`]); reading, limits, damage and the order of files are handled here. Each input is
//! a partition with its own position (`position`). Several inputs are read concurrently, each by
//! one thread (`read_input`), which takes the next one when it is done (`queue`).

mod boundary;
pub mod dump;
mod input;
mod json_split;
mod position;
mod queue;
mod read_input;
mod reader;
mod shard;

use std::borrow::Cow;
use std::io::{Cursor, Read};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use audit_bridge_core::convert::Convert;
use audit_bridge_core::event::json::{Raw, ValueKind};
use audit_bridge_core::record::{Origin, Record};
use audit_bridge_core::source::{Page, PartitionChange, Problem, Source, StoredPositions};
use base64::Engine as _;
use bytes::Bytes;
use tokio::sync::mpsc;

use self::dump::{Dump, Shape};
use self::input::Input;
pub use self::input::ReplayProgress;
pub use self::position::{InputPosition, PositionError};
use self::queue::Queue;
use self::read_input::InputReader;
use self::reader::{Found, Unreadable};
pub use self::shard::{DividedFiles, Shard};

/// Pages between a reading thread and the pipeline.
const PAGES_AHEAD: usize = 2;
/// How much of a record that is too large is kept for the dead letter.
const TOO_LARGE_KEPT_BYTES: usize = 64 << 10;

#[derive(Clone)]
pub struct ReplaySettings {
    /// Files, folders, `-` for standard input.
    pub paths: Vec<PathBuf>,
    /// The provider's shapes.
    pub dump: Arc<dyn Dump>,
    /// The shape that the user forces, if any.
    pub shape: Option<Shape>,
    /// Skips this many records at the front, over all inputs in their order, without verification:
    /// for a replay that keeps no positions, as the last line of an earlier one says.
    pub skip_records: u64,
    /// Where an earlier run stopped; `None` if this replay keeps no positions.
    pub resume: Option<StoredPositions>,
    /// Which part of the inputs to read.
    pub shard: Option<Shard>,
    /// How many inputs are read at a time, each in its own order.
    pub parallel: NonZeroUsize,
}

/// Why a replay cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A position in the checkpoint is not a replay's.
    #[error(transparent)]
    Position(#[from] PositionError),
    /// The operating system did not start a thread.
    #[error("the reading thread does not start")]
    Thread(#[source] std::io::Error),
}

/// Saved dumps as a [`Source`]. Reading, unpacking and cutting happen in separate threads.
#[derive(Debug)]
pub struct Replay {
    pages: mpsc::Receiver<Page<InputPosition>>,
    progress: Arc<ReplayProgress>,
    inputs: usize,
    divided: Option<DividedFiles>,
}

impl Replay {
    /// Starts reading. If several inputs are read at a time, their threads convert records with
    /// `forks` of the converter, as far as they can.
    ///
    /// # Errors
    /// A position is not a replay's, or a reading thread does not start.
    pub fn start(
        settings: &ReplaySettings,
        forks: impl Fn() -> Option<Box<dyn Convert>>,
    ) -> Result<Replay, StartError> {
        let (mut inputs, problems) = input::expand(&settings.paths);
        let none = StoredPositions::new();
        let known = position::read(settings.resume.as_ref().unwrap_or(&none))?;
        let mut divided = None;
        if let Some(shard) = settings.shard {
            let begun = |input: &Input| {
                let settled = known.get(&*input.name());
                settled.is_some_and(|(_, settled)| !settled.finished)
            };
            let selected = shard.select(inputs, begun);
            inputs = selected.0;
            divided = Some(selected.1);
        }
        let inputs = position::assign(inputs, known);
        let count = inputs.len();
        let places = inputs.iter().map(|it| (&it.input, it.partition));
        let progress = Arc::new(ReplayProgress::of(places, settings.skip_records));
        let announced = inputs.iter();
        let announced = announced.map(|input| PartitionChange::Announced(input.partition));
        let first = Page {
            problems,
            partitions: announced.collect(),
            ..Page::default()
        };
        let readers = settings.parallel.get().min(count);
        // One more for the first page, which is sent before anything is received.
        let (sender, pages) = mpsc::channel(PAGES_AHEAD * readers + 1);
        let _ = sender.try_send(first);
        let queue = Arc::new(Queue::new(inputs, settings.skip_records));
        for _ in 0..readers {
            let reader = InputReader {
                queue: Arc::clone(&queue),
                settings: settings.clone(),
                progress: Arc::clone(&progress),
                sender: sender.clone(),
            };
            // A single reader needs no fork: the pipeline converts on another core.
            let fork = (readers > 1).then(&forks).flatten();
            std::thread::Builder::new()
                .name("replay-reader".to_owned())
                .spawn(move || reader.run(fork))
                .map_err(StartError::Thread)?;
        }
        Ok(Replay {
            pages,
            progress,
            inputs: count,
            divided,
        })
    }

    /// The number of inputs.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// What was divided, if only a part is read.
    pub fn divided(&self) -> Option<&DividedFiles> {
        self.divided.as_ref()
    }

    /// The progress of reading.
    pub fn progress(&self) -> Arc<ReplayProgress> {
        Arc::clone(&self.progress)
    }
}

impl Source for Replay {
    type Position = InputPosition;

    async fn read(&mut self) -> Option<Page<InputPosition>> {
        self.pages.recv().await
    }
}

/// What one message or file holds.
#[derive(Debug, Default)]
pub struct DumpContent {
    pub records: Vec<Record>,
    /// Why a part of it could not be read.
    pub problem: Option<Problem>,
}

/// Reads one message or file in memory that is not compressed.
pub fn read_bytes(dump: &Arc<dyn Dump>, name: &str, content: Vec<u8>) -> DumpContent {
    read_from(dump, name, Cursor::new(content))
}

/// As [`read_bytes`], for content that is read in parts. The sizes of the parts make no difference.
pub fn read_from(
    dump: &Arc<dyn Dump>,
    name: &str,
    content: impl Read + Send + 'static,
) -> DumpContent {
    let mut records = Vec::new();
    let file = Arc::from(name);
    let read = reader::read(Box::new(content), dump, None, |found| {
        let record = records.len() as u64 + 1;
        records.push(record_of(&found, &file, record));
        true
    });
    let problem = read.err().and_then(|stop| problem_of(&stop, name, &**dump));
    DumpContent { records, problem }
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

/// The message for a file that was not read to its end; `None` if that was intended.
fn problem_of(stop: &Unreadable, name: &str, dump: &dyn Dump) -> Option<Problem> {
    match stop {
        Unreadable::Closed => None,
        Unreadable::Io(error) => Some(input::problem(name, error)),
        Unreadable::Cut(place) => Some(Problem {
            place: name.to_owned(),
            error: format!(
                "ends {place}, so it was cut: what came before is read; get it anew for the rest"
            ),
        }),
        Unreadable::Shape(seen) => {
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

/// The provider's record in a line of our own dead letter. `None` when the object is no such line.
fn dead_letter_form(raw: Raw<'_>) -> Option<Cow<'_, [u8]>> {
    let (mut marks, mut kept) = (0, None);
    for (key, value) in raw.members()? {
        match &*key {
            "reason" | "provider" if value.kind() == ValueKind::String => marks += 1,
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
