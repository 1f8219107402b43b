//! Reads one shard, to its end or indefinitely.
//!
//! Each shard has its own task, so that none waits for another. A shard serves five calls and 2 MB
//! a second to all its consumers together, so the reader polls about once a second at the head, and
//! as fast as the quota allows behind it. After any failure it continues after the last record that
//! it handed on.

use std::sync::Arc;
use std::time::Duration;

use audit_bridge_app::provider::partitions::PartitionHealth;
use audit_bridge_core::retry::Backoff;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until};

use super::budget::Budget;
use super::gap_detector::{GapDetector, SuspectedGap};
use super::position::{ShardPage, ShardPosition};
use super::unpack::Unpacker;
use crate::client::kinesis::{
    IteratorStart, Packed, RecordsAnswer, SequenceNumber, StreamApi, StreamError, StreamErrorKind,
    StreamShard,
};
use crate::convert::STREAM_PREFIX;
use crate::wire::packed::UNPACKED_BYTES_MAX;

/// The largest answer of `GetRecords`.
const ANSWER_BYTES_MAX: usize = 10 << 20;
/// What a shard takes in per second; also the unit of the margin on top.
const SHARD_BYTES_PER_SECOND: usize = 1 << 20;
/// Target size of an answer, by the average size of the records before.
const ANSWER_BYTES: usize = 1 << 20;
/// What a shard serves per second.
const READ_BYTES_PER_SECOND: u32 = 2 << 20;
/// The most records in an answer.
const LIMIT_MAX: u32 = 10_000;
/// Records of the first request, before their size is known.
const LIMIT_FIRST: u32 = 100;

/// Records of a shard may be out of order by their times of arrival, which are approximate, by less
/// than this.
const DISORDER_MAX: SignedDuration = SignedDuration::from_mins(1);

/// This many throttled calls in a row make the shard unreadable for `/readyz`.
const THROTTLED_MAX: u32 = 8;

/// The intervals at which a shard is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ShardTiming {
    /// Between two calls at the head of the shard.
    pub(crate) poll: Duration,
    /// Between two calls behind the head: all consumers of the shard share five calls a second.
    pub(crate) gap: Duration,
    /// How often the position of a quiet shard is written again, with the time up to which it is
    /// read.
    pub(crate) refresh: Duration,
    /// How often the shards are listed.
    pub(crate) list: Duration,
    /// The same while a shard's children are missing from the list.
    pub(crate) list_again: Duration,
    /// How long to wait before a stream that seems to have been recreated is checked again.
    pub(crate) confirm: Duration,
}

impl Default for ShardTiming {
    fn default() -> ShardTiming {
        ShardTiming {
            poll: Duration::from_secs(1),
            gap: Duration::from_millis(220),
            refresh: Duration::from_secs(300),
            list: Duration::from_secs(60),
            list_again: Duration::from_secs(2),
            confirm: Duration::from_secs(10),
        }
    }
}

/// Resources that all shards of the process share, even if each is its own log. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct ReaderResources {
    /// Bytes of answers, from before the call until the last record is unpacked.
    pub(crate) packed: Budget,
    /// Bytes of unpacked records, until the pipeline takes them.
    pub(crate) unpacked: Budget,
    /// The paces of all log streams.
    pub(crate) gap_detector: GapDetector,
    /// How the names of the audit log's streams begin (`--log-stream-prefix`).
    pub(crate) stream_prefix: Arc<str>,
}

impl Default for ReaderResources {
    fn default() -> ReaderResources {
        ReaderResources {
            packed: Budget::new(2 * ANSWER_BYTES_MAX),
            unpacked: Budget::new(24 << 20),
            gap_detector: GapDetector::default(),
            stream_prefix: STREAM_PREFIX.into(),
        }
    }
}

/// The context that the readers of all shards share.
#[derive(Debug)]
pub(crate) struct ShardReaderContext<A> {
    pub(crate) api: Arc<A>,
    pub(crate) health: PartitionHealth,
    pub(crate) timing: ShardTiming,
    pub(crate) resources: ReaderResources,
    /// The end of the job, if this is one.
    pub(crate) until: Option<Timestamp>,
    /// How long the stream keeps records, if known.
    pub(crate) retention: Option<Duration>,
    /// The stream's name, for messages.
    pub(crate) stream: String,
}

/// Why a reader ended for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Done {
    /// The source was dropped, or the reader was told to leave.
    Closed,
    /// Everything up to the end of the job was read.
    Reached,
    /// The shard is closed, and its end was handed on.
    Ended,
    /// The stream no longer has the shard.
    Gone,
}

