//! The files of a dead letter: the current one, `NAME`, and full ones, compressed as
//! `NAME.000001.zst` and so on. A full file is `NAME.000001` until it is compressed: for a moment,
//! or until the next start if a crash came between.
//!
//! A compressed file begins with a zstd frame that readers skip. It holds the byte counts by
//! holder, so that a start does not have to decompress anything.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, ErrorKind, Read, Write as _};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::line;
use super::usage::{BytesByHolder, Usage, scaled};

/// The first bytes of a frame that every zstd reader skips; its length follows in four bytes.
const SKIPPED: [u8; 4] = [0x5d, 0x2a, 0x4d, 0x18];

/// The length of a line's beginning that is searched for its holder.
const LINE_HEAD_BYTES: usize = 64 << 10;

/// The counts by holder take a few kilobytes; anything larger is not ours.
const ACCOUNT_BYTES_MAX: u32 = 16 << 20;

const LEVEL: i32 = 3;

/// The steps of work on the files. A test's function is called before each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileStep {
    /// Writes lines to the file.
    Write,
    /// Syncs the file.
    Sync,
    /// Renames a file that is no longer written to.
    Rename,
    /// Creates a new file in its place.
    Create,
    /// Syncs the folder.
    SyncFolder,
    /// Compresses a file that is no longer written to into a temporary file and syncs that.
    Pack,
    /// Gives the compressed file its name and syncs the folder.
    RenamePacked,
    /// Removes the uncompressed file.
    RemovePlain,
}

/// Called before a step; an error aborts the work.
pub type BeforeFileStep = Box<dyn FnMut(FileStep) -> io::Result<()> + Send>;

/// Fails a step when a test asks for it.
#[derive(Default)]
pub(super) struct Faults(pub(super) Option<BeforeFileStep>);

impl std::fmt::Debug for Faults {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Faults")
    }
}

impl Faults {
    pub(super) fn before(&mut self, step: FileStep) -> io::Result<()> {
        self.0.as_mut().map_or(Ok(()), |call| call(step))
    }
}

/// A file that is no longer written to.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) held: BytesByHolder,
    pub(super) packed: bool,
}

/// The paths of the files.
#[derive(Debug)]
pub(super) struct DeadLetterFiles {
    path: PathBuf,
    folder: PathBuf,
    name: OsString,
}

impl DeadLetterFiles {
    pub(super) fn new(path: &Path) -> DeadLetterFiles {
        let folder = path.parent().filter(|it| !it.as_os_str().is_empty());
        DeadLetterFiles {
            path: path.to_owned(),
            folder: folder.unwrap_or(Path::new(".")).to_owned(),
            name: path.file_name().unwrap_or_default().to_owned(),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn segment(&self, number: u64, packed: bool) -> PathBuf {
        let mut name = self.name.clone();
        name.push(format!(".{number:06}{}", if packed { ".zst" } else { "" }));
        self.folder.join(name)
    }

    /// The temporary path of a compressed file; hidden, so that no reader takes it.
    fn unfinished(&self) -> PathBuf {
        let mut name = OsString::from(".");
        name.push(&self.name);
        name.push(".tmp");
        self.folder.join(name)
    }

    pub(super) fn sync_folder(&self) -> io::Result<()> {
        File::open(&self.folder)?.sync_all()
    }

    /// Opens the current file, or creates it. Refuses a link: whoever can put one there would
    /// choose what is written to.
    pub(super) fn open(&self, new: bool) -> io::Result<File> {
        let refuse_link = || match fs::symlink_metadata(&self.path) {
            Ok(meta) if meta.is_symlink() => Err(io::Error::from(ErrorKind::Unsupported)),
            _ => Ok(()),
        };
        refuse_link()?;
        refuse_pipe_without_reader(&self.path)?;
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .create_new(new)
            .mode(0o600)
            .open(&self.path)?;
        // A link may have been put there between the check and the opening.
        refuse_link()?;
        Ok(file)
    }

    /// All segments, after removing what a crash left incomplete.
    pub(super) fn segments(&self) -> io::Result<BTreeMap<u64, Segment>> {
        remove(&self.unfinished())?;
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let Some((number, packed)) = self.number(&entry.file_name()) else {
                continue;
            };
            if !entry.file_type()?.is_file() {
                continue;
            }
            let both = found.insert(number, packed).is_some();
            if both {
                // Either a crash came before the plain file was removed, or a faulty disk lost the
                // compressed one in a power loss although it had been synced.
                let (plain, packed) = (self.segment(number, false), self.segment(number, true));
                let is_whole = unpacked_bytes(&packed) >= Some(fs::metadata(&plain)?.len());
                remove(if is_whole { &plain } else { &packed })?;
                found.insert(number, is_whole);
            }
        }
        found
            .into_iter()
            .map(|(number, packed)| {
                let path = self.segment(number, packed);
                let held = match packed {
                    true => account_of_packed(&path)?,
                    false => account_of_plain(&path)?,
                };
                Ok((number, Segment { held, packed }))
            })
            .collect()
    }

    /// The number of `NAME.000007` or `NAME.000007.zst`, and whether it is compressed.
    fn number(&self, name: &OsStr) -> Option<(u64, bool)> {
        let rest = name.as_encoded_bytes();
        let rest = rest.strip_prefix(self.name.as_encoded_bytes())?;
        let rest = std::str::from_utf8(rest.strip_prefix(b".")?).ok()?;
        let digits = rest.strip_suffix(".zst").unwrap_or(rest);
        let good = digits.len() >= 6 && digits.bytes().all(|byte| byte.is_ascii_digit());
        let number = digits.parse().ok().filter(|_| good)?;
        Some((number, digits.len() < rest.len()))
    }

    /// Compresses a segment and removes the plain file once the compressed one is safe. Returns the
    /// compressed bytes by holder.
    pub(super) fn pack(
        &self,
        number: u64,
        held: &BytesByHolder,
        faults: &mut Faults,
    ) -> io::Result<BytesByHolder> {
        let (plain, packed) = (self.segment(number, false), self.segment(number, true));
        let unfinished = self.unfinished();
        remove(&unfinished)?;
        faults.before(FileStep::Pack)?;
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&unfinished)?;
        file.write_all(&account(held)?)?;
        let mut encoder = zstd::Encoder::new(file, LEVEL)?;
        encoder.include_checksum(true)?;
        io::copy(&mut File::open(&plain)?, &mut encoder)?;
        let file = encoder.finish()?;
        file.sync_all()?;
        let bytes = file.metadata()?.len();
        faults.before(FileStep::RenamePacked)?;
        fs::rename(&unfinished, &packed)?;
        self.sync_folder()?;
        faults.before(FileStep::RemovePlain)?;
        remove(&plain)?;
        Ok(scaled(held, bytes))
    }
}

