//! Which records a tail has seen: in memory, and for the next run on disk and in the cluster.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::timeout;
use tracing::warn;

use super::cursor::Cursor;
use super::identity_chunks::{ChunkWriter, LoadedIdentities};
use super::seen::bucket_of;
use super::segment_writer::SegmentWriter;
use super::segments::Filed;
use super::segments::Segments;
use super::{Tail, TimeLog};

/// How long `close` waits for identities to be written.
const CLOSE_WAIT_MAX: Duration = Duration::from_secs(5);

impl<L: TimeLog> Tail<L> {
    /// Loads the identities of an earlier run.
    pub(super) fn load_identities(&mut self, folder: &Path, afresh: bool) {
        let horizon = bucket_of(self.horizon());
        let seen = &mut self.seen;
        let opened = Segments::open(folder, self.log.name(), |bucket, identity| {
            // A fresh start reads everything, whatever was delivered before.
            if !afresh && bucket >= horizon {
                seen.insert(bucket, identity);
            }
        });
        match opened {
            Ok(mut segments) => {
                match afresh {
                    true => segments.clear(),
                    false => segments.forget(horizon),
                }
                self.segments = Some(SegmentWriter::new(segments, self.identities_max));
            }
            Err(error) => warn!(
                folder = %folder.display(), %error,
                "identities not written: a restart sends some records again"
            ),
        }
        self.trim();
    }

    /// Loads the identities that another process stored.
    pub(super) fn load_identity_chunks(&mut self, loaded: LoadedIdentities, afresh: bool) {
        let horizon = bucket_of(self.horizon());
        let oldest_age = self.cursors.last().map_or(Duration::ZERO, |last| last.age);
        let (seen, now) = (&mut self.seen, self.clock.now());
        let found = |(bucket, identity)| {
            if bucket >= horizon {
                seen.insert(bucket, identity);
            }
        };
        let name = self.log.name();
        self.chunks = Some(ChunkWriter::new(
            loaded, name, oldest_age, afresh, now, found,
        ));
        self.trim();
    }

    /// Stores the identities that are settled now, and forgets those that all cursors have passed.
    pub(super) fn keep(&mut self, settled: &mut Vec<Filed>) {
        if let Some(chunks) = &mut self.chunks {
            chunks.append(settled, self.clock.now());
        }
        if let Some(segments) = &mut self.segments {
            segments.append(settled);
        }
        self.trim();
    }

    /// Waits, for a limited time, for identities that are still being written.
    pub(super) async fn flush_identities(&mut self) {
        let (segments, chunks) = (&mut self.segments, &mut self.chunks);
        let flush = async {
            if let Some(segments) = segments {
                segments.flush().await;
            }
            if let Some(chunks) = chunks {
                chunks.flush().await;
            }
        };
        if timeout(CLOSE_WAIT_MAX, flush).await.is_err() {
            warn!("identities not completely written: a restart sends some records again");
        }
    }

    /// Keeps all remembered identities within their limits.
    pub(super) fn trim(&mut self) {
        let horizon = self.horizon();
        self.seen.forget(horizon, self.cursors[0].position);
        if let Some(newest) = self.seen.shrink()
            && newest >= bucket_of(self.lowest())
        {
            self.monitor.overflowed(self.identities_max);
        }
        self.monitor.identities(self.seen.len());
        if let Some(segments) = &mut self.segments {
            segments.forget(bucket_of(horizon));
        }
        if let Some(chunks) = &mut self.chunks {
            chunks.save_when_due();
        }
        // Without a checkpoint no position is ever settled. Identities that wait for that are only
        // needed on disk, so drop them.
        let waiting: usize = self.cursors.iter().map(Cursor::waiting).sum();
        if waiting > self.identities_max {
            for mark in self.cursors.iter_mut().flat_map(|c| c.marks.iter_mut()) {
                mark.identities = Vec::new();
            }
        }
    }

    /// The time before which no cursor will read again, in this run or the next.
    fn horizon(&self) -> Timestamp {
        let committed = self.cursors.iter().map(|cursor| cursor.committed);
        committed.min().unwrap_or(Timestamp::MIN)
    }

    /// The time before which no cursor will read again in this run.
    fn lowest(&self) -> Timestamp {
        let positions = self.cursors.iter().map(|cursor| cursor.position);
        positions.min().unwrap_or(Timestamp::MIN)
    }
}
