//! What is read, when, and how often.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use audit_bridge_core::source::StoredPositions;
use audit_bridge_tail::{Limiter, Tail, TailSettings};
use tokio::time::Instant;

use crate::memory_log::{MemoryLog, Request};
use crate::pipeline::Pipeline;
use crate::{AGES, at, settings, tail};

const MINUTES: u64 = 60;

fn edge_alone() -> TailSettings {
    TailSettings {
        revisit_after: Vec::new(),
        ..settings()
    }
}

#[tokio::test(start_paused = true)]
async fn records_with_equal_times_are_all_delivered() {
    let log = MemoryLog::millis();
    log.pages_of(7);
    for n in 0..500 {
        // Half of them become visible only after the first scan of their time.
        log.put_ms(20_000, 20_000 + (n % 2) * 7_000);
    }
    let mut tail = tail(&log, settings());
    tail.run_secs(30 * MINUTES).await;
    tail.assert_each_once(0..500);
}

#[tokio::test(start_paused = true)]
async fn records_late_are_found_once_up_to_the_oldest_age() {
    let log = MemoryLog::millis();
    let lateness = [
        0, 900, 8_000, 14_999, 15_000, 90_000, 120_000, 300_000, 600_000,
    ];
    let mut ids = Vec::new();
    for round in 0..40 {
        let time = 1_000 * 37 * round;
        ids.extend(lateness.map(|late| log.put_ms(time, time + late)));
        // A record that is later than the oldest age may be lost. Cursors read within a poll and
        // half that age, so a record later than that is certainly lost.
        log.put_ms(time, time + 906_000);
    }
    let mut tail = tail(&log, settings());
    tail.run_secs(60 * MINUTES).await;
    tail.assert_each_once(ids.iter().copied());
    let late = tail.stats().late;
    assert_eq!(
        late.iter().map(|late| late.age).collect::<Vec<_>>(),
        AGES.map(Duration::from_secs)
    );
    // Which of two cursors finds a record depends on timing, but not the number of late records.
    let all: u64 = late.iter().map(|late| late.records).sum();
    assert!(late.iter().all(|late| late.records >= 40), "{late:?}");
    assert!((40 * 6..=40 * 8).contains(&all), "{late:?}");
}

