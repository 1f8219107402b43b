//! The canaries in flight, and the state of each log's pipeline meanwhile, which shows on which leg
//! a missing canary was lost.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use audit_bridge_core::convert::Skip;
use audit_bridge_core::event::Event;
use audit_bridge_core::observer::{EventHandling, Progress};
use jiff::Timestamp;
use tokio::time::Instant;

use super::event::CanaryCandidate;
use super::mark::Digest;
use super::records::CanaryRecords;
use super::settle::{CanaryCount, CanaryEnd, OwnCanary, RecordJob, SeenCanary};
use super::{CanaryIdentity, CanarySettings, ExpectedRequest, Leg, Mark};
use crate::telemetry::Telemetry;

/// The skip reason for a canary's event.
const CANARY: Skip = Skip::new("canary");

/// The most known canaries, including those counted as lost that may still arrive.
const CANARIES_MAX: usize = 32;

/// The most events that look like other senders' canaries, in flight or waiting for a read of the
/// records: somebody who can write to the log can make any number.
const CANDIDATES_MAX: usize = 1024;

/// How many arrived canaries are remembered, since copies of their events may come.
const CLOSED_MAX: usize = 64;

/// How much of a foreign user name is logged.
const USER_CHARS_MAX: usize = 200;

/// The canaries of one process, and what its pipelines report about them.
#[derive(Debug)]
pub(crate) struct CanaryWatch {
    settings: CanarySettings,
    /// The name of the `ConfigMap`.
    object: String,
    telemetry: Telemetry,
    state: Mutex<WatchState>,
}

#[derive(Debug, Default)]
struct WatchState {
    /// In the order in which they were sent.
    canaries: Vec<Canary>,
    next: u64,
    logs: BTreeMap<String, LogView>,
    /// The log in which a canary arrived, which is that of the cluster in which this process runs.
    home: Option<String>,
    /// The legs that were warned about since a canary last arrived.
    lost_on: BTreeSet<Leg>,
    /// Whether a canary has arrived, in this process.
    arrived: bool,
    /// Whether an audit event of others was read, in this process.
    others_read: bool,
    /// Whether it was logged that no canary has ever arrived.
    unverified: bool,
    /// What our canaries' events contain, once known.
    expected: Option<ExpectedRequest>,
    /// The records as last read.
    records: Option<CanaryRecords>,
    /// Whether this process has read the records, so that it is known whether a canary ever
    /// arrived.
    records_seen: bool,
    /// Events in flight that look like another sender's canary.
    candidates: BTreeMap<u64, SeenCanary>,
    jobs: Vec<RecordJob>,
    closed: VecDeque<Digest>,
}

#[derive(Debug)]
struct Canary {
    number: u64,
    mark: Mark,
    expected: ExpectedRequest,
    sent: Instant,
    sent_at: Timestamp,
    /// Its event was read and is in flight to the webhook.
    read: bool,
    /// Its one event of an earlier stage was already taken out.
    earlier: bool,
    /// It has not arrived in time and is counted as lost.
    lost: bool,
    /// Another request used its mark.
    forged: bool,
}

/// The last reported state of a log's pipeline.
#[derive(Debug, Default)]
struct LogView {
    /// The commands that show the provider's switch.
    remedy: String,
    /// When an audit event of others was last read.
    read: Option<Instant>,
    /// Up to when everything is settled, plus the time within which a quiet log reports again.
    settled_to: Option<Timestamp>,
    open_records: usize,
    /// The webhook accepts nothing.
    outage: bool,
}

impl CanaryWatch {
    /// `object`: the name of the `ConfigMap`.
    pub(crate) fn new(
        settings: CanarySettings,
        object: String,
        telemetry: Telemetry,
    ) -> CanaryWatch {
        telemetry.begin_canaries(Leg::ALL.map(Leg::name));
        CanaryWatch {
            settings,
            object,
            telemetry,
            state: Mutex::default(),
        }
    }

