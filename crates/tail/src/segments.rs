//! The identities of settled records, kept for a restart in small append-only files.
//!
//! A file is a header (eight bytes of magic, an eight-byte checksum of the log's name) and frames:
//! a bucket, a count, that many identities of eight bytes, a checksum over all of it; numbers are
//! little-endian. Nothing is synced: what a crash cuts off is delivered twice, never lost. The
//! opposite must not happen, an identity of a record that was never delivered. So a frame is valid
//! only with its checksum, and only identities of records whose position is safe in the checkpoint
//! are written here.
//!
//! A file is deleted when the lowest position has passed everything in it.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tracing::warn;

use super::identity::{Identity, checksum};

const MAGIC: &[u8; 8] = b"ABSEEN01";
const HEADER_BYTES: usize = 16;

/// The bytes of bucket and count before the identities; a checksum follows them.
const FRAME_HEAD_BYTES: usize = 12;
const CHECKSUM_BYTES: usize = 8;
/// The size of a frame without identities, and of one identity.
pub(super) const FRAME_BYTES: usize = FRAME_HEAD_BYTES + CHECKSUM_BYTES;
pub(super) const IDENTITY_BYTES: usize = 8;

/// A file of this size, with some 130,000 identities, is closed.
const SEGMENT_BYTES_MAX: u64 = 1 << 20;

/// A file of this size is not ours.
const FOREIGN_BYTES_MIN: u64 = 64 << 20;

/// One identity with its bucket.
pub(super) type Filed = (i64, Identity);

/// The files of one log.
#[derive(Debug)]
pub(super) struct Segments {
    folder: PathBuf,
    log: u64,
    next_number: u64,
    closed: VecDeque<Segment>,
    open: Option<(File, u64, Segment)>,
    /// Whether the last write failed, so that a series of failures is logged once.
    failing: bool,
}

/// A file and the newest bucket in it.
#[derive(Debug)]
struct Segment {
    path: PathBuf,
    newest: i64,
}

