//! One writer at a time: leader election with a Lease of `coordination.k8s.io/v1`.
//!
//! The holder renews the Lease. A candidate takes it once it has observed it unchanged for the
//! Lease's whole duration on its own monotonic clock (the times in the Lease are only for people,
//! so clocks may differ). The holder counts from before it sent its last successful renewal and
//! gives up `renew_deadline` after that, which is shorter than the Lease's duration. So it stops
//! before another process can begin, even if the API server answers nobody or the renewal task is
//! not scheduled, because every `LeaseHold` checks the clock itself.
//!
//! This cannot exclude: a machine that is suspended as a whole with its monotonic clock, and a
//! Lease that a person deletes or clears. Two writers then send records twice for a moment; nothing
//! is lost, and the ConfigMap's version keeps them from mixing their positions.
//!
//! One [`Elector`] is a candidate for one Lease. A process that shares logs has one for each.

mod claim;
mod leadership;
mod object;

use std::future::Future;
use std::time::Duration;

use kube::core::params::PostParams;
use tokio::time::{Instant, sleep_until};

use crate::kubernetes::{ApiError, ApiErrorKind, Cluster, ForbiddenReason, bounded};
pub use leadership::Leadership;
use object::{Lease, Leases};

/// The longest lease duration: a candidate waits at most this long for a Lease that is not renewed.
pub(crate) const LEASE_DURATION_MAX: Duration = Duration::from_secs(3600);

/// How much of a holder's identity is shown: a name in Kubernetes has no more.
const HOLDER_CHARS_MAX: usize = 253;

/// The times of a Lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseTiming {
    /// How long candidates wait for a Lease that is not renewed; whole seconds.
    pub lease_duration: Duration,
    /// How long after its last successful renewal the holder stops.
    pub renew_deadline: Duration,
    /// The time between two renewals, or two checks by a candidate.
    pub retry_period: Duration,
}

impl Default for LeaseTiming {
    fn default() -> LeaseTiming {
        LeaseTiming {
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        }
    }
}

/// Times that do not guarantee a single writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LeaseTimingError {
    /// The holder would not stop before the next one may begin.
    #[error("the renew deadline must be shorter than the lease duration")]
    Deadline,
    /// One failed renewal would end the hold.
    #[error("the retry period must be shorter than half of the renew deadline, and not zero")]
    Retry,
    /// The Lease's unit is a whole second.
    #[error("the lease duration must be whole seconds, at most {LEASE_DURATION_MAX:?}")]
    Duration,
}

impl LeaseTiming {
    fn check(self) -> Result<LeaseTiming, LeaseTimingError> {
        if self.renew_deadline >= self.lease_duration {
            return Err(LeaseTimingError::Deadline);
        }
        if self.retry_period.is_zero() || self.retry_period >= self.renew_deadline / 2 {
            return Err(LeaseTimingError::Retry);
        }
        if self.lease_duration.subsec_nanos() != 0 || self.lease_duration > LEASE_DURATION_MAX {
            return Err(LeaseTimingError::Duration);
        }
        Ok(self)
    }

    /// The limit for one request, so that another one fits before the deadline.
    fn request(self) -> Duration {
        self.renew_deadline / 2
    }
}

/// Why a candidate does not hold the Lease yet.
#[derive(Debug)]
pub enum Waiting {
    /// Another one holds the Lease.
    Held {
        /// The holder's identity; empty when unknown.
        holder: String,
    },
    /// The Lease cannot be read or written.
    Unavailable {
        /// The cause.
        error: ApiError,
        /// What to do.
        remedy: String,
    },
}

/// The state of a Lease as a candidate sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseStatus {
    /// It was never held: it does not exist, or was created beforehand.
    Unused,
    /// Its holder released it, or it expired.
    Free,
    /// Another process holds it, or may hold it.
    Held,
}

/// A candidate for one Lease.
#[derive(Clone)]
pub struct Elector {
    candidacy: Candidacy,
    /// The last observed change of another holder's Lease.
    observed: Option<Observed>,
    /// Whether it did not exist when last read.
    is_missing: bool,
    random: fastrand::Rng,
}