/// Reads one shard.
pub(crate) struct ShardReader<A> {
    shared: Arc<ShardReaderContext<A>>,
    id: String,
    unpacker: Unpacker,
    /// Where the next iterator starts.
    place: IteratorStart,
    iterator: Option<String>,
    /// Everything that the shard held at this time was handed on.
    read_to: Option<Timestamp>,
    /// Records to request per call.
    limit: u32,
    next_call_at: Instant,
    /// When the shard last had nothing more to read.
    at_head_at: Option<Instant>,
    /// When its position was last handed on.
    standing_at: Instant,
    gap_told_at: Option<Instant>,
    /// A record that arrived after the end of the job was left out: the position stays before it.
    left_out: bool,
    pages: mpsc::Sender<ShardPage>,
    failures: u32,
    backoff: Backoff,
}

impl<A: StreamApi> ShardReader<A> {
    pub(crate) fn new(
        shared: Arc<ShardReaderContext<A>>,
        shard: &StreamShard,
        index: u32,
        begin: &ShardPosition,
        pages: mpsc::Sender<ShardPage>,
    ) -> ShardReader<A> {
        let place: Arc<str> = Arc::from(format!("{}/{}", shared.stream, shard.id));
        // A call takes a while, and one that was lost is repeated.
        let again_within = shared.timing.poll * 3;
        let gap_detector = shared.resources.gap_detector.clone();
        let prefix = Arc::clone(&shared.resources.stream_prefix);
        let mut unpacker = Unpacker::new(index, place, again_within, gap_detector, prefix);
        let (begin, read_to) = match begin {
            ShardPosition::After {
                sequence_number,
                read_to,
                paces,
            } => {
                unpacker.resume(paces);
                (IteratorStart::After(sequence_number.clone()), *read_to)
            }
            ShardPosition::From { from } => (from.place(), None),
            ShardPosition::Ended { .. } => (IteratorStart::Oldest, None),
        };
        let now = Instant::now();
        let mut reader = ShardReader {
            shared,
            id: shard.id.clone(),
            unpacker,
            place: begin,
            iterator: None,
            read_to,
            limit: LIMIT_FIRST,
            next_call_at: now,
            at_head_at: None,
            standing_at: now,
            gap_told_at: None,
            left_out: false,
            pages,
            failures: 0,
            backoff: Backoff::seeded(fastrand::u64(..)),
        };
        reader.check_first(shard.first.as_ref());
        reader
    }

    /// A stored number below the shard's first belongs to another stream of that name.
    fn check_first(&mut self, first: Option<&SequenceNumber>) {
        if let (IteratorStart::After(number), Some(first)) = (&self.place, first)
            && number < first
        {
            self.begin_anew("is smaller than any of the shard");
        }
    }

    /// Reads until the source is dropped, the job is done, the shard is at its end or gone, or
    /// `leave` tells it to stop.
    pub(crate) async fn run(mut self, leave: oneshot::Receiver<()>) -> Done {
        let pages = self.pages.clone();
        let mut over = std::pin::pin!(async move {
            tokio::select! {
                () = pages.closed() => {}
                Ok(()) = leave => {}
            }
        });
        self.shared.health.starting(&self.id);
        loop {
            let step = tokio::select! {
                biased;
                () = over.as_mut() => return Done::Closed,
                step = self.step() => step,
            };
            let fault = match step {
                Ok(None) => continue,
                Ok(Some(done)) => {
                    tracing::debug!(shard = self.id, ?done, "shard reader ended");
                    self.shared.health.left(&self.id);
                    return done;
                }
                Err(fault) => fault,
            };
            if fault.kind == StreamErrorKind::NotFound && self.is_gone().await {
                self.tell_gap("the shard itself is gone, with what was not read of it");
                self.shared.health.left(&self.id);
                return Done::Gone;
            }
            self.failed(fault);
            let wait = self.backoff.wait(self.failures);
            tokio::select! {
                biased;
                () = over.as_mut() => return Done::Closed,
                () = sleep(wait) => {}
            }
        }
    }

    fn failed(&mut self, fault: StreamError) {
        self.failures = self.failures.saturating_add(1);
        let health = &self.shared.health;
        health.telemetry().source_request(fault.status());
        if fault.kind == StreamErrorKind::Throttled {
            health.telemetry().source_throttled();
        }
        // Single failures are normal, and other consumers use the shard's quota too.
        let passes = match fault.kind {
            StreamErrorKind::Throttled => self.failures < THROTTLED_MAX,
            _ => self.failures == 1,
        };
        if passes && health.is_reading(&self.id) {
            tracing::info!(
                shard = self.id,
                why = fault.what,
                "request failed; retrying"
            );
            return;
        }
        tracing::warn!(
            shard = self.id,
            failures = self.failures,
            why = %fault,
            "shard read failed; retrying"
        );
        health.failed(&self.id, fault.into());
    }

