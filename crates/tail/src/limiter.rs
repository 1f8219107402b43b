//! Paces requests, for all clients that share a quota, whichever log they read.
//!
//! Requests are spaced evenly, because a burst could exceed a quota per second. Turns are given in
//! the order of asking, so clients that ask for one at a time get equal shares. A "throttled"
//! answer halves the pace and each good answer restores a little of it: the quota may be shared
//! with clients outside this process.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// The slowest pace, as a fraction of the configured one.
const PACE_MIN: f64 = 1.0 / 16.0;

/// How much of the configured pace a good answer restores.
const RECOVERY: f64 = 1.0 / 50.0;

/// Throttled answers within this time count as one.
const SLOWER_AT_MOST_EVERY: Duration = Duration::from_secs(1);

/// The maximum random delay of a request, as a fraction of the interval between two, so that
/// bridges that started together drift apart.
const JITTER: f64 = 0.5;

/// Paces requests. Shared by all tails of the process that draw on the same quota.
#[derive(Debug)]
pub struct Limiter {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    configured: f64,
    pace: f64,
    next: Option<Instant>,
    slowed: Option<Instant>,
    random: fastrand::Rng,
}

impl Limiter {
    /// At most this many requests a second; may be a fraction (0.5 is 30 a minute). A value that is
    /// not a positive number counts as one request an hour.
    pub fn new(requests_per_second: f64) -> Limiter {
        Limiter::seeded(requests_per_second, fastrand::u64(..))
    }

    /// The same with jitter from this seed.
    pub fn seeded(requests_per_second: f64, seed: u64) -> Limiter {
        let configured = match requests_per_second > 0.0 {
            true => requests_per_second.min(1e6),
            false => 1.0 / 3600.0,
        };
        Limiter {
            state: Mutex::new(State {
                configured,
                pace: configured,
                next: None,
                slowed: None,
                random: fastrand::Rng::with_seed(seed),
            }),
        }
    }

    /// Waits for its turn. A turn is not passed on if the future is dropped.
    pub async fn acquire(&self) {
        let at = self.lock().place(Instant::now());
        sleep_until(at).await;
    }

    /// A request succeeded.
    pub fn answered(&self) {
        let mut state = self.lock();
        state.pace = (state.pace + state.configured * RECOVERY).min(state.configured);
    }

    /// A request was throttled ("too many requests").
    pub fn throttled(&self) {
        let now = Instant::now();
        let mut state = self.lock();
        let same = |at: Instant| now.saturating_duration_since(at) < SLOWER_AT_MOST_EVERY;
        if !state.slowed.is_some_and(same) {
            state.slowed = Some(now);
            state.pace = (state.pace / 2.0).max(state.configured * PACE_MIN);
        }
    }

    /// The current pace, in requests a second.
    pub fn pace(&self) -> f64 {
        self.lock().pace
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic cannot leave the state inconsistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn place(&mut self, now: Instant) -> Instant {
        let space = 1.0 / self.pace;
        let at = self.next.map_or(now, |next| next.max(now));
        self.next = Some(at + Duration::from_secs_f64(space));
        at + Duration::from_secs_f64(self.random.f64() * space * JITTER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn limiter_keeps_its_rate_and_saves_no_idle_time() {
        let limiter = Limiter::seeded(4.0, 1);
        for _ in 0..2 {
            let begun = Instant::now();
            for _ in 0..40 {
                limiter.acquire().await;
            }
            let took = begun.elapsed().as_secs_f64();
            assert!((9.7..10.2).contains(&took), "{took}");
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn limiter_throttled_slows_down_and_recovers() {
        let limiter = Limiter::seeded(8.0, 1);
        limiter.throttled();
        limiter.throttled();
        assert!((limiter.pace() - 4.0).abs() < 1e-9, "one crowd, one step");
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_secs(2)).await;
            limiter.throttled();
        }
        assert!((limiter.pace() - 0.5).abs() < 1e-9, "not below the floor");
        for _ in 0..60 {
            limiter.answered();
        }
        assert!((limiter.pace() - 8.0).abs() < 1e-9, "not above the ceiling");
    }

    #[tokio::test(start_paused = true)]
    async fn limiter_absurd_rate_is_slow_but_finite() {
        for pace in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let limiter = Limiter::seeded(pace, 1);
            limiter.acquire().await;
            limiter.acquire().await;
        }
    }
}
