//! Detects events that a subscription filter skipped. After its destination refused (access denied,
//! not found), CloudWatch Logs disables a filter for up to ten minutes, and what is logged
//! meanwhile never arrives (CloudWatch Logs User Guide, "Subscription filters"). Only the times of
//! the events show it: an API server that wrote every second seems to have written nothing for
//! minutes.
//!
//! A gap is only suspected: the API server may have been down. Gaps shorter than [`GAP_MIN_MS`],
//! gaps of a new log stream and gaps at the end of a log stream are not detected. What is known of
//! a log stream is part of its shard's position, so it survives restarts, moves to other replicas,
//! and a split of shards that one process reads. No clock and no I/O.

use std::collections::HashMap;
use std::hash::Hasher as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;

/// Most log streams that are followed; an API server's log stream ends after some hours.
const STREAMS_MAX: usize = 1000;
/// Most log streams per position, the newest ones; a cluster has two or three.
const KEPT_MAX: usize = 16;
/// The shortest gap that is reported.
const GAP_MIN_MS: i64 = 90_000;
/// A gap is at least this many times the usual interval between two records.
const USUAL_TIMES: f64 = 20.0;
/// Records after which the usual interval is known.
const RECORDS_MIN: u32 = 20;
/// Weight of the newest interval in the moving average.
const WEIGHT: f64 = 1.0 / 16.0;

/// An interval in which events may be missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SuspectedGap {
    /// The log group and account, for messages.
    pub(crate) group: String,
    /// A moment before the last event before the gap.
    pub(crate) from: Timestamp,
    /// A moment after the first event after the gap.
    pub(crate) until: Timestamp,
}

/// Follows the log streams of all shards. Clones share their state.
#[derive(Debug, Clone, Default)]
pub(crate) struct GapDetector(Arc<Mutex<Streams>>);

#[derive(Debug, Default)]
struct Streams(HashMap<Fingerprint, Pace>);

/// A hash of a log stream's name, of 53 bits, which every JSON reader preserves.
pub(crate) type Fingerprint = u64;

/// How often a log stream brings a record.
#[derive(Debug, Clone, Copy)]
struct Pace {
    newest_ms: i64,
    usual_ms: f64,
    records: u32,
}

/// The pace of a log stream in a position: fingerprint, time of the newest event in milliseconds,
/// usual interval between two records in milliseconds, number of records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptPace(Fingerprint, i64, i64, u32);

impl GapDetector {
    /// The paces of the newest of these log streams.
    pub(crate) fn kept(&self, streams: &mut Vec<Fingerprint>) -> Vec<KeptPace> {
        let known = self.lock();
        streams.retain(|stream| known.0.contains_key(stream));
        streams.sort_by_key(|stream| std::cmp::Reverse(known.0[stream].newest_ms));
        streams.truncate(KEPT_MAX);
        let kept = |stream: &Fingerprint| {
            let pace = known.0[stream];
            #[expect(clippy::cast_possible_truncation, reason = "it saturates")]
            let usual_ms = pace.usual_ms.round() as i64;
            KeptPace(*stream, pace.newest_ms, usual_ms, pace.records)
        };
        streams.iter().map(kept).collect()
    }

    /// Takes over the paces of a position, unless newer ones are known.
    pub(crate) fn resume(&self, kept: &[KeptPace]) -> Vec<Fingerprint> {
        let mut known = self.lock();
        for &KeptPace(stream, newest_ms, usual_ms, records) in kept.iter().take(KEPT_MAX) {
            #[expect(
                clippy::cast_precision_loss,
                reason = "of milliseconds that matter, none is lost"
            )]
            let usual_ms = usual_ms.max(0) as f64;
            let pace = Pace {
                newest_ms,
                usual_ms,
                records,
            };
            match known.0.get_mut(&stream) {
                Some(there) if there.newest_ms >= newest_ms => {}
                // Another replica has read further in the meantime.
                Some(there) => *there = pace,
                None => {
                    known.make_room();
                    known.0.insert(stream, pace);
                }
            }
        }
        kept.iter().map(|kept| kept.0).collect()
    }

    /// Accounts for a record of this log stream, with the times of its first and last event.
    /// Returns the start and end in milliseconds of a suspected gap.
    pub(crate) fn record(
        &self,
        stream: Fingerprint,
        first_ms: i64,
        last_ms: i64,
    ) -> Option<(i64, i64)> {
        let mut known = self.lock();
        let Some(pace) = known.0.get_mut(&stream) else {
            known.make_room();
            let pace = Pace {
                newest_ms: last_ms,
                usual_ms: 0.0,
                records: 1,
            };
            known.0.insert(stream, pace);
            return None;
        };
        let before = pace.newest_ms;
        let gap = first_ms.saturating_sub(before).max(0);
        pace.newest_ms = before.max(last_ms);
        #[expect(
            clippy::cast_precision_loss,
            reason = "of milliseconds that matter, none is lost"
        )]
        let span = gap as f64;
        let is_gap =
            pace.records >= RECORDS_MIN && gap > GAP_MIN_MS && span > pace.usual_ms * USUAL_TIMES;
        if !is_gap {
            pace.records = pace.records.saturating_add(1);
            pace.usual_ms += (span - pace.usual_ms) * WEIGHT;
        }
        is_gap.then_some((before, first_ms))
    }

    fn lock(&self) -> MutexGuard<'_, Streams> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The fingerprint of a log stream in its group. Positions store it, so it must never change.
