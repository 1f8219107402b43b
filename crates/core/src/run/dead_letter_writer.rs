//! Writes rejects to the dead letter on a blocking thread, so that a slow disk, or the compression
//! of a full file, does not stop the loop. A record is settled only once its line is on the disk.
//!
//! One job at a time writes and syncs all waiting rejects together. Their memory is part of the byte
//! budget, besides that of their records, which are still open.

use std::future::pending;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep_until};

use crate::convert::{RecordId, Reject};
use crate::dead_letter::{DeadLetter, DeadLetterError};
use crate::record::Origin;

/// The wait between a failure and the next attempt.
const RETRY: Duration = Duration::from_millis(250);

/// What a reject takes besides its record, its error and the copy of its payload, roughly.
const LINE_OVERHEAD_BYTES: usize = 1024;

/// What to settle once a line is safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Settle {
    /// The whole record, which did not convert.
    Record,
    /// One of its events, which was refused.
    Event,
}

/// A reject on its way to the dead letter.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) record: RecordId,
    pub(super) settle: Settle,
    pub(super) reason: Reject,
    pub(super) error: String,
    pub(super) origin: Origin,
    pub(super) payload: Bytes,
}

impl Line {
    /// What it takes besides its record: its text, with a copy of the payload.
    fn bytes(&self) -> usize {
        self.payload.len() + self.error.len() + LINE_OVERHEAD_BYTES
    }
}

type Job = Pin<Box<dyn Future<Output = Result<(), DeadLetterError>> + Send>>;

/// A dead letter and the rejects waiting for it.
pub(super) struct DeadLetterWriter {
    dead_letter: DeadLetter,
    waiting: Vec<Line>,
    /// What the next success makes safe: the lines of the current job, and of jobs that failed
    /// before it.
    written: Vec<(RecordId, Settle)>,
    /// Bytes of all rejects that are not safe yet.
    bytes: usize,
    job: Option<Job>,
    not_before: Instant,
}

impl DeadLetterWriter {
    pub(super) fn new(dead_letter: DeadLetter) -> DeadLetterWriter {
        DeadLetterWriter {
            dead_letter,
            waiting: Vec::new(),
            written: Vec::new(),
            bytes: 0,
            job: None,
            not_before: Instant::now(),
        }
    }

    /// Adds a reject. Does no I/O: [`DeadLetterWriter::next`] does.
    pub(super) fn add(&mut self, line: Line) {
        self.bytes += line.bytes();
        self.waiting.push(line);
    }

    /// Bytes that the rejects which are not safe yet take besides their records.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether all added rejects are safe.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.written.is_empty()
    }

    /// Waits for a write and returns what has become safe; pends for ever while there is nothing to
    /// write. Cancel-safe.
    ///
    /// # Errors
    /// The disk refused the write; the next call tries again, a little later.
    pub(super) async fn next(&mut self) -> Result<Vec<(RecordId, Settle)>, DeadLetterError> {
        if self.is_idle() {
            return pending().await;
        }
        if self.job.is_none() {
            sleep_until(self.not_before).await;
        }
        let job = match &mut self.job {
            Some(job) => job,
            None => {
                let lines = std::mem::take(&mut self.waiting);
                let settles = lines.iter().map(|line| (line.record, line.settle));
                self.written.extend(settles);
                self.job.insert(write(self.dead_letter.clone(), lines))
            }
        };
        let result = job.await;
        self.job = None;
        match result {
            Ok(()) => {
                self.bytes = self.waiting.iter().map(Line::bytes).sum();
                Ok(std::mem::take(&mut self.written))
            }
            Err(error) => {
                self.not_before = Instant::now() + RETRY;
                Err(error)
            }
        }
    }
}

/// Writes and syncs these lines and any that an earlier failure left in the dead letter's memory.
fn write(mut dead_letter: DeadLetter, lines: Vec<Line>) -> Job {
    Box::pin(async move {
        let blocking = dead_letter.clone();
        let done = blocking.run_blocking(move || {
            for line in lines {
                // A line that could not be written stays in memory, and the sync tries again.
                let _ = dead_letter.write(line.reason, &line.error, &line.origin, &line.payload);
            }
            dead_letter.sync()
        });
        done.await
    })
}