/// A candidate's Lease, identity and timing.
#[derive(Clone)]
struct Candidacy {
    leases: Leases,
    name: String,
    namespace: String,
    identity: String,
    timing: LeaseTiming,
}

#[derive(Clone)]
struct Observed {
    lease: Lease,
    /// When the change was observed, which is after it was made.
    at: Instant,
    /// Whether it was seen to change: its holder lives.
    renewed: bool,
}

impl Elector {
    /// A candidate for the Lease `name` in the cluster's namespace. No other process may have the
    /// same identity ([`identity`]): it could take the Lease at once.
    ///
    /// # Errors
    /// The times do not fit together.
    pub fn new(
        cluster: &Cluster,
        name: &str,
        identity: &str,
        timing: LeaseTiming,
    ) -> Result<Elector, LeaseTimingError> {
        Ok(Elector {
            candidacy: Candidacy {
                leases: Leases::new(cluster.client(), cluster.namespace()),
                name: name.to_owned(),
                namespace: cluster.namespace().to_owned(),
                identity: identity.to_owned(),
                timing: timing.check()?,
            },
            observed: None,
            is_missing: false,
            random: fastrand::Rng::new(),
        })
    }

    /// The same candidate, for another Lease.
    #[must_use]
    pub(crate) fn sibling(&self, name: &str) -> Elector {
        Elector {
            candidacy: Candidacy {
                name: name.to_owned(),
                ..self.candidacy.clone()
            },
            observed: None,
            is_missing: false,
            random: fastrand::Rng::new(),
        }
    }

    /// The name of the Lease.
    pub fn lease(&self) -> &str {
        &self.candidacy.name
    }

    /// Waits until this candidate holds the Lease, however long that takes. Calls `told` with why
    /// it waits, once per reason. From then on a separate task renews the Lease.
    ///
    /// After a loss, call it again only when everything that the old hold allowed has stopped: the
    /// Lease may still bear our name. Dropping the future gives up the candidacy, but a Lease that
    /// was just taken then stays taken until it expires.
    pub async fn acquire(&mut self, mut told: impl FnMut(&Waiting) + Send) -> Leadership {
        let mut reason = String::new();
        loop {
            let now = Instant::now();
            let (waiting, text) = match self.attempt().await {
                Ok(Attempt::Taken(held)) => {
                    return Leadership::begin(self.candidacy.clone(), *held);
                }
                Ok(Attempt::Held(holder)) => (
                    Waiting::Held {
                        holder: holder.clone(),
                    },
                    holder,
                ),
                Err(error) => {
                    let text = error.to_string();
                    let remedy = self.remedy(&error);
                    (Waiting::Unavailable { error, remedy }, text)
                }
            };
            if text != reason {
                told(&waiting);
                reason = text;
            }
            // Jitter keeps candidates from acting in step; yet each checks as soon as the Lease
            // expires.
            let share = 0.5 + self.random.f64() / 2.0;
            let next = now + self.candidacy.timing.retry_period.mul_f64(share);
            let expiry = self.expiry().filter(|expiry| *expiry > Instant::now());
            sleep_until(expiry.map_or(next, |expiry| expiry.min(next))).await;
        }
    }

    /// Asks the API server for a dry run of writing the Lease, for `check`.
    ///
    /// # Errors
    /// Why the write would fail, and what to do.
    pub async fn probe(&mut self) -> Result<(), Waiting> {
        let params = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        let Candidacy {
            leases,
            name,
            timing,
            ..
        } = &self.candidacy;
        let asked = async {
            let found = self.candidacy.get().await?;
            self.is_missing = found.is_none();
            let lease = match found {
                Some(lease) => lease,
                // A missing Lease must first be created and later updated, so both rights are
                // tested.
                None => {
                    let lease = claim::made(name, &self.candidacy.identity, *timing);
                    self.candidacy
                        .bounded(leases.create(&params, &lease))
                        .await?;
                    lease
                }
            };
            let updated = self
                .candidacy
                .bounded(leases.replace(name, &params, &lease))
                .await;
            match updated {
                // Its holder may have renewed it meanwhile.
                Err(error) if !lost_race(&error) => Err(error),
                _ => Ok(()),
            }
        };
        asked.await.map_err(|error| Waiting::Unavailable {
            remedy: self.remedy(&error),
            error,
        })
    }

