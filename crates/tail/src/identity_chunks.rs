//! The identities of settled records, stored where another process finds them, so that a replica
//! that takes over, or a new pod, does not deliver those records again.
//!
//! They are stored in a ring of chunks. The newest chunk is rewritten while it grows; after some
//! minutes, or when it is full, the next chunk replaces the oldest one. As in the segments on disk,
//! only identities of records whose position is safe in the checkpoint are stored, and each frame
//! is valid only with its checksum: what is missing is delivered twice, never lost.
//!
//! A chunk is a header (magic, the log, epoch, number, the second in which it was begun, a
//! checksum) and frames as in a segment. A tail that begins without positions starts a new epoch,
//! which invalidates the chunks of earlier ones.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::Instant;
use tracing::warn;

use super::identity::{Identity, checksum};
use super::segments::{FRAME_BYTES, Filed, IDENTITY_BYTES, push_frame, read_frames};

const MAGIC: &[u8; 8] = b"ABCHNK01";
const HEADER_BYTES: usize = 48;

/// The time between two writes of the newest chunk. A takeover delivers at most the records of this
/// time again, and those that were not settled.
const WRITE_INTERVAL: Duration = Duration::from_secs(30);

/// Stores a ring of chunks outside of this process.
pub trait IdentityStore: std::fmt::Debug + Send + Sync + 'static {
    /// How many chunks the ring has.
    fn chunks(&self) -> usize;

    /// The largest size of a chunk, in bytes.
    fn chunk_bytes_max(&self) -> usize;

    /// All chunks that were saved and not overwritten, in any order.
    ///
    /// # Errors
    /// They cannot be read now.
    fn load(&self) -> BoxFuture<'_, Result<Vec<Vec<u8>>, IdentityStoreError>>;

    /// Overwrites one chunk. `slot` is less than [`IdentityStore::chunks`].
    ///
    /// # Errors
    /// It cannot be written now.
    fn save(&self, slot: usize, chunk: Vec<u8>) -> BoxFuture<'_, Result<(), IdentityStoreError>>;
}

/// Why chunks cannot be read or written, and what to do.
pub type IdentityStoreError = Box<dyn Error + Send + Sync>;

/// The chunks of a store, as loaded.
#[derive(Clone)]
pub struct LoadedIdentities {
    store: Arc<dyn IdentityStore>,
    chunks: Vec<Vec<u8>>,
}

impl LoadedIdentities {
    /// Reads the store. If it cannot be read, logs a warning; some records are then delivered
    /// twice.
    pub async fn load(store: Arc<dyn IdentityStore>) -> LoadedIdentities {
        let chunks = store.load().await.unwrap_or_else(|error| {
            warn!(%error, "identities of other replicas unreadable: some records may be sent again");
            Vec::new()
        });
        LoadedIdentities { store, chunks }
    }
}

impl std::fmt::Debug for LoadedIdentities {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoadedIdentities")
            .field("chunks", &self.chunks.len())
            .finish_non_exhaustive()
    }
}

pub(super) struct ChunkWriter {
    store: Arc<dyn IdentityStore>,
    /// A checksum of the log's name.
    log: u64,
    /// How long one chunk grows, in seconds.
    span: i64,
    filling: Chunk,
    /// Whether `filling` has identities that the store lacks.
    changed: bool,
    /// The last write of the chunk before `filling`, if it has to wait for an earlier write.
    waiting: Option<Write>,
    due: Instant,
    job: Option<JoinHandle<Result<(), IdentityStoreError>>>,
    /// Whether the last write failed, so that a series of failures is logged once.
    failing: bool,
}

/// A slot and its content.
type Write = (usize, Vec<u8>);

#[derive(Debug)]
struct Chunk {
    epoch: u64,
    number: u64,
    /// The second in which it was begun.
    begun: i64,
    identities: BTreeMap<i64, Vec<Identity>>,
    /// Its size when written.
    bytes: usize,
}

impl ChunkWriter {
    /// Continues the loaded chunks and passes their identities to `found`. `oldest_age`: how far
    /// back a log is read again. `afresh`: ignores the loaded chunks.
    pub(super) fn new(
        loaded: LoadedIdentities,
        log: &str,
        oldest_age: Duration,
        afresh: bool,
        now: Timestamp,
        mut found: impl FnMut(Filed),
    ) -> ChunkWriter {
        let log = checksum(log.as_bytes());
        let LoadedIdentities { store, chunks } = loaded;
        let mut chunks: Vec<Chunk> = chunks.iter().filter_map(|it| read(it, log)).collect();
        chunks.sort_by_key(|chunk| chunk.number);
        let filling = match chunks.pop() {
            Some(newest) if !afresh => {
                chunks.retain(|chunk| chunk.epoch == newest.epoch);
                for chunk in chunks.iter().chain([&newest]) {
                    for (&bucket, identities) in &chunk.identities {
                        identities.iter().for_each(|&it| found((bucket, it)));
                    }
                }
                newest
            }
            newest => {
                let number = newest.map_or(0, |newest| newest.number) + 1;
                Chunk::new(number, number, now)
            }
        };
        // Positions trail by one and a half times the oldest age; one chunk is being filled, and
        // one is about to be overwritten.
        let whole = store.chunks().saturating_sub(2).max(1) as u64;
        let span = (oldest_age.as_secs() * 3 / 2).div_ceil(whole);
        let span = span.max(WRITE_INTERVAL.as_secs());
        ChunkWriter {
            store,
            log,
            span: i64::try_from(span).unwrap_or(i64::MAX),
            filling,
            // The old chunks must not count for the next process either.
            changed: afresh,
            waiting: None,
            due: Instant::now(),
            job: None,
            failing: false,
        }
    }

