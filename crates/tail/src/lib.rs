//! A source that tails a log which is queried by time (CloudWatch Logs, Cloud Logging).
//!
//! Such a log shows records late, out of order, and many with the same time. A *cursor* reads it in
//! windows without gaps, each beginning where the last fully read one ended; it misses records that
//! become visible behind it. So there are several cursors: the edge follows now, the others trail
//! it at fixed ages and find late records. The first cursor that reads a record hands it out; its
//! identity is remembered until all cursors have passed it.
//!
//! Guarantees, whatever fails:
//! - **Nothing visible within the oldest age is missed.** Every stretch is read by the edge and,
//!   for each age, once more when it is at least that old. A cursor moves only over a window whose
//!   last page was read.
//! - **Each record is protected by the cursor that handed it out.** That cursor's committed
//!   position stays before the record until it is settled. Other cursors may pass it meanwhile:
//!   after a crash the first one reads it again. For the same reason only settled identities are
//!   kept on disk.
//! - **Memory is bounded**: one page for each cursor, and 8 to 13 bytes for each identity of the
//!   last one and a half times the oldest age, at most [`TailSettings::identities_max`].
//!
//! A backlog is read in windows of a few pages, so that positions advance and page tokens stay
//! young. An older cursor never overtakes a younger one: the younger has to read the stretch
//! anyway, and if the stretch is old enough by then, the older one skips it. So a backlog is read
//! once. If a log produces more than the requests can carry, the tail first lags behind and then
//! needs fewer requests: at a lag of the first age, the first revisits stop.
//!
//! The clock decides what is old enough, so a clock ahead of the log's by more than the oldest age
//! would lose records. If the log's answers tell its time, nothing is read beyond that.
//!
//! Not here: the provider's requests (its [`TimeLog`]) and records that come in parts (its
//! converter).

mod cursor;
mod identity;
mod identity_chunks;
mod known;
mod limiter;
mod log;
mod monitor;
mod now;
mod paired;
mod resume;
mod seen;
mod segment_writer;
mod segments;
mod server_clock;
mod settings;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};

pub use identity::Identity;
pub use identity_chunks::{IdentityStore, IdentityStoreError, LoadedIdentities};
pub use limiter::Limiter;
pub use log::{Clock, LogPage, PageEntry, QueryError, SystemClock, TimeLog, Window};
pub use monitor::{Late, Monitor, TailStats, TailStatus};
pub use paired::{Paired, split_positions};
pub use resume::{CursorPosition, ResumeError, cursor_times};
pub use server_clock::ServerClock;
pub use settings::TailSettings;

use audit_bridge_core::retry::Backoff;
use audit_bridge_core::source::{Page, PartitionChange, ReadTo, Source, StoredPositions};
use cursor::{Cursor, Scan};
use identity_chunks::ChunkWriter;
use log::{ceil, floor};
use resume::CursorState;
use seen::{SeenIdentities, bucket_of};
use segment_writer::SegmentWriter;

/// The first window of a backlog, and the limits of later ones.
const SPAN_FIRST: Duration = Duration::from_secs(300);
const SPAN_MIN: Duration = Duration::from_secs(1);
const SPAN_MAX: Duration = Duration::from_secs(400 * 86_400);

/// The target number of pages in a window of a backlog. With more, a crash repeats more and page
/// tokens get old; with fewer, more pages are half empty.
const PAGES_AIM: u32 = 16;

/// A window with this many pages is started again as a shorter one.
const PAGES_MAX: u32 = 64;

/// A request without an answer after this time has failed.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(60);

/// After this many failures of one page, its window is read again from the start: the page token
/// may be invalid.
const TOKEN_FAILURES_MAX: u32 = 5;

/// The tail of a log. Its partitions are its cursors: the edge is 0, the others follow by age.
pub struct Tail<L: TimeLog> {
    log: Arc<L>,
    clock: Arc<dyn Clock>,
    limiter: Arc<Limiter>,
    monitor: Monitor,
    backoff: Backoff,
    resolution: Duration,
    poll_interval: Duration,
    until: Option<Timestamp>,
    identities_max: usize,
    /// By age, the edge first.
    cursors: Vec<Cursor>,
    /// Where the edge began in this run. Older cursors do not count records before this as late,
    /// since they may have arrived during an earlier run.
    began_at: Timestamp,
    /// The length of a backlog's windows, adapted to the density of the log.
    span: Duration,
    seen: SeenIdentities,
    segments: Option<SegmentWriter>,
    chunks: Option<ChunkWriter>,
    /// At most one request per cursor. Requests survive a dropped `read`, and end with the tail.
    requests: JoinSet<Result<LogPage<L::Raw>, QueryError>>,
    /// Pages that are ready to be handed out.
    pages: VecDeque<Page<CursorPosition>>,
}