    fn works(&mut self) {
        self.failures = 0;
        let health = &self.shared.health;
        health.telemetry().source_request("ok");
        if !health.is_reading(&self.id) {
            health.reading(&self.id);
        }
    }

    /// Whether the stream exists, and this shard does not.
    async fn is_gone(&self) -> bool {
        let listed = self.shared.api.shards().await;
        listed.is_ok_and(|all| !all.is_empty() && all.iter().all(|shard| shard.id != self.id))
    }

    /// Makes one call and handles its result.
    async fn step(&mut self) -> Result<Option<Done>, StreamError> {
        let Some(iterator) = self.iterator().await? else {
            return Ok(None);
        };
        sleep_until(self.next_call_at).await;
        let mut permit = self.shared.resources.packed.take(self.expected()).await;
        let asked_at = Timestamp::now();
        let answer = self.shared.api.records(&iterator, self.limit).await;
        let answer = match answer {
            Ok(answer) => answer,
            Err(fault) => {
                self.next_call_at = Instant::now() + self.shared.timing.gap;
                if fault.kind == StreamErrorKind::IteratorExpired {
                    self.iterator = None;
                    // A reader that waited for the pipeline may find its iterator expired once.
                    if self.failures == 0 {
                        self.failures = 1;
                        self.shared
                            .health
                            .telemetry()
                            .source_request(fault.status());
                        return Ok(None);
                    }
                } else if fault.kind == StreamErrorKind::BadPosition {
                    self.iterator = None;
                }
                return Err(fault);
            }
        };
        let bytes = answer.records.iter().map(|record| record.data.len()).sum();
        permit.shrink(bytes);
        self.works();
        self.pace(&answer, bytes);
        self.check_retention(asked_at, &answer);
        self.iterator.clone_from(&answer.next);
        let done = self.hand_on(answer, asked_at).await;
        drop(permit);
        Ok(done)
    }

    async fn iterator(&mut self) -> Result<Option<String>, StreamError> {
        if let Some(iterator) = &self.iterator {
            return Ok(Some(iterator.clone()));
        }
        match self.shared.api.iterator(&self.id, &self.place).await {
            Ok(iterator) => {
                self.iterator = Some(iterator.clone());
                Ok(Some(iterator))
            }
            Err(fault)
                if fault.kind == StreamErrorKind::BadPosition
                    && matches!(self.place, IteratorStart::After(_)) =>
            {
                self.begin_anew(&fault.what);
                Ok(None)
            }
            Err(fault) => Err(fault),
        }
    }

    /// The largest size that the answer can have: what the shard can have taken in since it was at
    /// its head.
    fn expected(&self) -> usize {
        match self.at_head_at {
            Some(at) => {
                let seconds = usize::try_from(at.elapsed().as_secs()).unwrap_or(usize::MAX);
                let came = seconds.saturating_mul(SHARD_BYTES_PER_SECOND);
                came.saturating_add(2 * SHARD_BYTES_PER_SECOND)
                    .min(ANSWER_BYTES_MAX)
            }
            None => ANSWER_BYTES_MAX,
        }
    }

    /// Sets the time and the limit of the next call.
    fn pace(&mut self, answer: &RecordsAnswer, bytes: usize) {
        let now = Instant::now();
        let timing = self.shared.timing;
        if answer.behind.is_zero() {
            self.at_head_at = Some(now);
            self.next_call_at = now + timing.poll;
        } else {
            self.at_head_at = None;
            let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
            let quota =
                Duration::from_secs(1).mul_f64(f64::from(bytes) / f64::from(READ_BYTES_PER_SECOND));
            self.next_call_at = now + quota.max(timing.gap);
        }
        if let Some(average) = bytes.checked_div(answer.records.len()) {
            let fits = ANSWER_BYTES / average.max(1);
            let fits = u32::try_from(fits).unwrap_or(LIMIT_MAX);
            // Record sizes vary, so grow the limit at most fourfold.
            self.limit = fits.clamp(1, LIMIT_MAX).min(self.limit.saturating_mul(4));
        }
    }

