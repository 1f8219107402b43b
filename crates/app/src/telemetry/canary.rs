//! Metrics of canaries.

use std::time::Duration;

use super::Telemetry;
use super::metrics::{count, count_many};

impl Telemetry {
    /// Canaries are sent from now on. Each leg's counter starts at 0: a counter that first appears
    /// with 1 shows no increase to Prometheus.
    pub(crate) fn begin_canaries<const LEGS: usize>(&self, legs: [&'static str; LEGS]) {
        for leg in legs {
            count_many(&self.inner.metrics.canaries_lost, "leg", leg, 0);
        }
    }

    /// The result of sending a canary: `ok`, or why the API server did not accept it, from a
    /// bounded set.
    pub(crate) fn canary_requested(&self, status: &'static str) {
        count(&self.inner.metrics.canary_requests, "status", status);
    }

    /// The webhook accepted a canary's event, `late` if it was counted as lost before.
    pub(crate) fn canary_arrived(&self, latency: Duration, late: bool) {
        let seconds = latency.as_secs_f64();
        match late {
            true => tracing::info!(seconds, "canary arrived after it was counted as lost"),
            false => tracing::debug!(seconds, "canary arrived"),
        }
        self.inner.metrics.canary_latency.observe(seconds);
    }

    /// A canary did not arrive in time.
    pub(crate) fn canary_lost(&self, leg: &'static str) {
        count(&self.inner.metrics.canaries_lost, "leg", leg);
    }

    /// No canary has ever arrived, though the log contains events of others.
    pub(crate) fn canaries_unverified(&self, unverified: bool) {
        let gauge = &self.inner.metrics.canaries_unverified;
        gauge.set(i64::from(unverified));
    }
}
