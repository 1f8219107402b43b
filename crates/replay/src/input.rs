//! The inputs of a replay: finds the files that the paths name, and unpacks their content.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Cursor, Read, Seek as _};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use audit_bridge_core::chain::printable;
use audit_bridge_core::source::Problem;

/// Nested compression occurs (Firehose compresses what CloudWatch compressed), but is not deeper
/// than this.
const LAYERS_MAX: usize = 3;
const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// A zstd frame that readers skip may come first (as in our own dead letter): `50` to `5f`, then
/// this.
const ZSTD_SKIPPED: [u8; 3] = [0x2a, 0x4d, 0x18];
/// The largest zstd window, 8 MiB, as browsers allow: the file decides how much memory its reader
/// needs.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;
/// The part of zstd's error that says that a file needs more.
const ZSTD_WINDOW_TOO_LARGE: &str = "too much memory";

/// One thing to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Input {
    Stdin,
    File(PathBuf),
}

impl Input {
    pub(super) fn name(&self) -> Arc<str> {
        match self {
            Input::Stdin => "-".into(),
            Input::File(path) => path.to_string_lossy().into(),
        }
    }

    pub(super) fn open(&self) -> io::Result<OpenInput> {
        Ok(match self {
            Input::Stdin => OpenInput::Stdin,
            Input::File(path) => OpenInput::File(File::open(path)?),
        })
    }
}

/// The files that the paths name; folders are walked in name order.
pub(super) fn expand(paths: &[PathBuf]) -> (Vec<Input>, Vec<Problem>) {
    let (mut inputs, mut problems) = (Vec::new(), Vec::new());
    for path in paths {
        if path.as_os_str() == "-" {
            inputs.push(Input::Stdin);
        } else if path.is_dir() {
            let before = inputs.len() + problems.len();
            walk(path, &mut inputs, &mut problems);
            if inputs.len() + problems.len() == before {
                let folder = path.to_string_lossy();
                tracing::warn!(folder = %printable(&folder), "folder holds no files");
            }
        } else {
            inputs.push(Input::File(path.clone()));
        }
    }
    (inputs, problems)
}

fn walk(folder: &Path, inputs: &mut Vec<Input>, problems: &mut Vec<Problem>) {
    let entries = std::fs::read_dir(folder).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let mut entries = match entries {
        Ok(entries) => entries,
        Err(error) => {
            problems.push(problem(&folder.to_string_lossy(), &error));
            return;
        }
    };
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => walk(&path, inputs, problems),
            Ok(kind) if kind.is_file() => inputs.push(Input::File(path)),
            // A link may lead anywhere, and a pipe may have no end: they are read only if named.
            Ok(kind) => tracing::warn!(
                path = %printable(&path.to_string_lossy()),
                kind = kind_name(kind),
                "file skipped: not a regular file; name it on the command line to read it"
            ),
            Err(error) => problems.push(problem(&path.to_string_lossy(), &error)),
        }
    }
}

fn kind_name(kind: std::fs::FileType) -> &'static str {
    match kind {
        _ if kind.is_symlink() => "symbolic link",
        _ if kind.is_fifo() => "named pipe",
        _ if kind.is_socket() => "socket",
        _ if kind.is_block_device() || kind.is_char_device() => "device",
        _ => "unknown",
    }
}

pub(super) fn problem(place: &str, error: &io::Error) -> Problem {
    let advice = match error.kind() {
        io::ErrorKind::NotFound => "; check the path",
        io::ErrorKind::PermissionDenied => "; give this user the right to read it",
        io::ErrorKind::UnexpectedEof => "; the file is cut, fetch it again",
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => {
            "; the compressed data is damaged, fetch the file again"
        }
        _ if error.to_string().contains(ZSTD_WINDOW_TOO_LARGE) => {
            "; its zstd window is larger than 8 MiB: unpack it first (zstd -d --long=31 FILE), or \
             pack it without --long and --ultra"
        }
        _ => "",
    };
    Problem {
        place: place.to_owned(),
        error: format!("{error}{advice}"),
    }
}

/// The progress of reading: in bytes on disk for the progress bar, and in records for a later run.
#[derive(Debug, Default)]
pub struct ReplayProgress {
    /// Bytes read so far.
    pub read: AtomicU64,
    /// Bytes of all files; 0 when standard input is among them.
    pub total: AtomicU64,
    /// Inputs that an earlier run has settled to their end.
    pub inputs_left_out: AtomicU64,
    /// Records that an earlier run has settled, in those inputs and in inputs that are resumed
    /// behind them.
    pub records_left_out: AtomicU64,
    /// Records of these inputs went to the dead letter of an earlier run, which has settled them.
    pub rejected_before: AtomicBool,
    /// Inputs that have changed since an earlier run read them.
    pub inputs_changed: AtomicU64,
    /// The partitions of the inputs, in input order.
    order: Vec<u32>,
    /// As in [`ReplaySettings`](super::ReplaySettings).
    skip_records: u64,
    /// The number of records of each partition that was read to its end; `None` if reading it
    /// failed.
    ended: Mutex<HashMap<u32, Option<u64>>>,
}

impl ReplayProgress {
    /// The progress for these inputs and their partitions.
    pub(super) fn of<'a>(
        inputs: impl Iterator<Item = (&'a Input, u32)> + Clone,
        skip_records: u64,
    ) -> ReplayProgress {
        let sizes = inputs.clone().map(|(input, _)| match input {
            Input::Stdin => None,
            Input::File(path) => Some(path.metadata().map_or(0, |meta| meta.len())),
        });
        let total = sizes.sum::<Option<u64>>().unwrap_or(0);
        ReplayProgress {
            total: total.into(),
            order: inputs.map(|(_, partition)| partition).collect(),
            skip_records,
            ..ReplayProgress::default()
        }
    }

