//! Writes events to standard output or a file, for people and pipes.
//!
//! A file is appended to, never truncated. A partial line that a crash left is terminated first.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::event::{Event, list};
use crate::sink::{Sink, Verdict};

/// The content of one line (`--format`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// One POST body.
    #[default]
    EventList,
    Events,
}

/// An output that cannot be opened or written.
#[derive(Debug, thiserror::Error)]
#[error("--output: {name} cannot be written: check that the disk has room and is not read-only")]
pub struct OutputError {
    name: String,
    #[source]
    source: io::Error,
}

impl OutputError {
    /// Whether the reader of the pipe went away.
    pub(crate) fn is_pipe_closed(&self) -> bool {
        self.source.kind() == io::ErrorKind::BrokenPipe
    }
}

/// Writes events as lines of JSON. Cheap to clone: all clones write to the same place.
#[derive(Debug, Clone)]
pub struct JsonLinesOutput {
    writer: Arc<Mutex<Writer>>,
    name: Arc<str>,
    format: Format,
    /// Events count as accepted only once they are synced.
    durable: bool,
}

#[derive(Debug)]
struct Writer {
    to: To,
    /// A write failed midway: its line must be terminated before the next one.
    torn: bool,
}

#[derive(Debug)]
enum To {
    Stdout(io::Stdout),
    File(File),
}

impl JsonLinesOutput {
    /// Standard output.
    pub fn stdout(format: Format) -> JsonLinesOutput {
        JsonLinesOutput::new(To::Stdout(io::stdout()), "standard output", format)
    }

    /// Appends to a file, which is created if needed.
    ///
    /// # Errors
    /// The file cannot be opened for writing.
    pub fn file(path: &Path, format: Format) -> Result<JsonLinesOutput, OutputError> {
        let name = path.display().to_string();
        let file = open(path).map_err(|source| OutputError {
            name: name.clone(),
            source,
        })?;
        Ok(JsonLinesOutput::new(To::File(file), &name, format))
    }

    /// Opens standard output for `-`, else a file: the value of `--output`.
    ///
    /// # Errors
    /// As [`JsonLinesOutput::file`].
    pub fn open(target: &str, format: Format) -> Result<JsonLinesOutput, OutputError> {
        match target {
            "-" => Ok(JsonLinesOutput::stdout(format)),
            path => JsonLinesOutput::file(&PathBuf::from(path), format),
        }
    }

    fn new(to: To, name: &str, format: Format) -> JsonLinesOutput {
        JsonLinesOutput {
            writer: Arc::new(Mutex::new(Writer { to, torn: false })),
            name: name.into(),
            format,
            durable: false,
        }
    }

    /// The same output, but events count as accepted only once they are synced: for a run whose
    /// checkpoint relies on it.
    #[must_use]
    pub fn durable(self) -> JsonLinesOutput {
        JsonLinesOutput {
            durable: true,
            ..self
        }
    }

    /// Writes these events and flushes them to the operating system. Blocks.
    ///
    /// # Errors
    /// The write failed; some events may have been written.
    pub fn write(&self, events: &[Event]) -> Result<(), OutputError> {
        let lines = lines(events, self.format);
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        writer.write(&lines).map_err(|source| self.error(source))
    }

    /// Syncs what was written, if the output is a file. Blocks.
    ///
    /// # Errors
    /// The sync failed.
    pub fn sync(&self) -> Result<(), OutputError> {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        match &writer.to {
            To::Stdout(_) => Ok(()),
            To::File(file) => match file.sync_data() {
                // A pipe or a device with a path cannot be synced.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
                other => other.map_err(|source| self.error(source)),
            },
        }
    }

    fn error(&self, source: io::Error) -> OutputError {
        OutputError {
            name: self.name.to_string(),
            source,
        }
    }
}

impl Sink for JsonLinesOutput {
    async fn send(&self, events: &[Event]) -> Verdict {
        // A full pipe blocks until its reader reads.
        let (output, events) = (self.clone(), events.to_vec());
        let written = tokio::task::spawn_blocking(move || {
            output.write(&events)?;
            if output.durable {
                output.sync()
            } else {
                Ok(())
            }
        })
        .await;
        match written {
            Ok(Ok(())) => Verdict::Accepted { status: 200 },
            Ok(Err(error)) => Verdict::Broken {
                detail: format!("{error}: {}", error.source),
                pipe_closed: error.is_pipe_closed(),
            },
            Err(error) => Verdict::Broken {
                detail: format!("--output: {} cannot be written: {error}", self.name),
                pipe_closed: false,
            },
        }
    }