impl Segments {
    /// Opens the folder, which is created if needed, and passes its identities to `found`.
    ///
    /// # Errors
    /// The folder cannot be created or listed.
    pub(super) fn open(
        folder: &Path,
        log: &str,
        mut found: impl FnMut(i64, Identity),
    ) -> io::Result<Segments> {
        fs::create_dir_all(folder)?;
        let mut segments = Segments {
            folder: folder.to_owned(),
            log: checksum(log.as_bytes()),
            next_number: 1,
            closed: VecDeque::new(),
            open: None,
            failing: false,
        };
        let mut paths = Vec::new();
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if let Some(number) = number_of(&path) {
                segments.next_number = segments.next_number.max(number.saturating_add(1));
                paths.push((number, path));
            }
        }
        paths.sort();
        for (_, path) in paths {
            match segments.load(&path, &mut found) {
                Ok(Some(newest)) => segments.closed.push_back(Segment { path, newest }),
                Ok(None) => {}
                Err(error) => warn!(
                    path = %path.display(), %error,
                    "identities file unreadable: some records may be sent again"
                ),
            }
        }
        Ok(segments)
    }

    /// Reads one file and returns its newest bucket; `None` if the file is not this log's.
    fn load(&self, path: &Path, found: &mut impl FnMut(i64, Identity)) -> io::Result<Option<i64>> {
        let size = fs::metadata(path)?.len();
        let bytes = match size < FOREIGN_BYTES_MIN {
            true => fs::read(path)?,
            false => Vec::new(),
        };
        let own = bytes.len() >= HEADER_BYTES
            && bytes[..8] == *MAGIC
            && bytes[8..HEADER_BYTES] == self.log.to_le_bytes();
        if !own {
            warn!(
                path = %path.display(), size,
                "identities file of another log ignored"
            );
            return Ok(None);
        }
        let mut newest = i64::MIN;
        let ignored = read_frames(&bytes[HEADER_BYTES..], |bucket, identity| {
            newest = newest.max(bucket);
            found(bucket, identity);
        });
        if ignored > 0 {
            warn!(
                path = %path.display(), ignored_bytes = ignored,
                "identities file damaged: some records may be sent again"
            );
        }
        Ok(Some(newest))
    }

    /// Writes identities of settled records. A failure is logged, and costs only duplicates.
    pub(super) fn append(&mut self, settled: &mut [Filed]) {
        if settled.is_empty() {
            return;
        }
        settled.sort_unstable();
        let mut bytes = Vec::with_capacity(settled.len() * 8 + 64);
        for group in settled.chunk_by(|one, other| one.0 == other.0) {
            push_frame(&mut bytes, group[0].0, group.iter().map(|filed| filed.1));
        }
        let newest = settled.last().map_or(i64::MIN, |last| last.0);
        match self.write(&bytes, newest) {
            Ok(()) => self.failing = false,
            Err(error) => {
                // A partial frame may be at the end, so anything appended would be unreadable.
                self.close();
                if !std::mem::replace(&mut self.failing, true) {
                    warn!(
                        folder = %self.folder.display(), %error,
                        "identities not written: a restart sends some records again"
                    );
                }
            }
        }
    }

    fn write(&mut self, bytes: &[u8], newest: i64) -> io::Result<()> {
        if self.open.is_none() {
            let path = self
                .folder
                .join(format!("seen-{:010}.bin", self.next_number));
            // Even after a failure: another file may have this name.
            self.next_number += 1;
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .open(&path)?;
            let mut header = MAGIC.to_vec();
            header.extend(self.log.to_le_bytes());
            file.write_all(&header)?;
            self.open = Some((file, HEADER_BYTES as u64, Segment { path, newest }));
        }
        let Some((file, size, segment)) = &mut self.open else {
            return Ok(());
        };
        segment.newest = segment.newest.max(newest);
        file.write_all(bytes)?;
        *size += bytes.len() as u64;
        if *size >= SEGMENT_BYTES_MAX {
            self.close();
        }
        Ok(())
    }

    fn close(&mut self) {
        if let Some((_, _, segment)) = self.open.take() {
            self.closed.push_back(segment);
        }
    }

    /// Deletes the closed files that contain only earlier buckets.
    pub(super) fn forget(&mut self, horizon: i64) {
        self.closed.retain(|segment| {
            let keep = segment.newest >= horizon;
            if !keep && let Err(error) = fs::remove_file(&segment.path) {
                warn!(path = %segment.path.display(), %error, "identities file not deleted");
            }
            keep
        });
    }

    /// Deletes all files of this log.
    pub(super) fn clear(&mut self) {
        self.close();
        self.forget(i64::MAX);
    }
}

/// The number in the name of one of our files.
fn number_of(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    name.strip_prefix("seen-")?
        .strip_suffix(".bin")?
        .parse()
        .ok()
}

fn number(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or(0, u64::from_le_bytes)
}

/// Writes a frame.
pub(super) fn push_frame(
    bytes: &mut Vec<u8>,
    bucket: i64,
    identities: impl ExactSizeIterator<Item = Identity>,
) {
    let start = bytes.len();
    bytes.extend(bucket.to_le_bytes());
    let count = u32::try_from(identities.len()).unwrap_or(u32::MAX);
    bytes.extend(count.to_le_bytes());
    for identity in identities {
        bytes.extend(identity.0.to_le_bytes());
    }
    bytes.extend(checksum(&bytes[start..]).to_le_bytes());
}

/// Reads frames up to the first that is incomplete or damaged. Returns how many bytes are left.
pub(super) fn read_frames(mut rest: &[u8], mut found: impl FnMut(i64, Identity)) -> usize {
    while let Some((bucket, identities, behind)) = frame(rest) {
        for identity in identities.chunks_exact(IDENTITY_BYTES) {
            found(bucket, Identity(number(identity)));
        }
        rest = behind;
    }
    rest.len()
}

