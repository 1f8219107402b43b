//! The machine's clock is ahead of the log's by more than the oldest age, or behind it: the answers
//! determine what time it is.

use std::collections::BTreeSet;
use std::time::Duration;

use audit_bridge_core::source::StoredPositions;

use crate::memory_log::MemoryLog;
use crate::pipeline::Pipeline;
use crate::{at, resumed, settings, tail};

const HOUR_MS: i64 = 3_600_000;

/// A log that tells its time, with a record every ten seconds for two hours, some of them late.
fn log_behind(by_ms: i64) -> MemoryLog {
    let log = MemoryLog::millis();
    log.tell_time();
    log.clock().set_wrong_by(by_ms);
    for n in 0..720 {
        log.put_ms(n * 10_000 + 1, n * 10_000 + 1 + (n % 7) * 99_000);
    }
    log
}

fn assert_all(tail: &Pipeline, from_ms: i64, log: &MemoryLog) {
    let records = log.records();
    let due = records.iter().filter(|stored| stored.time >= at(from_ms));
    let want: BTreeSet<u64> = due.map(|stored| stored.id).collect();
    let given: BTreeSet<u64> = tail.given.keys().copied().collect();
    let lost: Vec<_> = want.difference(&given).collect();
    assert!(lost.is_empty(), "lost: {lost:?}");
    let twice = tail.given.values().filter(|times| **times > 1).count();
    assert_eq!(twice, 0, "handed out twice");
}

#[tokio::test(start_paused = true)]
async fn clock_ahead_from_the_start_loses_nothing() {
    let log = log_behind(HOUR_MS);
    let mut settings = settings();
    // "latest" by this machine's clock.
    settings.start = at(HOUR_MS);
    let mut tail = tail(&log, settings);
    tail.run_secs(3 * 3_600).await;
    assert_all(&tail, 0, &log);
    let end = at(3 * HOUR_MS + 2_000);
    assert!(
        log.requests()
            .iter()
            .skip(3)
            .all(|request| request.window.end <= end)
    );
}

#[tokio::test(start_paused = true)]
async fn clock_ahead_while_the_log_is_away_at_first_loses_nothing() {
    let log = log_behind(HOUR_MS);
    log.script(std::iter::repeat_n(
        crate::memory_log::Fault::Error(crate::memory_log::denied()),
        20,
    ));
    let mut settings = settings();
    settings.start = at(HOUR_MS);
    let mut tail = tail(&log, settings);
    tail.run_secs(3 * 3_600).await;
    assert_all(&tail, 0, &log);
}

#[tokio::test(start_paused = true)]
async fn clock_that_jumps_ahead_for_good_loses_nothing() {
    let log = log_behind(0);
    let mut tail = tail(&log, settings());
    tail.run_secs(1_800).await;
    log.clock().set_wrong_by(HOUR_MS);
    tail.run_secs(3 * 3_600).await;
    assert_all(&tail, 0, &log);
}

#[tokio::test(start_paused = true)]
async fn clock_behind_delays_nothing() {
    for behind_ms in [45_000, HOUR_MS, 400 * 24 * HOUR_MS] {
        let log = log_behind(-behind_ms);
        let mut settings = settings();
        settings.start = at(-behind_ms);
        let mut tail = tail(&log, settings);
        tail.run_secs(3_600).await;
        // Each tenth second a record, of which those that came at once are not late.
        let ready = (0..355).filter(|n| n % 7 == 0);
        let late = ready.filter(|n| !tail.given.contains_key(n)).count();
        assert_eq!(late, 0, "{behind_ms}");
    }
}

#[tokio::test(start_paused = true)]
async fn clock_that_jumps_behind_for_good_loses_nothing_and_delays_nothing() {
    let log = log_behind(0);
    let mut tail = tail(&log, settings());
    tail.run_secs(1_800).await;
    log.clock().set_wrong_by(-HOUR_MS);
    tail.run_secs(3_600).await;
    let ready = (0..535).filter(|n| n % 7 == 0);
    let late = ready.filter(|n| !tail.given.contains_key(n)).count();
    assert_eq!(late, 0);
    tail.run_secs(2 * 3_600).await;
    assert_all(&tail, 0, &log);
}

