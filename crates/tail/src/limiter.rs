//! The pace of requests: one for all that share a quota, whichever log they read.
//!
//! Requests are spaced evenly, as a burst beside an even flow would exceed a quota per second.
//! Places are given in the order of asking, so whoever asks one at a time gets an even share. An
//! answer "throttled" halves the pace, each good answer wins a little of it back: the quota may be
//! shared with others who are not seen from here.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// The slowest pace, as a share of the configured one.
const PACE_MIN: f64 = 1.0 / 16.0;

/// What a good answer wins back of the configured pace.
const RECOVERY: f64 = 1.0 / 50.0;

/// Throttled answers within this time tell of the same crowd.
const SLOWER_AT_MOST_EVERY: Duration = Duration::from_secs(1);

/// How far a request is put off at random, as a share of the space between two: several bridges
/// that started together drift apart.
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
    /// At most this many requests a second; fractions are fine (0.5 is 30 a minute). What is not a
    /// positive number counts as one request an hour.
    pub fn new(requests_per_second: f64) -> Limiter {
        Limiter::seeded(requests_per_second, fastrand::u64(..))
    }

    /// The same with jitter that this seed determines.
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

    /// Waits for a place. One that is given up is not given to another.
    pub async fn acquire(&self) {
        let at = self.lock().place(Instant::now());
        sleep_until(at).await;
    }

    /// A request had a good answer.
    pub fn answered(&self) {
        let mut state = self.lock();
        state.pace = (state.pace + state.configured * RECOVERY).min(state.configured);
    }

    /// A request was answered with "too many requests".
    pub fn throttled(&self) {
        let now = Instant::now();
        let mut state = self.lock();
        let same = |at: Instant| now.saturating_duration_since(at) < SLOWER_AT_MOST_EVERY;
        if !state.slowed.is_some_and(same) {
            state.slowed = Some(now);
            state.pace = (state.pace / 2.0).max(state.configured * PACE_MIN);
        }
    }

    /// Requests a second, as it stands.
    pub fn pace(&self) -> f64 {
        self.lock().pace
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in there can be left half done.
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
