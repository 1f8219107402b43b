//! Decides which replica reads which of several logs.
//!
//! Each log has a Lease, and only its holder reads the log. To divide the logs evenly, each replica
//! also holds a member Lease, `NAME-member-0`, `-1` and so on; if their number is limited, further
//! replicas stand by. The states of the member Leases show how many replicas there are and how many
//! come before this one, which determines this replica's share. A replica that reads more gives
//! some logs up, in good order; one that reads less takes free Leases. When a replica dies, its
//! Leases expire, including its member Lease.
//!
//! The counts of two replicas may differ for a moment. Then a log waits for that moment, or changes
//! hands once more than necessary; two replicas never read the same log.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;

use crate::kubernetes::{ApiError, ApiErrorKind};
use crate::lease::{Elector, Leadership, LeaseStatus};

/// More replicas than any event hub has partitions.
const MEMBERS_MAX: usize = 2048;

/// How many of our lease durations a log's Lease is held by somebody without a member Lease before the
/// log counts as unread: a replica that lost its member Lease needs some of them to give its logs up.
const FOREIGN_DURATIONS: u32 = 3;

/// One replica among those that share logs.
#[derive(Debug)]
pub struct Balancer {
    name: String,
    /// The member Leases that were ever read, in order; the first always exists.
    member_leases: Vec<Elector>,
    member_lease: Option<(usize, Leadership)>,
    members_max: usize,
    /// The logs' Leases, by log name.
    logs: BTreeMap<String, Elector>,
    /// The Leases under which this replica reads or read a log, by log name.
    in_use: BTreeMap<String, String>,
    /// The identities of the other replicas.
    others: BTreeSet<String>,
    /// Logs that this replica would read, whose Leases are held by no replica, by log name.
    foreign: BTreeMap<String, Foreign>,
}

/// The holder of a log's Lease that is no replica.
#[derive(Debug)]
struct Foreign {
    holder: String,
    since: Instant,
}

/// How many replicas there are, as this replica sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Membership {
    /// All replicas, including this one.
    pub replicas: usize,
    /// How many come before this one; `None`: no member Lease is free for it, so it stands by.
    pub rank: Option<usize>,
}

impl Membership {
    /// How many of `logs` belong to this replica. The shares of all replicas add up to `logs`.
    pub fn share(self, logs: usize) -> usize {
        let replicas = self.replicas.max(1);
        match self.rank {
            Some(rank) => logs / replicas + usize::from(rank < logs % replicas),
            None => 0,
        }
    }
}

/// The result of one check of the Leases.
#[derive(Debug, Default)]
pub struct RebalanceStep {
    /// `None` if it could not be read.
    pub membership: Option<Membership>,
    /// Logs whose Leases were acquired.
    pub gained: Vec<(String, Leadership)>,
    /// Logs to stop reading and whose Leases to release.
    pub give_up: Vec<String>,
    /// Logs that nobody reads, as no replica holds their Leases: what to do about each.
    pub unread: BTreeMap<String, String>,
    /// Why not all Leases could be read, and what to do. Leases that are held stay held.
    pub failure: Option<String>,
}

impl Balancer {
    /// A replica without a member Lease. `elector` is a candidate for the Lease whose name is the
    /// prefix of all others.
    pub fn new(elector: &Elector) -> Balancer {
        let name = elector.lease().to_owned();
        Balancer {
            member_leases: vec![elector.sibling(&member_lease_name(&name, 0))],
            name,
            member_lease: None,
            members_max: MEMBERS_MAX,
            logs: BTreeMap::new(),
            in_use: BTreeMap::new(),
            others: BTreeSet::new(),
            foreign: BTreeMap::new(),
        }
    }

    /// Limits the number of member Leases.
    pub fn limit_members(&mut self, members: usize) {
        self.members_max = members.clamp(1, MEMBERS_MAX);
    }

    /// Adds a log to share, with a Lease of this name. A known log stays as it is; if its Lease has
    /// changed, it is removed, so that its reader stops, and the next call adds it.
    pub fn add(&mut self, log: &str, lease: &str) {
        match self.logs.get(log) {
            Some(elector) if elector.lease() == lease => {}
            Some(_) => self.remove(log),
            None => {
                let elector = self.member_leases[0].sibling(lease);
                self.logs.insert(log.to_owned(), elector);
            }
        }
    }