impl<L: TimeLog> Tail<L> {
    /// A tail that resumes from `positions`, or begins at the settings' start if there are none. In
    /// that case it deletes the identities of an earlier run. Blocks while it reads them.
    ///
    /// If the folder for identities is unusable, a warning is logged and some records are delivered
    /// twice.
    ///
    /// # Errors
    /// A position is not a tail's, so the tail would have to guess where to begin.
    pub fn new(
        log: L,
        settings: TailSettings,
        positions: &StoredPositions,
        limiter: Arc<Limiter>,
        clock: Arc<dyn Clock>,
    ) -> Result<Tail<L>, ResumeError> {
        let resolution = log.resolution();
        let mut ages = settings.revisit_after;
        ages.retain(|age| !age.is_zero());
        ages.sort_unstable();
        ages.dedup();
        let monitor = Monitor::new(log.name(), &ages, settings.observer);
        ages.insert(0, Duration::ZERO);
        let places = resume::places(&ages, positions, floor(settings.start, resolution))?;
        let poll_interval = settings.poll_interval.max(Duration::from_millis(1));
        let cursors: Vec<Cursor> = std::iter::zip(&ages, places)
            .map(|(&age, mut place)| {
                place.since = floor(place.since, resolution);
                place.read_to = floor(place.read_to, resolution);
                Cursor::new(age, poll_interval.max(age / 2), place)
            })
            .collect();
        let mut tail = Tail {
            seen: SeenIdentities::new(settings.identities_max),
            segments: None,
            chunks: None,
            requests: JoinSet::new(),
            pages: VecDeque::new(),
            span: SPAN_FIRST,
            backoff: Backoff::seeded(fastrand::u64(..)),
            until: settings.until.map(|until| ceil(until, resolution)),
            identities_max: settings.identities_max,
            log: Arc::new(log),
            clock,
            limiter,
            monitor,
            resolution,
            poll_interval,
            began_at: cursors.first().map_or(Timestamp::MIN, |edge| edge.position),
            cursors,
        };
        if let Some(folder) = settings.seen_dir {
            tail.load_identities(&folder, positions.is_empty());
        }
        if let Some(loaded) = settings.identities {
            tail.load_identity_chunks(loaded, positions.is_empty());
        }
        // First, every cursor emits its position. Otherwise the checkpoint might have the edge's
        // progress before the other cursors have any position, and a restart would begin them at
        // the edge's.
        for index in 0..tail.cursors.len() {
            tail.emit_page(index, Vec::new(), true);
        }
        // Only then retire the cursors that the edge has taken over.
        let cursors = u32::try_from(tail.cursors.len()).unwrap_or(u32::MAX);
        let gone = positions.range(cursors..);
        let gone: Vec<_> = gone
            .map(|(&partition, _)| PartitionChange::Retired(partition))
            .collect();
        if !gone.is_empty() {
            tail.pages.push_back(Page {
                partitions: gone,
                ..Page::default()
            });
        }
        Ok(tail)
    }

    /// A handle that observes this tail after the tail is given away.
    pub fn monitor(&self) -> Monitor {
        self.monitor.clone()
    }

    fn finished(&self) -> bool {
        self.until.is_some_and(|until| {
            let mut cursors = self.cursors.iter();
            cursors.all(|cursor| cursor.position >= until)
        })
    }

    /// Starts the requests that are due. Returns when to check again.
    fn start_due(&mut self) -> Instant {
        let now_at = Instant::now();
        let now = self.now();
        self.correct_beginnings(now);
        let mut wake = now_at + self.poll_interval;
        for index in 0..self.cursors.len() {
            let cursor = &self.cursors[index];
            if cursor.request.is_none() && cursor.due <= now_at {
                self.start(index, now_at, now);
            }
            let cursor = &self.cursors[index];
            if cursor.request.is_none() {
                wake = wake.min(cursor.due);
            }
        }
        wake
    }

