//! Replicas share the logs: each process reads those whose Leases it holds.
//!
//! A replica opens a log, including its checkpoint, only after it acquired the Lease, so that it
//! resumes where another replica stopped. To give up a log, it first delivers all records that were
//! read and writes the checkpoint, then releases the Lease. If the Lease is lost, it stops at once.
//! A log that comes after others waits, once its Lease is acquired, until their checkpoints say
//! that they are read to their ends; a log that is read to its end belongs to no replica's share.

mod base;
mod list_health;
mod parent;
mod report;

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use audit_bridge_core::chain::chain;
use audit_bridge_core::checkpoint::{Checkpoint, Owner, Store as _, StoreError};
use audit_bridge_core::dead_letter::DeadLetter;
use audit_bridge_core::readiness::Component;
use audit_bridge_core::run::Ended;
use audit_bridge_core::source::StoredPositions;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use self::base::merge;
use self::list_health::ListHealth;
use super::super::Bridge;
use super::or_stop;
use super::process::{OpenLog, Process, ProcessState, SetupError, lost_of};
use crate::balancer::{Balancer, Membership, RebalanceStep};
use crate::fatal::Fatal;
use crate::lease::Leadership;
use crate::provider::{Provider, ProviderLog, SharedLogs, Start};
use crate::slots::{Listing, SlotKeeper};
use crate::state::{LogState, StateLayout};

/// The time between two checks of the other replicas.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// How long that look may take.
const LIST_MAX: Duration = Duration::from_secs(20);
/// The list interval while a log has no slot or the table could not be used.
const SLOTS_RETRY: Duration = Duration::from_secs(5);

/// For how long a replica may read less than its share, besides what others take to deliver what they
/// have read: a Lease's duration, and some looks.
const SHORT_MAX: Duration = Duration::from_secs(30);

/// A bug: the flags are checked before.
const NOT_IN_CLUSTER: &str = "replicas can share logs only with --checkpoint-store kubernetes";

type Log<B> = <<B as Bridge>::Provider as Provider>::Log;

/// This replica's view of logs, slots and other replicas.
struct View<L> {
    balancer: Balancer,
    slots: SlotKeeper,
    /// Why not every log has a slot, and what to do.
    slots_failure: Option<String>,
    /// All logs, also those that other replicas read.
    logs: BTreeMap<String, Arc<L>>,
    /// When they were listed.
    listed: Instant,
    /// Logs that are read to their ends and belong to no share.
    ended: BTreeSet<String>,
    /// Ended logs that the table does not list yet.
    ended_lately: BTreeSet<String>,
    membership: Option<Membership>,
    /// Logs that are reported as read by nobody.
    unread: BTreeSet<String>,
    next_look: Instant,
    next_list: Instant,
    /// The time between two lists of the provider's logs.
    list_interval: Duration,
    list_health: ListHealth,
}

/// The logs that this process reads.
#[derive(Default)]
struct Hands {
    /// Those that it means to keep.
    reading: BTreeSet<String>,
    /// Those that it is giving up, or that lost their Lease and still have to stop.
    leaving: BTreeSet<String>,
}

/// A log whose Lease was acquired.
struct GainedLog<L> {
    log: Arc<L>,
    /// The logs that must be read before it.
    parents: Vec<Arc<L>>,
    /// The name of the Lease, which is its slot's.
    lease: String,
    leadership: Leadership,
}

/// What all readers need.
struct Common {
    /// The common checkpoint: where each log begins that has no further position of its own.
    base: Checkpoint,
    start: Start,
    dead_letter: Option<DeadLetter>,
    /// The most logs that this replica may have to read.
    several: usize,
    /// Notified when this replica read a log to its end, so that the logs after it need not wait
    /// for the next check.
    read_to_end: Notify,
}

impl<L> View<L> {
    /// This log is read to its end, so nobody has to read it.
    fn end(&mut self, log: String) {
        self.balancer.remove(&log);
        self.ended_lately.insert(log.clone());
        self.ended.insert(log);
    }

    /// Some log has no slot, or that is unknown.
    fn lack_slots(&mut self, why: String) {
        self.slots_failure = Some(why);
        self.next_list = self.next_list.min(Instant::now() + SLOTS_RETRY);
    }

    /// The provider's list, for the table of slots.
    fn listing(&self) -> Listing
    where
        L: ProviderLog,
    {
        let logs = self.logs.iter();
        Listing {
            logs: logs
                .map(|(name, log)| (name.clone(), log.is_closed()))
                .collect(),
            at: self.listed,
        }
    }

