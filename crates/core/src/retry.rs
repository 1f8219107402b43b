//! How long to wait before the next attempt.
//!
//! Exponential backoff with full jitter (any wait between zero and the ceiling is equally likely),
//! so that many bridges that lost one receiver do not retry in step.

use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822;

/// The ceiling of the first wait.
pub(crate) const FIRST: Duration = Duration::from_millis(500);

/// The ceiling of every wait, except of a parked event's.
pub(crate) const CAP: Duration = Duration::from_secs(30);

/// The longest `Retry-After` that is honoured. It is no longer than our own longest wait, because
/// an event's content may be what makes the receiver ask.
pub(crate) const RETRY_AFTER_MAX: Duration = CAP;

/// The ceiling of a parked event's first wait, which doubles with every failure.
pub(crate) const PARKED_FIRST: Duration = Duration::from_secs(5);

/// The ceiling of all waits of a parked event.
pub(crate) const PARKED_CAP: Duration = Duration::from_secs(300);

/// Chooses waits at random, reproducibly for a seed.
#[derive(Debug, Clone)]
pub struct Backoff {
    random: fastrand::Rng,
}

impl Backoff {
    pub fn seeded(seed: u64) -> Backoff {
        Backoff {
            random: fastrand::Rng::with_seed(seed),
        }
    }

    /// The wait after this many consecutive failures; 0 counts as 1.
    pub fn wait(&mut self, failures: u32) -> Duration {
        let ceiling = ceiling(failures);
        let micros = u64::try_from(ceiling.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.random.u64(0..=micros))
    }

    /// The wait of a parked event after this many failures alone: between half of its ceiling and
    /// all of it, so that even a few failures span some time.
    pub(crate) fn wait_parked(&mut self, failures: u32) -> Duration {
        let ceiling = doubled(PARKED_FIRST, failures).min(PARKED_CAP);
        ceiling.mul_f64(self.random.f64().mul_add(0.5, 0.5))
    }

    /// The wait after this many consecutive failures, when the answer asked for `after`. An
    /// `after` of less than a second is replaced by the usual wait, so that a receiver that keeps
    /// answering "now" is not flooded.
    pub fn wait_asked(&mut self, failures: u32, after: Option<Duration>) -> Duration {
        match after {
            Some(after) if after >= Duration::from_secs(1) => after.min(RETRY_AFTER_MAX),
            _ => self.wait(failures),
        }
    }
}

/// The longest wait after this many consecutive failures.
pub fn ceiling(failures: u32) -> Duration {
    doubled(FIRST, failures).min(CAP)
}

fn doubled(first: Duration, failures: u32) -> Duration {
    first.saturating_mul(1 << failures.saturating_sub(1).min(16))
}

/// Parses a `Retry-After` header: seconds, or a date, which is compared with `now`. A past date is
/// zero; anything else is `None`.
pub fn retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // A number too large to parse means a long wait, which is capped.
        let seconds = value.parse().unwrap_or(u64::MAX);
        return Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX));
    }
    let date = rfc2822::parse(value).ok()?.timestamp();
    let wait = Duration::try_from(date.duration_since(now)).unwrap_or(Duration::ZERO);
    Some(wait.min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_ceiling_doubles_up_to_the_cap() {
        let ceilings: Vec<f64> = (0..9).map(|n| ceiling(n).as_secs_f64()).collect();
        assert_eq!(ceilings, [0.5, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]);
        assert_eq!(ceiling(u32::MAX), CAP);
    }

    #[test]
    fn backoff_jitter_is_bounded_and_reproducible() {
        for failures in [1, 3, 8, u32::MAX] {
            let mut backoff = Backoff::seeded(7);
            let waits: Vec<Duration> = (0..2000).map(|_| backoff.wait(failures)).collect();
            let ceiling = ceiling(failures);
            assert!(waits.iter().all(|wait| *wait <= ceiling));
            assert!(waits.iter().any(|wait| *wait < ceiling / 20));
            assert!(waits.iter().any(|wait| *wait > ceiling * 19 / 20));
            let mean = waits.iter().sum::<Duration>() / 2000;
            assert!(mean > ceiling * 45 / 100 && mean < ceiling * 55 / 100);
            assert_eq!(Backoff::seeded(7).wait(failures), waits[0]);
        }
    }

    #[test]
    fn retry_after_header_is_parsed_and_bounded() {
        let now: Timestamp = "2026-11-21T08:49:37Z".parse().unwrap();
        for (value, want) in [
            ("0", Some(0)),
            (" 12 ", Some(12)),
            ("601", Some(30)),
            ("99999999999999999999999", Some(30)),
            ("Sat, 21 Nov 2026 08:50:07 GMT", Some(30)),
            ("Sat, 21 Nov 2026 09:49:37 GMT", Some(30)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(0)),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
            ("", None),
        ] {
            let want = want.map(Duration::from_secs);
            assert_eq!(retry_after(value, now), want, "{value:?}");
        }
    }

    #[test]
    fn retry_after_zero_keeps_own_backoff() {
        let mut backoff = Backoff::seeded(1);
        let seconds = Duration::from_secs;
        assert_eq!(backoff.wait_asked(9, Some(seconds(2))), seconds(2));
        assert_eq!(backoff.wait_asked(1, Some(seconds(6000))), RETRY_AFTER_MAX);
        let waits: Duration = (0..100)
            .map(|_| backoff.wait_asked(9, Some(Duration::ZERO)))
            .sum();
        assert!(waits > seconds(500));
    }
}
