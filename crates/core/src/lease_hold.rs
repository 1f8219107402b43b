//! The Lease hold that allows reading and committing: every reader of a [`LeaseHold`]
//! looks at the clock itself, so that a process that hung does nothing before it notices.
//!
//! How the right is won and renewed is not here.

use std::fmt;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// Why a Lease is no longer held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lost {
    /// No renewal succeeded before the deadline.
    Expired {
        /// What the last attempt met, and what to do; `None` when none came to an end.
        why: Option<String>,
    },
    /// The Lease bears another name.
    Taken {
        /// Whose.
        holder: String,
    },
    /// We gave it back.
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
    /// Until when we are the leader, unless a renewal succeeds.
    valid_until: Instant,
    /// Why the last renewal failed, if it did.
    failure: Option<String>,
    lost: Option<Lost>,
}

impl State {
    /// Why it is over, which it is once nothing renewed it in time, whoever has noticed.
    fn over(&self) -> Option<Lost> {
        let expired = || Lost::Expired {
            why: self.failure.clone(),
        };
        let lost = self.lost.clone();
        lost.or_else(|| (Instant::now() >= self.valid_until).then(expired))
    }
}

/// Tells whether the Lease is still held. Clones tell the same.
#[derive(Debug, Clone)]
pub struct LeaseHold {
    state: watch::Receiver<State>,
}

impl LeaseHold {
    /// Whether we are the leader now, by the clock: right even when nothing else runs.
    pub fn is_leader(&self) -> bool {
        let state = self.state.borrow();
        state.over().is_none() && self.state.has_changed().is_ok()
    }

    /// Waits for the end of the leadership. Dropping the future loses nothing. Ready at its first
    /// poll when it is over: a process that hung must not do anything else before.
    pub async fn lost(&mut self) -> Lost {
        loop {
            let state = self.state.borrow_and_update().clone();
            if let Some(lost) = state.over() {
                return lost;
            }
            tokio::select! {
                biased;
                changed = self.state.changed() => if changed.is_err() {
                    // The renewing task is gone.
                    let state = self.state.borrow();
                    return state.lost.clone().unwrap_or(Lost::Expired { why: None });
                },
                () = sleep_until(state.valid_until) => {}
            }
        }
    }
}

/// Renews or ends a [`LeaseHold`] and its clones. Dropped, it ends them.
#[derive(Debug)]
pub struct LeaseHoldSender {
    state: watch::Sender<State>,
}

/// A hold until this time, unless it is renewed, and the sender that renews or ends it.
pub fn lease_hold(valid_until: Instant) -> (LeaseHoldSender, LeaseHold) {
    let (to, state) = watch::channel(State {
        valid_until,
        failure: None,
        lost: None,
    });
    (LeaseHoldSender { state: to }, LeaseHold { state })
}

impl LeaseHoldSender {
    /// It was renewed, until this time.
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

    /// Its time is over, if it is.
    pub fn expired(&self) {
        self.state.send_modify(|state| state.lost = state.over());
    }

    /// It is over.
    pub fn ended(&self, lost: Lost) {
        self.state.send_modify(|state| state.lost = Some(lost));
    }
}