    /// When the observed Lease of another holder expires.
    fn expiry(&self) -> Option<Instant> {
        let observed = self.observed.as_ref()?;
        Some(observed.at + claim::duration(&observed.lease, self.candidacy.timing))
    }

    /// Tries once to take the Lease; `None` when another process holds it.
    ///
    /// # Errors
    /// The Lease cannot be read or written.
    pub(crate) async fn try_acquire(&mut self) -> Result<Option<Leadership>, ApiError> {
        match self.attempt().await? {
            Attempt::Taken(held) => Ok(Some(Leadership::begin(self.candidacy.clone(), *held))),
            Attempt::Held(_) => Ok(None),
        }
    }

    /// Reads who holds the Lease, without taking it. A holder is known to be gone only if this was
    /// called before and after the Lease's whole duration.
    ///
    /// # Errors
    /// The Lease cannot be read.
    pub async fn read_status(&mut self) -> Result<LeaseStatus, ApiError> {
        let lease = self.observe().await?;
        Ok(match (self.other(), lease) {
            (Some(_), _) => LeaseStatus::Held,
            (None, Some(lease)) if claim::was_ever_taken(&lease) => LeaseStatus::Free,
            (None, _) => LeaseStatus::Unused,
        })
    }

    /// Whether another holder appears to have missed a renewal, so that it may be gone.
    pub(crate) fn is_overdue(&self) -> bool {
        let due = self.candidacy.timing.retry_period * 2;
        let observed = self.observed.as_ref().filter(|_| self.other().is_some());
        observed.is_some_and(|observed| observed.at.elapsed() > due)
    }

    /// Whether its holder seems long gone, as nothing changed for several times our own duration, or the
    /// Lease's own times say so and it was not seen to change. They compare the holder's clock with ours,
    /// and how long it promised is not asked: good for a guess, not for taking the Lease.
    pub(crate) fn is_forgotten(&self) -> bool {
        let observed = self.observed.as_ref();
        observed.is_some_and(|observed| {
            if observed.at.elapsed() > 4 * self.candidacy.timing.lease_duration {
                return true;
            }
            let age = claim::age(&observed.lease).filter(|_| !observed.renewed);
            age.is_some_and(|age| age > 2 * claim::duration(&observed.lease, self.candidacy.timing))
        })
    }

    /// The other holder whose Lease has not expired, if any, as it is shown: whoever writes the Lease
    /// chooses its length.
    pub(crate) fn holder(&self) -> Option<String> {
        let holder = self.other()?;
        Some(holder.chars().take(HOLDER_CHARS_MAX).collect())
    }

    /// The namespace of the Lease.
    pub(crate) fn namespace(&self) -> &str {
        &self.candidacy.namespace
    }

    /// What to do about an error of this candidate.
    pub fn remedy(&self, error: &ApiError) -> String {
        let (name, namespace) = (self.lease(), &self.candidacy.namespace);
        if self.is_missing && error.kind() == ApiErrorKind::Forbidden(ForbiddenReason::Role) {
            return format!(
                "the Lease {namespace}/{name} is not there, and the pod's Role does not let it create \
                 one: create it (helm upgrade, or kubectl -n {namespace} create -f - <<< \
                 '{{\"apiVersion\":\"coordination.k8s.io/v1\",\"kind\":\"Lease\",\"metadata\":\
                 {{\"name\":\"{name}\"}}}}')"
            );
        }
        error.remedy("leases", namespace)
    }

