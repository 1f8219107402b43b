//! The bridge's metrics and readiness.
//!
//! There is one function per operational event; if the event deserves a log line, the same function
//! writes it. Labels are bounded and never contain an auditID.

mod canary;
mod gaps;
mod health;
mod log_progress;
mod metrics;
mod scope;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use audit_bridge_core::convert::{Reject, Skip};
use audit_bridge_core::dead_letter::DeadLetterStats;
use audit_bridge_core::deliver::ParkedStatus;
use audit_bridge_core::event::conformance::Notes;
use audit_bridge_core::observer::{Observer, Progress, SourceObserver};
use audit_bridge_core::readiness::Component;
use audit_bridge_core::record::Origin;
use audit_bridge_core::run_stats::RunStats;
use audit_bridge_core::source::Problem;
use tokio::time::Instant;

pub(crate) use self::log_progress::{HealthLimits, STALL_MAX};
use self::metrics::{Metrics, count, count_many};
use self::scope::{NOT_TRIED, PROCESS, Scope, TelemetryState};

/// A loop that has not reported for this long hangs; normally it reports several times a second.
const PROGRESS_MAX: Duration = Duration::from_secs(60);

/// A handle to the metrics and state of one process, scoped to the process itself or to one of its
/// logs ([`Telemetry::log`]). Clones share them.
#[derive(Debug, Clone)]
pub struct Telemetry {
    inner: Arc<Inner>,
    /// The scope whose state this handle writes: [`PROCESS`], or a log's.
    scope: usize,
}

/// What all clones share.
#[derive(Debug)]
struct Inner {
    metrics: Metrics,
    state: Mutex<TelemetryState>,
    dead_letter: Arc<DeadLetterStats>,
}

impl Telemetry {
    /// All metrics are zero, and nothing is ready yet.
    pub fn new(bridge: &'static str, version: &'static str) -> Telemetry {
        let inner = Inner {
            metrics: Metrics::new(bridge, version),
            state: Mutex::new(TelemetryState::new(bridge)),
            dead_letter: Arc::default(),
        };
        Telemetry {
            inner: Arc::new(inner),
            scope: PROCESS,
        }
    }

    /// A handle scoped to one log that this process reads. The log must be shown to be readable and
    /// its checkpoint to be storable before the process is ready.
    pub fn log(&self, name: &str) -> Telemetry {
        let mut state = self.state();
        let known = state.scopes.iter().skip(1).position(|it| it.name == name);
        let scope = known.map_or(state.scopes.len(), |at| at + 1);
        let new = || Scope::new(name, &[Component::Source, Component::Checkpoint]);
        match state.scopes.get_mut(scope) {
            None => state.scopes.push(new()),
            Some(there) if there.retired => *there = new(),
            Some(_) => {}
        }
        drop(state);
        Telemetry {
            inner: Arc::clone(&self.inner),
            scope,
        }
    }

    /// A handle scoped to the process.
    pub fn process(&self) -> Telemetry {
        Telemetry {
            inner: Arc::clone(&self.inner),
            scope: PROCESS,
        }
    }

    /// This replica waits for the Lease while `holder` reads, which counts as ready. `None`: this
    /// replica reads.
    pub(crate) fn standby(&self, holder: Option<&str>) {
        self.inner.metrics.leader.set(i64::from(holder.is_none()));
        self.state().standby = holder.map(str::to_owned);
    }

    /// Whether anyone holds the Lease cannot be told, so this replica may neither read nor count as a
    /// standby.
    pub(crate) fn leaderless(&self) {
        self.inner.metrics.leader.set(0);
        let was_standby = self.state().standby.take().is_some();
        if was_standby {
            self.process().begin(None, String::new());
        }
    }

    /// The holder of the Lease that this process waits for, if it does.
    pub fn leader(&self) -> Option<String> {
        self.state().standby.clone()
    }

    /// Counts records from the provider.
    pub fn received(&self, records: u64) {
        self.inner.metrics.records_received.inc_by(records);
    }

    /// The webhook accepted events.
    pub fn delivered(&self, events: u64, truncated: u64) {
        self.inner.metrics.events_delivered.inc_by(events);
        self.inner.metrics.events_truncated.inc_by(truncated);
    }

    /// A record was skipped.
    pub fn skipped(&self, reason: Skip) {
        count(&self.inner.metrics.records_skipped, "reason", reason.name());
    }

    /// Counts an event's repairs and missing parts.
    pub fn noted(&self, notes: Notes) {
        let metrics = &self.inner.metrics;
        for what in notes.repaired() {
            count(&metrics.events_repaired, "what", what.name());
        }
        for what in notes.given_up() {
            count(&metrics.events_shortened, "what", what.name());
        }
    }

    /// A record, or an event made of it, went to the dead letter.
    pub(crate) fn dead_lettered(&self, origin: &Origin, reason: Reject, error: &str) {
        tracing::warn!(%origin, %reason, error, "record rejected to the dead letter");
        count(
            &self.inner.metrics.records_dead_lettered,
            "reason",
            reason.name(),
        );
    }