    /// The name of a log's Lease.
    pub fn lease(&self, log: &str) -> Option<&str> {
        self.logs.get(log).map(Elector::lease)
    }

    /// Forgets a log that no longer exists.
    pub fn remove(&mut self, log: &str) {
        self.logs.remove(log);
        self.foreign.remove(log);
    }

    /// Checks all Leases once. `reading` are the logs that this replica reads and means to keep,
    /// `leaving` those that it is giving up, or that lost their Lease and still have to stop.
    pub async fn step(
        &mut self,
        reading: &BTreeSet<String>,
        leaving: &BTreeSet<String>,
    ) -> RebalanceStep {
        let mut step = RebalanceStep::default();
        self.in_use
            .retain(|log, _| reading.contains(log) || leaving.contains(log));
        let gone = reading.iter().filter(|log| !self.logs.contains_key(*log));
        step.give_up.extend(gone.cloned());
        let membership = match self.count().await {
            Ok(membership) => membership,
            Err(failure) => {
                step.failure = Some(failure.to_string());
                return step;
            }
        };
        step.membership = Some(membership);
        let share = membership.share(self.logs.len());
        let kept = reading.len() - step.give_up.len();
        if kept >= share {
            // Whoever reads too little sees what nobody reads.
            self.foreign.clear();
        }
        step.unread = self.unread();
        if kept > share {
            let known = reading.iter().filter(|log| self.logs.contains_key(*log));
            step.give_up
                .extend(known.rev().take(kept - share).cloned().collect::<Vec<_>>());
            return step;
        }
        // Each replica begins at another log, so that they do not reach for the same ones.
        let rank = membership.rank.unwrap_or_default();
        let first = rank * self.logs.len() / membership.replicas.max(1);
        // A Lease's expiry counts from its last observed change. If a replica may be gone, observe
        // the Leases of its logs before they become ours.
        let overdue = self.member_leases.iter().any(Elector::is_overdue);
        let order: Vec<String> = {
            let (before, from) = (self.logs.keys().take(first), self.logs.keys().skip(first));
            from.chain(before)
                .filter(|log| !reading.contains(*log) && !leaving.contains(*log))
                .cloned()
                .collect()
        };
        for log in order {
            let wanted = kept + step.gained.len() < share;
            let Some(elector) = self.logs.get_mut(&log).filter(|_| wanted || overdue) else {
                continue;
            };
            // A log that had this Lease before may still be read here.
            if self.in_use.values().any(|lease| lease == elector.lease()) {
                continue;
            }
            let result = match wanted {
                true => elector.try_acquire().await,
                false => elector.read_status().await.map(|_| None),
            };
            match result {
                Ok(Some(leadership)) => {
                    let lease = elector.lease().to_owned();
                    self.in_use.insert(log.clone(), lease);
                    self.foreign.remove(&log);
                    step.gained.push((log, leadership));
                }
                Ok(None) => self.look_at_holder(&log),
                Err(error) => {
                    // Who does not answer for one Lease answers for no other; else the others may be well.
                    let answers = !matches!(
                        error.kind(),
                        ApiErrorKind::TimedOut | ApiErrorKind::Unreachable
                    );
                    step.failure = Some(NoLease::of(elector, error).to_string());
                    if !answers {
                        break;
                    }
                }
            }
        }
        step
    }

    /// Notes whether the holder of a log's Lease is no replica.
    fn look_at_holder(&mut self, log: &str) {
        let holder = self.logs.get(log).and_then(Elector::holder);
        let Some(holder) = holder.filter(|holder| !self.others.contains(holder)) else {
            self.foreign.remove(log);
            return;
        };
        let since = Instant::now();
        let foreign = self.foreign.entry(log.to_owned());
        foreign
            .or_insert_with(|| Foreign {
                holder: String::new(),
                since,
            })
            .holder = holder;
    }

