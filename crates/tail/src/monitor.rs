//! Counts, lateness, lag and readiness of a tail. One function per event counts and logs it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use audit_bridge_core::observer::SourceObserver;
use audit_bridge_core::readiness::Component;
use jiff::Timestamp;
use tracing::{info, warn};

use super::log::QueryError;

/// How many consecutive failures are tolerated. Throttling is expected, and slows down first.
const TRANSIENT_FAILURES_MAX: u32 = 2;
const THROTTLED_MAX: u32 = 9;
/// A clock that is further ahead of the log's is warned about.
const CLOCK_WRONG_MAX: Duration = Duration::from_secs(10);

/// Records that no younger cursor found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Late {
    /// The age of the cursor that found them.
    pub age: Duration,
    pub records: u64,
}

/// Counters and times of a tail since it began.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TailStats {
    /// Requests that were answered, successfully or not.
    pub requests: u64,
    /// How many of those were throttled.
    pub throttled: u64,
    /// How many of those failed otherwise.
    pub failed: u64,
    /// Entries in the answers, duplicates included.
    pub entries: u64,
    /// New entries, which were handed out as records.
    pub records: u64,
    /// Records that were found late, for each age of `--revisit-after`, youngest first.
    pub late: Vec<Late>,
    /// The time of the newest record handed out.
    pub newest: Option<Timestamp>,
    /// The time of the newest record that is settled with its position in the checkpoint.
    pub newest_settled: Option<Timestamp>,
    /// Up to when the edge has fully read.
    pub read_to: Option<Timestamp>,
    /// Whether the edge found nothing more at its last read. If nothing is in flight either, the
    /// lag is 0.
    pub caught_up: bool,
    /// How many identities are remembered now.
    pub identities: usize,
}

/// Whether the log can be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum TailStatus {
    /// No answer yet.
    #[default]
    Starting,
    /// It answers.
    Reading,
    /// It cannot be read; requests are retried for ever.
    Held {
        /// Why.
        detail: String,
        /// What a person has to do; `None` when it may pass by itself.
        remedy: Option<String>,
        /// Whether the credentials are the cause.
        identity: bool,
    },
}

/// Observes a tail that is in use elsewhere. Clones observe the same tail.
#[derive(Debug, Clone)]
pub struct Monitor(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    log: String,
    stats: TailStats,
    status: TailStatus,
    /// Each cursor's current failure.
    failures: Vec<Option<CursorFailure>>,
    overflowed: bool,
    clock_is_ahead: bool,
    clock_is_behind: bool,
    observer: Option<Arc<dyn SourceObserver>>,
}

#[derive(Debug, Clone)]
struct CursorFailure {
    detail: String,
    remedy: Option<String>,
    identity: bool,
}

impl Monitor {
    pub(super) fn new(
        log: &str,
        ages: &[Duration],
        observer: Option<Arc<dyn SourceObserver>>,
    ) -> Monitor {
        let late = ages.iter().map(|&age| Late { age, records: 0 });
        Monitor(Arc::new(Mutex::new(Inner {
            log: log.to_owned(),
            stats: TailStats {
                late: late.collect(),
                ..TailStats::default()
            },
            status: TailStatus::Starting,
            failures: vec![None; ages.len() + 1],
            overflowed: false,
            clock_is_ahead: false,
            clock_is_behind: false,
            observer,
        })))
    }

    pub fn stats(&self) -> TailStats {
        self.lock().stats.clone()
    }