    pub(super) fn settings(&self) -> CanarySettings {
        self.settings
    }

    /// Forgets all canaries in flight, because another process may read their events.
    pub(crate) fn forget(&self) {
        let mut state = self.state();
        *state = WatchState {
            next: state.next,
            lost_on: std::mem::take(&mut state.lost_on),
            arrived: state.arrived,
            records_seen: state.records_seen,
            ..WatchState::default()
        };
        // Whether the log is this cluster's is another process's to say now.
        self.telemetry.canaries_unverified(false);
    }

    /// Adds a log that a pipeline begins to read. What an earlier pipeline followed there and did
    /// not settle is read again.
    pub(crate) fn add_log(&self, log: &str, remedy: String) {
        let view = LogView {
            remedy,
            ..LogView::default()
        };
        let state = &mut *self.state();
        state.logs.insert(log.to_owned(), view);
        state.candidates.retain(|_, seen| seen.log != log);
        if state.home.as_deref() == Some(log) {
            for canary in &mut state.canaries {
                (canary.read, canary.earlier) = (false, false);
            }
        }
    }

    /// Registers a canary that is about to be sent. `None`: too many are in flight.
    pub(crate) fn begin(
        &self,
        mark: Mark,
        expected: ExpectedRequest,
        sent_at: Timestamp,
    ) -> Option<u64> {
        let mut state = self.state();
        if state.canaries.len() >= CANARIES_MAX {
            let oldest = state.canaries.iter().position(|canary| canary.lost)?;
            state.canaries.remove(oldest);
        }
        let number = state.next;
        state.next += 1;
        state.canaries.push(Canary {
            number,
            mark,
            expected,
            sent: Instant::now(),
            sent_at,
            read: false,
            earlier: false,
            lost: false,
            forged: false,
        });
        Some(number)
    }

    /// The API server did not accept the canary, so no event is expected.
    pub(crate) fn withdraw(&self, number: u64) {
        self.state()
            .canaries
            .retain(|canary| canary.number != number);
    }

    /// Inspects an event of this log before delivery.
    pub(super) fn inspect(&self, log: &str, event: &Event) -> EventHandling {
        let state = &mut *self.state();
        let handling = self.inspect_own(state, log, event);
        handling.unwrap_or_else(|| self.inspect_candidate(state, log, event))
    }

    /// Handles an event with the mark of our own pending canary; `None` if it has none.
    fn inspect_own(
        &self,
        state: &mut WatchState,
        log: &str,
        event: &Event,
    ) -> Option<EventHandling> {
        for at in 0..state.canaries.len() {
            let canary = &mut state.canaries[at];
            let is_first = match canary.expected.identify(event.text(), &canary.mark) {
                CanaryIdentity::Other => continue,
                CanaryIdentity::Forged { user } => {
                    if !std::mem::replace(&mut canary.forged, true) {
                        tracing::warn!(
                            log,
                            user = user.escape_debug().take(USER_CHARS_MAX).collect::<String>(),
                            "a request of somebody else bears the mark of a canary: it is delivered as \
                             any other event, and the canary is still waited for"
                        );
                    }
                    false
                }
                CanaryIdentity::Earlier => !std::mem::replace(&mut canary.earlier, true),
                // The mark is used up: any further event with it is like any other.
                CanaryIdentity::Complete if canary.read => false,
                CanaryIdentity::Complete => {
                    state.home = Some(log.to_owned());
                    if self.settings.deliver {
                        canary.read = true;
                        return Some(EventHandling::Follow(canary.number));
                    }
                    let canary = state.canaries.remove(at);
                    self.end_own(state, &canary, true);
                    true
                }
            };
            return Some(match (is_first, self.settings.deliver) {
                (false, _) => EventHandling::Deliver,
                (true, true) => EventHandling::Expect,
                (true, false) => EventHandling::Skip(CANARY),
            });
        }
        None
    }

