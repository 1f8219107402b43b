//! The tail of a log that is queried by time, against a log in memory with a simulated clock: an
//! hour takes moments.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests, with their helpers"
)]

mod ages;
mod clock;
mod failures;
mod memory_log;
mod pipeline;
mod random;
mod reading;
mod restarts;
mod takeover;

use std::sync::Arc;
use std::time::Duration;

use audit_bridge_core::source::StoredPositions;
use audit_bridge_tail::{Limiter, Tail, TailSettings};
use jiff::Timestamp;

use memory_log::{MemoryLog, TestClock};
use pipeline::Pipeline;

/// The ages of EKS's older cursors.
const AGES: [u64; 3] = [15, 120, 600];

/// The start time of every test.
fn beginning() -> Timestamp {
    "2026-11-21T10:00:00Z".parse().expect("a time")
}

/// The time this many milliseconds after the start.
fn at(millis: i64) -> Timestamp {
    let nanos = beginning().as_nanosecond() + i128::from(millis) * 1_000_000;
    Timestamp::from_nanosecond(nanos).expect("a time")
}

fn settings() -> TailSettings {
    TailSettings {
        revisit_after: AGES.map(Duration::from_secs).to_vec(),
        start: beginning(),
        ..TailSettings::default()
    }
}

/// A tail of this log, without positions.
fn tail(log: &MemoryLog, settings: TailSettings) -> Pipeline {
    resumed(log, settings, StoredPositions::new())
}

/// A tail of this log that continues at these positions.
fn resumed(log: &MemoryLog, settings: TailSettings, positions: StoredPositions) -> Pipeline {
    let clock: TestClock = log.clock();
    let limiter = Arc::new(Limiter::seeded(100.0, 1));
    let tail = Tail::new(log.clone(), settings, &positions, limiter, Arc::new(clock))
        .expect("positions of our own");
    Pipeline::new(tail, positions)
}
