//! What a provider supplies: a log that can be queried for the records between two times.

use std::future::Future;
use std::time::Duration;

use audit_bridge_core::readiness::{Component, Unavailable};
use audit_bridge_core::record::Record;
use jiff::Timestamp;

use super::identity::Identity;

/// A stretch of a log, from `start` (included) to `end` (excluded).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    pub start: Timestamp,
    pub end: Timestamp,
}

impl Window {
    /// Whether this time lies within.
    pub fn contains(&self, time: Timestamp) -> bool {
        self.start <= time && time < self.end
    }

    /// The length of the window.
    pub fn span(&self) -> Duration {
        elapsed(self.start, self.end)
    }
}

/// One entry of a page.
#[derive(Debug, Clone)]
pub struct PageEntry<Raw> {
    /// The time under which the log files it.
    pub time: Timestamp,
    /// What distinguishes it from every other entry of the log, whatever their times.
    pub identity: Identity,
    /// The entry as returned by the client. Most entries are duplicates, so a record is made only
    /// of new ones.
    pub raw: Raw,
}

/// One page of an answer. It may be empty and still have a next page.
#[derive(Debug, Clone)]
pub struct LogPage<Raw> {
    /// The entries, in any order.
    pub entries: Vec<PageEntry<Raw>>,
    /// The token of the next page; `None` when the window is fully read.
    pub next: Option<String>,
}

/// Why a query failed; the variants differ in how to continue.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// Too many requests: request the same page again later.
    #[error("throttled")]
    Throttled {
        /// How long to wait, if the provider says so.
        after: Option<Duration>,
    },
    /// The page token is no longer valid: read the window again from its first page.
    #[error("page token expired")]
    TokenExpired,
    /// Credentials are missing or the provider rejects them; retried for ever.
    #[error("no identity: {detail}")]
    Unauthenticated {
        /// What the client or the provider said.
        detail: String,
        remedy: String,
    },
    /// Somebody has to fix something; retried for ever meanwhile.
    #[error("denied: {detail}")]
    Denied {
        /// What the provider said.
        detail: String,
        remedy: String,
    },
    /// A failure that may pass by itself: a timeout, a reset connection, a 5xx.
    #[error("{detail}")]
    Transient {
        /// The error and its causes.
        detail: String,
    },
}

impl QueryError {
    /// The same error for a line of `check`.
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
    /// An entry as returned by the client.
    type Raw: Send + 'static;

    /// The log's name, which appears in log lines and binds stored identities to it.
    fn name(&self) -> &str;

    /// The unit of the log's times: windows start and end at multiples of it.
    fn resolution(&self) -> Duration;

    /// One page of what the log holds in this window *now*; `token` is from the page before.
    ///
    /// It must not retry by itself: the caller counts, paces and repeats requests.
    ///
    /// # Errors
    /// The variant says how to continue; see [`QueryError`].
    fn query(
        &self,
        window: &Window,
        token: Option<&str>,
    ) -> impl Future<Output = Result<LogPage<Self::Raw>, QueryError>> + Send;

    /// The current time on the provider's clock, if its answers tell it (see
    /// [`ServerClock`](super::ServerClock)). The tail does not read beyond it, whatever this
    /// machine's clock says.
    fn server_time(&self) -> Option<Timestamp> {
        None
    }

    /// A time that the provider's clock has reached for certain, by several answers: the tail reads up
    /// to it also where this machine's clock is behind.
    fn server_time_at_least(&self) -> Option<Timestamp> {
        None
    }

    /// Makes the record of an entry that was not seen before.
    fn record(&self, raw: Self::Raw) -> Record;
}

/// The wall clock, which defines "now" in a log.
pub trait Clock: Send + Sync {
    /// The time now. It may jump in both directions.
    fn now(&self) -> Timestamp;
}

/// The machine's clock.
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

/// `time` minus `duration`, but not before the earliest representable time.
pub(super) fn before(time: Timestamp, duration: Duration) -> Timestamp {
    Timestamp::from_nanosecond(time.as_nanosecond() - nanos(duration)).unwrap_or(Timestamp::MIN)
}

/// `time` plus `duration`, but not after the latest representable time.
pub(super) fn after(time: Timestamp, duration: Duration) -> Timestamp {
    Timestamp::from_nanosecond(time.as_nanosecond() + nanos(duration)).unwrap_or(Timestamp::MAX)
}

/// The time between two times; zero if `to` is earlier.
pub(super) fn elapsed(from: Timestamp, to: Timestamp) -> Duration {
    let nanos = to.as_nanosecond() - from.as_nanosecond();
    Duration::from_nanos(u64::try_from(nanos.max(0)).unwrap_or(u64::MAX))
}

/// `time` rounded down to a multiple of `resolution`.
pub(super) fn floor(time: Timestamp, resolution: Duration) -> Timestamp {
    let unit = nanos(resolution).max(1);
    let whole = time.as_nanosecond().div_euclid(unit) * unit;
    Timestamp::from_nanosecond(whole).unwrap_or(Timestamp::MIN)
}

/// `time` rounded up to a multiple of `resolution`.
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
