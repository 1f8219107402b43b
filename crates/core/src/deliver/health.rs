//! Whether the receiver works, for readiness, for giving up, and for one log line per change.

use std::borrow::Cow;
use std::time::Duration;

use tokio::time::Instant;

use crate::sink::Cause;

/// Another cause of the same kind of failure is logged no more often than this.
const CHANGE_LOG_INTERVAL: Duration = Duration::from_secs(60);

const REFUSES_ALL_REMEDY: &str = "the webhook has accepted no other event since, so this may be \
     the receiver, not the event, and nothing is dropped: check that --webhook-url \
     (AUDIT_BRIDGE_WEBHOOK_URL) names an endpoint that takes audit.k8s.io/v1 EventLists";

const RETRY_REMEDY: &str = "check that the receiver at --webhook-url (AUDIT_BRIDGE_WEBHOOK_URL) \
     is up and can be reached from here";

/// How delivery is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryStatus {
    /// The newest answer was no failure (so also before the first one).
    pub healthy: bool,
    /// A person must act.
    pub holding: Option<Hold>,
    /// When the receiver last accepted something.
    pub last_accepted: Option<Instant>,
    /// Since when some batch fails, without a break.
    pub failing_since: Option<Instant>,
}

/// A failure that does not pass by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// Since when.
    pub since: Instant,
    /// What fails, for a person.
    pub detail: String,
    /// What to do about it.
    pub remedy: Cow<'static, str>,
    /// The receiver refuses every event that it is offered.
    pub refused_everything: bool,
}

/// What kind of failure it is.
#[derive(Debug, Clone)]
pub(super) enum Problem {
    Retry {
        cause: Cause,
    },
    Hold {
        cause: Cause,
        remedy: Cow<'static, str>,
    },
    RefusesAll {
        status: u16,
    },
}

impl Problem {
    fn cause(&self) -> Cause {
        match self {
            Problem::Retry { cause } | Problem::Hold { cause, .. } => *cause,
            Problem::RefusesAll { status } => Cause::Status(*status),
        }
    }

    fn remedy(&self) -> Cow<'static, str> {
        match self {
            Problem::Retry { .. } => Cow::Borrowed(RETRY_REMEDY),
            Problem::Hold { remedy, .. } => remedy.clone(),
            Problem::RefusesAll { .. } => Cow::Borrowed(REFUSES_ALL_REMEDY),
        }
    }

    fn same_kind(&self, other: &Problem) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

#[derive(Debug)]
struct Failing {
    since: Instant,
    /// Since when it is this kind of failure.
    kind_since: Instant,
    problem: Problem,
    detail: String,
    newest: Instant,
    logged: Instant,
}

#[derive(Debug, Default)]
pub(super) struct Health {
    failing: Option<Failing>,
    last_accepted: Option<Instant>,
}

impl Health {
    pub(super) fn failed(&mut self, now: Instant, problem: Problem, detail: String) {
        let Some(failing) = &mut self.failing else {
            log_failing(&problem, &detail);
            self.failing = Some(Failing {
                since: now,
                kind_since: now,
                problem,
                detail,
                newest: now,
                logged: now,
            });
            return;
        };
        let same_kind = failing.problem.same_kind(&problem);
        let same = same_kind && failing.problem.cause() == problem.cause();
        if !same && (!same_kind || now >= failing.logged + CHANGE_LOG_INTERVAL) {
            log_failing(&problem, &detail);
            failing.logged = now;
        } else {
            tracing::debug!(cause = %problem.cause().label(), detail, "still failing");
        }
        if !same_kind {
            failing.kind_since = now;
        }
        failing.problem = problem;
        failing.detail = detail;
        failing.newest = now;
    }

    pub(super) fn accepted(&mut self, now: Instant) {
        self.last_accepted = Some(now);
    }

    pub(super) fn recovered(&mut self, now: Instant) {
        if let Some(failing) = self.failing.take() {
            log_recovered(now.duration_since(failing.since));
        }
    }

    pub(super) fn status(&self) -> DeliveryStatus {
        DeliveryStatus {
            healthy: self
                .failing
                .as_ref()
                .is_none_or(|failing| self.last_accepted >= Some(failing.newest)),
            holding: self.failing.as_ref().and_then(|failing| {
                let refused_everything = match failing.problem {
                    Problem::Retry { .. } => return None,
                    Problem::Hold { .. } => false,
                    Problem::RefusesAll { .. } => true,
                };
                Some(Hold {
                    since: failing.kind_since,
                    detail: failing.detail.clone(),
                    remedy: failing.problem.remedy(),
                    refused_everything,
                })
            }),
            last_accepted: self.last_accepted,
            failing_since: self.failing.as_ref().map(|failing| failing.since),
        }
    }

    pub(super) fn gave_up(&self, now: Instant, after: Duration) -> Option<String> {
        let failing = self.failing.as_ref()?;
        let since = self
            .last_accepted
            .map_or(failing.since, |accepted| accepted.max(failing.since));
        let waited = now.duration_since(since);
        (waited >= after).then(|| {
            format!(
                "the webhook has accepted nothing for {}s: {}; {}",
                waited.as_secs(),
                failing.detail,
                failing.problem.remedy()
            )
        })
    }
}

fn log_failing(problem: &Problem, detail: &str) {
    let cause = problem.cause().label();
    match problem {
        Problem::Retry { .. } => tracing::warn!(
            %cause,
            detail,
            "webhook delivery fails: nothing is lost, trying again"
        ),
        Problem::Hold { .. } | Problem::RefusesAll { .. } => tracing::error!(
            %cause,
            detail,
            remedy = %problem.remedy(),
            "webhook delivery is held: nothing is lost, trying again until this is mended"
        ),
    }
}

fn log_recovered(after: Duration) {
    tracing::info!(
        after_seconds = after.as_secs_f64(),
        "webhook delivery works again"
    );
}
