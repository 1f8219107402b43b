//! The quotas of one shard.
//!
//! From "Quotas and limits" of the Kinesis Data Streams Developer Guide and `GetRecords` of the API
//! Reference: five read transactions and 2 MiB a second, and none for five seconds after an answer
//! of 10 MiB; 1,000 records and 1 MiB written a second.

use std::collections::VecDeque;

const MEBIBYTE: i64 = 1 << 20;

/// Calls and bytes per second.
#[derive(Debug, Clone, Copy)]
pub(super) struct Quota {
    calls: usize,
    bytes: i64,
}

impl Quota {
    pub(super) const READ: Quota = Quota {
        calls: 5,
        bytes: 2 * MEBIBYTE,
    };
    pub(super) const WRITE: Quota = Quota {
        calls: 1000,
        bytes: MEBIBYTE,
    };
    /// `GetShardIterator`: five transactions a second.
    pub(super) const ITERATORS: Quota = Quota {
        calls: 5,
        bytes: i64::MAX,
    };
    /// `ListShards`: 1,000 a second and stream.
    pub(super) const LISTS: Quota = Quota {
        calls: 1000,
        bytes: i64::MAX,
    };
    /// `DescribeStreamSummary`: 20 a second and account.
    pub(super) const SUMMARIES: Quota = Quota {
        calls: 20,
        bytes: i64::MAX,
    };
}

/// The used part of a quota.
#[derive(Debug)]
pub(super) struct Meter {
    quota: Quota,
    /// Times of the calls in the last second.
    calls: VecDeque<i64>,
    /// Bytes still available; negative after a large answer.
    available: i64,
    counted_ms: i64,
    blocked_until_ms: i64,
}

impl Meter {
    pub(super) fn new(quota: Quota) -> Meter {
        Meter {
            quota,
            calls: VecDeque::new(),
            available: quota.bytes,
            counted_ms: 0,
            blocked_until_ms: i64::MIN,
        }
    }

    /// Whether a call is within the quota; refused calls do not count.
    pub(super) fn admits(&mut self, now_ms: i64) -> bool {
        while self.calls.front().is_some_and(|at| *at <= now_ms - 1000) {
            self.calls.pop_front();
        }
        let passed_ms = (now_ms - self.counted_ms).clamp(0, 60_000);
        let more = (self.quota.bytes / 1000).saturating_mul(passed_ms);
        self.available = self.available.saturating_add(more).min(self.quota.bytes);
        self.counted_ms = now_ms;
        let calls = self.calls.len() < self.quota.calls;
        calls && self.available > 0 && now_ms >= self.blocked_until_ms
    }

    /// Counts an admitted call.
    pub(super) fn charge(&mut self, now_ms: i64, bytes: usize) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.calls.push_back(now_ms);
        self.available = self.available.saturating_sub(bytes);
        // An answer of about the largest size.
        if bytes > self.quota.bytes.saturating_mul(5) - MEBIBYTE {
            self.blocked_until_ms = now_ms + 5000;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quota_sixth_call_in_a_second_is_refused() {
        let mut meter = Meter::new(Quota::READ);
        for n in 0..5 {
            assert!(meter.admits(1000 + n * 100));
            meter.charge(1000 + n * 100, 10);
        }
        assert!(!meter.admits(1500));
        assert!(!meter.admits(1999));
        assert!(meter.admits(2000));
    }

    #[test]
    fn quota_answer_of_ten_mebibytes_blocks_for_five_seconds() {
        let mut meter = Meter::new(Quota::READ);
        assert!(meter.admits(0));
        meter.charge(0, 10 << 20);
        assert!(!meter.admits(4999));
        assert!(meter.admits(5000));
    }

    #[test]
    fn quota_bytes_refill_at_two_mebibytes_a_second() {
        let mut meter = Meter::new(Quota::READ);
        assert!(meter.admits(0));
        meter.charge(0, 4 << 20);
        assert!(!meter.admits(990));
        assert!(meter.admits(1010));
    }
}