    /// The logs that must be read to their ends before this one.
    fn parents_of(&self, log: &L) -> Vec<Arc<L>>
    where
        L: ProviderLog,
    {
        let names = log.after();
        let parents = names.iter().filter(|name| !self.ended.contains(*name));
        parents
            .filter_map(|name| self.logs.get(name).cloned())
            .collect()
    }
}

impl Common {
    /// The positions where a log begins, and its checkpoint, marked as merged with the common one.
    fn resume(
        &self,
        log: &impl ProviderLog,
        owner: &Owner,
        own: Option<Checkpoint>,
    ) -> (StoredPositions, Checkpoint) {
        let positions = match &own {
            Some(own) => merge(own, &self.base, |this, other| log.is_further(this, other)),
            None => self.base.position.clone(),
        };
        let its_own = log.beginning(self.start);
        let checkpoint = Checkpoint {
            position: positions
                .iter()
                .filter(|(partition, _)| its_own.contains_key(partition))
                .map(|(&partition, position)| (partition, position.clone()))
                .collect(),
            merged: Some(self.base.written),
            ..own.unwrap_or_else(|| Checkpoint::new(owner, StoredPositions::new()))
        };
        (positions, checkpoint)
    }
}

impl<B: Bridge> Process<'_, B> {
    /// Reads this replica's share until asked to stop.
    pub(super) async fn read_share(
        &self,
        process_state: &ProcessState,
        shared: &SharedLogs,
        stop: &CancellationToken,
    ) -> Result<Ended, Fatal> {
        let prepared = or_stop(stop, self.prepare_share(process_state, shared)).await;
        let Some((common, view)) = prepared.transpose()? else {
            return Ok(Ended::Stopped);
        };
        let layout = &process_state.layout;
        // Any replica may receive the canaries' events; the replicas settle among themselves which
        // one sends.
        let mut canaries = self.send_canaries();
        let halt = CancellationToken::new();
        let mut readers = FuturesUnordered::new();
        let mut reading = BTreeMap::<String, CancellationToken>::new();
        let mut leaving = BTreeSet::<String>::new();
        let mut done = Vec::new();
        let mut is_stale = false;
        let first =
            self.rebalance_after_wait(layout, &common, view, Hands::default(), halt.clone());
        let mut turn = Some(Box::pin(first));
        let mut ending = None;
        loop {
            if ending.is_some() {
                halt.cancel();
                reading.values().for_each(CancellationToken::cancel);
                if readers.is_empty() && turn.is_none() {
                    if let Some(canaries) = canaries.take() {
                        canaries.finish().await;
                    }
                    return Ok(ending.unwrap_or(Ended::Stopped));
                }
            }
            let (mut view, step) = tokio::select! {
                biased;
                () = stop.cancelled(), if ending.is_none() => {
                    ending = Some(Ended::Stopped);
                    continue;
                }
                Some((log, ended)) = readers.next(), if !readers.is_empty() => {
                    let stop = reading.remove(&log);
                    leaving.remove(&log);
                    match ended {
                        Ended::Failed(_) | Ended::GaveUp(_) => ending = Some(ended),
                        Ended::Done => {
                            done.push(log);
                            common.read_to_end.notify_waiters();
                        }
                        // The checkpoint, which other replicas rely on, lacks the log's end, so the
                        // log is read again.
                        Ended::Unsaved(why) => {
                            tracing::error!(log, why, "partition end not kept; reading it again");
                        }
                        // The reader stopped unasked: its slot belongs to another log now.
                        Ended::Stopped => {
                            is_stale |= stop.is_some_and(|stop| !stop.is_cancelled());
                        }
                        Ended::LostLease(_) => {}
                    }
                    continue;
                }
                turned = async { match &mut turn {
                    Some(turn) => turn.await,
                    None => pending().await,
                } } => turned,
            };
            turn = None;
            if ending.is_some() {
                self.release_gained(view.balancer, step).await;
                continue;
            }
            for log in done.drain(..) {
                tracing::info!(log, "partition read to its end");
                view.end(log);
                // The logs after it may begin.
                view.next_list = Instant::now();
            }
            if std::mem::take(&mut is_stale) {
                view.next_list = Instant::now();
            }
            self.report_membership(&mut view, &step);
            for log in step.give_up {
                if let Some(stop) = reading.remove(&log) {
                    stop.cancel();
                    leaving.insert(log);
                }
            }
            for (log, leadership) in step.gained {
                let lease = view.balancer.lease(&log).map(str::to_owned);
                if let (Some(found), Some(lease)) = (view.logs.get(&log), lease) {
                    let stop = CancellationToken::new();
                    reading.insert(log, stop.clone());
                    let found = Arc::clone(found);
                    let gained = GainedLog {
                        parents: view.parents_of(&found),
                        log: found,
                        lease,
                        leadership,
                    };
                    readers.push(self.read_while_leader(layout, &common, gained, stop));
                }
            }
            let hands = Hands {
                reading: reading.keys().cloned().collect(),
                leaving: leaving.clone(),
            };
            let next = self.rebalance_after_wait(layout, &common, view, hands, halt.clone());
            turn = Some(Box::pin(next));
        }
    }

    /// Connects, and decides where logs without a checkpoint begin.
    async fn prepare_share(
        &self,
        process_state: &ProcessState,
        shared: &SharedLogs,
    ) -> Result<(Common, View<Log<B>>), Fatal> {
        let ProcessState { layout, elector } = process_state;
        let elector = elector.as_ref().ok_or(NOT_IN_CLUSTER)?;
        let listed = Instant::now();
        let logs = self.connect().await?;
        let slots = layout.slots().ok_or(NOT_IN_CLUSTER)?;
        let common = Common {
            base: self.base(layout, &self.owner(&shared.name), &logs).await?,
            start: self.checked.state.start,
            dead_letter: self.dead_letter().await?,
            several: logs.len().max(1),
            read_to_end: Notify::new(),
        };
        self.telemetry.ready(Component::Checkpoint);
        let mut balancer = Balancer::new(elector);
        balancer.allow_short(SHORT_MAX + self.checked.state.shutdown_grace);
        let mut view = View {
            balancer,
            slots: SlotKeeper::new(slots.clone()),
            slots_failure: None,
            logs: BTreeMap::new(),
            listed,
            ended: BTreeSet::new(),
            ended_lately: BTreeSet::new(),
            membership: None,
            unread: BTreeSet::new(),
            next_look: Instant::now(),
            next_list: Instant::now() + shared.list_interval,
            list_interval: shared.list_interval,
            list_health: ListHealth::new(self.telemetry.clone()),
        };
        self.update_logs(&mut view, &logs);
        self.find_ended(layout, &common, &mut view, &Hands::default())
            .await;
        self.retry_until_ok(async || Ok(self.update_slots(&mut view).await?))
            .await?;
        Ok((common, view))
    }

    /// The common checkpoint: written by a process that read all logs, or created by the first
    /// replica that ever started. A log without a checkpoint of its own begins there, so that
    /// nothing is skipped if the replica that reads it starts later.
    async fn base(
        &self,
        layout: &StateLayout,
        owner: &Owner,
        logs: &[Arc<Log<B>>],
    ) -> Result<Checkpoint, Fatal> {
        let start = self.checked.state.start;
        self.retry_until_ok(async || {
            let mut log_state = layout.open_log(owner, false).await?;
            if let Some(there) = log_state.checkpoint {
                return Ok(there);
            }
            let positions = logs.iter().flat_map(|log| log.beginning(start)).collect();
            let made = Checkpoint::new(owner, positions);
            match log_state.store.save(&made).await {
                Ok(()) => Ok(made),
                // Another replica may have created it first.
                Err(error) => match layout.open_log(owner, false).await?.checkpoint {
                    Some(there) => Ok(there),
                    None => Err(SetupError::from(error)),
                },
            }
        })
        .await
    }

    /// Adds new logs and drops those that no longer exist.
    fn update_logs(&self, view: &mut View<Log<B>>, logs: &[Arc<Log<B>>]) {
        let there: BTreeSet<&str> = logs.iter().map(|log| log.name()).collect();
        let gone = view.logs.keys().filter(|log| !there.contains(log.as_str()));
        for log in gone.cloned().collect::<Vec<_>>() {
            match view.ended.remove(&log) {
                true => tracing::info!(log, "partition read to its end is no longer listed"),
                false => tracing::warn!(log, "partition no longer exists; its reader stops"),
            }
            view.balancer.remove(&log);
            view.logs.remove(&log);
        }
        for log in logs {
            let known = view.logs.entry(log.name().to_owned());
            known.or_insert_with(|| Arc::clone(log));
        }
    }

    /// Updates the table of slots with the known logs. Only logs with a slot are shared.
    async fn update_slots(&self, view: &mut View<Log<B>>) -> Result<(), StoreError> {
        let listing = view.listing();
        let table = view.slots.update(&listing, &view.ended_lately).await?;
        view.ended_lately.clear();
        let ended = table.ended().filter(|log| view.logs.contains_key(*log));
        view.ended = ended.cloned().collect();
        if let Some(members) = table.members_max() {
            view.balancer.limit_members(members);
        }
        let mut without = Vec::new();
        for log in view.logs.keys() {
            match table.slot(log) {
                Some(slot) => {
                    let lease = view.slots.store().object_name(slot);
                    view.balancer.add(log, &lease);
                }
                None => {
                    view.balancer.remove(log);
                    if !table.is_ended(log) {
                        without.push(log.as_str());
                    }
                }
            }
        }
        let full = without.split_first();
        let full = full.map(|(first, others)| view.slots.store().full(first, others.len()));
        view.slots_failure = None;
        if let Some(error) = full {
            view.lack_slots(chain(&error));
        }
        Ok(())
    }

    /// Waits until the next check is due, lists the logs if that is due, and rebalances.
    async fn rebalance_after_wait(
        &self,
        layout: &StateLayout,
        common: &Common,
        mut view: View<Log<B>>,
        hands: Hands,
        halted: CancellationToken,
    ) -> (View<Log<B>>, RebalanceStep) {
        let look = timeout_at(view.next_look, common.read_to_end.notified());
        let waited = or_stop(&halted, look).await;
        if waited.is_none() {
            return (view, RebalanceStep::default());
        }
        if view.next_list <= Instant::now() {
            let asked = Instant::now();
            view.next_list = asked + view.list_interval;
            let list = async {
                let listed = timeout(LIST_MAX, self.checked.provider.connect()).await;
                listed.unwrap_or_else(|_| Err(list_health::timed_out(LIST_MAX)))
            };
            match or_stop(&halted, list).await {
                Some(Ok(logs)) => {
                    let logs: Vec<_> = logs.into_iter().map(Arc::new).collect();
                    view.listed = asked;
                    view.list_health.works();
                    self.update_logs(&mut view, &logs);
                    let find = async {
                        self.find_ended(layout, common, &mut view, &hands).await;
                        if let Err(error) = self.update_slots(&mut view).await {
                            view.lack_slots(chain(&error));
                        }
                    };
                    let _ = or_stop(&halted, timeout(LIST_MAX, find)).await;
                }
                Some(Err(unavailable)) => view.list_health.failed(&unavailable),
                None => {}
            }
        }
        let step = view.balancer.step(&hands.reading, &hands.leaving).await;
        // Jitter keeps replicas from checking in step.
        let jitter = LOOK_INTERVAL.mul_f64(fastrand::f64() / 2.0);
        view.next_look = Instant::now() + LOOK_INTERVAL - jitter;
        (view, step)
    }

    /// Releases at the end the Leases that the last check acquired, and the member Lease.
    async fn release_gained(&self, balancer: Balancer, step: RebalanceStep) {
        for (_, leadership) in step.gained {
            release_lease(leadership).await;
        }
        if let Err(error) = balancer.release_member_lease().await {
            tracing::warn!(
                error = chain(&error),
                "member lease release failed; it expires by itself"
            );
        }
    }

    /// Reads one log while its Lease is held, until asked to stop.
    async fn read_while_leader(
        &self,
        layout: &StateLayout,
        common: &Common,
        gained: GainedLog<Log<B>>,
        stop: CancellationToken,
    ) -> (String, Ended) {
        let GainedLog {
            log,
            parents,
            lease,
            leadership,
        } = gained;
        let name = log.name().to_owned();
        let owner = self.owner(&name);
        let lease_hold = Some(leadership.lease_hold());
        let mut lost = lease_hold.clone();
        let log_state: Result<Option<LogState>, Ended> = tokio::select! {
            biased;
            () = stop.cancelled() => Err(Ended::Stopped),
            why = lost_of(&mut lost) => Err(Ended::LostLease(why)),
            log_state = async {
                self.wait_for_parents(layout, common, &log, parents).await?;
                self.open_slot_state(layout, &owner, &lease).await
            } => log_state.map_err(|fatal| Ended::Failed(fatal.into())),
        };
        let ended = match log_state {
            Err(ended) => ended,
            // The next check of the table shows which slot it has now.
            Ok(None) => Ended::Stopped,
            Ok(Some(mut log_state)) => {
                let own = log_state.checkpoint.take();
                let (positions, checkpoint) = common.resume(&*log, &owner, own);
                log_state.checkpoint = Some(checkpoint);
                let open_log = OpenLog {
                    log,
                    owner,
                    positions,
                    log_state,
                    lease_hold,
                    term: Some(leadership.term()),
                };
                self.read(open_log, common.several, &common.dead_letter, stop)
                    .await
            }
        };
        self.telemetry.log(&name).retired();
        if let Ended::LostLease(why) = &ended {
            tracing::warn!(
                log = name,
                why,
                "lease lost: reading stopped, another replica may read now"
            );
        } else {
            release_lease(leadership).await;
            tracing::info!(log = name, "partition released");
        }
        (name, ended)
    }
}

async fn release_lease(leadership: Leadership) {
    if let Err(error) = leadership.release().await {
        tracing::warn!(
            error = chain(&error),
            "lease release failed; it expires by itself"
        );
    }
}