#[tokio::test(start_paused = true)]
async fn windows_of_a_cursor_join_at_the_resolution() {
    for resolution in [Duration::from_millis(1), Duration::from_nanos(1)] {
        let log = MemoryLog::new(resolution);
        for n in 0..3_000 {
            // At the bounds of the windows, and one unit off.
            let nanos = [0, -1, 1][n % 3] * resolution.as_nanos() as i64;
            let time = at(n as i64 / 3 * 100);
            let time = time + jiff::SignedDuration::from_nanos(nanos);
            log.put(time.max(at(0)), at(n as i64 / 3 * 100));
        }
        let mut tail = tail(&log, edge_alone());
        tail.run_secs(5 * MINUTES).await;
        tail.assert_each_once(0..3_000);
        let first: Vec<Request> = log.requests();
        let windows: Vec<_> = first
            .iter()
            .filter(|request| request.token.is_none())
            .collect();
        assert!(windows.len() > 50);
        for pair in windows.windows(2) {
            assert_eq!(pair[0].window.end, pair[1].window.start);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn records_before_the_start_are_not_read() {
    let log = MemoryLog::millis();
    for n in 1..1_000 {
        log.put_ms(-n * 1_000, -n * 1_000);
    }
    let id = log.put_ms(0, 0);
    let mut tail = tail(&log, settings());
    tail.run_secs(60 * MINUTES).await;
    tail.assert_each_once([id]);
    let requests = log.requests();
    assert!(requests.iter().all(|request| request.window.start >= at(0)));
}

#[tokio::test(start_paused = true)]
async fn records_in_the_future_are_read_when_due() {
    let log = MemoryLog::millis();
    let soon = log.put_ms(7_200_000, 0);
    let now = log.put_ms(10, 10);
    let mut tail = tail(&log, settings());
    tail.run_secs(7_190).await;
    tail.assert_each_once([now]);
    tail.run_secs(20).await;
    tail.assert_each_once([soon, now]);
    assert!(
        log.requests()
            .iter()
            .all(|request| request.window.end <= at(7_210_000))
    );
}

#[tokio::test(start_paused = true)]
async fn backlog_is_read_once_and_ends_at_until() {
    let log = MemoryLog::millis();
    log.pages_of(50);
    // From two hours to one hour ago, then nothing new.
    for n in 0..36_000 {
        log.put_ms(n * 100 - 7_200_000, 0);
    }
    log.put_ms(-3_600_000, 0);
    let mut tail = tail(
        &log,
        TailSettings {
            start: at(-7_200_000),
            until: Some(at(-3_600_000)),
            ..settings()
        },
    );
    let begun = Instant::now();
    tail.run_secs(60 * MINUTES).await;
    assert!(tail.ended);
    tail.assert_each_once(0..36_000);
    let stats = tail.stats();
    // Windows that proved too long are restarted; nothing else is read twice.
    assert!(stats.entries < 36_000 * 5 / 4, "{stats:?}");
    assert!(
        begun.elapsed() < Duration::from_secs(30),
        "no cursor waits for its age"
    );
    // It has advanced often enough, by complete pages.
    let windows = log
        .requests()
        .iter()
        .filter(|request| request.token.is_none())
        .count();
    assert!(
        (36..100).contains(&windows),
        "{windows} windows for 720 pages"
    );
}

#[tokio::test(start_paused = true)]
async fn until_just_past_ends_after_the_oldest_age() {
    let log = MemoryLog::millis();
    let late = log.put_ms(-1_000, 500_000);
    let mut tail = tail(
        &log,
        TailSettings {
            start: at(-10_000),
            until: Some(at(0)),
            ..settings()
        },
    );
    tail.run_secs(590).await;
    assert!(!tail.ended);
    tail.run_secs(320).await;
    assert!(tail.ended);
    tail.assert_each_once([late]);
}

#[tokio::test(start_paused = true)]
async fn empty_year_is_crossed_in_few_requests() {
    let log = MemoryLog::millis();
    let first = log.put_ms(-365 * 86_400_000, 0);
    log.put_ms(-1, 0);
    let mut tail = tail(
        &log,
        TailSettings {
            start: at(-365 * 86_400_000),
            until: Some(at(-600_000)),
            ..settings()
        },
    );
    tail.run_secs(60).await;
    assert!(tail.ended, "{:?}", tail.stats());
    tail.assert_each_once([first]);
    assert!(tail.stats().requests < 400, "{:?}", tail.stats());
}

#[tokio::test(start_paused = true)]
async fn identities_remembered_are_bounded_by_the_oldest_age() {
    let log = MemoryLog::millis();
    for n in 0..2 * 3600 * 5 {
        log.put_ms(n * 200, n * 200 + (n % 7) * 100);
    }
    let mut tail = tail(&log, settings());
    let mut most = 0;
    for _ in 0..120 {
        tail.run_secs(MINUTES).await;
        most = most.max(tail.stats().identities);
    }
    // Five a second, for the oldest age, half of it until its cursor is due, a poll and a bucket.
    assert!(
        most > 5 * 600 && most < 5 * (600 + 300 + 5 + 2 * 16),
        "{most}"
    );
    let stats = tail.stats();
    assert!(stats.records >= 35_000 && stats.caught_up, "{stats:?}");
    assert_eq!(stats.newest, stats.newest_settled);
    // Each cursor reads each entry once.
    assert!(stats.entries < stats.records * 4, "{stats:?}");
}

#[tokio::test(start_paused = true)]
async fn identities_limit_costs_duplicates_never_records() {
    let log = MemoryLog::millis();
    for n in 0..6_000 {
        log.put_ms(n * 200, n * 200);
    }
    let mut tail = tail(
        &log,
        TailSettings {
            identities_max: 1_000,
            ..settings()
        },
    );
    tail.run_secs(45 * MINUTES).await;
    assert_eq!(tail.given.len(), 6_000);
    assert!(tail.given.values().any(|&times| times > 1));
    // The newest bucket is kept, whatever its size.
    assert!(tail.stats().identities <= 1_000 + 16 * 5);
}

#[tokio::test(start_paused = true)]
async fn records_never_settled_use_bounded_memory() {
    let log = MemoryLog::millis();
    for n in 0..20_000 {
        log.put_ms(n * 100, n * 100);
    }
    let mut tail = tail(
        &log,
        TailSettings {
            identities_max: 10_000,
            ..settings()
        },
    );
    for _ in 0..40_000 {
        tail.step(Duration::from_secs(5)).await;
        if tail.given.len() == 20_000 {
            break;
        }
    }
    assert_eq!(tail.given.len(), 20_000);
    assert!(tail.stats().identities <= 10_000 + 16 * 10);
}

#[tokio::test(start_paused = true)]
async fn read_dropped_loses_neither_answer_nor_record() {
    let log = MemoryLog::millis();
    log.slow(2_000);
    log.pages_of(5);
    for n in 0..200 {
        log.put_ms(n * 50, n * 50);
    }
    let mut tail = tail(&log, settings());
    for _ in 0..200_000 {
        // Far shorter than any answer takes.
        tail.step(Duration::from_millis(20)).await;
        tail.settle(|_| true);
    }
    tail.assert_each_once(0..200);
}

#[tokio::test(start_paused = true)]
async fn backlog_above_the_rate_delays_then_skips_revisits() {
    let log = MemoryLog::millis();
    log.pages_of(10);
    // Two pages a second, read four times, need eight requests a second. There are three, enough to
    // read them once: at a lag of the oldest age, the last revisits stop.
    for n in 0..36_000 {
        log.put_ms(n * 50, n * 50 + (n % 100) * 20);
    }
    let limiter = Arc::new(Limiter::seeded(3.0, 1));
    let clock = Arc::new(log.clock());
    let inner = Tail::new(
        log.clone(),
        settings(),
        &StoredPositions::new(),
        limiter,
        clock,
    );
    let mut tail = Pipeline::new(inner.expect("no positions"), StoredPositions::new());
    let mut most = 0;
    for _ in 0..30 {
        tail.run_secs(MINUTES).await;
        most = most.max(tail.stats().identities);
    }
    let stats = tail.stats();
    let behind = 36_000 - tail.given.len() as i64;
    assert!(
        behind < 20 * 660,
        "behind by the oldest age at most: {behind} {stats:?}"
    );
    assert!(most < 20 * 2_400, "{most}");
    tail.run_secs(60 * MINUTES).await;
    tail.assert_each_once(0..36_000);
}

#[tokio::test(start_paused = true)]
async fn tails_sharing_a_limiter_keep_one_rate() {
    let limiter = Arc::new(Limiter::seeded(2.0, 1));
    let mut logs = BTreeMap::new();
    for number in 0..4 {
        let log = MemoryLog::millis();
        let settings = TailSettings {
            poll_interval: Duration::from_millis(100),
            ..settings()
        };
        let clock = Arc::new(log.clock());
        let tail = Tail::new(
            log.clone(),
            settings,
            &StoredPositions::new(),
            Arc::clone(&limiter),
            clock,
        );
        let mut tail = Pipeline::new(tail.expect("no positions"), StoredPositions::new());
        let work = tokio::spawn(async move { tail.run_secs(600).await });
        logs.insert(number, (log, work));
    }
    let mut all = 0;
    for (log, work) in logs.into_values() {
        work.await.expect("no panic");
        let requests = log.requests().len();
        assert!(requests > 200, "an even share: {requests}");
        all += requests;
    }
    assert!((1_150..=1_205).contains(&all), "{all} requests in 600 s");
}
