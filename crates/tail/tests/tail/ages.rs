//! Ages that are added and removed between two processes, late records after a restart, and pages
//! without events.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use audit_bridge_core::source::StoredPositions;
use audit_bridge_tail::TailSettings;
use audit_bridge_testkit::repeat;
use fastrand::Rng;

use crate::memory_log::{Fault, MemoryLog};
use crate::{at, resumed, settings, tail};

fn with_ages(ages: &[u64], folder: &std::path::Path) -> TailSettings {
    TailSettings {
        revisit_after: ages.iter().map(|&age| Duration::from_secs(age)).collect(),
        seen_dir: Some(folder.join("seen")),
        ..settings()
    }
}

#[tokio::test(start_paused = true)]
async fn age_removed_is_merged_into_the_edge_and_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let log = MemoryLog::millis();
    for n in 0..2_000 {
        log.put_ms(n * 1_000, n * 1_000);
    }
    let mut first = tail(&log, with_ages(&[15, 600], folder.path()));
    first.run_secs(1_000).await;
    let mut positions = first.positions.clone();
    assert_eq!(positions.len(), 3);
    let mut given = first.given.clone();
    drop(first);
    for life in 0..3 {
        let mut next = resumed(&log, with_ages(&[15], folder.path()), positions.clone());
        next.run_secs(120).await;
        assert!(
            next.given.keys().all(|id| !given.contains_key(id)),
            "life {life}: what was settled is handed out again"
        );
        positions = next.positions.clone();
        assert_eq!(positions.len(), 2, "life {life}: {positions:?}");
        given.extend(next.given.clone());
    }
    // An age that is added back starts where the other cursors are, not where it was.
    let mut last = resumed(&log, with_ages(&[15, 600], folder.path()), positions);
    last.run_secs(10).await;
    let place = last.positions[&2]["read_to"].as_str().unwrap().to_owned();
    assert!(
        place.parse::<jiff::Timestamp>().unwrap() > at(1_000_000),
        "{place}"
    );
}

/// `SCHEDULES` and `SEED` as in the other random tests.
#[tokio::test(start_paused = true)]
async fn ages_changed_between_crashes_lose_nothing() {
    let (mut taken_away, mut added) = (0, 0);
    for seed in repeat::schedules(60) {
        let mut random = Rng::with_seed(seed);
        let folder = tempfile::tempdir().unwrap();
        let log = MemoryLog::millis();
        for n in 0..random.i64(50..500) {
            // Late, but within the one age that always exists.
            let late = random.i64(0..20_000) * random.i64(0..2);
            log.put_ms(n * 700, n * 700 + late);
        }
        log.pages_of(random.usize(1..40));
        log.faulty([0, 5, 20][random.usize(0..3)], seed);
        let mut positions = StoredPositions::new();
        let mut settled = BTreeSet::new();
        let mut ages_before = Vec::new();
        for life in 0..8 {
            let mut ages = vec![20];
            ages.extend([5, 60, 120].into_iter().filter(|_| random.bool()));
            ages.sort_unstable();
            if life > 0 {
                taken_away += usize::from(ages_before.iter().any(|age| !ages.contains(age)));
                added += usize::from(ages.iter().any(|age| !ages_before.contains(age)));
            }
            let mut next = resumed(&log, with_ages(&ages, folder.path()), positions);
            let last = life == 7;
            let share = random.f64();
            for _ in 0..if last { 4_000 } else { random.usize(0..120) } {
                next.step(Duration::from_millis(random.u64(0..2_000))).await;
                if last || random.u32(0..3) == 0 {
                    next.settle(|_| last || random.f64() < share);
                }
            }
            settled.extend(next.settled.keys().copied());
            // A crash: records in flight are lost.
            positions = next.positions.clone();
            if last {
                assert_eq!(
                    positions.len(),
                    ages.len() + 1,
                    "seed {seed}: {positions:?}"
                );
            }
            ages_before = ages;
        }
        let all: BTreeSet<u64> = log.records().iter().map(|stored| stored.id).collect();
        let lost: Vec<_> = all.difference(&settled).collect();
        assert!(lost.is_empty(), "seed {seed}: {lost:?} lost");
    }
    assert!(taken_away > 0 && added > 0, "{taken_away} {added}");
}

#[tokio::test(start_paused = true)]
async fn record_delivered_before_restart_is_not_late() {
    let log = MemoryLog::millis();
    for n in 0..600 {
        log.put_ms(n * 1_000, n * 1_000);
    }
    let mut first = tail(&log, settings());
    first.run_secs(500).await;
    assert_eq!(late(&first), 0);
    // Identities are not saved, so an older cursor delivers again what the edge had delivered.
    let positions = first.positions.clone();
    drop(first);
    let begun = (log.clock(), 550_000);
    log.put_ms(begun.1, begun.1 + 30_000);
    let mut second = resumed(&log, settings(), positions);
    second.run_secs(1_500).await;
    assert!(second.given.len() > 100, "the older cursors read again");
    assert_eq!(late(&second), 1, "only what came late in this life");
}

fn late(tail: &crate::Pipeline) -> u64 {
    tail.stats().late.iter().map(|late| late.records).sum()
}

#[tokio::test(start_paused = true)]
async fn pages_empty_do_not_shrink_the_window() {
    let log = MemoryLog::millis();
    for n in 0..200 {
        log.put_ms(n * 100_000, n * 100_000);
    }
    // A day's backlog, in which a hundred pages without events precede each answer.
    tokio::time::sleep(Duration::from_secs(86_400)).await;
    log.script(vec![Fault::Empty; 100]);
    let mut reading = tail(&log, settings());
    reading.run_secs(5).await;
    let windows: BTreeMap<_, _> = log
        .requests()
        .into_iter()
        .map(|request| (request.window.start, request.window.end))
        .collect();
    let shortest = windows
        .iter()
        .map(|(start, end)| end.duration_since(*start).as_secs());
    assert!(shortest.min().unwrap() >= 299, "{windows:?}");
    reading.run_secs(600).await;
    reading.assert_each_once(0..200);
}
