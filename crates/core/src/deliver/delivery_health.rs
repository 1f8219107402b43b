//! Whether the receiver takes anything, for readiness, for giving up, and for one log line per
//! change.

use std::borrow::Cow;
use std::time::Duration;

use tokio::time::Instant;

use super::parked::ParkedStatus;
use crate::sink::{Cause, RequestFailure};

/// Another cause of the same outage is logged no more often than this.
const CHANGE_LOG_INTERVAL: Duration = Duration::from_secs(60);

/// A single failure counts as an outage after this time.
const PASSING_MAX: Duration = Duration::from_secs(1);

const DEFAULT_REMEDY: &str = "check that the receiver at --webhook-url (AUDIT_BRIDGE_WEBHOOK_URL) \
     is up and can be reached from here";

const EMPTY_LIST_REMEDY: &str = "it accepts an empty list, so look in its log, and at what stands before it (a \
     WAF, a proxy), for what it refuses in events";

/// How delivery is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryStatus {
    /// Set while nothing is accepted although something was sent. `None` before the first request,
    /// and while some events fail but others are accepted.
    pub outage: Option<Outage>,
    /// When the receiver last accepted something.
    pub last_accepted: Option<Instant>,
    /// Events that fail while others are accepted, or an empty list.
    pub parked: ParkedStatus,
    /// The current limit of events in one request.
    pub request_events_max: usize,
}

/// Nothing is accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outage {
    /// Since when.
    pub since: Instant,
    /// The newest failure, for a person.
    pub detail: String,
    /// What to do about it.
    pub remedy: Cow<'static, str>,
    /// Whether a person must act, as far as the failure shows.
    pub hold: bool,
}

impl Outage {
    fn of(failure: &RequestFailure, since: Instant) -> Outage {
        let remedy = failure.remedy.clone();
        Outage {
            since,
            detail: failure.detail.clone(),
            hold: remedy.is_some(),
            remedy: remedy.unwrap_or(Cow::Borrowed(DEFAULT_REMEDY)),
        }
    }
}

#[derive(Debug)]
struct Failing {
    outage: Outage,
    /// Failures since something was last accepted.
    failures: u32,
    /// The newest log line about it: cause, hold and time.
    logged: Option<(Cause, bool, Instant)>,
    /// The receiver accepted an empty list since.
    accepts_empty_list: bool,
}

/// The failures since the receiver last accepted something.
#[derive(Debug, Default)]
pub(super) struct DeliveryHealth {
    failing: Option<Failing>,
    last_accepted: Option<Instant>,
}

impl DeliveryHealth {
    pub(super) fn failed(&mut self, now: Instant, failure: &RequestFailure) {
        let outage = Outage::of(failure, now);
        let failing = self.failing.get_or_insert_with(|| Failing {
            outage: outage.clone(),
            failures: 0,
            logged: None,
            accepts_empty_list: false,
        });
        failing.failures = failing.failures.saturating_add(1);
        failing.outage = Outage {
            since: failing.outage.since,
            ..outage
        };
        if failing.is_confirmed(now) {
            failing.log(failure.cause, now);
        }
    }

    /// The receiver accepted something. Returns whether that ended an outage.
    pub(super) fn accepted(&mut self, now: Instant) -> bool {
        self.last_accepted = Some(now);
        let ended = self.failing.take();
        if let Some(Failing {
            outage,
            logged: Some(_),
            ..
        }) = &ended
        {
            tracing::info!(
                after_seconds = now.duration_since(outage.since).as_secs_f64(),
                "webhook delivery recovered"
            );
        }
        ended.is_some()
    }

    pub(super) fn outage(&self, now: Instant) -> Option<Outage> {
        let failing = self.failing.as_ref();
        let confirmed = failing.filter(|failing| failing.is_confirmed(now));
        confirmed.map(Failing::outage)
    }

    /// The receiver accepted an empty list, which ends no outage.
    pub(super) fn empty_list_accepted(&mut self) {
        if let Some(failing) = &mut self.failing {
            failing.accepts_empty_list = true;
        }
    }

    pub(super) fn last_accepted(&self) -> Option<Instant> {
        self.last_accepted
    }

    /// Why to give up, once nothing was accepted for so long.
    pub(super) fn gave_up(&self, now: Instant, after: Duration) -> Option<String> {
        let outage = self.failing.as_ref()?.outage();
        let waited = now.duration_since(outage.since);
        (waited >= after).then(|| {
            format!(
                "the webhook has accepted nothing for {}s: {}; {}",
                waited.as_secs(),
                outage.detail,
                outage.remedy
            )
        })
    }

    /// Whether something was accepted no longer ago than this.
    pub(super) fn accepted_within(&self, now: Instant, time: Duration) -> bool {
        self.last_accepted
            .is_some_and(|accepted| now.duration_since(accepted) < time)
    }
}

impl Failing {
    fn outage(&self) -> Outage {
        let mut outage = self.outage.clone();
        if self.accepts_empty_list {
            outage.remedy = Cow::Borrowed(EMPTY_LIST_REMEDY);
        }
        outage
    }

    /// Confirms an outage: one failure may concern one event only, or pass.
    fn is_confirmed(&self, now: Instant) -> bool {
        self.failures > 1 || now.duration_since(self.outage.since) > PASSING_MAX
    }

    fn log(&mut self, cause: Cause, now: Instant) {
        let Outage {
            detail,
            remedy,
            hold,
            ..
        } = &self.outage;
        let said = self.logged.is_some_and(|(said, held, at)| {
            (said, held) == (cause, *hold)
                || (held == *hold && now.duration_since(at) < CHANGE_LOG_INTERVAL)
        });
        let cause_label = cause.label();
        if said {
            tracing::debug!(cause = %cause_label, detail, "webhook delivery still fails");
            return;
        }
        self.logged = Some((cause, *hold, now));
        match hold {
            false => tracing::warn!(
                cause = %cause_label,
                detail,
                %remedy,
                "webhook delivery fails: nothing is lost, trying again"
            ),
            true => tracing::error!(
                cause = %cause_label,
                detail,
                %remedy,
                "webhook delivery is held: nothing is lost, trying again until this is mended"
            ),
        }
    }
}
