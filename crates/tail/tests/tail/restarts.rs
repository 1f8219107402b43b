//! What survives the process: positions, and identities of settled records.

use std::path::Path;

use audit_bridge_core::source::{Source as _, StoredPositions};
use audit_bridge_tail::{Tail, TailSettings};
use std::sync::Arc;

use crate::memory_log::MemoryLog;
use crate::{at, resumed, settings, tail};

fn kept(folder: &Path) -> TailSettings {
    TailSettings {
        seen_dir: Some(folder.join("seen")),
        ..settings()
    }
}

#[tokio::test(start_paused = true)]
async fn restart_after_clean_stop_repeats_and_misses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let log = MemoryLog::millis();
    for n in 0..3_000 {
        log.put_ms(
            n * 1_000,
            n * 1_000 + [0, 0, 9_000, 100_000, 500_000][n as usize % 5],
        );
    }
    let mut positions = StoredPositions::new();
    let mut given = Vec::new();
    for round in 0..60 {
        let mut tail = resumed(&log, kept(folder.path()), positions);
        tail.run_secs(40 + round % 7 * 13).await;
        positions = tail.positions.clone();
        given.extend(tail.given.keys().copied());
        tail.tail.close().await;
        // A process that was away for a while finds what arrived meanwhile.
        tokio::time::sleep(std::time::Duration::from_secs(round % 5 * 10)).await;
    }
    let mut tail = resumed(&log, kept(folder.path()), positions);
    tail.run_secs(3_000).await;
    given.extend(tail.given.keys().copied());
    given.sort_unstable();
    assert_eq!(given, (0..3_000).collect::<Vec<_>>());
    // The files are deleted once the oldest cursor has passed them.
    let files = std::fs::read_dir(folder.path().join("seen"))
        .unwrap()
        .count();
    assert!(files <= 1, "{files} files");
}

#[tokio::test(start_paused = true)]
async fn restart_delivers_unsettled_records_others_have_passed() {
    let folder = tempfile::tempdir().unwrap();
    let log = MemoryLog::millis();
    for n in 0..100 {
        log.put_ms(n * 100, n * 100);
    }
    let mut first = tail(&log, kept(folder.path()));
    // All cursors continue, and every record but one is settled.
    for _ in 0..1_000 {
        first.step(std::time::Duration::from_secs(5)).await;
        first.settle(|id| id != 42);
    }
    first.assert_each_once(0..100);
    assert_eq!(first.settled.len(), 99);
    let positions = first.positions.clone();
    for (partition, position) in &positions {
        let text = position["read_to"].as_str().unwrap();
        let passed = text.parse::<jiff::Timestamp>().unwrap() > at(4_200);
        assert_eq!(passed, *partition > 0, "{partition}: {text}");
    }
    drop(first);
    let mut second = resumed(&log, kept(folder.path()), positions);
    second.run_secs(3_600).await;
    assert_eq!(second.given.get(&42), Some(&1));
}

#[tokio::test(start_paused = true)]
async fn crash_soon_after_start_keeps_revisits() {
    for seconds in 0..40 {
        let log = MemoryLog::millis();
        let ids: Vec<u64> = (0..10)
            .map(|n| log.put_ms(n * 1_000, n * 1_000 + 599_000))
            .collect();
        let mut first = tail(&log, settings());
        first.run_secs(seconds).await;
        let positions = first.positions.clone();
        drop(first);
        let mut second = resumed(&log, settings(), positions);
        second.run_secs(1_200).await;
        second.assert_each_once(ids);
    }
}

#[tokio::test(start_paused = true)]
async fn restart_without_identities_costs_duplicates_only() {
    for damage in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let log = MemoryLog::millis();
        for n in 0..1_000 {
            log.put_ms(n * 100, n * 100 + n % 3 * 50_000);
        }
        let mut first = tail(&log, kept(folder.path()));
        first.run_secs(60).await;
        let positions = first.positions.clone();
        let mut given = first.given.clone();
        drop(first);
        for file in std::fs::read_dir(folder.path().join("seen")).unwrap() {
            let path = file.unwrap().path();
            let mut bytes = std::fs::read(&path).unwrap();
            let half = bytes.len() / 2;
            bytes[half] ^= 1;
            match damage {
                true => std::fs::write(path, bytes).unwrap(),
                false => std::fs::remove_file(path).unwrap(),
            }
        }
        let mut second = resumed(&log, kept(folder.path()), positions);
        second.run_secs(3_600).await;
        given.extend(second.given.clone());
        assert_eq!(given.len(), 1_000);
    }
}

#[tokio::test(start_paused = true)]
async fn restart_from_scratch_delivers_everything_again() {
    let folder = tempfile::tempdir().unwrap();
    let log = MemoryLog::millis();
    for n in 0..100 {
        log.put_ms(n * 100, n * 100);
    }
    for _ in 0..2 {
        let mut tail = tail(&log, kept(folder.path()));
        tail.run_secs(60).await;
        tail.assert_each_once(0..100);
    }
}

#[tokio::test(start_paused = true)]
async fn start_with_positions_is_ignored_and_foreign_position_refused() {
    let log = MemoryLog::millis();
    log.put_ms(-90_000, -90_000);
    let mut first = tail(&log, settings());
    first.run_secs(10).await;
    assert!(first.given.is_empty());
    let early = TailSettings {
        start: at(-100_000),
        ..settings()
    };
    let mut second = resumed(&log, early.clone(), first.positions.clone());
    second.run_secs(10).await;
    assert!(second.given.is_empty());
    let foreign = StoredPositions::from([(0, serde_json::json!({"file": "a", "record": 7}))]);
    let limiter = Arc::new(audit_bridge_tail::Limiter::seeded(1.0, 1));
    let clock = Arc::new(log.clock());
    assert!(Tail::new(log, early, &foreign, limiter, clock).is_err());
}

#[tokio::test(start_paused = true)]
async fn identities_folder_unusable_does_not_stop_reading() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("seen"), "a file").unwrap();
    let log = MemoryLog::millis();
    let id = log.put_ms(10, 10);
    let mut tail = tail(&log, kept(folder.path()));
    tail.run_secs(20).await;
    tail.assert_each_once([id]);
}
