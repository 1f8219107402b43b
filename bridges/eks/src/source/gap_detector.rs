//! What a subscription filter skipped: CloudWatch Logs disables a filter for up to ten minutes after
//! its destination refused (access denied, not found), and what is logged meanwhile never comes
//! (CloudWatch Logs User Guide, "Subscription filters"). Nothing tells so but the times of the events:
//! an API server that wrote every second seems to have written nothing for minutes.
//!
//! Only suspected: the API server may have been down. Not seen are gaps shorter than
//! [`GAP_MIN_MS`], those of a log stream that is new to this shard and process, and what is skipped
//! at the end of a log stream. Pure: no clock and no I/O.

use std::collections::HashMap;

use jiff::Timestamp;

/// Log streams that are followed; an API server's ends after some hours.
const STREAMS_MAX: usize = 1000;
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

/// Follows the log streams of one shard.
#[derive(Debug, Default)]
pub(crate) struct GapDetector {
    streams: HashMap<String, Pace>,
}

/// How often a log stream brings a record.
#[derive(Debug)]
struct Pace {
    newest_ms: i64,
    usual_ms: f64,
    records: u32,
}

impl GapDetector {
    /// A record of this log stream came, with events of these times. The milliseconds between which
    /// events may be missing, if there are any.
    pub(crate) fn record(
        &mut self,
        stream: &str,
        first_ms: i64,
        last_ms: i64,
    ) -> Option<(i64, i64)> {
        let Some(pace) = self.streams.get_mut(stream) else {
            if self.streams.len() >= STREAMS_MAX {
                self.forget_oldest();
            }
            let pace = Pace {
                newest_ms: last_ms,
                usual_ms: 0.0,
                records: 1,
            };
            self.streams.insert(stream.to_owned(), pace);
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

    fn forget_oldest(&mut self) {
        let oldest = self.streams.iter().min_by_key(|(_, pace)| pace.newest_ms);
        if let Some(name) = oldest.map(|(name, _)| name.clone()) {
            self.streams.remove(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1000;

    /// Records of one event each, with this pause between them.
    fn follow(
        gap_detector: &mut GapDetector,
        from: i64,
        records: i64,
        pause: i64,
    ) -> Vec<(i64, i64)> {
        let times = (0..records).map(|n| from + n * pause);
        times
            .filter_map(|at| gap_detector.record("s", at, at))
            .collect()
    }

    #[test]
    fn busy_stream_that_skips_minutes_shows_the_gap_once() {
        let mut gap_detector = GapDetector::default();
        assert!(follow(&mut gap_detector, 0, 60, 2 * SECOND).is_empty());
        let last = 59 * 2 * SECOND;
        let behind = last + 600 * SECOND;
        let found = follow(&mut gap_detector, behind, 60, 2 * SECOND);
        assert_eq!(found, [(last, behind)]);
        // Again, as often as it happens.
        let last = behind + 59 * 2 * SECOND;
        let found = follow(&mut gap_detector, last + 120 * SECOND, 2, 2 * SECOND);
        assert_eq!(found, [(last, last + 120 * SECOND)]);
    }

    #[test]
    fn quiet_or_new_or_late_stream_shows_none() {
        let mut gap_detector = GapDetector::default();
        assert!(follow(&mut gap_detector, 0, 100, 60 * SECOND).is_empty());
        assert_eq!(
            gap_detector.record("s", 6300 * SECOND, 6300 * SECOND),
            None,
            "quiet"
        );
        assert_eq!(gap_detector.record("s", 0, 0), None, "a late one");
        assert_eq!(gap_detector.record("new", 0, 0), None);
        assert_eq!(
            gap_detector.record("new", 900 * SECOND, 900 * SECOND),
            None,
            "nobody knows its pace"
        );
        // A short gap, though it wrote every second.
        let mut gap_detector = GapDetector::default();
        follow(&mut gap_detector, 0, 60, SECOND);
        assert_eq!(gap_detector.record("s", 120 * SECOND, 120 * SECOND), None);
    }

    #[test]
    fn streams_without_end_take_no_more_memory() {
        let mut gap_detector = GapDetector::default();
        for n in 0..3000 {
            gap_detector.record(&format!("stream {n}"), n, n);
        }
        assert_eq!(gap_detector.streams.len(), STREAMS_MAX);
        assert!(gap_detector.streams.contains_key("stream 2999"));
        assert_eq!(gap_detector.record("s", i64::MIN, i64::MAX), None);
        assert_eq!(gap_detector.record("s", i64::MAX, i64::MIN), None);
    }
}