    /// Handles an event that looks like a canary of another process: this one before a restart, a
    /// replica, or a forger. Only the records can tell, so the event is skipped only if they prove
    /// it.
    fn inspect_candidate(&self, state: &mut WatchState, log: &str, event: &Event) -> EventHandling {
        let Some(found) = CanaryCandidate::read(event.text(), &self.object) else {
            return EventHandling::Deliver;
        };
        let digest = found.mark.digest();
        let expected = state.expected.as_ref();
        let is_foreign = expected.is_some_and(|it| !it.is_by_us(&found.user, &found.namespace));
        let is_full = state.candidates.len() + state.jobs.len() >= CANDIDATES_MAX;
        if is_foreign || is_full || state.closed.contains(&digest) {
            return EventHandling::Deliver;
        }
        if !found.complete {
            return EventHandling::Expect;
        }
        let is_waited_for = expected.is_some()
            && state.records.as_ref().is_some_and(|records| {
                records.get(digest).is_some() && records.proof(digest).is_none()
            });
        let seen = SeenCanary {
            mark: found.mark,
            digest,
            user: found.user,
            namespace: found.namespace,
            log: log.to_owned(),
            at: Timestamp::now(),
            accepted: true,
            own: None,
        };
        if is_waited_for && !self.settings.deliver {
            state.close(digest);
            state.jobs.push(RecordJob::Seen(seen));
            return EventHandling::Skip(CANARY);
        }
        let number = state.next;
        state.next += 1;
        state.candidates.insert(number, seen);
        EventHandling::Follow(number)
    }

    /// The webhook accepted a followed event, or it went to the dead letter.
    pub(super) fn followed(&self, number: u64, accepted: bool) {
        let state = &mut *self.state();
        if let Some(seen) = state.candidates.remove(&number) {
            let at = Timestamp::now();
            // A copy of the event may have been in flight as well.
            if !state.jobs.iter().any(|job| job.digest() == seen.digest) {
                let seen = SeenCanary {
                    at,
                    accepted,
                    ..seen
                };
                state.jobs.push(RecordJob::Seen(seen));
            }
        } else if let Some(at) = state.canaries.iter().position(|it| it.number == number) {
            let canary = state.canaries.remove(at);
            self.end_own(state, &canary, accepted);
        }
    }

    /// Ends our own canary. Where other replicas may have received its event too, it is counted
    /// once its record says so.
    fn end_own(&self, state: &mut WatchState, canary: &Canary, accepted: bool) {
        let digest = canary.mark.digest();
        let seen = SeenCanary {
            mark: canary.mark.clone(),
            digest,
            user: String::new(),
            namespace: String::new(),
            log: state.home.clone().unwrap_or_default(),
            at: Timestamp::now(),
            accepted,
            own: Some(OwnCanary {
                sent: canary.sent_at,
                latency: canary.sent.elapsed(),
                lost: canary.lost,
            }),
        };
        state.close(digest);
        let job = if self.settings.shared {
            RecordJob::Seen(seen)
        } else {
            if let Some(count) = seen.count_own() {
                self.count(state, &count);
            }
            RecordJob::Close {
                digest,
                arrived: accepted,
            }
        };
        state.push(job);
    }

    /// Stores the state of this log's pipeline. `read`: an event of others was read since the last
    /// call.
    pub(super) fn progressed(&self, log: &str, read: bool, progress: &Progress<'_>) {
        let mut state = self.state();
        state.others_read |= read;
        let Some(view) = state.logs.get_mut(log) else {
            return;
        };
        if read {
            view.read = Some(Instant::now());
        }
        let frontier = &progress.frontier;
        view.settled_to = frontier
            .partition
            .and_then(|_| frontier.to.time.checked_add(frontier.to.again_within).ok());
        view.open_records = progress.open_records;
        view.outage = progress.delivery.outage.is_some();
    }

