//! What reading a log by time costs and misses, by algorithm.
//!
//! ```text
//! cargo run --release -p audit-bridge-core --example tail_simulation
//! ```
//!
//! One hour of a log whose records come late as those of CloudWatch do: 97 % within a second,
//! 2.5 % within 30 seconds, 0.4 % within 5 minutes, 0.1 % within 9. Pages hold 1 MiB or 10,000
//! records. The trailing cursors are the real [`Tail`] on a paused clock; the others are reckoned,
//! with requests that take no time and a poll that is never put off, which is the best they can do.
//! Requests and bytes are those of the hour, lateness and loss those of all its records.

#![allow(
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a table for people"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use audit_bridge_core::record::{Origin, Record};
use audit_bridge_core::source::{Source, StoredPositions};
use audit_bridge_tail::{
    Clock, Identity, Limiter, LogPage, PageEntry, QueryError, Tail, TailSettings, TimeLog, Window,
};
use bytes::Bytes;
use jiff::Timestamp;
use tokio::time::Instant;

const HOUR_MS: i64 = 3_600_000;
const POLL_MS: i64 = 5_000;
const RECORD_BYTES: usize = 1_500;
const PAGE_RECORDS_MAX: usize = 10_000;
const PAGE_BYTES_MAX: usize = 1 << 20;
const SEED: u64 = 20_261_121;

/// A page is full at whichever limit comes first.
const fn page_records() -> usize {
    let by_bytes = PAGE_BYTES_MAX / RECORD_BYTES;
    if by_bytes < PAGE_RECORDS_MAX {
        by_bytes
    } else {
        PAGE_RECORDS_MAX
    }
}

/// A record, in milliseconds from the beginning.
#[derive(Clone, Copy)]
struct Event {
    time: i64,
    visible: i64,
}

fn events(per_second: i64) -> Vec<Event> {
    let mut random = fastrand::Rng::with_seed(SEED);
    let mut events: Vec<Event> = (0..3_600 * per_second)
        .map(|n| {
            let time = n * 1_000 / per_second + random.i64(0..=1_000 / per_second);
            let late = match random.f64() {
                x if x < 0.97 => random.i64(0..1_000),
                x if x < 0.995 => random.i64(1_000..30_000),
                x if x < 0.999 => random.i64(30_000..300_000),
                _ => random.i64(300_000..540_000),
            };
            Event {
                time,
                visible: time + late,
            }
        })
        .collect();
    events.sort_by_key(|event| event.time);
    events
}

/// What an algorithm came to.
struct Outcome {
    requests: u64,
    records_read: u64,
    records_given: u64,
    /// From visible to given, in milliseconds.
    latencies: Vec<i64>,
    lost: usize,
}

/// Polls that read the window between two ages, with dedup when windows overlap.
fn polls(events: &[Event], window: impl Fn(i64) -> (i64, i64)) -> Outcome {
    // Polls go on until every window that may hold a record of the hour is read.
    let polls = usize::try_from(2 * HOUR_MS / POLL_MS).unwrap_or(0);
    let mut reads = vec![0_i64; polls + 2];
    let mut outcome = Outcome {
        requests: 0,
        records_read: 0,
        records_given: 0,
        latencies: Vec::with_capacity(events.len()),
        lost: 0,
    };
    for event in events {
        // The polls whose window holds its time, of which it must show in one.
        let (oldest, youngest) = window(event.time);
        let first = (youngest / POLL_MS + 1).max((event.visible + POLL_MS - 1) / POLL_MS);
        let last = oldest / POLL_MS;
        if first > last {
            outcome.lost += 1;
            continue;
        }
        reads[usize::try_from(first).unwrap_or(0)] += 1;
        reads[usize::try_from(last + 1).unwrap_or(0)] -= 1;
        outcome.latencies.push(first * POLL_MS - event.visible);
        outcome.records_given += u64::from(first * POLL_MS <= HOUR_MS);
    }
    let mut now = 0;
    for read in &reads[..=usize::try_from(HOUR_MS / POLL_MS).unwrap_or(0)] {
        now += read;
        let found = u64::try_from(now).unwrap_or(0);
        outcome.records_read += found;
        outcome.requests += found.div_ceil(page_records() as u64).max(1);
    }
    outcome
}

