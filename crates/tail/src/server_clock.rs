//! The provider's clock, from the `Date` header of its answers (RFC 9110: whole seconds, rounded
//! down).

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822;
use tokio::time::Instant;

use super::log::after;

/// So many answers must agree that it is later than this machine says.
const WITNESSES: usize = 3;

/// An older answer's time is no longer preferred to a newer one's.
const KEPT_MAX: Duration = Duration::from_secs(600);

/// The provider's current time, from its answers and this machine's monotonic clock, which nobody
/// sets. Never ahead of the provider's clock, because an answer's time is that of its writing,
/// before its transmission.
#[derive(Debug, Default)]
pub struct ServerClock(Mutex<Told>);

#[derive(Debug, Default)]
struct Told {
    /// The best of recent answers.
    best: Option<ToldTime>,
    /// The newest answers.
    newest: VecDeque<ToldTime>,
}

/// The time in an answer, and when it arrived.
#[derive(Debug, Clone, Copy)]
struct ToldTime {
    time: Timestamp,
    at: Instant,
}

impl ToldTime {
    fn now(self) -> Timestamp {
        after(self.time, self.at.elapsed())
    }
}

impl ServerClock {
    /// An answer that just arrived has this `Date` header. Any other text is ignored.
    pub fn told_by_header(&self, date: &str) {
        if let Ok(date) = rfc2822::parse(date) {
            self.told(date.timestamp());
        }
    }

    /// An answer that just arrived has this time.
    pub fn told(&self, time: Timestamp) {
        let told = ToldTime {
            time,
            at: Instant::now(),
        };
        let mut known = self.lock();
        known.newest.truncate(WITNESSES - 1);
        known.newest.push_front(told);
        // Of recent answers, the one that was transmitted fastest counts.
        let better = |it: ToldTime| it.now() >= time && it.at.elapsed() < KEPT_MAX;
        if !known.best.is_some_and(better) {
            known.best = Some(told);
        }
    }

    /// The provider's time now; `None` before the first answer.
    pub fn now(&self) -> Option<Timestamp> {
        self.lock().best.map(ToldTime::now)
    }

    /// A time that the last answers agree is not later than the provider's; `None` before there are
    /// several. A single answer may be wrong.
    pub fn at_least(&self) -> Option<Timestamp> {
        let known = self.lock();
        let agree = known.newest.len() == WITNESSES;
        let least = known.newest.iter().map(|told| told.now()).min();
        least.filter(|_| agree)
    }

    fn lock(&self) -> MutexGuard<'_, Told> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn server_clock_says_that_it_is_later_only_where_answers_agree() {
        let clock = ServerClock::default();
        for _ in 0..2 {
            clock.told(at(3_600_000));
            assert_eq!(clock.at_least(), None);
        }
        clock.told(at(1_000));
        assert_eq!(clock.at_least(), Some(at(1_000)));
        for _ in 0..2 {
            clock.told(at(3_600_000));
        }
        sleep(Duration::from_secs(5)).await;
        assert_eq!(clock.at_least(), Some(at(6_000)));
        clock.told(at(3_700_000));
        assert_eq!(clock.at_least(), Some(at(3_605_000)));
    }

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millisecond(1_795_000_000_000 + millis).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn server_clock_goes_on_and_is_never_ahead() {
        let clock = ServerClock::default();
        assert_eq!(clock.now(), None);
        clock.told(at(0));
        sleep(Duration::from_millis(2_500)).await;
        assert_eq!(clock.now(), Some(at(2_500)));
        // An answer that was rounded down or slow to arrive is less precise than what is known.
        clock.told(at(2_000));
        assert_eq!(clock.now(), Some(at(2_500)));
        clock.told(at(3_000));
        assert_eq!(clock.now(), Some(at(3_000)));
        // The provider's clock was set back: believed once a slow answer cannot explain it.
        clock.told(at(-60_000));
        assert_eq!(clock.now(), Some(at(3_000)));
        sleep(KEPT_MAX).await;
        clock.told(at(0));
        assert_eq!(clock.now(), Some(at(0)));
    }
}
