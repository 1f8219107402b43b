//! Scripted outages, the same for every provider. Each is visible in the lag, on `/readyz` and in
//! an alert, and ends by itself without losses once its cause is gone. Alerts see the metrics of
//! the real binary, and are judged by Prometheus' own promtool (`tests/infra/alerts.py`).
//!
//! A provider supplies how to write to its log and how to start its bridge ([`Trail`]). Outages
//! that need no more are in `everywhere`; each provider has its own for failures of its source.

pub mod everywhere;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use audit_bridge_testkit::ScriptedWebhook;
use serde_json::json;

use crate::live::{Running, wait};
use crate::python::python;
use crate::root;

/// A trail without progress for this long is not ready.
pub const STALL: &str = "--stall-max=2s";

/// Exit status of `alerts.py` if promtool is not available.
const SKIPPED: i32 = 77;

/// A provider's log, a receiver, and the state of one bridge.
pub trait Trail {
    /// Starts the bridge with these additional flags. With new state it also reads what was written
    /// before.
    fn start(&self, flags: &[&str]) -> Running;

    /// The folder of the bridge's state, including the dead letter.
    fn state(&self) -> PathBuf;

    fn webhook(&self) -> &ScriptedWebhook;

    /// Writes this event to the log.
    fn put(&self, event: usize);

    /// The `auditID` of this event.
    fn audit_id(&self, event: usize) -> String;

    /// Writes a record that is no event and contains this text of letters and digits.
    fn put_garbage(&self, text: &str);
}

/// A bridge during an outage, and its metrics.
#[derive(Debug)]
pub struct OutageRun<'a, T> {
    trail: &'a T,
    pub bridge: Running,
    /// Number of events written so far.
    put: usize,
    healthy: String,
    during: Vec<(f64, String)>,
    began: Instant,
}

