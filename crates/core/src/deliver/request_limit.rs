//! How much goes in one request: less after a time-out, more again after quick answers.

use std::time::Duration;

/// A request that took at most a quarter of the timeout leaves room for one twice as large.
const QUICK_SHARE: u32 = 4;

/// The largest request that the receiver is expected to answer in time.
#[derive(Debug, Clone, Copy)]
pub(super) struct RequestLimit {
    pub(super) events: usize,
    pub(super) bytes: usize,
    /// The receiver's time limit, measured by the last timeout.
    timeout: Duration,
}

impl RequestLimit {
    pub(super) fn none() -> RequestLimit {
        RequestLimit {
            events: usize::MAX,
            bytes: usize::MAX,
            timeout: Duration::MAX,
        }
    }

    /// A request of this many events timed out: halves the limit of events. The limit of bytes
    /// shrinks less, so that it only affects larger events. Several timeouts of requests of the
    /// same size shrink the limits once.
    pub(super) fn shrink(&mut self, events: usize, bytes: usize, took: Duration) {
        self.events = self.events.min((events / 2).max(1));
        self.bytes = self.bytes.min((bytes / 4 * 3).max(1));
        self.timeout = took;
    }

    /// So much was accepted. Whether the limit grew.
    pub(super) fn grow(&mut self, events: usize, bytes: usize, took: Duration) -> bool {
        let near = events > self.events / 2 || bytes > self.bytes / 2;
        if !near || took.saturating_mul(QUICK_SHARE) > self.timeout {
            return false;
        }
        self.events = self.events.saturating_mul(2);
        self.bytes = self.bytes.saturating_mul(2);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_limit_slow_receiver_settles_below_time_out() {
        let mut limit = RequestLimit::none();
        let mut timeouts = 0;
        for _ in 0..1000 {
            let events = limit.events.min(400);
            let took = Duration::from_millis(30 * events as u64);
            match took > Duration::from_secs(10) {
                true => {
                    timeouts += 1;
                    limit.shrink(events, events * 1000, Duration::from_secs(10));
                }
                false => {
                    limit.grow(events, events * 1000, took);
                }
            }
        }
        assert_eq!((limit.events, timeouts), (200, 1));
        // It works faster now.
        for _ in 0..10 {
            limit.grow(limit.events.min(400), 1, Duration::from_millis(5));
        }
        assert!(limit.events >= 400);
    }

    #[test]
    fn request_limit_many_time_outs_falls_to_one_event_and_grows_again() {
        let mut limit = RequestLimit::none();
        for _ in 0..50 {
            limit.shrink(
                limit.events.min(400),
                limit.bytes.min(1 << 20),
                Duration::from_secs(10),
            );
        }
        assert_eq!((limit.events, limit.bytes), (1, 1));
        for _ in 0..40 {
            let (events, bytes) = (limit.events.min(400), limit.bytes.min(1 << 20));
            limit.grow(events, bytes, Duration::from_millis(5));
        }
        assert!(limit.events >= 400 && limit.bytes >= 1 << 20);
    }
}