    /// Whether canaries of our own are overdue and not yet counted.
    pub(super) fn has_overdue(&self) -> bool {
        let is_overdue = |canary: &Canary| self.is_overdue(canary);
        self.state().canaries.iter().any(is_overdue)
    }

    fn is_overdue(&self, canary: &Canary) -> bool {
        !canary.lost && canary.sent.elapsed() >= self.settings.wait_max
    }

    /// Counts overdue canaries of our own as lost.
    pub(crate) fn count_lost(&self) {
        let state = &mut *self.state();
        while let Some(at) = state.canaries.iter().position(|it| self.is_overdue(it)) {
            let mut canary = state.canaries.remove(at);
            canary.lost = true;
            let leg = self.leg(state, &canary);
            self.lost(state, canary.sent.elapsed(), leg);
            state.push(RecordJob::Lose(canary.mark.digest()));
            state.canaries.insert(at, canary);
        }
    }

    /// Forgets overdue canaries of our own: another replica may have received their events, but
    /// without records it cannot say so.
    pub(super) fn drop_overdue(&self) {
        let mut state = self.state();
        state.canaries.retain(|canary| !self.is_overdue(canary));
    }

    /// Sets what our canaries' events contain, and again once our user is known.
    pub(super) fn set_expected(&self, expected: &ExpectedRequest) {
        let mut state = self.state();
        let known = state.expected.as_ref();
        if known.is_none_or(|known| known.user.is_none()) {
            state.expected = Some(expected.clone());
        }
    }

    /// Stores the records as just read. Canaries of our own that another replica has seen and
    /// counted are no longer pending.
    pub(super) fn learn(&self, records: CanaryRecords) {
        let state = &mut *self.state();
        let mut proven = Vec::new();
        state.canaries.retain(|canary| {
            let proof = records.proof(canary.mark.digest());
            proven.extend(proof.map(|accepted| (canary.sent_at, accepted, canary.lost)));
            proof.is_none()
        });
        state.arrived |= records.arrived;
        state.records = Some(records);
        state.records_seen = true;
        for (sent, accepted, late) in proven {
            if accepted {
                self.is_whole(state, sent, late);
            }
        }
    }

    pub(super) fn records(&self) -> Option<CanaryRecords> {
        self.state().records.clone()
    }

    /// The stored records may be outdated.
    pub(super) fn forget_records(&self) {
        self.state().records = None;
    }

    /// Takes the pending work on records.
    pub(super) fn take_jobs(&self) -> Vec<RecordJob> {
        std::mem::take(&mut self.state().jobs)
    }

    /// Drops events of other users, if our own user is known.
    pub(super) fn retain_ours(&self, jobs: &mut Vec<RecordJob>) {
        if let Some(expected) = &self.state().expected {
            jobs.retain(|job| match job {
                RecordJob::Seen(seen) if seen.own.is_none() => {
                    expected.is_by_us(&seen.user, &seen.namespace)
                }
                _ => true,
            });
        }
    }

    /// Puts back jobs that could not be done, before newer ones.
    pub(super) fn put_back(&self, mut jobs: Vec<RecordJob>) {
        let mut state = self.state();
        jobs.append(&mut state.jobs);
        jobs.truncate(CANDIDATES_MAX);
        state.jobs = jobs;
    }

    /// Counts how a canary ended.
    pub(super) fn count_end(&self, count: &CanaryCount) {
        self.count(&mut self.state(), count);
    }

    fn count(&self, state: &mut WatchState, count: &CanaryCount) {
        let age = Timestamp::now().duration_since(count.sent);
        let age = Duration::try_from(age).unwrap_or_default();
        match &count.end {
            CanaryEnd::Arrived { log, latency, late } => {
                state.home = Some(log.clone());
                self.is_whole(state, count.sent, *late);
                self.telemetry.canary_arrived(*latency, *late);
            }
            CanaryEnd::Refused => self.lost(state, age, Leg::Webhook),
            CanaryEnd::Lost => {
                let sent = Instant::now().checked_sub(age);
                let leg =
                    self.leg_since(state, false, sent.unwrap_or_else(Instant::now), count.sent);
                self.lost(state, age, leg);
            }
        }
    }