    /// Hands the records on, with the position after them.
    async fn hand_on(&mut self, answer: RecordsAnswer, asked_at: Timestamp) -> Option<Done> {
        let is_last = answer.next.is_none();
        let came = !answer.records.is_empty();
        for packed in answer.records {
            if let (Some(until), Some(arrived)) = (self.shared.until, packed.arrived)
                && arrived >= until
            {
                if arrived.duration_since(until) >= DISORDER_MAX {
                    return Some(Done::Reached);
                }
                self.left_out = true;
                continue;
            }
            if let Some(done) = self.hand_on_one(packed).await {
                return Some(done);
            }
        }
        if is_last && self.left_out {
            return Some(Done::Reached);
        }
        if is_last {
            let page = self
                .unpacker
                .standing(Some(&ShardPosition::ENDED), Some(asked_at));
            return Some(match self.pages.send(page).await {
                Ok(()) => Done::Ended,
                Err(_) => Done::Closed,
            });
        }
        let behind = SignedDuration::try_from(answer.behind).unwrap_or(SignedDuration::MAX);
        let read_to = asked_at
            .checked_sub(behind)
            .unwrap_or(Timestamp::UNIX_EPOCH);
        if answer.behind.is_zero() {
            self.read_to = Some(read_to);
        }
        let is_due = self.standing_at.elapsed() >= self.shared.timing.refresh;
        let position = match &self.place {
            IteratorStart::After(number) if is_due && answer.behind.is_zero() && !self.left_out => {
                self.standing_at = Instant::now();
                Some(self.unpacker.behind(number, self.read_to))
            }
            _ => None,
        };
        // The pages of records already have their `read_to`.
        if !came || answer.behind.is_zero() {
            let page = self.unpacker.standing(position.as_ref(), Some(read_to));
            if self.pages.send(page).await.is_err() {
                return Some(Done::Closed);
            }
        }
        match self.shared.until {
            Some(until) if answer.behind.is_zero() && until <= asked_at => Some(Done::Reached),
            _ => None,
        }
    }

    async fn hand_on_one(&mut self, packed: Packed) -> Option<Done> {
        let unpacked = usize::try_from(UNPACKED_BYTES_MAX).unwrap_or(usize::MAX);
        let mut permit = self.shared.resources.unpacked.take(unpacked).await;
        let (pages, suspected_gap) = self.unpacker.pages(&packed);
        if let Some(suspected_gap) = suspected_gap {
            self.tell_suspected_gap(&suspected_gap);
        }
        let records = pages.iter().flat_map(|page| &page.records);
        permit.shrink(records.map(|record| record.payload.len()).sum());
        for mut page in pages {
            if self.left_out {
                page.position = None;
            }
            if self.pages.send(page).await.is_err() {
                return Some(Done::Closed);
            }
        }
        self.read_to = packed.arrived.or(self.read_to);
        self.place = IteratorStart::After(packed.number);
        self.standing_at = Instant::now();
        None
    }

    /// Starts at the oldest record, as the stored position is no longer valid.
    fn begin_anew(&mut self, why: &str) {
        tracing::error!(
            shard = self.unpacker.place(),
            why,
            "position expired: it was trimmed, or the stream was created again; reading from the oldest record"
        );
        self.tell_gap("the position was trimmed, or is of another stream of that name");
        self.place = IteratorStart::Oldest;
        self.iterator = None;
        self.read_to = None;
    }

    /// Reports a gap if the shard was not read for longer than the stream keeps records: the stream
    /// does not report the records that it dropped.
    fn check_retention(&mut self, asked_at: Timestamp, answer: &RecordsAnswer) {
        let (Some(retention), Some(read_to)) = (self.shared.retention, self.read_to) else {
            return;
        };
        let away = Duration::try_from(asked_at.duration_since(read_to)).unwrap_or_default();
        let came = answer.records.first().and_then(|first| first.arrived);
        let is_told = self
            .gap_told_at
            .is_some_and(|at| at.elapsed() < self.shared.timing.list);
        if away > retention && came.is_none_or(|came| came > read_to) && !is_told {
            self.tell_gap("it was not read for longer than the stream keeps records");
        }
    }

    fn tell_suspected_gap(&self, suspected_gap: &SuspectedGap) {
        let SuspectedGap { group, from, until } = suspected_gap;
        let remedy = format!(
            "the API server was silent, or the group's subscription filter was disabled and skipped \
             them: look at its metrics DeliveryErrors and DeliveryThrottling (namespace AWS/Logs), and \
             at the role and the key by which it writes into the stream; the group still has them: \
             deliver what is missing by eks-audit-bridge run --stream {} --log-group GROUP --catch-up \
             {from},{until}, with a --state-dir of its own",
            self.shared.stream
        );
        let telemetry = self.shared.health.telemetry();
        telemetry.gap_suspected(group, *from, *until, &remedy);
    }

    fn tell_gap(&mut self, why: &str) {
        self.gap_told_at = Some(Instant::now());
        let remedy = format!(
            "{why}; how many is not known, so one is counted; read to: {}; give the stream a longer \
             retention (aws kinesis increase-stream-retention-period), or this bridge what it needs \
             to keep up; the log group still has them: replay what aws logs filter-log-events says \
             of that time",
            self.read_to
                .map_or_else(|| "unknown".to_owned(), |time| format!("{time:.0}"))
        );
        let telemetry = self.shared.health.telemetry();
        telemetry.expired(self.unpacker.place(), 1, &remedy);
    }
}