/// A cursor that stays this far behind now, and reads everything once.
fn delayed(events: &[Event], delay_ms: i64) -> Outcome {
    polls(events, |time| {
        // Exactly one poll: the first that is later than its time and the delay.
        let after = time + delay_ms;
        ((after / POLL_MS + 1) * POLL_MS, after)
    })
}

/// Every poll reads so far back, and drops what it knows.
fn lookback(events: &[Event], back_ms: i64) -> Outcome {
    polls(events, |time| (time + back_ms, time))
}

/// The simulated log, with its clock.
struct SimulatedLog {
    events: Arc<Vec<Event>>,
    clock: PausedClock,
    payload: Bytes,
    stream: Arc<str>,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    requests: AtomicU64,
    records: AtomicU64,
}

#[derive(Clone, Copy)]
struct PausedClock(Instant);

impl PausedClock {
    fn millis(self) -> i64 {
        i64::try_from(self.0.elapsed().as_millis()).unwrap_or(i64::MAX)
    }
}

impl Clock for PausedClock {
    fn now(&self) -> Timestamp {
        time(self.millis())
    }
}

fn time(millis: i64) -> Timestamp {
    Timestamp::from_millisecond(1_795_000_000_000 + millis).unwrap_or_default()
}

fn millis(time: Timestamp) -> i64 {
    time.as_millisecond() - 1_795_000_000_000
}

impl TimeLog for SimulatedLog {
    type Raw = usize;

    fn name(&self) -> &str {
        "simulated"
    }

    fn resolution(&self) -> Duration {
        Duration::from_millis(1)
    }

    async fn query(
        &self,
        window: &Window,
        token: Option<&str>,
    ) -> Result<LogPage<usize>, QueryError> {
        let now = self.clock.millis();
        let first = |time| self.events.partition_point(|event| event.time < time);
        // A token is the next record's number and the time of the first page.
        let (mut at, shown) = token
            .and_then(|token| token.split_once('@'))
            .and_then(|(at, shown)| Some((at.parse().ok()?, shown.parse().ok()?)))
            .unwrap_or((first(millis(window.start)), now));
        let end = first(millis(window.end));
        let mut entries = Vec::with_capacity(page_records());
        while at < end && entries.len() < page_records() {
            let event = self.events[at];
            if event.visible <= shown {
                entries.push(PageEntry {
                    time: time(event.time),
                    identity: Identity::of(&[&at.to_le_bytes()]),
                    raw: at,
                });
            }
            at += 1;
        }
        if now <= HOUR_MS {
            let found = entries.len() as u64;
            self.counts.requests.fetch_add(1, Ordering::Relaxed);
            self.counts.records.fetch_add(found, Ordering::Relaxed);
        }
        let next = (at < end).then(|| format!("{at}@{shown}"));
        Ok(LogPage { entries, next })
    }

    fn record(&self, number: usize) -> Record {
        Record::new(
            self.payload.clone(),
            Origin::Stream {
                stream: Arc::clone(&self.stream),
                id: number.to_string(),
            },
        )
    }
}

