//! The provider's clock, as its answers tell it (the header `Date` of HTTP, RFC 9110: whole seconds,
//! rounded down).

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::log::after;

/// What an answer said so long ago is no longer preferred to what a newer one says.
const KEPT_MAX: Duration = Duration::from_secs(600);

/// What time it is at the provider, from what its answers said and this machine's monotonic clock,
/// which nobody sets. Never ahead of the provider's clock: an answer says when it was written, and
/// has been on its way since.
#[derive(Debug, Default)]
pub struct ServerClock(Mutex<Option<ToldTime>>);

/// What an answer said, and when it came.
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
    /// An answer that came just now says this time.
    pub fn told(&self, time: Timestamp) {
        let at = Instant::now();
        let mut known = self.lock();
        // Of the last answers the one counts that was the least time on its way.
        let better = |it: ToldTime| it.now() >= time && it.at.elapsed() < KEPT_MAX;
        if !known.is_some_and(better) {
            *known = Some(ToldTime { time, at });
        }
    }

    /// The time there now; `None` before the first answer.
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
        // Rounded down, or long on its way: what is known is nearer.
        clock.told(at(2_000));
        assert_eq!(clock.now(), Some(at(2_500)));
        clock.told(at(3_000));
        assert_eq!(clock.now(), Some(at(3_000)));
        // It was set back there: believed, once that cannot be the way.
        clock.told(at(-60_000));
        assert_eq!(clock.now(), Some(at(3_000)));
        sleep(KEPT_MAX).await;
        clock.told(at(0));
        assert_eq!(clock.now(), Some(at(0)));
    }
}
