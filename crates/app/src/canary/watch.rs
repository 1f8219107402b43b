//! Canaries that are under way, and what each log's pipeline shows meanwhile: by which it is said, of
//! one that does not arrive, on which leg of the way it was lost.

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

/// The reason under which a canary's event is left out of delivery.
const CANARY: Skip = Skip::new("canary");

/// Canaries that are known at a time, those among them that are counted as lost and may come late.
const CANARIES_MAX: usize = 32;

/// Events of the form of a canary of others, that are under way or wait for a look at the records: who can
/// write the log can make as many as he likes.
const CANDIDATES_MAX: usize = 1024;

/// Canaries that have arrived, of which a copy may come.
const CLOSED_MAX: usize = 64;

/// The part of a stranger's name that is logged.
const USER_CHARS_MAX: usize = 200;

/// The canaries of one process, and what its pipelines say of them.
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
    /// The log in which one arrived: that of the cluster in which this process runs.
    home: Option<String>,
    /// The legs that were warned about since one last arrived.
    lost_on: BTreeSet<Leg>,
    /// A canary has arrived, in this process.
    arrived: bool,
    /// An audit event of others was read, in this process.
    others_read: bool,
    /// It was said that no canary has ever arrived.
    unverified: bool,
    /// What our events say, once it is known.
    expected: Option<ExpectedRequest>,
    /// What was last seen of the records.
    records: Option<CanaryRecords>,
    /// The records could be read, in this process: whether one has arrived is known.
    records_seen: bool,
    /// Events of the form of a canary of others that are on their way to the webhook.
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
    /// Its event was read, and is on its way to the webhook.
    read: bool,
    /// Events of earlier stages that were left out: one.
    earlier: bool,
    /// It has not come in time, and is counted as lost.
    lost: bool,
    /// Somebody bore its mark.
    forged: bool,
}

/// What the pipeline of a log last showed.
#[derive(Debug, Default)]
struct LogView {
    /// The commands that show the provider's switch.
    remedy: String,
    /// When an audit event of others was last read.
    read: Option<Instant>,
    /// Up to when all is settled, with the time after which a quiet log says so again.
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

    /// Forgets all that are under way: another process may read their events.
    pub(crate) fn forget(&self) {
        let mut state = self.state();
        *state = WatchState {
            next: state.next,
            lost_on: std::mem::take(&mut state.lost_on),
            arrived: state.arrived,
            unverified: state.unverified,
            records_seen: state.records_seen,
            ..WatchState::default()
        };
    }

    /// A pipeline begins to read this log.
    pub(crate) fn add_log(&self, log: &str, remedy: String) {
        let view = LogView {
            remedy,
            ..LogView::default()
        };
        self.state().logs.insert(log.to_owned(), view);
    }

    /// A canary is about to be sent. `None`: too many are under way.
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

    /// The API server did not take it: nothing is to be expected of it.
    pub(crate) fn withdraw(&self, number: u64) {
        self.state()
            .canaries
            .retain(|canary| canary.number != number);
    }

    /// An event of this log is about to be delivered.
    pub(super) fn inspect(&self, log: &str, event: &Event) -> EventHandling {
        let state = &mut *self.state();
        let handling = self.inspect_own(state, log, event);
        handling.unwrap_or_else(|| self.inspect_candidate(state, log, event))
    }

    /// An event that bears the mark of one of our own canaries that are waited for; `None`: none does.
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
                // The mark is used: what bears it now is an event like any other.
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

    /// An event of the form of a canary that another process has sent: this one before it died, a
    /// replica; or nobody, which only the records can tell. It is left out only where they have.
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

    /// The webhook accepted the event of a canary, or it went to the dead letter.
    pub(super) fn followed(&self, number: u64, accepted: bool) {
        let state = &mut *self.state();
        if let Some(seen) = state.candidates.remove(&number) {
            let at = Timestamp::now();
            // A copy of it may have been under way with it.
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

    /// The event of one of our own canaries came to its end. Where others may have been given it too,
    /// it is counted once the record says so.
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

    /// What the pipeline of this log shows now. `read`: an event of others was read since the last time.
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

    /// Whether canaries of our own have not arrived in time, and are not counted yet.
    pub(super) fn has_overdue(&self) -> bool {
        let is_overdue = |canary: &Canary| self.is_overdue(canary);
        self.state().canaries.iter().any(is_overdue)
    }

    fn is_overdue(&self, canary: &Canary) -> bool {
        !canary.lost && canary.sent.elapsed() >= self.settings.wait_max
    }

    /// Counts our own that have not arrived in time.
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

    /// Waits no longer for our own that have not arrived in time: another replica may have been given
    /// their events, and nobody can say so.
    pub(super) fn drop_overdue(&self) {
        let mut state = self.state();
        state.canaries.retain(|canary| !self.is_overdue(canary));
    }

    /// What our events say.
    pub(super) fn set_expected(&self, expected: &ExpectedRequest) {
        let mut state = self.state();
        if state.expected.is_none() {
            state.expected = Some(expected.clone());
        }
    }

    /// The records as they are now: of our own canaries, those that another replica has seen and counted
    /// are waited for no longer.
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

    /// What was last seen of the records may be wrong.
    pub(super) fn forget_records(&self) {
        self.state().records = None;
    }

    /// Takes what is to be done about the records.
    pub(super) fn take_jobs(&self) -> Vec<RecordJob> {
        std::mem::take(&mut self.state().jobs)
    }

    /// Leaves out events that are not of our own user, as far as is known who that is.
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

    /// Jobs that could not be done: they come first the next time.
    pub(super) fn put_back(&self, mut jobs: Vec<RecordJob>) {
        let mut state = self.state();
        jobs.append(&mut state.jobs);
        jobs.truncate(CANDIDATES_MAX);
        state.jobs = jobs;
    }

    /// Counts to what end a canary came.
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

    /// On which leg a canary is that has not arrived by now.
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
        // What came soon after it was sent may be what the provider had under way before it was cut.
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

    /// A canary that was sent then has arrived.
    fn is_whole(&self, state: &mut WatchState, sent: Timestamp, late: bool) {
        state.arrived = true;
        if std::mem::take(&mut state.unverified) {
            self.telemetry.canaries_unverified(false);
        }
        // One that comes late mends nothing: the next ones may be as late. Nor is the trail whole while
        // those that were sent before are missing.
        let older_wait = state
            .canaries
            .iter()
            .any(|it| !it.lost && it.sent_at < sent);
        if !late && !older_wait && !std::mem::take(&mut state.lost_on).is_empty() {
            tracing::info!("canaries arrive again: the trail is whole");
        }
    }

    /// Counts one as lost, unless this is no log of ours: then it was never otherwise, though others'
    /// events come.
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
        // Canaries of our own are few: they push out what others made.
        if self.jobs.len() >= CANDIDATES_MAX {
            self.jobs.pop();
        }
        self.jobs.push(job);
    }
}

#[cfg(test)]
mod tests;