    /// Whether the log can be read now.
    pub fn status(&self) -> TailStatus {
        self.lock().status.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Counters stay usable after a panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A page was received.
    pub(super) fn answered(&self, cursor: usize, entries: usize) {
        let mut inner = self.lock();
        inner.stats.requests += 1;
        inner.stats.entries += entries as u64;
        inner.notify_observer(|observer| observer.requested("ok"));
        inner.set_failure(cursor, None);
    }

    /// A request failed: the cursor's `failures`th consecutive failure.
    pub(super) fn failed(&self, cursor: usize, error: &QueryError, failures: u32) {
        let mut inner = self.lock();
        inner.stats.requests += 1;
        let (status, bearable, remedy) = match error {
            QueryError::Throttled { .. } => ("throttled", THROTTLED_MAX, None),
            QueryError::Unauthenticated { remedy, .. } => ("unauthenticated", 0, Some(remedy)),
            QueryError::Denied { remedy, .. } => ("denied", 0, Some(remedy)),
            QueryError::TokenExpired => ("token_expired", TRANSIENT_FAILURES_MAX, None),
            QueryError::Transient { .. } => ("error", TRANSIENT_FAILURES_MAX, None),
        };
        match error {
            QueryError::Throttled { .. } => inner.stats.throttled += 1,
            _ => inner.stats.failed += 1,
        }
        inner.notify_observer(|observer| {
            observer.requested(status);
            if matches!(error, QueryError::Throttled { .. }) {
                observer.throttled();
            }
        });
        if cursor == 0 {
            inner.stats.caught_up = false;
        }
        if failures > bearable {
            let failure = CursorFailure {
                detail: error.to_string(),
                remedy: remedy.cloned(),
                identity: matches!(error, QueryError::Unauthenticated { .. }),
            };
            inner.set_failure(cursor, Some(failure));
        }
    }

    /// A record is handed out; `late` is the index of the age that found it late.
    pub(super) fn record(&self, time: Timestamp, late: Option<usize>) {
        let mut inner = self.lock();
        let stats = &mut inner.stats;
        stats.records += 1;
        stats.newest = stats.newest.max(Some(time));
        if let Some(late) = late.and_then(|late| stats.late.get_mut(late)) {
            late.records += 1;
            let age = span(late.age);
            inner.notify_observer(|observer| observer.late(&age, 1));
        }
    }

    /// The edge has read up to here; `end` if there is nothing behind it.
    pub(super) fn read_to(&self, read_to: Timestamp, end: bool) {
        let mut inner = self.lock();
        inner.stats.read_to = Some(read_to);
        inner.stats.caught_up = end;
    }

    /// Records up to this time are settled.
    pub(super) fn settled(&self, newest: Option<Timestamp>) {
        let stats = &mut self.lock().stats;
        stats.newest_settled = stats.newest_settled.max(newest);
    }

    /// Sets how many identities are remembered.
    pub(super) fn identities(&self, identities: usize) {
        self.lock().stats.identities = identities;
    }

    /// The clock went back, so the cursor did too.
    pub(super) fn clock_went_back(&self, age: Duration, position: Timestamp, now: Timestamp) {
        warn!(
            log = self.lock().log, age_seconds = age.as_secs_f64(), %position, %now,
            "clock is behind what was already read: reading again from there"
        );
    }

    /// This machine's clock is ahead of the log's by this much, or behind it.
    pub(super) fn clocks(&self, ahead: Duration, behind: Duration) {
        let mut inner = self.lock();
        let is_behind = behind > CLOCK_WRONG_MAX;
        if is_behind && !inner.clock_is_behind {
            warn!(
                log = inner.log,
                behind_seconds = behind.as_secs(),
                "clock is behind the provider's: reading by the provider's time, but the lag is shown \
                 too small by as much; set the node's clock right (chrony, NTP)"
            );
        }
        inner.clock_is_behind = is_behind;
        let is_ahead = ahead > CLOCK_WRONG_MAX;
        if is_ahead && !inner.clock_is_ahead {
            warn!(
                log = inner.log,
                ahead_seconds = ahead.as_secs(),
                "clock is ahead of the provider's: reading no further than the provider's time; set \
                 the node's clock right (chrony, NTP)"
            );
        }
        inner.clock_is_ahead = is_ahead;
    }

    /// Identities were forgotten too early, because of their limit.
    pub(super) fn overflowed(&self, identities_max: usize) {
        let mut inner = self.lock();
        if !std::mem::replace(&mut inner.overflowed, true) {
            warn!(
                log = inner.log,
                identities_max, "identities limit reached: some records are sent again"
            );
        }
    }
}

/// An age in the form of its flag: `15s`, `2m`, `1h 30m`.
fn span(age: Duration) -> String {
    jiff::SignedDuration::try_from(age)
        .map_or_else(|_| format!("{age:?}"), |age| format!("{age:#}"))
}

impl Inner {
    fn notify_observer(&self, what: impl FnOnce(&dyn SourceObserver)) {
        if let Some(observer) = &self.observer {
            what(&**observer);
        }
    }

    fn set_failure(&mut self, cursor: usize, failure: Option<CursorFailure>) {
        if let Some(place) = self.failures.get_mut(cursor) {
            *place = failure;
        }
        let held = matches!(self.status, TailStatus::Held { .. });
        match self.failures.iter().flatten().next() {
            Some(CursorFailure {
                detail,
                remedy,
                identity,
            }) => {
                if !held && self.observer.is_none() {
                    warn!(log = self.log, detail, remedy, "log read failed; retrying");
                }
                self.notify_observer(|observer| {
                    let remedy = remedy.as_deref().unwrap_or("it is tried again");
                    let component = match identity {
                        true => Component::Identity,
                        false => Component::Source,
                    };
                    observer.not_ready(component, format!("{detail}; {remedy}"));
                });
                self.status = TailStatus::Held {
                    detail: detail.clone(),
                    remedy: remedy.clone(),
                    identity: *identity,
                };
            }
            None => {
                if held && self.observer.is_none() {
                    info!(log = self.log, "log read recovered");
                }
                self.notify_observer(|observer| observer.answers());
                self.status = TailStatus::Reading;
            }
        }
    }
}
