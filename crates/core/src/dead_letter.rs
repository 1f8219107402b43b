//! The durable, bounded store for records that cannot be delivered: JSON Lines, one object per
//! record, which `replay` reads again.
//!
//! A record is settled only after [`DeadLetter::sync`] has returned. A failed write leaves no
//! partial line and can be retried. Lines stay in memory until they are synced: after a failed
//! write or sync they are written again, to a new file, because the kernel may have dropped what it
//! could not write and still report the next sync as successful.
//!
//! When the current file reaches its maximum size it is compressed (`files`) and a new one begins.
//! When space runs short, the bytes that each holder uses (`usage`) decide how much of a record is
//! kept: the whole payload, its beginning, or only the line about it.

mod files;
mod limits;
mod line;
mod stats;
mod usage;

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

pub use self::files::{BeforeFileStep, FileStep, refuse_pipe_without_reader};
use self::files::{DeadLetterFiles, Faults, Segment, account_of_plain};
pub use self::limits::{DeadLetterLimits, WhenFull};
use self::line::LineMetadata;
pub use self::stats::DeadLetterStats;
use self::usage::{BytesByHolder, Keep, Usage};
use crate::convert::Reject;
use crate::event::time;
use crate::json_lines::ends_torn;
use crate::record::Origin;

/// Lines are written once this many bytes are buffered, so that a burst costs one write rather than
/// thousands.
const BUFFER_BYTES_MAX: usize = 256 << 10;

/// Lines are synced once this many bytes are buffered, since unsynced lines may have to be written
/// again.
const UNSYNCED_BYTES_MAX: u64 = 4 << 20;

/// No provider's records are this large; of a larger one only the beginning is kept.
const PAYLOAD_BYTES_MAX: usize = 4 << 20;

/// The current file is compressed at this size, or at an eighth of the limit if that is smaller.
const SEGMENT_BYTES_MAX: u64 = 16 << 20;

/// How often the folder is checked for removed files.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// The dead letter cannot keep a record, so the position must not pass it.
#[derive(Debug, thiserror::Error)]
#[error("--dead-letter: {} {problem}", path.display())]
pub struct DeadLetterError {
    path: PathBuf,
    problem: &'static str,
    #[source]
    source: io::Error,
}

/// An open dead letter. Its calls block while they write or compress a file; in async code use
/// [`DeadLetter::run_blocking`]. Clones write to the same file: several logs of a process share it.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    path: PathBuf,
    lines: Arc<Mutex<Lines>>,
    /// Held while a call blocks, so that logs that wait for this file occupy only one thread.
    turn: Arc<Semaphore>,
}

/// The files, and the lines that are not safe in them yet.
#[derive(Debug)]
struct Lines {
    files: DeadLetterFiles,
    file: File,
    /// Whether the file is a regular one: pipes and devices only accept writes.
    regular: bool,
    provider: String,
    limits: DeadLetterLimits,
    /// Whole lines that may not be safe yet; the first of them may be in the file.
    buffer: Vec<u8>,
    /// Bytes of the buffer that are in the file.
    in_file: usize,
    /// Length of the file's synced part.
    safe: u64,
    /// A write or a sync failed: the next write goes to a new file.
    suspect: bool,
    /// Bytes of the file and the buffer, by holder.
    held: BytesByHolder,
    segments: BTreeMap<u64, Segment>,
    usage: Usage,
    looked: Option<Instant>,
    faults: Faults,
}

impl DeadLetter {
    /// Opens the file for appending with default limits. Creates it if needed, readable only by its
    /// owner; its folder must exist.
    ///
    /// # Errors
    /// As [`DeadLetter::open_within`].
    pub fn open(path: &Path, provider: &str) -> Result<DeadLetter, DeadLetterError> {
        DeadLetter::open_within(path, provider, DeadLetterLimits::default())
    }

    /// The same with these limits. If a crash left a partial line at the end, that line is
    /// terminated, so that it does not damage the next one.
    ///
    /// # Errors
    /// The file cannot be opened or written, is a link, or is in use by another process.
    pub fn open_within(
        path: &Path,
        provider: &str,
        limits: DeadLetterLimits,
    ) -> Result<DeadLetter, DeadLetterError> {
        let lines = Lines::open(path, provider, limits).map_err(|source| error(path, source))?;
        Ok(DeadLetter {
            path: path.to_owned(),
            lines: Arc::new(Mutex::new(lines)),
            turn: Arc::new(Semaphore::new(1)),
        })
    }