    /// Reads the Lease, and notes since when another holder's has not changed.
    async fn observe(&mut self) -> Result<Option<Lease>, ApiError> {
        let lease = self.candidacy.get().await?;
        self.is_missing = lease.is_none();
        // A deleted Lease's holder may not have noticed yet, so keep the observation; but what it
        // promised for longer than our own duration went with the Lease.
        if let (None, Some(observed)) = (&lease, &mut self.observed) {
            let timing = self.candidacy.timing;
            if claim::duration(&observed.lease, timing) > timing.lease_duration {
                observed.at = Instant::now();
                let spec = observed.lease.spec.get_or_insert_default();
                spec.lease_duration_seconds = None;
            }
        }
        if let Some(lease) = &lease {
            let holder = claim::holder(lease);
            let same = |observed: &Observed| observed.lease.spec == lease.spec;
            if holder.is_empty() || holder == self.candidacy.identity {
                self.observed = None;
            } else if !self.observed.as_ref().is_some_and(same) {
                self.observed = Some(Observed {
                    lease: lease.clone(),
                    at: Instant::now(),
                    renewed: self.observed.is_some(),
                });
            }
        }
        Ok(lease)
    }

    /// The other holder whose Lease has not expired, if any.
    fn other(&self) -> Option<&str> {
        let expiry = self.expiry()?;
        let observed = self.observed.as_ref()?;
        (Instant::now() < expiry).then(|| claim::holder(&observed.lease))
    }

    async fn attempt(&mut self) -> Result<Attempt, ApiError> {
        let lease = self.observe().await?;
        if let Some(holder) = self.holder() {
            return Ok(Attempt::Held(holder));
        }
        let candidacy = &self.candidacy;
        let sent = Instant::now();
        let claimed = match lease {
            Some(lease) => {
                let wanted = claim::taken(lease, &candidacy.identity, candidacy.timing);
                candidacy.replace(&wanted).await
            }
            None => {
                let wanted = claim::made(&candidacy.name, &candidacy.identity, candidacy.timing);
                candidacy.create(&wanted).await
            }
        };
        match claimed {
            Ok(lease) => {
                self.observed = None;
                Ok(Attempt::Taken(Box::new(HeldLease { lease, sent })))
            }
            Err(error) if lost_race(&error) => Ok(Attempt::Held(String::new())),
            Err(error) => Err(error),
        }
    }
}

impl std::fmt::Debug for Elector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Elector")
            .field("namespace", &self.candidacy.namespace)
            .field("name", &self.candidacy.name)
            .field("identity", &self.candidacy.identity)
            .finish_non_exhaustive()
    }
}

enum Attempt {
    Taken(Box<HeldLease>),
    Held(String),
}

/// A Lease that this process holds.
struct HeldLease {
    /// As the API server returned it.
    lease: Lease,
    /// When its request was sent, which is before the API server wrote it.
    sent: Instant,
}

impl Candidacy {
    async fn get(&self) -> Result<Option<Lease>, ApiError> {
        self.bounded(self.leases.get(&self.name)).await
    }

    async fn create(&self, lease: &Lease) -> Result<Lease, ApiError> {
        self.bounded(self.leases.create(&PostParams::default(), lease))
            .await
    }

    async fn replace(&self, lease: &Lease) -> Result<Lease, ApiError> {
        let params = PostParams::default();
        self.bounded(self.leases.replace(&self.name, &params, lease))
            .await
    }

    async fn bounded<T>(&self, call: impl Future<Output = kube::Result<T>>) -> Result<T, ApiError> {
        bounded(self.timing.request(), call).await
    }
}

/// Whether the Lease was created, changed or deleted between our read and our write.
fn lost_race(error: &ApiError) -> bool {
    matches!(
        error.kind(),
        ApiErrorKind::Conflict | ApiErrorKind::NotFound | ApiErrorKind::AlreadyExists
    )
}

/// An identity for this process: the name of the pod (or machine) with a random suffix, so that a
/// container that restarts in its pod does not take its predecessor's Lease for its own.
pub fn identity() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname");
    let host = host
        .ok()
        .or_else(|| std::env::var("HOSTNAME").ok())
        .unwrap_or_default();
    let host = match host.trim() {
        "" => "bridge",
        host => host,
    };
    format!("{host}-{:08x}", fastrand::u32(..))
}