    /// Adds identities of settled records, to be written soon.
    pub(super) fn append(&mut self, settled: &[Filed], now: Timestamp) {
        if now.as_second().saturating_sub(self.filling.begun) >= self.span {
            self.begin_chunk(now);
        }
        for &(bucket, identity) in settled {
            if !self
                .filling
                .add(bucket, identity, self.store.chunk_bytes_max())
            {
                self.begin_chunk(now);
                self.filling
                    .add(bucket, identity, self.store.chunk_bytes_max());
            }
            self.changed = true;
        }
        self.save_when_due();
    }

    /// Starts a write if it is due.
    pub(super) fn save_when_due(&mut self) {
        if let Some(job) = &mut self.job {
            let Some(ended) = job.now_or_never() else {
                return;
            };
            self.ended(ended);
        }
        if self.waiting.is_some() || self.changed && self.due <= Instant::now() {
            self.start();
        }
    }

    /// Waits until all is written, or a write has failed.
    pub(super) async fn flush(&mut self) {
        loop {
            if let Some(job) = &mut self.job {
                let ended = job.await;
                self.ended(ended);
                if self.failing {
                    return;
                }
            }
            if self.waiting.is_none() && !self.changed {
                return;
            }
            self.start();
        }
    }

    /// Begins the next chunk.
    fn begin_chunk(&mut self, now: Timestamp) {
        if self.changed {
            // While a write is in progress, only the newest waiting one is kept.
            self.waiting = Some(self.write());
            self.changed = false;
        }
        self.filling = Chunk::new(self.filling.epoch, self.filling.number + 1, now);
    }

    fn write(&self) -> Write {
        let chunks = self.store.chunks().max(1) as u64;
        let slot = usize::try_from(self.filling.number % chunks).unwrap_or_default();
        (slot, write(&self.filling, self.log))
    }

    /// Starts a write. No other may be in progress.
    fn start(&mut self) {
        let (slot, chunk) = self.waiting.take().unwrap_or_else(|| {
            self.changed = false;
            self.due = Instant::now() + WRITE_INTERVAL;
            self.write()
        });
        let store = Arc::clone(&self.store);
        self.job = Some(tokio::spawn(async move { store.save(slot, chunk).await }));
    }

    fn ended(&mut self, ended: Result<Result<(), IdentityStoreError>, JoinError>) {
        self.job = None;
        let error = match ended {
            Ok(Ok(())) => {
                self.failing = false;
                return;
            }
            Ok(Err(error)) => error,
            Err(error) => error.into(),
        };
        // The next write contains the whole chunk.
        self.changed = true;
        self.due = Instant::now() + WRITE_INTERVAL;
        if !std::mem::replace(&mut self.failing, true) {
            warn!(%error, "identities not stored for other replicas: a takeover sends some records again");
        }
    }
}

impl Chunk {
    fn new(epoch: u64, number: u64, now: Timestamp) -> Chunk {
        Chunk {
            epoch,
            number,
            begun: now.as_second(),
            identities: BTreeMap::new(),
            bytes: HEADER_BYTES,
        }
    }

    /// Adds an identity unless the chunk would exceed this size.
    fn add(&mut self, bucket: i64, identity: Identity, bytes_max: usize) -> bool {
        let frame = match self.identities.contains_key(&bucket) {
            true => 0,
            false => FRAME_BYTES,
        };
        if self.bytes + frame + IDENTITY_BYTES > bytes_max {
            return false;
        }
        self.bytes += frame + IDENTITY_BYTES;
        self.identities.entry(bucket).or_default().push(identity);
        true
    }
}

fn write(chunk: &Chunk, log: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(chunk.bytes);
    bytes.extend(MAGIC);
    for number in [log, chunk.epoch, chunk.number, chunk.begun.cast_unsigned()] {
        bytes.extend(number.to_le_bytes());
    }
    bytes.extend(checksum(&bytes).to_le_bytes());
    for (&bucket, identities) in &chunk.identities {
        push_frame(&mut bytes, bucket, identities.iter().copied());
    }
    bytes
}

/// `None` if the chunk is damaged or another log's.
fn read(bytes: &[u8], log: u64) -> Option<Chunk> {
    let head = bytes.get(..HEADER_BYTES)?;
    let number = |at: usize| head[at..at + 8].try_into().map_or(0, u64::from_le_bytes);
    if head[..8] != *MAGIC || number(8) != log || number(40) != checksum(&head[..40]) {
        return None;
    }
    let mut chunk = Chunk {
        epoch: number(16),
        number: number(24),
        begun: number(32).cast_signed(),
        identities: BTreeMap::new(),
        bytes: HEADER_BYTES,
    };
    let ignored = read_frames(&bytes[HEADER_BYTES..], |bucket, identity| {
        chunk.add(bucket, identity, usize::MAX);
    });
    if ignored > 0 {
        warn!(
            ignored_bytes = ignored,
            "identities of other replicas damaged: some records may be sent again"
        );
    }
    Some(chunk)
}
