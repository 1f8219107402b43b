//! The provider's clock, from the `Date` header of its answers (RFC 9110: whole seconds, rounded
//! down).

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822;
use tokio::time::Instant;

use super::log::after;

/// An older answer's time is no longer preferred to a newer one's.
const KEPT_MAX: Duration = Duration::from_secs(600);

/// The provider's current time, from its answers and this machine's monotonic clock, which nobody
/// sets. Never ahead of the provider's clock, because an answer's time is that of its writing,
/// before its transmission.
#[derive(Debug, Default)]
pub struct ServerClock(Mutex<Option<ToldTime>>);

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
        let at = Instant::now();
        let mut known = self.lock();
        // Of recent answers, the one that was transmitted fastest counts.
        let better = |it: ToldTime| it.now() >= time && it.at.elapsed() < KEPT_MAX;
        if !known.is_some_and(better) {
            *known = Some(ToldTime { time, at });
        }
    }

    /// The provider's time now; `None` before the first answer.
    pub fn now(&self) -> Option<Timestamp> {
        self.lock().map(ToldTime::now)
    }

    fn lock(&self) -> MutexGuard<'_, Option<ToldTime>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

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