    /// The shared metrics of the dead letter.
    pub(crate) fn dead_letter_stats(&self) -> Arc<DeadLetterStats> {
        Arc::clone(&self.inner.dead_letter)
    }

    /// A request to the webhook ended.
    pub(crate) fn webhook_request(&self, status: &str, seconds: f64) {
        count(&self.inner.metrics.webhook_requests, "status", status);
        self.inner.metrics.webhook_request_duration.observe(seconds);
    }

    /// A request to the provider ended.
    pub fn source_request(&self, status: &str) {
        count(&self.inner.metrics.source_requests, "status", status);
    }

    /// The provider throttled a request.
    pub fn source_throttled(&self) {
        self.inner.metrics.source_throttled.inc();
    }

    /// The provider deleted records before they were read.
    pub fn expired(&self, place: &str, records: u64, remedy: &str) {
        tracing::error!(
            place,
            records,
            remedy,
            "records expired at the provider before they were read; they are lost"
        );
        self.inner.metrics.records_expired.inc_by(records);
    }

    /// Bytes of open records.
    pub fn in_flight(&self, bytes: usize) {
        self.own(|scope| scope.in_flight_bytes = bytes);
    }

    /// Events that fail while others are accepted, or an empty list.
    pub fn parked(&self, parked: ParkedStatus) {
        self.own(|scope| scope.parked = parked);
    }

    /// The number of parked events of all logs.
    pub(crate) fn parked_events(&self) -> usize {
        let state = self.state();
        let scopes = state.scopes.iter().filter(|scope| !scope.retired);
        scopes.map(|scope| scope.parked.events).sum()
    }

    /// The checkpoint was written. The loop's next report says whether everything can be stored:
    /// the dead letter may still fail.
    pub fn checkpoint_written(&self) {
        self.own(|scope| scope.checkpoint_written = Some(Instant::now()));
    }

    /// The loop made an iteration.
    pub fn progress(&self) {
        self.own(|scope| scope.progress = Some(Instant::now()));
    }

    /// The loop has ended, so its silence means nothing.
    pub fn ended(&self) {
        self.own(|scope| {
            scope.progress = None;
            scope.in_flight_bytes = 0;
            scope.parked = ParkedStatus::default();
        });
    }

    /// Another process reads this log now. [`Telemetry::log`] starts it again.
    pub fn retired(&self) {
        self.own(|scope| scope.retired = true);
    }

    /// A component is ready.
    pub fn ready(&self, component: Component) {
        let before = self.own(|scope| scope.components.insert(component, None));
        match before {
            // All components of the process and of each log begin untried: log only when the last
            // one becomes ready.
            Some(Some(was)) if was == NOT_TRIED => {
                if self.unready().is_empty() {
                    tracing::info!("all components ready");
                }
            }
            Some(Some(was)) => tracing::info!(part = component.name(), was, "component ready"),
            Some(None) | None => {}
        }
    }

    /// A component is not ready: why, and what to do. Logged once per reason.
    pub fn not_ready(&self, component: Component, why: impl Into<String>) {
        let why = why.into();
        let is_process = self.scope == PROCESS;
        let before = self.own(|scope| {
            let before = scope.components.insert(component, Some(why.clone()));
            // A process without a log lags from here on.
            if is_process && before == Some(None) {
                scope.log_progress.moved_at = Instant::now();
            }
            before
        });
        if before != Some(Some(why.clone())) {
            tracing::warn!(part = component.name(), why, "component not ready");
        }
    }

    /// Whether a component is ready, in the scope of this handle.
    pub fn is_ready(&self, component: Component) -> bool {
        self.own(|scope| matches!(scope.components.get(&component), Some(None)))
    }

