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
use std::time::Duration;

use tokio::time::Instant;

use crate::kubernetes::{ApiError, ApiErrorKind};
use crate::lease::{Elector, Leadership, LeaseStatus};

/// More replicas than any event hub has partitions.
const MEMBERS_MAX: usize = 2048;

/// So many Leases that cannot be read or written end a check: the API server is not to be asked for all.
const FAILURES_MAX: usize = 4;

/// For how long a replica may read less than its share, unless told otherwise.
const SHORT_MAX: Duration = Duration::from_secs(45);

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
    /// Since when this replica reads less than its share.
    short_since: Option<Instant>,
    /// For how long it may: others take as long to give logs up.
    short_max: Duration,
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
            short_since: None,
            short_max: SHORT_MAX,
        }
    }

    /// Limits the number of member Leases.
    pub fn limit_members(&mut self, members: usize) {
        self.members_max = members.clamp(1, MEMBERS_MAX);
    }

    /// Sets for how long this replica may read less than its share before the logs that it cannot get
    /// count as unread.
    pub fn allow_short(&mut self, short_max: Duration) {
        self.short_max = short_max;
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
        if kept > share {
            self.short_since = None;
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
        let mut out_of_reach = BTreeMap::new();
        let mut failures = 0;
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
                    step.gained.push((log, leadership));
                }
                Ok(None) => {
                    out_of_reach.insert(log, elector.holder());
                }
                Err(error) => {
                    let answers = !matches!(
                        error.kind(),
                        ApiErrorKind::TimedOut | ApiErrorKind::Unreachable
                    );
                    step.failure = Some(NoLease::of(elector, error).to_string());
                    // What is wrong with one Lease need not concern the others.
                    failures += 1;
                    if !answers || failures == FAILURES_MAX {
                        break;
                    }
                }
            }
        }
        match kept + step.gained.len() < share {
            true => step.unread = self.unread(&out_of_reach),
            false => self.short_since = None,
        }
        step
    }

    /// The logs that nobody reads, if this replica has got less than its share for too long: those
    /// whose holders are no replicas, else all that it cannot get.
    fn unread(
        &mut self,
        out_of_reach: &BTreeMap<String, Option<String>>,
    ) -> BTreeMap<String, String> {
        let since = *self.short_since.get_or_insert_with(Instant::now);
        if since.elapsed() <= self.short_max {
            return BTreeMap::new();
        }
        let is_strange = |holder: &Option<String>| {
            let holder = holder.as_ref();
            holder.is_some_and(|holder| !self.others.contains(holder))
        };
        let any_strange = out_of_reach.values().any(is_strange);
        let suspects = out_of_reach
            .iter()
            .filter(|(_, holder)| !any_strange || is_strange(holder));
        let unread = suspects.filter_map(|(log, holder)| {
            let elector = self.logs.get(log)?;
            let (lease, namespace) = (elector.lease(), elector.namespace());
            let held = match holder {
                Some(holder) if any_strange => {
                    let holder = holder.escape_debug();
                    format!("is held by {holder}, which is no replica (it holds no member Lease)")
                }
                Some(holder) => format!("is held in the name of {}", holder.escape_debug()),
                None => "changes whenever it is to be taken".to_owned(),
            };
            let why = format!(
                "nobody seems to read {log}: its Lease {lease} {held}; find out who writes the Lease, \
                 then free it: kubectl -n {namespace} patch lease {lease} --type merge -p \
                 '{{\"spec\":{{\"holderIdentity\":null}}}}'"
            );
            Some((log.clone(), why))
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