async fn trailing(
    events: &Arc<Vec<Event>>,
    ages: &[u64],
    requests_per_second: f64,
) -> (Outcome, usize) {
    let clock = PausedClock(Instant::now());
    let counts = Arc::new(Counts::default());
    let log = SimulatedLog {
        events: Arc::clone(events),
        clock,
        payload: vec![0; RECORD_BYTES].into(),
        stream: "simulated".into(),
        counts: Arc::clone(&counts),
    };
    let settings = TailSettings {
        poll_interval: Duration::from_millis(POLL_MS.unsigned_abs()),
        revisit_after: ages.iter().copied().map(Duration::from_secs).collect(),
        start: time(0),
        until: Some(time(HOUR_MS)),
        ..TailSettings::default()
    };
    let limiter = Arc::new(Limiter::seeded(requests_per_second, SEED));
    let mut outcome = Outcome {
        requests: 0,
        records_read: 0,
        records_given: 0,
        latencies: Vec::with_capacity(events.len()),
        lost: 0,
    };
    let Ok(mut tail) = Tail::new(
        log,
        settings,
        &StoredPositions::new(),
        limiter,
        Arc::new(clock),
    ) else {
        return (outcome, 0);
    };
    let monitor = tail.monitor();
    let mut identities = 0;
    while let Some(page) = tail.read().await {
        let now = clock.millis();
        for record in &page.records {
            let Origin::Stream { id, .. } = &record.origin else {
                continue;
            };
            let number: usize = id.parse().unwrap_or_default();
            outcome.latencies.push(now - events[number].visible);
            outcome.records_given += u64::from(now <= HOUR_MS);
        }
        if let Some(position) = &page.position {
            tail.commit(page.partition, position);
        }
        identities = identities.max(monitor.stats().identities);
    }
    outcome.requests = counts.requests.load(Ordering::Relaxed);
    outcome.records_read = counts.records.load(Ordering::Relaxed);
    outcome.lost = events.len().saturating_sub(outcome.latencies.len());
    (outcome, identities)
}

fn row(name: &str, outcome: &mut Outcome) {
    let latencies = &mut outcome.latencies;
    latencies.sort_unstable();
    let at = |share: f64| {
        let place = (latencies.len().max(1) - 1) as f64 * share;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a place in the list"
        )]
        let place = place as usize;
        latencies.get(place).map_or(0.0, |&ms| ms as f64 / 1_000.0)
    };
    println!(
        "{name:<44} {:>9} {:>10.2} {:>13.2} {:>8.1} {:>8.1} {:>8}",
        outcome.requests,
        outcome.requests as f64 / 3_600.0,
        outcome.records_read as f64 / outcome.records_given.max(1) as f64,
        at(0.5),
        at(0.99),
        outcome.lost,
    );
}

fn main() -> std::io::Result<()> {
    for (per_second, paced) in [(100, 3.0), (1_000, 10.0)] {
        let events = Arc::new(events(per_second));
        println!(
            "\n{per_second} events/s of {RECORD_BYTES} bytes, one hour: {} events",
            events.len()
        );
        println!(
            "{:<44} {:>9} {:>10} {:>13} {:>8} {:>8} {:>8}",
            "algorithm, poll 5 s",
            "requests",
            "per second",
            "read per byte",
            "p50 s",
            "p99 s",
            "lost"
        );
        let mut remembered = 0;
        let eks: &[u64] = &[15, 120, 600];
        let gke: &[u64] = &[30, 600];
        for (ages, pace, name) in [
            (
                eks,
                1e6,
                "trailing cursors edge, 15 s, 2 m, 10 m".to_owned(),
            ),
            (eks, paced, format!("the same at {paced} requests/s")),
            (gke, 1e6, "trailing cursors edge, 30 s, 10 m".to_owned()),
        ] {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .start_paused(true)
                .build()?;
            let (mut outcome, identities) = runtime.block_on(trailing(&events, ages, pace));
            remembered = remembered.max(identities);
            row(&name, &mut outcome);
        }
        row("one cursor, 30 s behind", &mut delayed(&events, 30_000));
        row("one cursor, 10 m behind", &mut delayed(&events, 600_000));
        row(
            "lookback 60 s at every poll",
            &mut lookback(&events, 60_000),
        );
        row(
            "lookback 10 m at every poll",
            &mut lookback(&events, 600_000),
        );
        println!(
            "identities remembered at most: {remembered}, {:.1} MiB at 8 bytes each",
            remembered as f64 * 8.0 / 1_048_576.0
        );
    }
    Ok(())
}