/// Runs processes one after the other, each with its clock so many milliseconds ahead and for so
/// many seconds. Each asks for the first time by its own clock, before an answer tells the log's.
/// Returns the numbers of the records that they got.
async fn processes(log: &MemoryLog, lives: impl IntoIterator<Item = (i64, u64)>) -> BTreeSet<u64> {
    let folder = tempfile::tempdir().unwrap();
    let mut given = BTreeSet::new();
    let mut positions = StoredPositions::new();
    for (ahead_ms, seconds) in lives {
        log.clock().set_wrong_by(ahead_ms);
        let mut settings = settings();
        settings.seen_dir = Some(folder.path().join("seen"));
        let mut process = resumed(&log.to_new_process(), settings, positions);
        process.run_secs(seconds).await;
        given.extend(process.given.keys().copied());
        positions = process.positions.clone();
    }
    given
}

#[tokio::test(start_paused = true)]
async fn clock_ahead_at_times_loses_nothing() {
    let log = log_behind(0);
    let hours = [0, 1, 2, 0, 1].map(|hours| (hours * HOUR_MS, 900));
    let lives = [(0, 600)].into_iter().chain(hours);
    let given = processes(&log, lives.chain([(HOUR_MS, 3 * 3_600)])).await;
    assert_eq!(given.len(), 720);
}

#[tokio::test(start_paused = true)]
async fn clock_ahead_over_restarts_loses_nothing() {
    for (ahead_ms, seconds) in [
        (5_000, 17),
        (40_000, 61),
        (40_000, 7),
        (100_000, 700),
        (200_000, 310),
        (400_000, 301),
        (HOUR_MS, 45),
        (HOUR_MS, 700),
    ] {
        let log = log_behind(0);
        let lives = (0..2 * 3_600 / seconds).map(|_| (ahead_ms, seconds));
        let lives = [(0, 600)].into_iter().chain(lives);
        let given = processes(&log, lives.chain([(ahead_ms, 3_600)])).await;
        let lost = 720 - given.len();
        assert_eq!(lost, 0, "{ahead_ms} ms ahead, lives of {seconds} s");
    }
}

#[tokio::test(start_paused = true)]
async fn beginning_in_the_future_is_waited_for_also_with_the_clock_ahead() {
    let log = log_behind(60_000);
    let mut settings = settings();
    settings.start = at(HOUR_MS);
    let mut tail = tail(&log, settings);
    tail.run_for(Duration::from_millis(HOUR_MS as u64 - 120_000))
        .await;
    assert!(tail.given.is_empty(), "{:?}", tail.given.keys().next());
    tail.run_secs(2 * 3_600).await;
    assert_all(&tail, HOUR_MS, &log);
}

/// An answer with a time long ago must not bring back everything that the log ever had.
#[tokio::test(start_paused = true)]
async fn time_told_wrong_by_years_does_not_move_the_beginning() {
    let log = log_behind(365 * 24 * HOUR_MS);
    let old = log.put_ms(-HOUR_MS, -HOUR_MS);
    let mut settings = settings();
    settings.start = at(365 * 24 * HOUR_MS);
    let mut tail = tail(&log, settings);
    tail.run_secs(3_600).await;
    assert!(!tail.given.contains_key(&old));
    let windows = log.requests();
    assert!(windows.iter().all(|request| request.window.start >= at(0)));
}

#[tokio::test(start_paused = true)]
async fn clock_that_is_right_is_not_held_back() {
    let log = log_behind(0);
    let mut tail = tail(&log, settings());
    tail.run_secs(600).await;
    let read_to = tail.stats().read_to.unwrap();
    assert!(read_to >= at(600_000 - 5_000), "{read_to}");
}
