//! What a provider gives: a log that answers "what do you hold between these two times".

use std::future::Future;
use std::time::Duration;

use audit_bridge_core::readiness::{Component, Unavailable};
use audit_bridge_core::record::Record;
use jiff::Timestamp;

use super::identity::Identity;

/// A stretch of a log: from `start`, included, to `end`, excluded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// The first time that belongs to it.
    pub start: Timestamp,
    /// The first time that does not.
    pub end: Timestamp,
}

impl Window {
    /// Whether this time lies within.
    pub fn contains(&self, time: Timestamp) -> bool {
        self.start <= time && time < self.end
    }

    /// From start to end.
    pub fn span(&self) -> Duration {
        elapsed(self.start, self.end)
    }
}

/// One entry of an answer.
#[derive(Debug, Clone)]
pub struct PageEntry<Raw> {
    /// The time that the log files it under.
    pub time: Timestamp,
    /// What tells it from every other entry of the log, whatever their times.
    pub identity: Identity,
    /// The entry as the client gave it: most are duplicates, and no record is made of those.
    pub raw: Raw,
}

/// One answer. It may be empty and still name a next page.
#[derive(Debug, Clone)]
pub struct LogPage<Raw> {
    /// What was found, in any order.
    pub entries: Vec<PageEntry<Raw>>,
    /// The token of the next page; `None` when the window is completely read.
    pub next: Option<String>,
}

/// Why a query has no answer, by what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// Too many requests: the same page again, later.
    #[error("throttled")]
    Throttled {
        /// How long to wait, if the provider says.
        after: Option<Duration>,
    },
    /// The page token is no longer known: the window again from its first page.
    #[error("page token expired")]
    TokenExpired,
    /// There are no credentials, or the provider does not know them; asked again for ever.
    #[error("no identity: {detail}")]
    Unauthenticated {
        /// What the client or the provider said.
        detail: String,
        /// What to do about it.
        remedy: String,
    },
    /// Somebody has to put something right; asked again for ever meanwhile.
    #[error("denied: {detail}")]
    Denied {
        /// What the provider said.
        detail: String,
        /// What to do about it.
        remedy: String,
    },
    /// Anything that may pass by itself: a time-out, a reset connection, a 5xx.
    #[error("{detail}")]
    Transient {
        /// What went wrong.
        detail: String,
    },
}

impl QueryError {
    /// The same as a line of `check`.
    pub fn to_unavailable(&self) -> Unavailable {
        let (component, remedy) = match self {
            QueryError::Unauthenticated { remedy, .. } => (Component::Identity, remedy.as_str()),
            QueryError::Denied { remedy, .. } => (Component::Source, remedy.as_str()),
            QueryError::Throttled { .. } => (
                Component::Source,
                "others use up the quota: wait, or lower their rate",
            ),
            QueryError::TokenExpired | QueryError::Transient { .. } => (
                Component::Source,
                "try again; if it lasts, check the network, proxies and endpoints",
            ),
        };
        Unavailable {
            component,
            reason: self.to_string(),
            remedy: remedy.to_owned(),
        }
    }
}

/// A log that is queried by time: the narrow client that a provider supplies.
pub trait TimeLog: Send + Sync + 'static {
    /// An entry as the client gives it.
    type Raw: Send + 'static;

    /// Which log it is: stands in log lines, and binds the remembered identities to it.
    fn name(&self) -> &str;

    /// The unit of the log's times: windows start and end on whole multiples of it.
    fn resolution(&self) -> Duration;

    /// One page of what the log holds in this window *now*; `token` is that of the page before.
    ///
    /// It must not try again by itself: requests are counted, paced and repeated by the caller.
    ///
    /// # Errors
    /// Says by its variant what is to be done; see [`QueryError`].
    fn query(
        &self,
        window: &Window,
        token: Option<&str>,
    ) -> impl Future<Output = Result<LogPage<Self::Raw>, QueryError>> + Send;

    /// The time now on the provider's clock, as far as its answers told it (see
    /// [`ServerClock`](super::ServerClock)): the tail reads no further, whatever this machine's clock
    /// says.
    fn server_time(&self) -> Option<Timestamp> {
        None
    }

    /// Makes the record of an entry that was not met before.
    fn record(&self, raw: Self::Raw) -> Record;
}

/// The time on the wall, which says what "now" is in a log.
pub trait Clock: Send + Sync {
    /// The time now. It may jump, in both directions.
    fn now(&self) -> Timestamp;
}

/// The clock of the machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

fn nanos(duration: Duration) -> i128 {
    i128::try_from(duration.as_nanos()).unwrap_or(i128::MAX / 2)
}

/// `time` less `duration`, not before the first time there is.
pub(super) fn before(time: Timestamp, duration: Duration) -> Timestamp {
    Timestamp::from_nanosecond(time.as_nanosecond() - nanos(duration)).unwrap_or(Timestamp::MIN)
}

/// `time` plus `duration`, not after the last time there is.
pub(super) fn after(time: Timestamp, duration: Duration) -> Timestamp {
    Timestamp::from_nanosecond(time.as_nanosecond() + nanos(duration)).unwrap_or(Timestamp::MAX)
}

/// From one time to a later one; nothing where it is none.
pub(super) fn elapsed(from: Timestamp, to: Timestamp) -> Duration {
    let nanos = to.as_nanosecond() - from.as_nanosecond();
    Duration::from_nanos(u64::try_from(nanos.max(0)).unwrap_or(u64::MAX))
}

/// `time` down to a whole multiple of `resolution`.
pub(super) fn floor(time: Timestamp, resolution: Duration) -> Timestamp {
    let unit = nanos(resolution).max(1);
    let whole = time.as_nanosecond().div_euclid(unit) * unit;
    Timestamp::from_nanosecond(whole).unwrap_or(Timestamp::MIN)
}

/// `time` up to a whole multiple of `resolution`.
pub(super) fn ceil(time: Timestamp, resolution: Duration) -> Timestamp {
    let down = floor(time, resolution);
    match down < time {
        true => after(down, resolution),
        false => down,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn window_is_half_open_and_times_are_floored() {
        let time = |text: &str| text.parse::<Timestamp>().unwrap();
        let millis = Duration::from_millis(1);
        let odd = time("2026-11-21T10:00:00.0015Z");
        assert_eq!(floor(odd, millis), time("2026-11-21T10:00:00.001Z"));
        assert_eq!(ceil(odd, millis), time("2026-11-21T10:00:00.002Z"));
        assert_eq!(floor(odd, Duration::from_nanos(1)), odd);
        assert_eq!(ceil(odd, Duration::from_nanos(1)), odd);
        let early = time("1969-12-31T23:59:59.9995Z");
        assert_eq!(floor(early, millis), time("1969-12-31T23:59:59.999Z"));
        let window = Window {
            start: floor(odd, millis),
            end: ceil(odd, millis),
        };
        assert_eq!(window.span(), millis);
        assert!(window.contains(window.start) && window.contains(odd));
        assert!(!window.contains(window.end));
        assert_eq!(before(Timestamp::MIN, millis), Timestamp::MIN);
        assert_eq!(after(Timestamp::MAX, Duration::MAX), Timestamp::MAX);
    }
}
