//! What it costs, and what it finds, to look for entries that came later than the oldest age of a tail.
//!
//! ```text
//! cargo run --release -p audit-bridge-tail --example late_simulation
//! ```
//!
//! A day of a log as Cloud Logging has it: most entries come within 30 seconds (17 real ones: 0.2 to 30),
//! and in some hours the provider holds back a part of them, up to some hours. All is reckoned on the
//! times of the entries: requests take no time. *Late pass*: each hour what was received in the hour
//! before, in slices of half the oldest age, older than the slice's end by that age
//! (`bridges/gke/src/client/late.rs`). *Older age*: another cursor, which reads everything once more.

#![allow(
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a table for people"
)]

const SECOND: i64 = 1_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
/// The ages of the tail's oldest cursor, and how long it may take after that.
const AGE: i64 = 10 * MINUTE;
const PAGE: i64 = 1_000;
const LATENESS_MAX: i64 = DAY;

/// An entry: its time and when it was received, in milliseconds.
#[derive(Clone, Copy)]
struct Entry {
    time: i64,
    received: i64,
}

/// A day of so many entries a second; in `bad_hours` of it a share of them is held back for up to so
/// long.
fn day(per_second: i64, bad_hours: i64, share: f64, up_to: i64) -> Vec<Entry> {
    let mut random = fastrand::Rng::with_seed(20_261_129);
    let entries = (0..86_400 * per_second).map(|n| {
        let time = n * 1_000 / per_second;
        let bad = (time / HOUR) % 6 < bad_hours;
        let late = match bad && random.f64() < share {
            true => random.i64(0..up_to),
            false => random.i64(200..30 * SECOND),
        };
        Entry {
            time,
            received: time + late,
        }
    });
    entries.collect()
}

/// What the tail leaves: its oldest cursor reads a time once, half its age later at the latest.
fn is_lost(entry: Entry, age: i64, random: &mut fastrand::Rng) -> bool {
    entry.received > entry.time + age + random.i64(0..age / 2)
}

fn main() {
    println!(
        "{:<34} {:>9} {:>7} {:>10} {:>9} {:>9} {:>9} {:>7}",
        "a day", "entries", "lost", "lost, pass", "requests", "read", "twice", "per hour"
    );
    for (name, per_second, bad_hours, share, up_to) in [
        ("10/s, no incident", 10, 0, 0.0, 1),
        ("100/s, no incident", 100, 0, 0.0, 1),
        ("10/s, 1 h of 6: 1 % up to 1 h", 10, 1, 0.01, HOUR),
        ("10/s, 1 h of 6: 30 % up to 4 h", 10, 1, 0.3, 4 * HOUR),
        ("100/s, 1 h of 6: 30 % up to 4 h", 100, 1, 0.3, 4 * HOUR),
        ("10/s, 1 h of 6: 30 % up to 30 h", 10, 1, 0.3, 30 * HOUR),
    ] {
        let entries = day(per_second, bad_hours, share, up_to);
        let mut random = fastrand::Rng::with_seed(1);
        let slice = AGE / 2;
        let (mut lost, mut lost_still, mut twice) = (0, 0, 0);
        let mut read_of = vec![0_i64; usize::try_from(3 * DAY / HOUR).unwrap_or(0)];
        for &entry in &entries {
            let hour = usize::try_from(entry.received / HOUR).unwrap_or(0);
            // The slice in which it was received asks for what is so much older than its end.
            let end = (entry.received / slice + 1) * slice;
            let start_of_hour = entry.received / HOUR * HOUR;
            let is_read = entry.time < end - AGE && entry.time >= start_of_hour - LATENESS_MAX;
            read_of[hour] += i64::from(is_read);
            let is_given = is_read && entry.received > entry.time + AGE;
            let is_lost = is_lost(entry, AGE, &mut random);
            lost += i64::from(is_lost);
            lost_still += i64::from(is_lost && !is_given);
            twice += i64::from(!is_lost && is_given);
        }
        let requests: i64 = read_of[..24].iter().map(|read| read / PAGE + 1).sum();
        println!(
            "{name:<34} {:>9} {lost:>7} {lost_still:>10} {requests:>9} {:>9} {twice:>9} {:>7.1}",
            entries.len(),
            read_of.iter().sum::<i64>(),
            requests as f64 / 24.0,
        );
    }
    println!();
    println!(
        "{:<34} {:>9} {:>16} {:>12}",
        "another age instead", "requests", "of 30 a minute", "identities"
    );
    for (name, per_second, age) in [
        ("10/s, 4 h", 10, 4 * HOUR),
        ("100/s, 4 h", 100, 4 * HOUR),
        ("10/s, 24 h", 10, DAY),
        ("100/s, 24 h", 100, DAY),
    ] {
        let requests = 86_400 * per_second / PAGE;
        println!(
            "{name:<34} {requests:>9} {:>15.1}% {:>12}",
            requests as f64 / (30.0 * 1_440.0) * 100.0,
            age / SECOND * per_second * 3 / 2
        );
    }
}