    /// Runs `work` on a blocking thread, for one clone at a time. On a single-threaded runtime it
    /// runs in place: simulations use one, and the same seed must give the same trace.
    ///
    /// # Errors
    /// The error of `work`, or that it panicked.
    pub(crate) async fn run_blocking(
        &self,
        work: impl FnOnce() -> Result<(), DeadLetterError> + Send + 'static,
    ) -> Result<(), DeadLetterError> {
        let turn = Arc::clone(&self.turn).acquire_owned().await;
        if Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread {
            return work();
        }
        let done = spawn_blocking(move || {
            let done = work();
            drop(turn);
            done
        });
        done.await
            .unwrap_or_else(|broken| Err(error(&self.path, io::Error::other(broken))))
    }

    /// Adds a record, or as much of it as there is room for. It is safe only after
    /// [`DeadLetter::sync`].
    ///
    /// # Errors
    /// The file cannot be written. The record is kept in memory, and the next write or sync tries
    /// again: do not add it twice.
    pub fn write(
        &mut self,
        reason: Reject,
        error: &str,
        origin: &Origin,
        payload: &[u8],
    ) -> Result<(), DeadLetterError> {
        let mut lines = self.lines();
        lines.add(reason, error, origin, payload);
        if lines.buffer.len() as u64 >= lines.unsynced_bytes_max() {
            lines.sync()?;
        } else if lines.buffer.len() - lines.in_file >= BUFFER_BYTES_MAX {
            lines.flush()?;
        }
        Ok(())
    }