/// Refuses a named pipe without a reader: opening it would block for ever.
///
/// # Errors
/// `NotConnected`: the pipe has no reader.
pub fn refuse_pipe_without_reader(path: &Path) -> io::Result<()> {
    if !fs::metadata(path).is_ok_and(|meta| meta.file_type().is_fifo()) {
        return Ok(());
    }
    let tried = OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path);
    match tried {
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) => Err(io::Error::new(
            ErrorKind::NotConnected,
            "a pipe without a reader",
        )),
        // Opening the file reports any other error.
        _ => Ok(()),
    }
}

/// Bytes by holder of an uncompressed file.
pub(super) fn account_of_plain(path: &Path) -> io::Result<BytesByHolder> {
    let mut reader = BufReader::with_capacity(256 << 10, File::open(path)?);
    let (mut usage, mut held) = (Usage::default(), BytesByHolder::new());
    let (mut head, mut len) = (Vec::new(), 0_u64);
    loop {
        let bytes = reader.fill_buf()?;
        if bytes.is_empty() {
            break;
        }
        let end = memchr::memchr(b'\n', bytes);
        let part = &bytes[..end.map_or(bytes.len(), |end| end + 1)];
        let room = LINE_HEAD_BYTES.saturating_sub(head.len()).min(part.len());
        head.extend_from_slice(&part[..room]);
        len += part.len() as u64;
        let used = part.len();
        reader.consume(used);
        if end.is_some() {
            usage.add_line(line::holder(&head), len, &mut held);
            head.clear();
            len = 0;
        }
    }
    if len > 0 {
        usage.add_line(line::holder(&head), len, &mut held);
    }
    Ok(held)
}

/// The same for a compressed file, from the counts stored in it.
fn account_of_packed(path: &Path) -> io::Result<BytesByHolder> {
    let mut file = File::open(path)?;
    let bytes = file.metadata()?.len();
    let mut head = [0; 8];
    let account = file.read_exact(&mut head).ok().and_then(|()| {
        let [a, b, c, d, len @ ..] = head;
        let len = u32::from_le_bytes(len);
        if [a, b, c, d] != SKIPPED || len > ACCOUNT_BYTES_MAX {
            return None;
        }
        let mut text = Vec::new();
        file.take(len.into()).read_to_end(&mut text).ok()?;
        serde_json::from_slice::<Vec<(String, String, u64)>>(&text).ok()
    });
    let held = account.map(|account| {
        let held = account.into_iter();
        held.map(|(reason, place, bytes)| ((reason, place), bytes))
            .collect()
    });
    // A foreign file counts as well, for a holder without a name.
    Ok(match held {
        Some(held) => scaled(&held, bytes),
        None => BytesByHolder::from([(<(String, String)>::default(), bytes)]),
    })
}

/// The decompressed length of a compressed file; `None` when it is damaged.
fn unpacked_bytes(path: &Path) -> Option<u64> {
    let mut decoder = zstd::Decoder::new(File::open(path).ok()?).ok()?;
    io::copy(&mut decoder, &mut io::sink()).ok()
}

fn account(held: &BytesByHolder) -> io::Result<Vec<u8>> {
    let account: Vec<_> = held
        .iter()
        .map(|((reason, place), bytes)| (reason, place, bytes))
        .collect();
    let text = serde_json::to_vec(&account)?;
    let len = u32::try_from(text.len()).map_err(io::Error::other)?;
    Ok([&SKIPPED[..], &len.to_le_bytes(), &text].concat())
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
