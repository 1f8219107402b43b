//! The durable place for records that cannot be delivered: JSON Lines, one object per record,
//! which `replay` reads again.
//!
//! Nothing is settled on the strength of a line here before [`DeadLetter::sync`] has returned. A
//! write that fails leaves no half line, and can be tried again.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;

use crate::convert::Reject;
use crate::event::{json, time};
use crate::output::{blank_line_ends, ends_torn};
use crate::record::Origin;

/// Lines in memory before they are written: a burst costs one write, not thousands.
const BUFFER_BYTES_MAX: usize = 256 << 10;

/// The dead letter cannot take a record; the position must not pass it.
#[derive(Debug, thiserror::Error)]
#[error("--dead-letter: {} {problem}", path.display())]
pub struct DeadLetterError {
    path: PathBuf,
    problem: &'static str,
    #[source]
    source: io::Error,
}

/// An open dead letter. Its calls block, for the time of a disk write. Clones write to one file:
/// several logs of a process share it.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    path: PathBuf,
    file: Arc<Mutex<Lines>>,
}

/// The file, and what is on its way there.
#[derive(Debug)]
struct Lines {
    path: PathBuf,
    file: File,
    provider: String,
    /// Whole lines that are not yet in the file.
    buffer: Vec<u8>,
    /// The file's length up to its last whole line; `None` when it is no regular file.
    written: Option<u64>,
    /// Something was written since the last sync.
    dirty: bool,
}

impl DeadLetter {
    /// Opens the file for appending, or makes it, readable for its owner only. The folder must be
    /// there. A half line that a crash left is ended, so that it spoils no other.
    ///
    /// # Errors
    /// The file cannot be opened or written.
    pub fn open(path: &Path, provider: &str) -> Result<DeadLetter, DeadLetterError> {
        let (file, written) = open(path).map_err(|source| error(path, source))?;
        let lines = Lines {
            path: path.to_owned(),
            file,
            provider: provider.to_owned(),
            buffer: Vec::new(),
            written,
            dirty: false,
        };
        Ok(DeadLetter {
            path: path.to_owned(),
            file: Arc::new(Mutex::new(lines)),
        })
    }

    /// Adds a record. It is safe only after [`DeadLetter::sync`].
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
        let now = time::micros(Timestamp::now());
        let mut lines = self.lines();
        let Lines {
            buffer, provider, ..
        } = &mut *lines;
        line(buffer, &now, provider, reason, error, origin, payload);
        if lines.buffer.len() >= BUFFER_BYTES_MAX {
            lines.flush()?;
        }
        Ok(())
    }

    /// Brings all that was added to the disk. Only then may records be settled.
    ///
    /// # Errors
    /// The file cannot be written; calling again tries again.
    pub fn sync(&mut self) -> Result<(), DeadLetterError> {
        let mut lines = self.lines();
        lines.flush()?;
        if !lines.dirty {
            return Ok(());
        }
        match lines.file.sync_data() {
            // A pipe or a device, which has no disk under it.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {}
            other => other.map_err(|source| error(&lines.path, source))?,
        }
        lines.dirty = false;
        Ok(())
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        // Whole lines only: a panic leaves nothing half done.
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lines {
    fn flush(&mut self) -> Result<(), DeadLetterError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        if let Err(source) = self.file.write_all(&self.buffer) {
            if let Some(written) = self.written {
                // Best effort: what cannot be cut off is a half line, which a reader skips.
                let _ = self.file.set_len(written);
            }
            return Err(error(&self.path, source));
        }
        if let Some(written) = &mut self.written {
            *written += self.buffer.len() as u64;
        }
        self.buffer.clear();
        self.dirty = true;
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<(File, Option<u64>)> {
    let mut options = OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    if !file.metadata()?.is_file() {
        return Ok((file, None));
    }
    if ends_torn(path)? {
        file.write_all(b"\n")?;
    }
    let written = file.metadata()?.len();
    // The name must survive a crash as well as the lines do.
    if let Some(folder) = path.parent() {
        let folder = match folder.as_os_str().is_empty() {
            true => Path::new("."),
            false => folder,
        };
        File::open(folder)?.sync_all()?;
    }
    Ok((file, Some(written)))
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
        _ => "cannot be written: check the disk, or name another file",
    };
    DeadLetterError {
        path: path.to_owned(),
        problem,
        source,
    }
}

fn line(
    out: &mut Vec<u8>,
    now: &str,
    provider: &str,
    reason: Reject,
    error: &str,
    origin: &Origin,
    payload: &[u8],
) {
    let member = |out: &mut Vec<u8>, head: &str, text: &str| {
        out.extend_from_slice(head.as_bytes());
        json::write_string(out, text);
    };
    member(out, "{\"time\":", now);
    member(out, ",\"provider\":", provider);
    member(out, ",\"reason\":", reason.name());
    member(out, ",\"error\":", error);
    out.extend_from_slice(b",\"source\":");
    match origin {
        Origin::File { file, record } => {
            member(out, "{\"file\":", file);
            out.extend_from_slice(format!(",\"record\":{record}}}").as_bytes());
        }
        Origin::Stream { stream, id } => {
            member(out, "{\"stream\":", stream);
            member(out, ",\"id\":", id);
            out.push(b'}');
        }
    }
    match std::str::from_utf8(payload) {
        Ok(text) => match json::Raw::parse(text) {
            // A payload that is a JSON string stays text with its quotes, so that it comes back
            // as it was.
            Ok(raw) if raw.kind() != json::Kind::String => {
                out.extend_from_slice(b",\"payload\":");
                let from = out.len();
                out.extend_from_slice(raw.text().as_bytes());
                blank_line_ends(out, from);
            }
            _ => member(out, ",\"payload\":", text),
        },
        Err(_) => member(out, ",\"payload_base64\":", &STANDARD.encode(payload)),
    }
    out.extend_from_slice(b"}\n");
}

#[cfg(test)]
mod tests;