/// The first frame: its bucket, its identities, and the bytes behind it.
fn frame(bytes: &[u8]) -> Option<(i64, &[u8], &[u8])> {
    let head = bytes.get(..FRAME_HEAD_BYTES)?;
    let bucket = i64::from_le_bytes(head[..8].try_into().ok()?);
    let count = u32::from_le_bytes(head[8..].try_into().ok()?);
    let end = FRAME_HEAD_BYTES.checked_add(usize::try_from(count).ok()?.checked_mul(8)?)?;
    let behind = end.checked_add(CHECKSUM_BYTES)?;
    let sum = number(bytes.get(end..behind)?);
    (sum == checksum(&bytes[..end])).then(|| {
        let identities = &bytes[FRAME_HEAD_BYTES..end];
        (bucket, identities, &bytes[behind..])
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn load(folder: &Path, log: &str) -> (Segments, BTreeSet<Filed>) {
        let mut all = BTreeSet::new();
        let segments = Segments::open(folder, log, |bucket, identity| {
            all.insert((bucket, identity));
        })
        .unwrap();
        (segments, all)
    }

    fn filed(range: std::ops::Range<u64>) -> Vec<Filed> {
        range
            .map(|n| ((n / 10) as i64, Identity::of(&[&n.to_le_bytes()])))
            .collect()
    }

    fn files(folder: &Path) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        files
    }

    #[test]
    fn segments_written_are_read_again_and_deleted_in_time() {
        let folder = tempfile::tempdir().unwrap();
        let (mut segments, none) = load(folder.path(), "log");
        assert!(none.is_empty() && files(folder.path()).is_empty());
        segments.append(&mut filed(0..100));
        segments.append(&mut filed(100..120));
        drop(segments);
        let (mut segments, all) = load(folder.path(), "log");
        assert_eq!(all, filed(0..120).into_iter().collect());
        segments.append(&mut filed(120..130));
        assert_eq!(files(folder.path()).len(), 2, "a new file for each process");
        segments.forget(11);
        assert_eq!(files(folder.path()).len(), 2, "bucket 11 may be needed");
        segments.forget(12);
        assert_eq!(files(folder.path()).len(), 1);
        segments.clear();
        assert_eq!(files(folder.path()).len(), 0);
        segments.append(&mut filed(0..1));
        assert_eq!(load(folder.path(), "log").1.len(), 1);
    }

    #[test]
    fn segment_files_stay_small() {
        let folder = tempfile::tempdir().unwrap();
        let (mut segments, _) = load(folder.path(), "log");
        for round in 0..30 {
            segments.append(&mut filed(round * 10_000..(round + 1) * 10_000));
        }
        let files = files(folder.path());
        assert!(files.len() >= 3, "{} files", files.len());
        for file in &files {
            assert!(fs::metadata(file).unwrap().len() < 2 << 20);
        }
        segments.forget(29_000);
        let (_, all) = load(folder.path(), "log");
        let newest: BTreeSet<Filed> = filed(290_000..300_000).into_iter().collect();
        assert!(
            newest.is_subset(&all) && all.len() < 150_000,
            "{}",
            all.len()
        );
    }

    #[test]
    fn segment_file_cut_at_any_byte_gives_its_whole_entries() {
        let folder = tempfile::tempdir().unwrap();
        let (mut segments, _) = load(folder.path(), "log");
        segments.append(&mut filed(0..30));
        let path = files(folder.path()).remove(0);
        let whole = fs::read(&path).unwrap();
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            let (_, all) = load(folder.path(), "log");
            assert_eq!(all.len() % 10, 0);
            assert!(
                all.is_subset(&filed(0..30).into_iter().collect()),
                "{length}"
            );
        }
    }

    #[test]
    fn segment_file_damaged_never_gives_a_foreign_identity() {
        let folder = tempfile::tempdir().unwrap();
        let (mut segments, _) = load(folder.path(), "log");
        segments.append(&mut filed(0..30));
        let path = files(folder.path()).remove(0);
        let whole = fs::read(&path).unwrap();
        let kept: BTreeSet<Filed> = filed(0..30).into_iter().collect();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            fs::write(&path, &bytes).unwrap();
            let (_, all) = load(folder.path(), "log");
            assert!(all.is_subset(&kept) && all.len() < 30, "byte {at}");
        }
    }

    #[test]
    fn segment_files_of_another_log_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let (mut segments, _) = load(folder.path(), "one");
        segments.append(&mut filed(0..30));
        fs::write(folder.path().join("seen-0000000009.bin"), "something else").unwrap();
        fs::write(folder.path().join("notes.txt"), "mine").unwrap();
        let (mut segments, all) = load(folder.path(), "two");
        assert!(all.is_empty());
        segments.append(&mut filed(0..10));
        segments.clear();
        assert_eq!(files(folder.path()).len(), 3);
        assert_eq!(load(folder.path(), "one").1.len(), 30);
    }
}
