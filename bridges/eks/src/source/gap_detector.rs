//! What a subscription filter skipped: CloudWatch Logs disables a filter for up to ten minutes after
//! its destination refused (access denied, not found), and what is logged meanwhile never comes
//! (CloudWatch Logs User Guide, "Subscription filters"). Nothing tells so but the times of the events:
//! an API server that wrote every second seems to have written nothing for minutes.
//!
//! Only suspected: the API server may have been down. Not seen are gaps shorter than
//! [`GAP_MIN_MS`], those of a log stream that is new, and what is skipped at the end of a log stream.
//! What is known of a log stream goes with the position of its shard over restarts and to other
//! replicas, and over a split of shards that one process reads. No clock and no I/O.

use std::collections::HashMap;
use std::hash::Hasher as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;

/// Log streams that are followed; an API server's ends after some hours.
const STREAMS_MAX: usize = 1000;
/// Log streams of a shard that go with its position, the newest: two or three are a cluster's.
const KEPT_MAX: usize = 16;
/// A shorter gap is none.
const GAP_MIN_MS: i64 = 90_000;
/// A gap is so many times as long as the usual time between two records.
const USUAL_TIMES: f64 = 20.0;
/// After so many records it is known what is usual.
const RECORDS_MIN: u32 = 20;
/// How much the newest of them counts.
const WEIGHT: f64 = 1.0 / 16.0;

/// Times between which events may be missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SuspectedGap {
    /// The log group and account, for people.
    pub(crate) group: String,
    /// The time of the last event before.
    pub(crate) from: Timestamp,
    /// The time of the first event behind.
    pub(crate) until: Timestamp,
}

/// Follows the log streams of all shards. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct GapDetector(Arc<Mutex<Streams>>);

#[derive(Debug, Default)]
struct Streams(HashMap<Fingerprint, Pace>);

/// Stands for the name of a log stream, in 53 bits, as JSON's readers keep them.
pub(crate) type Fingerprint = u64;

/// How often a log stream brings a record.
#[derive(Debug, Clone, Copy)]
struct Pace {
    newest_ms: i64,
    usual_ms: f64,
    records: u32,
}

/// A log stream as a position keeps it: its name's fingerprint, the milliseconds of its newest event
/// and those that usually pass between two records, and how many there were.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeptPace(Fingerprint, i64, i64, u32);

impl GapDetector {
    /// What is known of these log streams, of the newest of them.
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

    /// Takes over what a position kept, where nothing newer is known.
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
                // Another replica has read on meanwhile.
                Some(there) => *there = pace,
                None => {
                    known.make_room();
                    known.0.insert(stream, pace);
                }
            }
        }
        kept.iter().map(|kept| kept.0).collect()
    }

    /// A record of this log stream came, with events of these times. The milliseconds between which
    /// events may be missing, if there are any.
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

/// The fingerprint of a log stream in its group. Never another one: positions keep it.
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

    /// Records of one event each, with this pause between them.
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
        // Again, as often as it happens.
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
        // A short gap, though it wrote every second.
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
        // What is known already is newer.
        after.resume(&kept);
        assert_eq!(after.record(named("s"), behind, behind), None);
    }

    /// Another replica read the shard meanwhile: what this one remembers is older than the position.
    #[test]
    fn shard_that_comes_back_to_a_replica_shows_no_gap() {
        let (here, there) = (GapDetector::default(), GapDetector::default());
        follow(&here, 0, 60, SECOND);
        there.resume(&here.kept(&mut vec![named("s")]));
        assert!(follow(&there, 60 * SECOND, 600, SECOND).is_empty());
        let last = 659 * SECOND;
        here.resume(&there.kept(&mut vec![named("s")]));
        assert_eq!(here.record(named("s"), last + SECOND, last + SECOND), None);
        // One that is real is seen all the same.
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

    /// Positions that are stored must mean the same to another release.
    #[test]
    fn fingerprint_of_a_log_stream_stays() {
        assert_eq!(fingerprint("g", "s"), 3_637_139_292_759_705);
    }
}
