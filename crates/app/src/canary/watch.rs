//! Canaries that are under way, and what each log's pipeline shows meanwhile: by which it is said, of
//! one that does not arrive, on which leg of the way it was lost.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use audit_bridge_core::convert::Skip;
use audit_bridge_core::event::Event;
use audit_bridge_core::observer::{EventHandling, Progress};
use jiff::Timestamp;
use tokio::time::Instant;

use super::{CanaryIdentity, CanarySettings, ExpectedRequest, Leg, Mark};
use crate::telemetry::Telemetry;

/// The reason under which a canary's event is left out of delivery.
const CANARY: Skip = Skip::new("canary");

/// Canaries that are known at a time, those among them that are counted as lost and may come late.
const CANARIES_MAX: usize = 32;

/// The part of a stranger's name that is logged.
const USER_CHARS_MAX: usize = 200;

/// The canaries of one process, and what its pipelines say of them.
#[derive(Debug)]
pub(crate) struct CanaryWatch {
    settings: CanarySettings,
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
    pub(crate) fn new(settings: CanarySettings, telemetry: Telemetry) -> CanaryWatch {
        telemetry.begin_canaries(Leg::ALL.map(Leg::name));
        CanaryWatch {
            settings,
            telemetry,
            state: Mutex::default(),
        }
    }

    /// Forgets all that are under way: another process may read their events.
    pub(crate) fn forget(&self) {
        let mut state = self.state();
        state.canaries.clear();
        state.logs.clear();
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
    pub(crate) fn begin(&self, mark: Mark, expected: ExpectedRequest) -> Option<u64> {
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
            sent_at: Timestamp::now(),
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
                        return EventHandling::Follow(canary.number);
                    }
                    let canary = state.canaries.remove(at);
                    self.arrived(state, &canary);
                    true
                }
            };
            return match (is_first, self.settings.deliver) {
                (false, _) => EventHandling::Deliver,
                (true, true) => EventHandling::Expect,
                (true, false) => EventHandling::Skip(CANARY),
            };
        }
        EventHandling::Deliver
    }

    /// The webhook accepted the event of a canary, or it went to the dead letter.
    pub(super) fn followed(&self, number: u64, accepted: bool) {
        let state = &mut *self.state();
        let Some(at) = state.canaries.iter().position(|it| it.number == number) else {
            return;
        };
        let canary = state.canaries.remove(at);
        match accepted {
            true => self.arrived(state, &canary),
            false if canary.lost => {}
            false => self.lost(state, &canary, Leg::Webhook),
        }
    }

    /// What the pipeline of this log shows now. `read`: an event of others was read since the last time.
    pub(super) fn progressed(&self, log: &str, read: bool, progress: &Progress<'_>) {
        let mut state = self.state();
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

    /// Counts those that have not arrived in time.
    pub(crate) fn count_lost(&self) {
        let state = &mut *self.state();
        let overdue =
            |canary: &Canary| !canary.lost && canary.sent.elapsed() >= self.settings.wait_max;
        while let Some(at) = state.canaries.iter().position(overdue) {
            let mut canary = state.canaries.remove(at);
            canary.lost = true;
            let leg = self.leg(state, &canary);
            self.lost(state, &canary, leg);
            state.canaries.insert(at, canary);
        }
    }

    /// On which leg a canary is that has not arrived by now.
    fn leg(&self, state: &WatchState, canary: &Canary) -> Leg {
        let home = state.home.as_ref().and_then(|home| state.logs.get(home));
        let views: Vec<&LogView> = match home {
            Some(home) => vec![home],
            None => state.logs.values().collect(),
        };
        let is_read_up_to = |view: &&LogView| view.settled_to >= Some(canary.sent_at);
        // What came soon after it was sent may be what the provider had under way before it was cut.
        let drained = canary.sent + self.settings.wait_max / 2;
        if canary.read || views.iter().any(|view| view.outage) {
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

    fn arrived(&self, state: &mut WatchState, canary: &Canary) {
        let latency = canary.sent.elapsed();
        // One that comes late mends nothing: the next ones may be as late. Nor is the trail whole while
        // those that were sent before are missing.
        let older_wait = state
            .canaries
            .iter()
            .any(|it| !it.lost && it.number < canary.number);
        if !canary.lost && !older_wait && !std::mem::take(&mut state.lost_on).is_empty() {
            tracing::info!("canaries arrive again: the trail is whole");
        }
        self.telemetry.canary_arrived(latency, canary.lost);
    }

    fn lost(&self, state: &mut WatchState, canary: &Canary, leg: Leg) {
        let is_news = state.lost_on.insert(leg);
        let home = state.home.as_ref().and_then(|home| state.logs.get(home));
        let view = home.or_else(|| state.logs.values().next());
        let source = view.map_or("", |view| view.remedy.as_str());
        let waited = canary.sent.elapsed();
        self.telemetry.canary_lost(leg.name());
        if is_news {
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

#[cfg(test)]
mod tests;
