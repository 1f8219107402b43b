//! Leadership: the task that renews the Lease, and updates each [`LeaseHold`].

use std::future::Future;

use audit_bridge_core::lease_hold::{LeaseHold, LeaseHoldSender, Lost, lease_hold};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::{Candidacy, HeldLease, claim};
use crate::kubernetes::{ApiError, ApiErrorKind};

/// How often one renewal is tried: the first attempt may fail on a change that left us the holder.
const ATTEMPTS_MAX: usize = 2;

/// The leadership itself. If it is dropped without [`Leadership::release`], it ends at once for us,
/// but for others only when the Lease expires.
#[derive(Debug)]
pub struct Leadership {
    lease_hold: LeaseHold,
    term: i64,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), ApiError>>,
}

impl Leadership {
    pub(super) fn begin(candidacy: Candidacy, held: HeldLease) -> Leadership {
        let (to, lease_hold) = lease_hold(held.sent + candidacy.timing.renew_deadline);
        let (stop, stopped) = oneshot::channel();
        let term = claim::transitions(&held.lease);
        let task = tokio::spawn(
            Renewal {
                candidacy,
                held,
                to,
            }
            .run(stopped),
        );
        Leadership {
            lease_hold,
            term,
            stop,
            task,
        }
    }

    /// How often the Lease had changed hands when this leadership began. It is higher than in any
    /// earlier one, unless somebody deletes the Lease, so it distinguishes a leader from the one
    /// before.
    pub fn term(&self) -> i64 {
        self.term
    }

    /// A handle for the tasks that may run only while the Lease is held.
    pub fn lease_hold(&self) -> LeaseHold {
        self.lease_hold.clone()
    }

    /// Whether this process holds the Lease now, by the clock.
    pub fn is_leader(&self) -> bool {
        self.lease_hold.is_leader()
    }

    /// Waits until the leadership ends. Cancel-safe.
    pub async fn lost(&mut self) -> Lost {
        self.lease_hold.lost().await
    }

    /// Releases the Lease, so that another candidate need not wait for it to expire. Call it only
    /// when everything that this leadership allowed has stopped, the last checkpoint included.
    ///
    /// # Errors
    /// The Lease could not be written: it expires by itself.
    pub async fn release(self) -> Result<(), ApiError> {
        // If the leadership was lost before, the task has already ended.
        let _ = self.stop.send(());
        self.task.await.unwrap_or(Ok(()))
    }
}

struct Renewal {
    candidacy: Candidacy,
    held: HeldLease,
    to: LeaseHoldSender,
}

/// Why a Lease was not renewed.
enum RenewalError {
    /// The next attempt may succeed.
    Failed(ApiError),
    Taken(String),
}

impl From<ApiError> for RenewalError {
    fn from(error: ApiError) -> RenewalError {
        RenewalError::Failed(error)
    }
}

impl Renewal {
    async fn run(mut self, mut stop: oneshot::Receiver<()>) -> Result<(), ApiError> {
        let period = self.candidacy.timing.retry_period;
        let mut valid_until = self.held.sent + self.candidacy.timing.renew_deadline;
        let mut next = self.held.sent + period;
        loop {
            if let Err(stop) = or_stop(&mut stop, sleep_until(next.min(valid_until))).await {
                return self.stop(stop).await;
            }
            if Instant::now() >= valid_until {
                self.to.expired();
                return Ok(());
            }
            next = Instant::now() + period;
            let renewal = timeout_at(valid_until, self.renew());
            let result = match or_stop(&mut stop, renewal).await {
                Ok(result) => result,
                Err(stop) => return self.stop(stop).await,
            };
            match result {
                Ok(Ok(())) => {
                    valid_until = self.held.sent + self.candidacy.timing.renew_deadline;
                    self.to.renewed(valid_until);
                }
                Ok(Err(RenewalError::Taken(holder))) => {
                    self.end(Lost::Taken { holder });
                    return Ok(());
                }
                Ok(Err(RenewalError::Failed(error))) => {
                    tracing::warn!(lease = %self.candidacy.name, %error, "lease renewal failed; retrying");
                    let remedy = error.remedy("leases", &self.candidacy.namespace);
                    let failure = format!("{error}; {remedy}");
                    self.to.failed(failure);
                }
                // The deadline has passed: the next iteration ends the hold.
                Err(_) => {}
            }
        }
    }

    fn end(&self, lost: Lost) {
        self.to.ended(lost);
    }

    /// Renews over the version that we know; on a conflict, reads who holds the Lease.
    async fn renew(&mut self) -> Result<(), RenewalError> {
        let Candidacy {
            identity, timing, ..
        } = &self.candidacy;
        let mut last = None;
        for _ in 0..ATTEMPTS_MAX {
            let wanted = claim::taken(self.held.lease.clone(), identity, *timing);
            let sent = Instant::now();
            match self.candidacy.replace(&wanted).await {
                Ok(lease) => {
                    self.held = HeldLease { lease, sent };
                    return Ok(());
                }
                Err(error) if super::lost_race(&error) => last = Some(error),
                Err(error) => return Err(error.into()),
            }
            let Some(lease) = self.candidacy.get().await? else {
                let wanted = claim::made(&self.candidacy.name, identity, *timing);
                let sent = Instant::now();
                match self.candidacy.create(&wanted).await {
                    Ok(lease) => {
                        self.held = HeldLease { lease, sent };
                        return Ok(());
                    }
                    Err(error) if error.kind() == ApiErrorKind::AlreadyExists => {
                        last = Some(error);
                        continue;
                    }
                    Err(error) => return Err(error.into()),
                }
            };
            let holder = claim::holder(&lease);
            if !holder.is_empty() && holder != identity {
                return Err(RenewalError::Taken(holder.to_owned()));
            }
            self.held.lease = lease;
        }
        // The loop ends only after a lost race.
        last.map_or(Ok(()), |error| Err(error.into()))
    }

    async fn stop(self, stop: Stop) -> Result<(), ApiError> {
        match stop {
            Stop::Release => self.release_lease().await,
            Stop::Drop => Ok(()),
        }
    }

    async fn release_lease(self) -> Result<(), ApiError> {
        // Nobody may rely on the hold once the request is sent.
        self.end(Lost::Released);
        let mut lease = self.held.lease;
        for _ in 0..ATTEMPTS_MAX {
            match self.candidacy.replace(&claim::released(lease)).await {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == ApiErrorKind::NotFound => return Ok(()),
                // An earlier renewal of ours may have been written after all.
                Err(error) if error.kind() == ApiErrorKind::Conflict => {}
                Err(error) => return Err(error),
            }
            match self.candidacy.get().await? {
                Some(there) if claim::holder(&there) == self.candidacy.identity => lease = there,
                _ => return Ok(()),
            }
        }
        Ok(())
    }
}

/// How the holder ends its leadership.
enum Stop {
    Release,
    Drop,
}

/// The future's output, unless the holder ends the leadership first.
async fn or_stop<T>(
    stop: &mut oneshot::Receiver<()>,
    future: impl Future<Output = T>,
) -> Result<T, Stop> {
    tokio::select! {
        biased;
        stop = stop => Err(stop.map_or(Stop::Drop, |()| Stop::Release)),
        output = future => Ok(output),
    }
}