    /// The logs whose Leases have been held by no replica for too long.
    fn unread(&self) -> BTreeMap<String, String> {
        let unread = self.foreign.iter().filter_map(|(log, foreign)| {
            let elector = self.logs.get(log)?;
            let (lease, holder) = (elector.lease(), &foreign.holder);
            let is_unread =
                foreign.since.elapsed() > FOREIGN_DURATIONS * elector.timing().lease_duration;
            is_unread.then(|| {
                let why = format!(
                    "nobody reads {log}: its Lease {lease} is held by {holder}, which is no replica \
                     (it holds no member Lease); find out who writes the Lease, then free it: kubectl \
                     patch lease {lease} --type merge -p '{{\"spec\":{{\"holderIdentity\":null}}}}'"
                );
                (log.clone(), why)
            })
        });
        unread.collect()
    }

    /// Releases the member Lease, so that other replicas need not wait for it to expire.
    ///
    /// # Errors
    /// The Lease could not be written: it expires by itself.
    pub async fn release_member_lease(mut self) -> Result<(), ApiError> {
        match self.member_lease.take() {
            Some((_, member_lease)) => member_lease.release().await,
            None => Ok(()),
        }
    }

    /// Counts the held member Leases, and acquires the first free one if this replica holds none.
    async fn count(&mut self) -> Result<Membership, NoLease> {
        // A member Lease that was lost may be another replica's now.
        self.member_lease = self
            .member_lease
            .take()
            .filter(|(_, member_lease)| member_lease.is_leader());
        let mut membership = Membership::default();
        self.others.clear();
        for number in 0..self.members_max {
            let own = self.member_lease.as_ref().map(|(own, _)| *own);
            if own == Some(number) {
                membership.rank = Some(membership.replicas);
                membership.replicas += 1;
                continue;
            }
            if self.member_leases.len() == number {
                let elector = self.member_leases[0].sibling(&member_lease_name(&self.name, number));
                self.member_leases.push(elector);
            }
            let elector = &mut self.member_leases[number];
            let status = elector.read_status().await;
            match status.map_err(|error| NoLease::of(elector, error))? {
                // The count may be a guess: a holder that is long gone by its own times is ignored.
                LeaseStatus::Held if elector.is_forgotten() => {}
                LeaseStatus::Held => {
                    membership.replicas += 1;
                    self.others.extend(elector.holder());
                }
                LeaseStatus::Free if own.is_some() => {}
                // Member Leases are taken in order, so nobody holds one behind this.
                LeaseStatus::Unused if own.is_some_and(|own| own < number) => break,
                // A lower free one is better: another replica would not find ours behind a gap.
                LeaseStatus::Free | LeaseStatus::Unused => {
                    let rank = membership.replicas;
                    membership.replicas += 1;
                    let acquired = elector.try_acquire().await;
                    // Another replica was faster: count it and try the next member Lease.
                    let Some(member_lease) =
                        acquired.map_err(|error| NoLease::of(elector, error))?
                    else {
                        continue;
                    };
                    membership.rank = Some(rank);
                    if let Some((_, before)) = self.member_lease.replace((number, member_lease)) {
                        let released = before.release().await;
                        released
                            .map_err(|error| NoLease::of(&self.member_leases[number], error))?;
                    }
                }
            }
        }
        Ok(membership)
    }
}

/// A Lease cannot be read or written: why, and what to do.
#[derive(Debug, thiserror::Error)]
#[error("no lease: {error}; {remedy}")]
struct NoLease {
    error: ApiError,
    remedy: String,
}

impl NoLease {
    fn of(elector: &Elector, error: ApiError) -> NoLease {
        let remedy = elector.remedy(&error);
        NoLease { error, remedy }
    }
}

/// The name of a replica's own Lease.
pub(crate) fn member_lease_name(name: &str, number: usize) -> String {
    format!("{name}-member-{number}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_any_membership_differ_by_one_and_add_up() {
        for logs in 0..40 {
            for replicas in 1..9 {
                let shares: Vec<usize> = (0..replicas)
                    .map(|rank| {
                        let rank = Some(rank);
                        Membership { replicas, rank }.share(logs)
                    })
                    .collect();
                assert_eq!(shares.iter().sum::<usize>(), logs);
                assert!(shares.iter().max().unwrap() - shares.iter().min().unwrap() <= 1);
            }
        }
        let alone = |rank| Membership { replicas: 0, rank }.share(3);
        assert_eq!(alone(Some(0)), 3, "alone, whatever was seen");
        assert_eq!(alone(None), 0, "it stands by");
    }
}