    /// The leg on which a canary that has not arrived is lost.
    fn leg(&self, state: &WatchState, canary: &Canary) -> Leg {
        self.leg_since(state, canary.read, canary.sent, canary.sent_at)
    }

    fn leg_since(&self, state: &WatchState, read: bool, sent: Instant, sent_at: Timestamp) -> Leg {
        let home = state.home.as_ref().and_then(|home| state.logs.get(home));
        let views: Vec<&LogView> = match home {
            Some(home) if !self.settings.shared => vec![home],
            _ => state.logs.values().collect(),
        };
        let is_read_up_to = |view: &&LogView| view.settled_to >= Some(sent_at);
        // Records that arrived soon after the canary may have been in flight at the provider before
        // it stopped.
        let drained = sent + self.settings.wait_max / 2;
        if read || views.iter().any(|view| view.outage) {
            Leg::Webhook
        } else if !views.iter().any(is_read_up_to) {
            match views.iter().any(|view| view.open_records > 0) {
                true => Leg::Webhook,
                false => Leg::SourceUnread,
            }
        } else if views.iter().any(|view| view.read >= Some(drained)) {
            Leg::SourceWithoutIt
        } else {
            Leg::SourceSilent
        }
    }

    /// A canary sent at this time has arrived.
    fn is_whole(&self, state: &mut WatchState, sent: Timestamp, late: bool) {
        state.arrived = true;
        if std::mem::take(&mut state.unverified) {
            self.telemetry.canaries_unverified(false);
        }
        // A late canary does not end the alarm: the next ones may be late too. Nor does one while
        // earlier canaries are missing.
        let older_wait = state
            .canaries
            .iter()
            .any(|it| !it.lost && it.sent_at < sent);
        if !late && !older_wait && !std::mem::take(&mut state.lost_on).is_empty() {
            tracing::info!("canaries arrive again: the trail is whole");
        }
    }

    /// Counts a canary as lost. If none has ever arrived though events of others do, this is
    /// probably another cluster's log; then it is only reported as unverified.
    fn lost(&self, state: &mut WatchState, waited: Duration, leg: Leg) {
        let home = state.home.as_ref().and_then(|home| state.logs.get(home));
        let view = home.or_else(|| state.logs.values().next());
        let source = view.map_or("", |view| view.remedy.as_str());
        let is_of_source = matches!(leg, Leg::SourceSilent | Leg::SourceWithoutIt);
        if is_of_source && state.records_seen && state.others_read && !state.arrived {
            if !std::mem::replace(&mut state.unverified, true) {
                self.telemetry.canaries_unverified(true);
                tracing::warn!(
                    seconds = waited.as_secs(),
                    remedy = leg.remedy(source),
                    "no canary has ever arrived, though audit events come: this may not be the log of the \
                     cluster in which this pod runs; whether the trail is whole is unverified"
                );
            }
            return;
        }
        self.telemetry.canary_lost(leg.name());
        if state.lost_on.insert(leg) {
            tracing::error!(
                leg = leg.name(),
                seconds = waited.as_secs(),
                what = leg.what(),
                remedy = leg.remedy(source),
                "canary lost: the audit event of this pod's own request has not arrived at the webhook"
            );
        }
    }

    fn state(&self) -> MutexGuard<'_, WatchState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WatchState {
    fn close(&mut self, digest: Digest) {
        if self.closed.len() >= CLOSED_MAX {
            self.closed.pop_front();
        }
        self.closed.push_back(digest);
    }

    fn push(&mut self, job: RecordJob) {
        // Canaries of our own are few, so they displace other senders' candidates.
        if self.jobs.len() >= CANDIDATES_MAX {
            self.jobs.pop();
        }
        self.jobs.push(job);
    }
}

#[cfg(test)]
mod tests;