    // One at a time, so that lines keep the order of the events.
    fn in_flight_max(&self) -> usize {
        1
    }
}

impl Writer {
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        let to: &mut dyn Write = match &mut self.to {
            To::Stdout(stdout) => stdout,
            To::File(file) => file,
        };
        if self.torn {
            to.write_all(b"\n")?;
        }
        self.torn = true;
        to.write_all(lines)?;
        to.flush()?;
        self.torn = false;
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let mut file = options.create(true).append(true).mode(0o600).open(path)?;
    if file.metadata()?.is_file() && ends_torn(path)? {
        file.write_all(b"\n")?;
    }
    Ok(file)
}

/// Whether the file's last line is not terminated.
pub(crate) fn ends_torn(path: &Path) -> io::Result<bool> {
    let mut file = File::open(path)?;
    if file.seek(SeekFrom::End(0))? == 0 {
        return Ok(false);
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last != *b"\n")
}

fn lines(events: &[Event], format: Format) -> Vec<u8> {
    match format {
        Format::EventList => {
            let mut line = Vec::from(list::body(events));
            blank_line_ends(&mut line, 0);
            line.push(b'\n');
            line
        }
        Format::Events => {
            let bytes = events.iter().map(|event| event.text().len() + 1).sum();
            let mut lines = Vec::with_capacity(bytes);
            for event in events {
                let from = lines.len();
                lines.extend_from_slice(event.text());
                blank_line_ends(&mut lines, from);
                lines.push(b'\n');
            }
            lines
        }
    }
}

/// Makes one line of valid JSON: raw line ends occur only between tokens, where a space means the
/// same.
pub(crate) fn blank_line_ends(json: &mut [u8], from: usize) {
    let mut at = from;
    while let Some(found) = memchr::memchr2(b'\n', b'\r', &json[at..]) {
        at += found;
        json[at] = b' ';
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events() -> Vec<Event> {
        ["{\"a\":\"x\\ny\"}", "{\n  \"b\": [1,\r\n 2]\n}"]
            .map(Event::of_bytes)
            .to_vec()
    }

    #[test]
    fn output_event_or_list_is_one_line() {
        assert_eq!(
            String::from_utf8(lines(&events(), Format::Events)).unwrap(),
            "{\"a\":\"x\\ny\"}\n{   \"b\": [1,   2] }\n"
        );
        let list = String::from_utf8(lines(&events(), Format::EventList)).unwrap();
        assert_eq!(list.matches('\n').count(), 1);
        let list: serde_json::Value = serde_json::from_str(&list).unwrap();
        assert_eq!(list["items"][1]["b"][1], 2);
    }

    #[tokio::test]
    async fn output_file_with_torn_line_ends_it_and_appends() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.jsonl");
        std::fs::write(&path, "{\"torn\":").unwrap();
        let output = JsonLinesOutput::file(&path, Format::Events).unwrap();
        assert_eq!(
            output.send(&events()[..1]).await,
            Verdict::Accepted { status: 200 }
        );
        output.sync().unwrap();
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            "{\"torn\":\n{\"a\":\"x\\ny\"}\n"
        );
    }

    #[test]
    fn output_file_is_readable_by_its_owner_only() {
        use std::os::unix::fs::PermissionsExt as _;

        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        JsonLinesOutput::file(&out, Format::Events).unwrap();
        let mode = std::fs::metadata(&out).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn output_full_disk_is_an_error_with_remedy() {
        let output = JsonLinesOutput::file(Path::new("/dev/full"), Format::Events).unwrap();
        match output.send(&events()).await {
            Verdict::Broken {
                detail,
                pipe_closed,
            } => {
                assert!(
                    detail.contains("/dev/full") && detail.contains("room"),
                    "{detail}"
                );
                assert!(!pipe_closed);
            }
            other => panic!("{other:?}"),
        }
    }
}
