//! Writes identities on a blocking thread, one job at a time, so that a slow disk does not delay
//! reading. The number of waiting identities is bounded; those beyond are not written, which only
//! costs duplicates after a restart.

use futures_util::FutureExt;
use tokio::task::{JoinHandle, spawn_blocking};
use tracing::warn;

use super::segments::{Filed, Segments};

/// Writes identities and deletes files that are no longer needed.
#[derive(Debug)]
pub(super) struct SegmentWriter {
    state: State,
    waiting: Vec<Filed>,
    /// How many identities may wait.
    waiting_max: usize,
    /// Files that contain only earlier buckets are deleted.
    horizon: i64,
    /// The horizon of the last job.
    forgotten: i64,
    /// Whether identities were dropped since the last job, so that this is logged once.
    full: bool,
}

#[derive(Debug)]
enum State {
    Idle(Segments),
    Busy(JoinHandle<Segments>),
    /// A job panicked, so the files are lost to this process.
    Broken,
}

impl SegmentWriter {
    pub(super) fn new(segments: Segments, waiting_max: usize) -> SegmentWriter {
        SegmentWriter {
            state: State::Idle(segments),
            waiting: Vec::new(),
            waiting_max,
            horizon: i64::MIN,
            forgotten: i64::MIN,
            full: false,
        }
    }

    /// Adds identities of settled records, to be written now or soon.
    pub(super) fn append(&mut self, settled: &mut Vec<Filed>) {
        if self.waiting.len() + settled.len() <= self.waiting_max {
            self.waiting.append(settled);
        } else if !std::mem::replace(&mut self.full, true) {
            warn!(
                waiting = self.waiting.len(),
                "disk too slow to write identities: a restart sends some records again"
            );
        }
        self.start();
    }

    /// Deletes the files that contain only earlier buckets, now or soon.
    pub(super) fn forget(&mut self, horizon: i64) {
        self.horizon = self.horizon.max(horizon);
        self.start();
    }

    /// Waits until everything is written.
    pub(super) async fn flush(&mut self) {
        loop {
            self.start();
            let State::Busy(job) = &mut self.state else {
                return;
            };
            let ended = job.await;
            self.ended(ended);
        }
    }

    /// Starts a job if there is something to do and none is running.
    fn start(&mut self) {
        if let State::Busy(job) = &mut self.state
            && let Some(ended) = job.now_or_never()
        {
            self.ended(ended);
        }
        if self.waiting.is_empty() && self.forgotten >= self.horizon {
            return;
        }
        let mut segments = match std::mem::replace(&mut self.state, State::Broken) {
            State::Idle(segments) => segments,
            other => {
                self.state = other;
                return;
            }
        };
        let (mut settled, horizon) = (std::mem::take(&mut self.waiting), self.horizon);
        self.forgotten = horizon;
        self.full = false;
        self.state = State::Busy(spawn_blocking(move || {
            segments.append(&mut settled);
            segments.forget(horizon);
            segments
        }));
    }

    fn ended(&mut self, ended: Result<Segments, tokio::task::JoinError>) {
        self.state = match ended {
            Ok(segments) => State::Idle(segments),
            Err(error) => {
                warn!(
                    %error,
                    "identities writer panicked: a restart sends some records again; please report this"
                );
                self.waiting = Vec::new();
                self.waiting_max = 0;
                State::Broken
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;
    use crate::identity::Identity;

    fn filed(range: std::ops::Range<u64>) -> Vec<Filed> {
        range
            .map(|n| ((n / 10) as i64, Identity::of(&[&n.to_le_bytes()])))
            .collect()
    }

    fn open(folder: &Path) -> (SegmentWriter, BTreeSet<Filed>) {
        let mut kept = BTreeSet::new();
        let segments = Segments::open(folder, "log", |bucket, identity| {
            kept.insert((bucket, identity));
        })
        .unwrap();
        (SegmentWriter::new(segments, 1000), kept)
    }

    #[tokio::test]
    async fn segment_writer_flushed_keeps_all_and_deletes_the_passed() {
        let folder = tempfile::tempdir().unwrap();
        let (mut writer, none) = open(folder.path());
        assert!(none.is_empty());
        for round in 0..20 {
            writer.append(&mut filed(round * 10..(round + 1) * 10));
        }
        writer.flush().await;
        drop(writer);
        let (mut writer, kept) = open(folder.path());
        assert_eq!(kept, filed(0..200).into_iter().collect());
        writer.forget(20);
        writer.append(&mut filed(300..310));
        writer.flush().await;
        drop(writer);
        assert_eq!(open(folder.path()).1, filed(300..310).into_iter().collect());
    }

    #[tokio::test(flavor = "current_thread")]
    async fn segment_writer_slow_disk_keeps_what_fits_without_waiting() {
        let folder = tempfile::tempdir().unwrap();
        let (mut writer, _) = open(folder.path());
        let State::Idle(segments) = std::mem::replace(&mut writer.state, State::Broken) else {
            panic!("nothing was written yet");
        };
        let (release, stalled) = std::sync::mpsc::channel::<()>();
        writer.state = State::Busy(spawn_blocking(move || {
            let _ = stalled.recv();
            segments
        }));
        for round in 0..30 {
            writer.append(&mut filed(round * 100..(round + 1) * 100));
        }
        assert_eq!(writer.waiting.len(), 1000);
        release.send(()).unwrap();
        writer.flush().await;
        drop(writer);
        assert_eq!(open(folder.path()).1, filed(0..1000).into_iter().collect());
    }

    #[tokio::test]
    async fn segment_writer_after_panic_continues_without_files() {
        let folder = tempfile::tempdir().unwrap();
        let (mut writer, _) = open(folder.path());
        writer.state = State::Busy(spawn_blocking(|| panic!("a defect")));
        writer.flush().await;
        writer.append(&mut filed(0..10));
        writer.forget(3);
        writer.flush().await;
        assert!(writer.waiting.is_empty());
    }
}