    fn start(&mut self, index: usize, now_at: Instant, now: Timestamp) {
        let resolution = self.resolution;
        let before = self.cursors[index].position;
        if self.cursors[index].rewind(now, resolution) {
            self.monitor
                .clock_went_back(self.cursors[index].age, before, now);
            for cursor in &mut self.cursors {
                cursor.clear_covered();
            }
        }
        let younger = index.checked_sub(1).map(|index| &self.cursors[index]);
        let limit = younger.map_or(Timestamp::MAX, |younger| younger.position);
        let limit = limit.min(self.until.unwrap_or(Timestamp::MAX));
        let span = self.span;
        let cursor = &mut self.cursors[index];
        if cursor.scan.is_none() {
            let Some((window, cut)) = cursor.plan(now, limit, span, resolution) else {
                cursor.due = now_at + self.poll_interval;
                if index == 0 && self.until.is_some_and(|until| until <= before) {
                    self.report_read_to(now);
                }
                return;
            };
            cursor.scan = Some(Scan {
                window,
                token: None,
                begun: now,
                begun_at: now_at,
                pages: 0,
                cut,
            });
        }
        let Some(scan) = &cursor.scan else { return };
        let (window, token) = (scan.window, scan.token.clone());
        let (log, limiter) = (Arc::clone(&self.log), Arc::clone(&self.limiter));
        let request = self.requests.spawn(async move {
            limiter.acquire().await;
            let answer = timeout(ANSWER_WAIT_MAX, log.query(&window, token.as_deref())).await;
            answer.unwrap_or_else(|_| {
                let seconds = ANSWER_WAIT_MAX.as_secs();
                let detail = format!("no answer within {seconds} s");
                Err(QueryError::Transient { detail })
            })
        });
        cursor.request = Some(request.id());
    }

    fn answered(&mut self, answer: Answer<L::Raw>) {
        let (id, answer) = match answer {
            Ok((id, answer)) => (id, answer),
            Err(error) => {
                let detail = format!("the client broke: {error}");
                (error.id(), Err(QueryError::Transient { detail }))
            }
        };
        let mut cursors = self.cursors.iter();
        let Some(index) = cursors.position(|cursor| cursor.request == Some(id)) else {
            return;
        };
        self.cursors[index].request = None;
        match answer {
            Ok(page) => self.page(index, page),
            Err(error) => self.failed(index, &error),
        }
    }

    fn page(&mut self, index: usize, page: LogPage<L::Raw>) {
        self.limiter.answered();
        self.monitor.answered(index, page.entries.len());
        // Pages without events say nothing about the density of the log: a group with many old
        // streams returns them even for a short window.
        let holds_events = !page.entries.is_empty();
        let edge = self.cursors[0].position;
        let mut records = Vec::new();
        for entry in page.entries {
            let bucket = bucket_of(entry.time);
            if !self.seen.insert(bucket, entry.identity) {
                continue;
            }
            let cursor = &mut self.cursors[index];
            cursor.mark.identities.push((bucket, entry.identity));
            cursor.mark.newest = cursor.mark.newest.max(Some(entry.time));
            let read_by_edge = self.began_at <= entry.time && entry.time < edge;
            let late = read_by_edge.then(|| index.checked_sub(1)).flatten();
            self.monitor.record(entry.time, late);
            records.push(self.log.record(entry.raw));
        }
        let cursor = &mut self.cursors[index];
        cursor.failures = 0;
        cursor.due = Instant::now();
        let mut complete = None;
        if let Some(scan) = &mut cursor.scan {
            scan.pages += u32::from(holds_events);
            let long = holds_events && scan.pages >= PAGES_MAX && scan.window.span() > SPAN_MIN;
            match page.next {
                None => complete = cursor.scan.take(),
                Some(_) if long => {
                    self.span = (scan.window.span() / 8).max(SPAN_MIN);
                    cursor.scan = None;
                }
                next => scan.token = next,
            }
        }
        match complete {
            Some(scan) => self.complete(index, &scan, records),
            None if records.is_empty() => {}
            None => self.emit_page(index, records, false),
        }
        self.trim();
    }

