//! The Lease hold that allows reading and committing. Every [`LeaseHold`] checks the clock itself,
//! so that a process that hung does nothing before it notices that the Lease expired.
//!
//! The app crate acquires and renews the Lease.

use std::fmt;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// Why a Lease is no longer held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lost {
    /// No renewal succeeded before the deadline.
    Expired {
        /// Why the last attempt failed, and what to do; `None` when no attempt finished.
        why: Option<String>,
    },
    /// The Lease has another holder.
    Taken {
        /// The new holder's identity.
        holder: String,
    },
    /// This process released the Lease.
    Released,
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Lost::Expired { why: None } => f.write_str("the lease was not renewed in time"),
            Lost::Expired { why: Some(why) } => {
                write!(f, "the lease could not be renewed in time: {why}")
            }
            Lost::Taken { holder } => write!(f, "the lease is held by {holder}"),
            Lost::Released => f.write_str("the lease was given back"),
        }
    }
}

#[derive(Debug, Clone)]
struct State {
    /// When the hold ends, unless a renewal succeeds.
    valid_until: Instant,
    /// Why the last renewal failed, if it did.
    failure: Option<String>,
    lost: Option<Lost>,
}

impl State {
    /// Why the Lease is lost, also when it expired and no task has noticed yet.
    fn over(&self) -> Option<Lost> {
        let expired = || Lost::Expired {
            why: self.failure.clone(),
        };
        let lost = self.lost.clone();
        lost.or_else(|| (Instant::now() >= self.valid_until).then(expired))
    }
}

/// Says whether the Lease is still held. Clones share its state.
#[derive(Debug, Clone)]
pub struct LeaseHold {
    state: watch::Receiver<State>,
}

impl LeaseHold {
    /// Whether this process holds the Lease now, by the clock: correct even if no other task runs.
    pub fn is_leader(&self) -> bool {
        let state = self.state.borrow();
        state.over().is_none() && self.state.has_changed().is_ok()
    }

    /// Waits until the Lease is lost. Cancel-safe. Ready at the first poll if it is lost already: a
    /// process that hung must do nothing else first.
    pub async fn lost(&mut self) -> Lost {
        loop {
            let state = self.state.borrow_and_update().clone();
            if let Some(lost) = state.over() {
                return lost;
            }
            tokio::select! {
                biased;
                changed = self.state.changed() => if changed.is_err() {
                    // The task that renews has ended.
                    let state = self.state.borrow();
                    return state.lost.clone().unwrap_or(Lost::Expired { why: None });
                },
                () = sleep_until(state.valid_until) => {}
            }
        }
    }
}

/// Renews or ends a [`LeaseHold`] and its clones. Dropping it ends them.
#[derive(Debug)]
pub struct LeaseHoldSender {
    state: watch::Sender<State>,
}

/// A hold until this time, unless renewed, and the sender that renews or ends it.
pub fn lease_hold(valid_until: Instant) -> (LeaseHoldSender, LeaseHold) {
    let (to, state) = watch::channel(State {
        valid_until,
        failure: None,
        lost: None,
    });
    (LeaseHoldSender { state: to }, LeaseHold { state })
}

impl LeaseHoldSender {
    /// The Lease was renewed until this time.
    pub fn renewed(&self, valid_until: Instant) {
        self.state.send_modify(|state| {
            state.valid_until = valid_until;
            state.failure = None;
        });
    }

    /// A renewal failed: why, and what to do.
    pub fn failed(&self, why: String) {
        self.state.send_modify(|state| state.failure = Some(why));
    }

    /// Marks the hold as lost if its time is over.
    pub fn expired(&self) {
        self.state.send_modify(|state| state.lost = state.over());
    }

    /// Marks the hold as lost.
    pub fn ended(&self, lost: Lost) {
        self.state.send_modify(|state| state.lost = Some(lost));
    }
}