    /// Writes and syncs all added records. Only then may they be settled.
    ///
    /// # Errors
    /// The file cannot be written; calling again tries again.
    pub fn sync(&mut self) -> Result<(), DeadLetterError> {
        self.lines().sync()
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Sets the function that is called before each step of a write.
    pub fn before_each_step(&self, call: BeforeFileStep) {
        self.lines().faults = Faults(Some(call));
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        // A panic cannot leave a partial line, so a poisoned lock is safe to use.
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lines {
    fn open(path: &Path, provider: &str, limits: DeadLetterLimits) -> io::Result<Lines> {
        let files = DeadLetterFiles::new(path);
        let file = files.open(false)?;
        let regular = file.metadata()?.is_file();
        let mut lines = Lines {
            file: file.try_clone()?,
            regular,
            provider: provider.to_owned(),
            limits,
            buffer: Vec::new(),
            in_file: 0,
            safe: 0,
            suspect: false,
            held: BytesByHolder::new(),
            segments: BTreeMap::new(),
            usage: Usage::default(),
            looked: None,
            faults: Faults::default(),
            files,
        };
        if !regular {
            return Ok(lines);
        }
        lines.go_on_in(file)?;
        lines.segments = lines.files.segments()?;
        for segment in lines.segments.values() {
            lines.usage.add(&segment.held);
        }
        lines.rotate();
        lines.show();
        Ok(lines)
    }

    /// Begins to write behind what this file holds already.
    fn go_on_in(&mut self, mut file: File) -> io::Result<()> {
        lock(&file)?;
        if ends_torn(self.files.path())? {
            file.write_all(b"\n")?;
        }
        let safe = file.metadata()?.len();
        // The file's name must survive a crash, too.
        self.files.sync_folder()?;
        self.usage.remove(&self.held);
        self.held = account_of_plain(self.files.path())?;
        self.usage.add(&self.held);
        (self.file, self.safe, self.in_file) = (file, safe, 0);
        Ok(())
    }

    /// Whether the file no longer has its name: it was removed, or moved away.
    fn is_taken_away(&self) -> bool {
        let (Ok(ours), there) = (
            self.file.metadata(),
            fs::symlink_metadata(self.files.path()),
        ) else {
            return false;
        };
        match there {
            Ok(there) => (there.dev(), there.ino()) != (ours.dev(), ours.ino()),
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        }
    }

    /// Opens the file of this name anew, after the former one was taken away. The lines that are not
    /// safe are written to it again.
    fn open_anew(&mut self) -> io::Result<()> {
        tracing::warn!(path = %self.files.path().display(), "dead letter file was removed or moved away: a new one begins");
        self.go_on_in(self.files.open(false)?)?;
        for line in self.buffer.split_inclusive(|&byte| byte == b'\n') {
            let holder = line::holder(line);
            self.usage
                .add_line(holder, line.len() as u64, &mut self.held);
        }
        Ok(())
    }

    /// Adds a line to the buffer, with as much of the payload as may be kept.
    fn add(&mut self, reason: Reject, error: &str, origin: &Origin, payload: &[u8]) {
        let about = LineMetadata {
            time: &time::micros(Timestamp::now()),
            provider: &self.provider,
            reason,
            error,
            origin,
        };
        let from = self.buffer.len();
        let mut whole = true;
        match self.dropping() {
            None => _ = line::write(&mut self.buffer, &about, payload, Keep::Whole),
            Some(bytes_max) => {
                let large = payload.len() > PAYLOAD_BYTES_MAX;
                for keep in Keep::ALL.into_iter().skip(usize::from(large)) {
                    self.buffer.truncate(from);
                    whole = line::write(&mut self.buffer, &about, payload, keep);
                    let line = &self.buffer[from..];
                    let (holder, len) = (line::holder(line), line.len() as u64);
                    if self.usage.allows(keep, holder, len, bytes_max) {
                        break;
                    }
                    whole = false;
                    if keep == Keep::Line {
                        let line = String::from_utf8_lossy(&self.buffer[from..]).into_owned();
                        self.buffer.truncate(from);
                        tracing::error!(
                            line,
                            "dead letter full: only this line is kept of a record; \
                     deliver it with replay, remove its files, or raise \
                             --dead-letter-bytes-max (AUDIT_BRIDGE_DEAD_LETTER_BYTES_MAX)"
                        );
                    }
                }
            }
        }
        let line = &self.buffer[from..];
        if !line.is_empty() {
            let holder = line::holder(line);
            let len = line.len() as u64;
            self.usage.add_line(holder, len, &mut self.held);
        }
        if !whole {
            self.limits.stats.count_dropped();
            self.forget_removed_files();
        }
        self.show();
    }

    /// The byte limit, if payloads are dropped to keep within it.
    fn dropping(&self) -> Option<u64> {
        let drops = self.regular && self.limits.when_full == WhenFull::Drop;
        self.limits.bytes_max.filter(|_| drops)
    }

    /// Writes the buffer to the file.
    fn flush(&mut self) -> Result<(), DeadLetterError> {
        if self.buffer.len() == self.in_file && !self.suspect {
            return Ok(());
        }
        self.hold_when_full()?;
        self.write().map_err(|source| self.error(source))
    }

    fn write(&mut self) -> io::Result<()> {
        if self.suspect {
            self.renew()?;
        }
        let written = self
            .faults
            .before(FileStep::Write)
            .and_then(|()| self.file.write_all(&self.buffer[self.in_file..]));
        if let Err(error) = written {
            if self.regular {
                let end = self.safe + self.in_file as u64;
                self.suspect = self.file.set_len(end).is_err();
            }
            return Err(error);
        }
        self.in_file = self.buffer.len();
        Ok(())
    }

    fn sync(&mut self) -> Result<(), DeadLetterError> {
        self.flush()?;
        if self.buffer.is_empty() {
            return Ok(());
        }
        let synced = self.faults.before(FileStep::Sync);
        match synced.and_then(|()| self.file.sync_data()) {
            // A pipe or a device cannot be synced.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {}
            Err(error) => {
                self.suspect = self.regular;
                return Err(self.error(error));
            }
            Ok(()) => {}
        }
        if self.regular && self.is_taken_away() {
            self.open_anew().map_err(|source| self.error(source))?;
            return self.sync();
        }
        self.safe += self.buffer.len() as u64;
        self.buffer.clear();
        self.in_file = 0;
        self.rotate();
        self.show();
        Ok(())
    }

    /// Begins a new file and keeps the synced part of the current one under another name. A retry
    /// after an error continues where it stopped.
    fn renew(&mut self) -> io::Result<()> {
        self.suspect = true;
        if self.safe > 0 {
            // The lines behind the synced part are written again to the new file.
            let _ = self.file.set_len(self.safe);
            let number = self.segments.last_key_value().map_or(1, |last| last.0 + 1);
            self.faults.before(FileStep::Rename)?;
            match fs::rename(self.files.path(), self.files.segment(number, false)) {
                // The file was removed.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                renamed => renamed?,
            }
            self.safe = 0;
            let unsafe_lines = self.held_of_buffer();
            let mut held = std::mem::replace(&mut self.held, unsafe_lines);
            for (holder, bytes) in &self.held {
                if let Some(there) = held.get_mut(holder) {
                    *there = there.saturating_sub(*bytes);
                }
            }
            let packed = false;
            self.segments.insert(number, Segment { held, packed });
        } else {
            match fs::remove_file(self.files.path()) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        self.faults.before(FileStep::Create)?;
        let file = self.files.open(true)?;
        lock(&file)?;
        self.faults.before(FileStep::SyncFolder)?;
        self.files.sync_folder()?;
        self.file = file;
        self.in_file = 0;
        self.suspect = false;
        Ok(())
    }

    /// The size at which the current file is compressed; `None`: never.
    fn segment_bytes_max(&self) -> Option<u64> {
        let bytes_max = self.limits.bytes_max?;
        Some(SEGMENT_BYTES_MAX.min(bytes_max / 8))
    }

    /// How many bytes of lines wait for a sync at most. No more than a file holds before it is
    /// compressed: a burst would be cut for lack of room that compression makes.
    fn unsynced_bytes_max(&self) -> u64 {
        let segment_bytes_max = self.segment_bytes_max().unwrap_or(u64::MAX);
        UNSYNCED_BYTES_MAX.min(segment_bytes_max)
    }

    /// Compresses the current file when it is full. A failure is retried after the next sync: all
    /// lines are safe where they are.
    fn rotate(&mut self) {
        let Some(segment_bytes_max) = self.segment_bytes_max() else {
            return;
        };
        if self.safe >= segment_bytes_max
            && let Err(error) = self.renew()
        {
            tracing::warn!(path = %self.files.path().display(), %error, "dead letter file could not be created; retrying");
        }
        let mut failed = false;
        for (number, segment) in &mut self.segments {
            if segment.packed {
                continue;
            }
            match self.files.pack(*number, &segment.held, &mut self.faults) {
                Ok(held) => {
                    self.usage.remove(&segment.held);
                    self.usage.add(&held);
                    *segment = Segment { held, packed: true };
                }
                Err(error) => {
                    tracing::warn!(path = %self.files.path().display(), number, %error, "dead letter file could not be compressed; retrying");
                    failed = true;
                    break;
                }
            }
        }
        if failed {
            self.forget_removed_files();
        }
    }

    /// Whether the limit is exceeded. The buffer counts as half of the limit at most: otherwise a
    /// burst that is larger than the limit could not be written even to an empty dead letter, and
    /// nobody could make room for it.
    fn is_full(&self) -> bool {
        let waiting = self.buffer.len() as u64;
        let kept = self.usage.bytes().saturating_sub(waiting);
        let max = self.limits.bytes_max;
        max.is_some_and(|max| kept + waiting.min(max / 2) > max)
    }

    /// Fails while the limit is exceeded and no payload may be dropped.
    fn hold_when_full(&mut self) -> Result<(), DeadLetterError> {
        let holds = self.regular && self.limits.when_full == WhenFull::Hold;
        if !holds || !self.is_full() {
            return Ok(());
        }
        self.forget_removed_files();
        if !self.is_full() {
            return Ok(());
        }
        Err(DeadLetterError {
            path: self.files.path().to_owned(),
            problem: "holds as much as --dead-letter-bytes-max allows: deliver it with replay and \
                      remove its numbered files, or raise the limit",
            source: io::ErrorKind::QuotaExceeded.into(),
        })
    }

    /// Drops removed files from the accounting.
    fn forget_removed_files(&mut self) {
        if self.looked.is_some_and(|at| at.elapsed() < LOOK_AGAIN) {
            return;
        }
        self.looked = Some(Instant::now());
        let Lines {
            files,
            segments,
            usage,
            ..
        } = self;
        segments.retain(|number, segment| {
            let gone = match fs::symlink_metadata(files.segment(*number, segment.packed)) {
                Ok(_) => false,
                Err(error) => error.kind() == io::ErrorKind::NotFound,
            };
            if gone {
                usage.remove(&segment.held);
            }
            !gone
        });
        self.show();
    }

    /// Bytes of the buffer, by holder.
    fn held_of_buffer(&self) -> BytesByHolder {
        let (mut usage, mut held) = (Usage::default(), BytesByHolder::new());
        for line in self.buffer.split_inclusive(|&byte| byte == b'\n') {
            usage.add_line(line::holder(line), line.len() as u64, &mut held);
        }
        held
    }

    fn show(&self) {
        self.limits.stats.set_bytes(self.usage.bytes());
    }

    fn error(&self, source: io::Error) -> DeadLetterError {
        error(self.files.path(), source)
    }
}

/// Locks the file: another process would go on writing to it after it is compressed.
fn lock(file: &File) -> io::Result<()> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(io::ErrorKind::ResourceBusy.into()),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn error(path: &Path, source: io::Error) -> DeadLetterError {
    let problem = match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "cannot be written: the disk is full, make room or name another file"
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            "cannot be written: the file system is read-only, name a file elsewhere"
        }
        io::ErrorKind::PermissionDenied => {
            "cannot be written: this process may not, check the owner and mode of file and folder"
        }
        io::ErrorKind::NotFound => "cannot be opened: its folder does not exist, make it first",
        io::ErrorKind::ResourceBusy => {
            "is written by another process: name another file, or stop that process"
        }
        io::ErrorKind::NotConnected => {
            "is a pipe that nobody reads: start its reader first, or name a file"
        }
        io::ErrorKind::Unsupported => "is a symbolic link: name the file itself",
        _ => "cannot be written: check the disk, or name another file",
    };
    DeadLetterError {
        path: path.to_owned(),
        problem,
        source,
    }
}

#[cfg(test)]
mod tests;
