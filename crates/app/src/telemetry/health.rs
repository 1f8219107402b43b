//! Health of the logs: the lag, whether a log stands still, and whether one has fallen silent.
//!
//! What the loop reports is stored with its time, and the rest is computed on request, so the lag
//! grows even if the loop reports nothing more.

use std::collections::BTreeMap;
use std::time::Duration;

use audit_bridge_core::observer::Progress;
use audit_bridge_core::readiness::Component;

use super::Telemetry;
use super::log_progress::{HealthLimits, LogProgress};
use super::scope::{NOT_TRIED, PROCESS, Scope, TelemetryState};

/// How many logs' silences are exported, to keep metrics few.
const SILENT_LOGS_MAX: usize = 1000;

/// How many silent logs `/readyz` names.
const SILENT_LOGS_NAMED_MAX: usize = 20;

impl TelemetryState {
    /// The largest lag of all logs, in seconds.
    pub(super) fn lag(&self) -> f64 {
        if self.standby.is_some() {
            return 0.0;
        }
        let process = &self.scopes[PROCESS];
        let lack = |part| process.components.get(&part).and_then(Option::as_deref);
        let fails = lack(Component::Checkpoint).is_some_and(|why| why != NOT_TRIED);
        let waits = fails || lack(Component::Source).is_some();
        let own = (waits && self.logs().next().is_none()).then_some(process);
        let all = own.into_iter().chain(self.logs());
        all.map(|scope| scope.log_progress.lag())
            .fold(0.0, f64::max)
    }

    /// The logs that stand still, and why.
    pub(super) fn stalled(&self) -> impl Iterator<Item = (&Scope, String)> {
        let reads = self.standby.is_none();
        let logs = self.logs().filter(move |_| reads);
        logs.filter_map(|scope| {
            let mut why = scope.log_progress.stalled(self.limits.stall_max)?;
            if scope.parked.events > 0 {
                let events = scope.parked.events;
                why +=
                    &format!("; events that the webhook fails on while it takes others: {events}");
            }
            Some((scope, why))
        })
    }

    /// How long each log has been silent, if known.
    pub(super) fn silences(&self) -> BTreeMap<&str, (Duration, &LogProgress)> {
        let mut all = BTreeMap::<&str, (Duration, &LogProgress)>::new();
        let reads = self.standby.is_none();
        for scope in self
            .logs()
            .filter(|scope| reads && scope.progress.is_some())
        {
            let log_progress = &scope.log_progress;
            let Some(silence) = log_progress.silence else {
                continue;
            };
            let name = log_progress.silence_of.as_str();
            if all.len() >= SILENT_LOGS_MAX && !all.contains_key(name) {
                continue;
            }
            let least = all.entry(name).or_insert((silence, log_progress));
            if silence < least.0 {
                *least = (silence, log_progress);
            }
        }
        all
    }

    /// Warns once when a log falls silent, and logs the end of the silence.
    fn warn_of_silence(&mut self, scope: usize) {
        let Some(max) = self.limits.silence_max else {
            return;
        };
        let log_progress = &self.scopes[scope].log_progress;
        let silent = log_progress.silence.is_some_and(|silence| silence > max);
        if silent == log_progress.silence_said {
            return;
        }
        let name = log_progress.silence_of.clone();
        let Some(&(silence, least)) = self.silences().get(name.as_str()) else {
            return;
        };
        let is_silent = silence > max;
        if is_silent == log_progress.silence_said {
            return;
        }
        match is_silent {
            true => tracing::warn!(
                log = name,
                seconds = silence.as_secs(),
                remedy = least.silence_remedy,
                "silence: the log can be read, and no audit record arrives"
            ),
            false => tracing::info!(log = name, "silence ended: audit records arrive again"),
        }
        for scope in &mut self.scopes {
            if scope.log_progress.silence_of == name {
                scope.log_progress.silence_said = is_silent;
            }
        }
    }
}

impl Telemetry {
    /// Sets when a log counts as unhealthy.
    pub(crate) fn set_limits(&self, limits: HealthLimits) {
        self.state().limits = limits;
    }

    /// This log begins to be read, which restarts its stall time. `silence_of` names the whole that
    /// it is a part of, if records may come to any part; `silence_remedy` says what to look at when
    /// none come.
    pub fn begin(&self, silence_of: Option<&str>, silence_remedy: String) {
        self.own(|scope| {
            let silence_of = silence_of.unwrap_or(&scope.name);
            scope.log_progress = LogProgress {
                silence_remedy,
                ..LogProgress::new(silence_of)
            };
        });
    }

    /// The job is done: everything in this log is settled.
    pub fn finished(&self) {
        self.own(|scope| scope.log_progress.finished = true);
    }

    /// Stores a log's progress.
    pub(super) fn log_progress(&self, progress: &Progress<'_>) {
        self.own(|scope| scope.log_progress.update(progress));
        let mut state = self.state();
        state.warn_of_silence(self.scope);
    }

    /// Logs that have been silent for too long, each with what to look at.
    pub fn silent(&self) -> BTreeMap<String, String> {
        let state = self.state();
        let Some(max) = state.limits.silence_max else {
            return BTreeMap::new();
        };
        let silent = state.silences().into_iter();
        let silent = silent.filter(|(_, (silence, _))| *silence > max);
        silent
            .take(SILENT_LOGS_NAMED_MAX)
            .map(|(log, (silence, log_progress))| {
                let seconds = silence.as_secs();
                let text = format!(
                    "no audit record has arrived for {seconds} s; {}",
                    log_progress.silence_remedy
                );
                (log.to_owned(), text)
            })
            .collect()
    }

    /// Updates the gauges.
    pub(super) fn render_health(&self) {
        let metrics = &self.inner.metrics;
        let state = self.state();
        metrics.lag.set(state.lag());
        metrics.silence.clear();
        for (log, (silence, _)) in state.silences() {
            let labels = vec![("log", log.to_owned())];
            let gauge = metrics.silence.get_or_create(&labels);
            gauge.set(silence.as_secs_f64());
        }
        let max = state.limits.silence_max.unwrap_or_default();
        metrics.silence_max.set(max.as_secs_f64());
    }
}

#[cfg(test)]
pub(super) mod tests;