    /// What is not ready, and why; empty when everything is. A standby replica only needs a webhook
    /// that accepts.
    pub fn unready(&self) -> BTreeMap<&'static str, String> {
        let state = self.state();
        let several = state.logs().count() > 1;
        let mut unready = BTreeMap::<&'static str, String>::new();
        for (scope, why) in state.stalled() {
            let text = unready.entry(Component::Progress.name()).or_default();
            if !text.is_empty() {
                text.push_str("; ");
            }
            if several {
                text.push_str(&scope.name);
                text.push_str(": ");
            }
            text.push_str(&why);
        }
        let scopes = state.scopes.iter().enumerate();
        for (index, scope) in scopes.filter(|(_, scope)| !scope.retired) {
            for (component, why) in &scope.components {
                let Some(why) = why else { continue };
                if state.standby.is_some() && (index != PROCESS || *component != Component::Webhook)
                {
                    continue;
                }
                let text = unready.entry(component.name()).or_default();
                if !text.is_empty() {
                    text.push_str("; ");
                }
                if several && index != PROCESS {
                    text.push_str(&scope.name);
                    text.push_str(": ");
                }
                text.push_str(why);
            }
        }
        unready
    }

    /// How long a loop has been silent, if that is too long.
    pub fn stuck_for(&self) -> Option<Duration> {
        let state = self.state();
        let scopes = state.scopes.iter().filter(|scope| !scope.retired);
        let turns = scopes.filter_map(|scope| scope.progress);
        let silent = turns.map(|turn| turn.elapsed()).max();
        silent.filter(|silent| *silent > PROGRESS_MAX)
    }

    /// All metrics in the text format of Prometheus (OpenMetrics 1.0).
    pub fn render(&self) -> String {
        let metrics = &self.inner.metrics;
        let dead_letter = &self.inner.dead_letter;
        let bytes = i64::try_from(dead_letter.bytes()).unwrap_or(i64::MAX);
        metrics.dead_letter_bytes.set(bytes);
        let dropped = &metrics.dead_letter_payloads_dropped;
        dropped.inc_by(dead_letter.payloads_dropped().saturating_sub(dropped.get()));
        {
            let state = self.state();
            // Once there are logs, the process has no checkpoint of its own.
            let own = (state.scopes.len() == 1).then_some(&state.scopes[PROCESS]);
            let logs: Vec<&Scope> = own.into_iter().chain(state.logs()).collect();
            let most = |of: fn(&Scope) -> f64| logs.iter().map(|log| of(log)).fold(0.0, f64::max);
            metrics.checkpoint_age.set(most(Scope::checkpoint_age));
            let whole = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
            let in_flight = logs.iter().map(|scope| scope.in_flight_bytes).sum();
            metrics.in_flight.set(whole(in_flight));
            let parked = || logs.iter().map(|log| log.parked);
            let events = parked().map(|parked| parked.events).sum();
            metrics.parked_events.set(whole(events));
            let bytes = parked().map(|parked| parked.bytes).sum();
            metrics.parked_bytes.set(whole(bytes));
            let oldest = parked().filter_map(|parked| parked.oldest).min();
            let age = oldest.map_or(0.0, |since| since.elapsed().as_secs_f64());
            metrics.oldest_parked.set(age);
            let active = state.logs().filter(|scope| scope.progress.is_some());
            metrics.active_logs.set(whole(active.count()));
        }
        self.render_health();
        let unready = self.unready();
        for component in Component::ALL.map(Component::name) {
            let labels = vec![("part", component.to_owned())];
            let ready = i64::from(!unready.contains_key(component));
            metrics.ready.get_or_create(&labels).set(ready);
        }
        metrics.render()
    }

    /// Changes the state of this handle's scope.
    fn own<T>(&self, change: impl FnOnce(&mut Scope) -> T) -> T {
        let mut state = self.state();
        // Scopes are never removed.
        let scope = self.scope.min(state.scopes.len() - 1);
        change(&mut state.scopes[scope])
    }

    fn state(&self) -> MutexGuard<'_, TelemetryState> {
        self.inner
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observer for Telemetry {
    fn received(&mut self, records: u64) {
        Telemetry::received(self, records);
    }

    fn delivered(&mut self, events: u64, truncated: u64) {
        Telemetry::delivered(self, events, truncated);
    }

    fn skipped(&mut self, reason: Skip) {
        Telemetry::skipped(self, reason);
    }

    fn noted(&mut self, notes: Notes) {
        Telemetry::noted(self, notes);
    }

    fn reject(&mut self, origin: &Origin, reason: Reject, error: &str) {
        self.dead_lettered(origin, reason, error);
    }

    fn problem(&mut self, problem: &Problem) {
        tracing::error!(
            place = problem.place,
            error = problem.error,
            "input not read completely"
        );
    }

    fn checkpoint_written(&mut self) {
        Telemetry::checkpoint_written(self);
    }

    fn progressed(&mut self, _: &RunStats, progress: &Progress<'_>) {
        self.progress();
        self.in_flight(progress.in_flight_bytes);
        self.log_progress(progress);
        let delivery = &progress.delivery;
        self.parked(delivery.parked);
        match (&delivery.outage, delivery.last_accepted) {
            (Some(outage), _) => {
                self.not_ready(
                    Component::Webhook,
                    format!("{}; {}", outage.detail, outage.remedy),
                );
            }
            (None, Some(_)) => {
                self.ready(Component::Webhook);
                self.process().ready(Component::Webhook);
            }
            // Nothing was sent yet: the start of the run probes the webhook first.
            (None, None) => {}
        }
        match progress.storage_error {
            Some(why) => self.not_ready(Component::Checkpoint, why),
            None => self.ready(Component::Checkpoint),
        }
    }
}

impl SourceObserver for Telemetry {
    fn requested(&self, status: &str) {
        self.source_request(status);
    }

    fn throttled(&self) {
        self.source_throttled();
    }

    fn late(&self, age: &str, records: u64) {
        count_many(&self.inner.metrics.late_records, "age", age, records);
    }

    fn answers(&self) {
        self.ready(Component::Source);
        self.ready(Component::Identity);
        self.process().ready(Component::Identity);
    }

    fn not_ready(&self, component: Component, why: String) {
        Telemetry::not_ready(self, component, why);
    }
}

#[cfg(test)]
mod tests;