pub(crate) fn fingerprint(group: &str, stream: &str) -> Fingerprint {
    let mut hasher = SipHasher13::new();
    hasher.write(group.as_bytes());
    hasher.write_u8(0);
    hasher.write(stream.as_bytes());
    hasher.finish() >> 11
}

impl Streams {
    fn make_room(&mut self) {
        if self.0.len() >= STREAMS_MAX {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let oldest = self.0.iter().min_by_key(|(_, pace)| pace.newest_ms);
        if let Some(stream) = oldest.map(|(stream, _)| *stream) {
            self.0.remove(&stream);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1000;

    fn named(stream: &str) -> Fingerprint {
        fingerprint("g", stream)
    }

    /// Accounts for records of one event each, at this interval.
    fn follow(gap_detector: &GapDetector, from: i64, records: i64, pause: i64) -> Vec<(i64, i64)> {
        let times = (0..records).map(|n| from + n * pause);
        times
            .filter_map(|at| gap_detector.record(named("s"), at, at))
            .collect()
    }

    #[test]
    fn busy_stream_that_skips_minutes_shows_the_gap_once() {
        let gap_detector = GapDetector::default();
        assert!(follow(&gap_detector, 0, 60, 2 * SECOND).is_empty());
        let last = 59 * 2 * SECOND;
        let behind = last + 600 * SECOND;
        let found = follow(&gap_detector, behind, 60, 2 * SECOND);
        assert_eq!(found, [(last, behind)]);
        // Every further gap is found too.
        let last = behind + 59 * 2 * SECOND;
        let found = follow(&gap_detector, last + 120 * SECOND, 2, 2 * SECOND);
        assert_eq!(found, [(last, last + 120 * SECOND)]);
    }

    #[test]
    fn quiet_or_new_or_late_stream_shows_none() {
        let gap_detector = GapDetector::default();
        assert!(follow(&gap_detector, 0, 100, 60 * SECOND).is_empty());
        assert_eq!(
            gap_detector.record(named("s"), 6300 * SECOND, 6300 * SECOND),
            None,
            "quiet"
        );
        assert_eq!(gap_detector.record(named("s"), 0, 0), None, "a late one");
        assert_eq!(gap_detector.record(named("new"), 0, 0), None);
        assert_eq!(
            gap_detector.record(named("new"), 900 * SECOND, 900 * SECOND),
            None,
            "nobody knows its pace"
        );
        // A gap that is too short, although the stream wrote every second.
        let gap_detector = GapDetector::default();
        follow(&gap_detector, 0, 60, SECOND);
        assert_eq!(
            gap_detector.record(named("s"), 120 * SECOND, 120 * SECOND),
            None
        );
    }

    #[test]
    fn streams_without_end_take_no_more_memory() {
        let gap_detector = GapDetector::default();
        for n in 0..3000 {
            gap_detector.record(named(&format!("stream {n}")), n, n);
        }
        let known = gap_detector.lock();
        assert_eq!(known.0.len(), STREAMS_MAX);
        assert!(known.0.contains_key(&named("stream 2999")));
        drop(known);
        assert_eq!(gap_detector.record(named("s"), i64::MIN, i64::MAX), None);
        assert_eq!(gap_detector.record(named("s"), i64::MAX, i64::MIN), None);
    }

    #[test]
    fn gap_over_a_restart_is_seen_with_what_the_position_kept() {
        let before = GapDetector::default();
        assert!(follow(&before, 0, 60, 2 * SECOND).is_empty());
        let mut streams = vec![named("s"), named("unknown")];
        let kept = before.kept(&mut streams);
        assert_eq!(streams, [named("s")]);
        let text = serde_json::to_string(&kept).unwrap();
        let kept: Vec<KeptPace> = serde_json::from_str(&text).unwrap();
        let last = 59 * 2 * SECOND;
        let after = GapDetector::default();
        assert_eq!(after.resume(&kept), [named("s")]);
        let behind = last + 600 * SECOND;
        assert_eq!(
            after.record(named("s"), behind, behind),
            Some((last, behind))
        );
        // The known pace is newer.
        after.resume(&kept);
        assert_eq!(after.record(named("s"), behind, behind), None);
    }

    /// Another replica read the shard in between: this one's memory is older than the position.
    #[test]
    fn shard_that_comes_back_to_a_replica_shows_no_gap() {
        let (here, there) = (GapDetector::default(), GapDetector::default());
        follow(&here, 0, 60, SECOND);
        there.resume(&here.kept(&mut vec![named("s")]));
        assert!(follow(&there, 60 * SECOND, 600, SECOND).is_empty());
        let last = 659 * SECOND;
        here.resume(&there.kept(&mut vec![named("s")]));
        assert_eq!(here.record(named("s"), last + SECOND, last + SECOND), None);
        // A real gap is still found.
        let behind = last + 600 * SECOND;
        let found = here.record(named("s"), behind, behind);
        assert_eq!(found, Some((last + SECOND, behind)));
    }

    #[test]
    fn position_keeps_the_newest_log_streams() {
        let gap_detector = GapDetector::default();
        let mut streams: Vec<Fingerprint> = (0..100).map(|n| named(&n.to_string())).collect();
        for (n, stream) in (0..).zip(&streams) {
            gap_detector.record(*stream, n, n);
        }
        let kept = gap_detector.kept(&mut streams);
        assert_eq!(kept.len(), KEPT_MAX);
        assert!(kept.iter().all(|KeptPace(_, newest, _, _)| *newest >= 84));
    }

    /// Stored positions must mean the same to other releases.
    #[test]
    fn fingerprint_of_a_log_stream_stays() {
        assert_eq!(fingerprint("g", "s"), 3_637_139_292_759_705);
    }
}