impl<'a, T: Trail> OutageRun<'a, T> {
    /// A healthy bridge that has delivered some events. The outage starts now.
    ///
    /// # Panics
    /// The bridge does not become healthy.
    pub fn of(trail: &'a T, flags: &[&str]) -> OutageRun<'a, T> {
        let mut outage = OutageRun {
            trail,
            bridge: trail.start(&[&[STALL], flags].concat()),
            put: 0,
            healthy: String::new(),
            during: Vec::new(),
            began: Instant::now(),
        };
        for _ in 0..5 {
            outage.put();
        }
        outage.gets_well();
        outage
    }

    /// Writes the next event to the log.
    pub fn put(&mut self) {
        self.trail.put(self.put);
        self.put += 1;
    }

    /// Waits until everything that was written is accepted.
    ///
    /// # Panics
    /// Something never is.
    pub fn until_accepted(&self) {
        let mut missing = BTreeSet::new();
        let done = wait(|| {
            missing = &self.written() - &self.accepted();
            missing.is_empty().then_some(())
        });
        assert!(done.is_some(), "missing {missing:?}\n{}", self.bridge.log());
    }

    fn written(&self) -> BTreeSet<String> {
        (0..self.put).map(|n| self.trail.audit_id(n)).collect()
    }

    fn accepted(&self) -> BTreeSet<String> {
        let accepted = self.trail.webhook().accepted_ids();
        accepted.into_iter().collect()
    }

    /// Writes events until the healthy state is reached: everything is accepted, nothing lags,
    /// everything is ready and nothing is silent, all at one time.
    fn gets_well(&mut self) {
        let well = wait(|| {
            self.until_accepted();
            let metrics = self.bridge.get("/metrics").1;
            if is_well(&metrics) {
                return Some(metrics);
            }
            self.put();
            None
        });
        match well {
            Some(metrics) => self.healthy = metrics,
            None => unreachable!("it is not well\n{}", self.bridge.log()),
        }
        self.began = Instant::now();
    }

    /// Waits until the trail is stalled, for a reason that contains `says`, and lags. Returns the
    /// reason.
    ///
    /// # Panics
    /// That never happens.
    pub fn until_still(&mut self, says: &str) -> String {
        let why = self.bridge.until_not_ready("progress", says);
        assert!(why.contains("stands still"), "{why}");
        self.bridge.until_above("audit_bridge_lag_seconds", 3.0);
        why
    }

    /// Records the metrics now, and again once this metric, summed over its labels, has grown by
    /// `by`. Calls `go_on` meanwhile.
    ///
    /// # Panics
    /// It does not grow.
    pub fn observe(&mut self, name: &str, by: f64, go_on: impl FnMut(&mut Self)) {
        self.observe_all(&[name], by, go_on);
    }

    /// The same for several metrics, each of which has to grow.
    ///
    /// # Panics
    /// One does not grow.
    pub fn observe_all(&mut self, names: &[&str], by: f64, mut go_on: impl FnMut(&mut Self)) {
        self.keep();
        let before: Vec<f64> = names.iter().map(|name| self.bridge.metric(name)).collect();
        let grown = wait(|| {
            go_on(self);
            let mut both = names.iter().zip(&before);
            both.all(|(name, before)| self.bridge.metric(name) >= before + by)
                .then_some(())
        });
        let log = self.bridge.log();
        assert!(grown.is_some(), "{names:?} do not grow\n{log}");
        self.keep();
    }

    fn keep(&mut self) {
        let at = self.began.elapsed().as_secs_f64();
        let metrics = self.bridge.get("/metrics").1;
        self.during.push((at, metrics));
    }

    /// The cause is gone: checks that everything that was written arrives and nothing else, nothing
    /// lags, the bridge is ready and ends with status 0. All of these alerts must fire in the
    /// outage, and none before it.
    ///
    /// # Panics
    /// One of these does not hold.
    pub fn passes(mut self, alerts: &[&str]) {
        self.put();
        self.gets_well();
        assert_eq!(self.accepted(), self.written());
        self.fires(alerts);
        assert_eq!(self.bridge.terminate(), 0);
    }

    /// Checks that all of these alerts fire in the outage, and none before it.
    fn fires(&self, alerts: &[&str]) {
        let fired = json!({"healthy": self.healthy, "outage": self.during, "fires": alerts});
        let judged = promtool(&fired);
        if let Err(said) = judged {
            let metrics = self.during.last().map(|it| it.1.as_str());
            unreachable!("{alerts:?}: {said}\n{}", metrics.unwrap_or_default());
        }
    }
}

fn is_well(metrics: &str) -> bool {
    let samples = || metrics.lines().filter_map(|line| line.rsplit_once(' '));
    let all = |name: &str, good: fn(f64) -> bool| {
        let values: Vec<f64> = samples()
            .filter(|(sample, _)| sample.split('{').next() == Some(name))
            .filter_map(|(_, value)| value.parse().ok())
            .collect();
        !values.is_empty() && values.iter().all(|&value| good(value))
    };
    let value = |name: &str| {
        let found = samples().find(|(sample, _)| sample.split('{').next() == Some(name));
        found.and_then(|(_, value)| value.parse::<f64>().ok())
    };
    let silence = value("audit_bridge_silence_seconds").unwrap_or(0.0);
    let silence_max = value("audit_bridge_silence_max_seconds").unwrap_or(0.0);
    all("audit_bridge_ready", |ready| ready > 0.0)
        && all("audit_bridge_lag_seconds", |lag| lag == 0.0)
        && (silence_max == 0.0 || silence < silence_max / 2.0)
}

/// Lets promtool judge a healthy bridge's metrics, two samples of an outage with their times in
/// seconds, and the alerts that must fire.
///
/// # Errors
/// An alert does not fire in the outage, or one fires before it.
pub fn promtool(outage: &serde_json::Value) -> Result<(), String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let file = folder.path().join("outage.json");
    std::fs::write(&file, outage.to_string()).map_err(|error| error.to_string())?;
    let judged = Command::new(python("tests/requirements-infra.txt"))
        .arg(root().join("tests/infra/alerts.py"))
        .arg(&file)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&judged.stderr).into_owned();
    match judged.status.code() {
        Some(0) => Ok(()),
        Some(SKIPPED) => {
            // Bypasses the test harness, which would capture it.
            let _ = writeln!(
                std::io::stderr(),
                "skipped: the alerts of an outage: {said}"
            );
            Ok(())
        }
        _ => Err(said),
    }
}
