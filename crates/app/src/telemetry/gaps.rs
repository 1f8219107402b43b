//! Gaps: times for which a log seems to lack events. They are logged when found, and shown for a
//! day.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::Telemetry;

/// How many logs' last gaps are shown; bounded, because their names come from records.
const GAPS_MAX: usize = 20;
/// How long a gap is shown.
const SHOWN_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// The last gap of each log.
#[derive(Debug, Default)]
pub(super) struct Gaps(BTreeMap<String, (Instant, String)>);

impl Gaps {
    fn add(&mut self, log: &str, text: String) {
        self.0.insert(log.to_owned(), (Instant::now(), text));
        if self.0.len() > GAPS_MAX {
            let oldest = self.0.iter().min_by_key(|(_, (found, _))| *found);
            if let Some(log) = oldest.map(|(log, _)| log.clone()) {
                self.0.remove(&log);
            }
        }
    }
}

impl Telemetry {
    /// Events of a log seem to be missing between these times, because of something before this
    /// bridge.
    pub fn gap_suspected(&self, log: &str, from: Timestamp, until: Timestamp, remedy: &str) {
        tracing::warn!(
            log,
            from = %from,
            until = %until,
            remedy,
            "events seem to be missing: the log was busy, and has none of this time"
        );
        self.gap(
            log,
            format!("no event between {from} and {until}; {remedy}"),
        );
    }

    /// A log failed over to another place, which lacks records from between these times.
    pub fn failed_over(&self, log: &str, from: Timestamp, until: Timestamp, remedy: &str) {
        tracing::warn!(
            log,
            from = %from,
            until = %until,
            seconds = from.duration_until(until).as_secs(),
            remedy,
            "failover: what the log was given between these times may be missing"
        );
        self.gap(
            log,
            format!("failover between {from} and {until}; {remedy}"),
        );
    }

    fn gap(&self, log: &str, text: String) {
        self.inner.metrics.gaps_suspected.inc();
        self.state().gaps.add(log, text);
    }

    /// Logs that seem to lack events, each with its last gap and what to do.
    pub fn suspected_gaps(&self) -> BTreeMap<String, String> {
        let state = self.state();
        let gaps = state.gaps.0.iter();
        gaps.filter(|(_, (found, _))| found.elapsed() < SHOWN_FOR)
            .map(|(log, (_, text))| (log.clone(), text.clone()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn gaps_are_shown_for_a_day_and_never_more_than_some() {
        let telemetry = Telemetry::new("b", "1");
        let time = |second| Timestamp::from_second(second).unwrap();
        for n in 0..30 {
            telemetry.gap_suspected(&format!("group {n:02}"), time(0), time(600), "mend the key");
            tokio::time::advance(Duration::from_secs(60)).await;
        }
        let shown = telemetry.suspected_gaps();
        assert_eq!(shown.len(), GAPS_MAX);
        assert!(!shown.contains_key("group 09"), "the oldest go");
        assert_eq!(
            shown["group 29"],
            "no event between 1970-01-01T00:00:00Z and 1970-01-01T00:10:00Z; mend the key"
        );
        assert!(
            telemetry
                .render()
                .contains("audit_bridge_gaps_suspected_total 30")
        );
        tokio::time::advance(SHOWN_FOR).await;
        assert!(telemetry.suspected_gaps().is_empty());
    }
}