    /// An input was read to its end and contained this many `records`.
    pub(super) fn ended(&self, partition: u32, records: u64) {
        self.lock_ended().insert(partition, Some(records));
    }

    /// An input could not be read to its end.
    pub(super) fn failed(&self, partition: u32) {
        self.lock_ended().insert(partition, None);
    }

    /// How many records, over all inputs in their order, a later run may skip, where `settled`
    /// returns how many of each partition are settled without a gap. Counts nothing from an input
    /// that failed on, because that input may then have more records.
    pub fn settled_in_order(&self, settled: impl Fn(u32) -> u64) -> u64 {
        let ended = self.lock_ended();
        let mut before = 0;
        for partition in &self.order {
            let records = match ended.get(partition) {
                Some(None) => break,
                Some(Some(records)) => *records,
                None => u64::MAX,
            };
            let left_out = self.skip_records.saturating_sub(before).min(records);
            let here = left_out + settled(*partition);
            before += here;
            if here < records {
                break;
            }
        }
        before
    }

    fn lock_ended(&self) -> MutexGuard<'_, HashMap<u32, Option<u64>>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An input was settled to its end by an earlier run.
    pub(super) fn leave_out(&self, input: &Input, records: u64) {
        self.inputs_left_out.fetch_add(1, Ordering::Relaxed);
        self.records_left_out.fetch_add(records, Ordering::Relaxed);
        if let Input::File(path) = input {
            let bytes = path.metadata().map_or(0, |meta| meta.len());
            self.read.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// Notes whether an earlier run brought records of an input to the dead letter.
    pub(super) fn rejected_before(&self, rejects: bool) {
        self.rejected_before.fetch_or(rejects, Ordering::Relaxed);
    }

    /// An input is resumed behind this many records.
    pub(super) fn resumed(&self, name: &str, records: u64) {
        if records > 0 {
            self.records_left_out.fetch_add(records, Ordering::Relaxed);
            tracing::info!(
                file = name,
                records,
                "file resumed behind its settled records"
            );
        }
    }

    /// An input has changed since an earlier run read it.
    pub(super) fn changed(&self, name: &str) {
        self.inputs_changed.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(
            file = name,
            "file changed since it was replayed: replaying it from its beginning"
        );
    }
}

struct Counted<R> {
    inner: R,
    progress: Arc<ReplayProgress>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.inner.read(buffer)?;
        self.progress
            .read
            .fetch_add(bytes as u64, Ordering::Relaxed);
        Ok(bytes)
    }
}

/// An open input.
#[derive(Debug)]
pub(super) enum OpenInput {
    Stdin,
    File(File),
}

impl OpenInput {
    /// The content from its beginning: of the same file each time, whatever takes its name
    /// meanwhile. A stream is read once.
    pub(super) fn content(&self, progress: &Arc<ReplayProgress>) -> io::Result<Content> {
        let inner: Content = match self {
            OpenInput::Stdin => Box::new(io::stdin()),
            OpenInput::File(file) => {
                let mut file = file.try_clone()?;
                match file.rewind() {
                    Err(error) if error.kind() != io::ErrorKind::NotSeekable => return Err(error),
                    _ => Box::new(file),
                }
            }
        };
        let progress = Arc::clone(progress);
        unpack(Box::new(Counted { inner, progress }))
    }
}

type Content = Box<dyn Read + Send>;

/// Unpacks compressed content, detected by its first bytes.
fn unpack(mut content: Content) -> io::Result<Content> {
    for _ in 0..LAYERS_MAX {
        let (head, whole) = peek(content)?;
        if head.starts_with(&GZIP) {
            content = Box::new(flate2::bufread::MultiGzDecoder::new(BufReader::new(whole)));
        } else if is_zstd(&head) {
            let mut decoder = zstd::stream::read::Decoder::new(whole)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
            content = Box::new(decoder);
        } else {
            return Ok(whole);
        }
    }
    Ok(content)
}

fn is_zstd(head: &[u8]) -> bool {
    match head {
        [0x50..=0x5f, rest @ ..] => rest.starts_with(&ZSTD_SKIPPED),
        _ => head.starts_with(&ZSTD),
    }
}

/// Returns the first bytes, and the content including them.
fn peek(mut content: Content) -> io::Result<(Vec<u8>, Content)> {
    let mut head = Vec::new();
    content.by_ref().take(4).read_to_end(&mut head)?;
    let whole = Box::new(Cursor::new(head.clone()).chain(content));
    Ok((head, whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was compared is what is skipped.
    #[test]
    fn input_replaced_after_it_was_opened_is_read_to_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dump");
        std::fs::write(&path, "first\n".repeat(5000)).unwrap();
        let opened = Input::File(path.clone()).open().unwrap();
        let another = folder.path().join("another");
        for read in 0..3 {
            let mut content = opened.content(&Arc::default()).unwrap();
            // The first time only a part is read.
            let mut text = String::new();
            let bytes_max = [7, u64::MAX, u64::MAX][read];
            content
                .by_ref()
                .take(bytes_max)
                .read_to_string(&mut text)
                .unwrap();
            assert!(text.starts_with("first") && !text.contains("second"));
            std::fs::write(&another, "second\n").unwrap();
            std::fs::rename(&another, &path).unwrap();
        }
    }
}