    /// Handles a window that is fully read.
    fn complete(
        &mut self,
        index: usize,
        scan: &Scan,
        records: Vec<audit_bridge_core::record::Record>,
    ) {
        let begun = self.begun(scan);
        let cursor = &mut self.cursors[index];
        cursor.complete(scan.window, begun, self.resolution);
        let position = cursor.position;
        if !scan.cut {
            cursor.due = scan.begun_at + cursor.interval;
        }
        cursor.skip();
        if index == 0 {
            self.monitor.read_to(position, !scan.cut);
        }
        self.emit_page(index, records, true);
        for index in index + 1..self.cursors.len() {
            self.cursors[index].add_covered(scan.window, begun, self.resolution);
            if self.cursors[index].skip() {
                self.emit_page(index, Vec::new(), true);
            }
        }
        self.adapt(scan);
    }

    /// Adapts the length of windows to a target number of pages.
    fn adapt(&mut self, scan: &Scan) {
        let span = scan.window.span();
        if scan.pages > PAGES_AIM {
            self.span = (span * PAGES_AIM / scan.pages).max(SPAN_MIN);
        } else if scan.cut && span >= self.span && scan.pages <= PAGES_AIM / 2 {
            self.span = (self.span * 2).min(SPAN_MAX);
        }
    }

    fn emit_page(
        &mut self,
        index: usize,
        records: Vec<audit_bridge_core::record::Record>,
        complete: bool,
    ) {
        let cursor = &mut self.cursors[index];
        let position = complete.then(|| {
            cursor.emit_position();
            CursorPosition {
                age: cursor.age,
                state: CursorState {
                    since: cursor.since,
                    read_to: cursor.position,
                },
            }
        });
        // The other cursors trail on purpose, so they do not count for the lag.
        let edge_read_to = (complete && index == 0).then(|| self.read_to(self.cursors[0].position));
        self.pages.push_back(Page {
            partition: u32::try_from(index).unwrap_or(u32::MAX),
            records,
            position,
            read_to: edge_read_to,
            ..Page::default()
        });
    }

    /// Reports that the edge has reached its end, so no more is expected of it.
    fn report_read_to(&mut self, now: Timestamp) {
        let read_to = Some(self.read_to(now));
        self.pages.push_back(Page {
            read_to,
            ..Page::default()
        });
    }

    fn read_to(&self, time: Timestamp) -> ReadTo {
        ReadTo {
            time,
            again_within: self.poll_interval * 2,
        }
    }

    fn failed(&mut self, index: usize, error: &QueryError) {
        let cursor = &mut self.cursors[index];
        cursor.failures = cursor.failures.saturating_add(1);
        let failures = cursor.failures;
        self.monitor.failed(index, error, failures);
        let mut asked = None;
        let restart = match error {
            QueryError::Throttled { after } => {
                self.limiter.throttled();
                asked = *after;
                false
            }
            QueryError::TokenExpired => true,
            QueryError::Unauthenticated { .. }
            | QueryError::Denied { .. }
            | QueryError::Transient { .. } => failures.is_multiple_of(TOKEN_FAILURES_MAX),
        };
        if restart && let Some(scan) = &mut cursor.scan {
            scan.token = None;
            scan.pages = 0;
        }
        cursor.due = Instant::now() + self.backoff.wait_asked(failures, asked);
    }
}

/// The result of a request's task.
type Answer<Raw> = Result<(Id, Result<LogPage<Raw>, QueryError>), JoinError>;

impl<L: TimeLog> Source for Tail<L> {
    type Position = CursorPosition;

    async fn read(&mut self) -> Option<Page<CursorPosition>> {
        loop {
            if let Some(page) = self.pages.pop_front() {
                return Some(page);
            }
            if self.finished() {
                return None;
            }
            let wake = self.start_due();
            // Both waits are cancel-safe: answers stay in their tasks.
            let joined = tokio::select! {
                joined = self.requests.join_next_with_id(), if !self.requests.is_empty() => joined,
                () = sleep_until(wake) => None,
            };
            if let Some(answer) = joined {
                self.answered(answer);
            }
        }
    }

    /// Keeps the identities that are settled now, and forgets those that all cursors have passed.
    fn commit(&mut self, partition: u32, position: &CursorPosition) {
        let cursor = self.cursors.get_mut(partition as usize);
        let mark = cursor.and_then(|cursor| cursor.commit(position.state.read_to));
        let Some(mut mark) = mark else {
            return;
        };
        self.monitor.settled(mark.newest);
        self.keep(&mut mark.identities);
    }

    /// Waits, for a limited time, for identities that are still being written.
    async fn close(&mut self) {
        self.flush_identities().await;
    }
}
