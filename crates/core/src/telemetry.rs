//! What the bridge tells of itself: metrics, and whether it is ready.
//!
//! One function per operational event; where the event deserves a log line, the same function
//! writes it. Labels are bounded and never hold an auditID.

pub mod names;

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tokio::time::Instant;

use self::names::Metric;
use crate::convert::{Reject, Skip};
use crate::record::Origin;
use crate::run::{Doing, Observer};
use crate::source::Problem;
use crate::tally::Tally;

/// Upper bounds of the duration histogram, in seconds.
const DURATION_BUCKETS: [f64; 10] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 10.0];
/// The loop turns several times a second; silent for so long, it hangs.
const PROGRESS_MAX: Duration = Duration::from_secs(60);

type Labels = Vec<(&'static str, String)>;
type Seconds = Gauge<f64, AtomicU64>;

/// A part of the bridge that can keep it from being ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The credentials towards the provider.
    Identity,
    /// The provider's log.
    Source,
    /// The checkpoint's store and the dead letter.
    Checkpoint,
    /// The receiver.
    Webhook,
}

impl Part {
    /// All of them.
    pub const ALL: [Part; 4] = [
        Part::Identity,
        Part::Source,
        Part::Checkpoint,
        Part::Webhook,
    ];

    /// Its name in `/readyz`.
    pub fn name(self) -> &'static str {
        match self {
            Part::Identity => "identity",
            Part::Source => "source",
            Part::Checkpoint => "checkpoint",
            Part::Webhook => "webhook",
        }
    }
}

/// The metrics and the state of one process, from the place of the process itself or of one of the
/// logs that it reads ([`Telemetry::log`]). Clones share them.
#[derive(Debug, Clone)]
pub struct Telemetry {
    inner: Arc<Inner>,
    /// Whose state it writes: [`PROCESS`], or a log's.
    scope: usize,
}

/// The place of the process in the list of scopes.
const PROCESS: usize = 0;

#[derive(Debug)]
struct Inner {
    registry: Registry,
    records_received: Counter,
    events_delivered: Counter,
    events_truncated: Counter,
    records_skipped: Family<Labels, Counter>,
    records_dead_lettered: Family<Labels, Counter>,
    late_records: Family<Labels, Counter>,
    webhook_requests: Family<Labels, Counter>,
    webhook_request_duration: Histogram,
    source_requests: Family<Labels, Counter>,
    source_throttled: Counter,
    records_expired: Counter,
    lag: Seconds,
    checkpoint_age: Seconds,
    in_flight: Gauge,
    leader: Gauge,
    ready: Family<Labels, Gauge>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The process first, then its logs.
    scopes: Vec<Scope>,
    /// Who reads instead of us, as the Lease has it.
    standby: Option<String>,
}

/// What is known of the process as a whole, or of one log.
#[derive(Debug)]
struct Scope {
    name: String,
    /// Why a part is not ready; one that has to speak first says so.
    parts: BTreeMap<Part, Option<String>>,
    since: Instant,
    checkpoint_written: Option<Instant>,
    newest_delivered: Option<Timestamp>,
    /// The source says that it has nothing more.
    drained: bool,
    in_flight_bytes: usize,
    /// The loop's last turn; `None` while no loop runs.
    progress: Option<Instant>,
}

impl Scope {
    fn new(name: &str, parts: &[Part]) -> Scope {
        let unseen = || Some("not tried yet".to_owned());
        Scope {
            name: name.to_owned(),
            parts: parts.iter().map(|&part| (part, unseen())).collect(),
            since: Instant::now(),
            checkpoint_written: None,
            newest_delivered: None,
            drained: false,
            in_flight_bytes: 0,
            progress: None,
        }
    }

    fn lag(&self) -> f64 {
        match self.newest_delivered {
            Some(newest) if !(self.drained && self.in_flight_bytes == 0) => {
                let behind = Timestamp::now().duration_since(newest);
                behind.as_secs_f64().max(0.0)
            }
            _ => 0.0,
        }
    }
}

impl Telemetry {
    /// Metrics at zero, and nothing ready yet.
    pub fn new(bridge: &'static str, version: &'static str) -> Telemetry {
        let mut registry = Registry::default();
        let build_info = Family::<Labels, Gauge>::default();
        build_info
            .get_or_create(&vec![
                ("bridge", bridge.to_owned()),
                ("version", version.to_owned()),
            ])
            .set(1);
        let mut inner = Inner {
            registry: Registry::default(),
            records_received: Counter::default(),
            events_delivered: Counter::default(),
            events_truncated: Counter::default(),
            records_skipped: Family::default(),
            records_dead_lettered: Family::default(),
            late_records: Family::default(),
            webhook_requests: Family::default(),
            webhook_request_duration: Histogram::new(DURATION_BUCKETS),
            source_requests: Family::default(),
            source_throttled: Counter::default(),
            records_expired: Counter::default(),
            lag: Gauge::default(),
            checkpoint_age: Gauge::default(),
            in_flight: Gauge::default(),
            leader: Gauge::default(),
            ready: Family::default(),
            state: Mutex::new(State {
                scopes: vec![Scope::new(bridge, &Part::ALL)],
                standby: None,
            }),
        };
        inner.leader.set(1);
        add(
            &mut registry,
            &names::RECORDS_RECEIVED,
            inner.records_received.clone(),
        );
        add(
            &mut registry,
            &names::EVENTS_DELIVERED,
            inner.events_delivered.clone(),
        );
        add(
            &mut registry,
            &names::RECORDS_SKIPPED,
            inner.records_skipped.clone(),
        );
        add(
            &mut registry,
            &names::RECORDS_DEAD_LETTERED,
            inner.records_dead_lettered.clone(),
        );
        add(
            &mut registry,
            &names::EVENTS_TRUNCATED,
            inner.events_truncated.clone(),
        );
        add(
            &mut registry,
            &names::LATE_RECORDS,
            inner.late_records.clone(),
        );
        add(
            &mut registry,
            &names::WEBHOOK_REQUESTS,
            inner.webhook_requests.clone(),
        );
        add(
            &mut registry,
            &names::WEBHOOK_REQUEST_DURATION,
            inner.webhook_request_duration.clone(),
        );
        add(
            &mut registry,
            &names::SOURCE_REQUESTS,
            inner.source_requests.clone(),
        );
        add(
            &mut registry,
            &names::SOURCE_THROTTLED,
            inner.source_throttled.clone(),
        );
        add(
            &mut registry,
            &names::RECORDS_EXPIRED,
            inner.records_expired.clone(),
        );
        add(&mut registry, &names::READY, inner.ready.clone());
        add(&mut registry, &names::LEADER, inner.leader.clone());
        add(&mut registry, &names::LAG, inner.lag.clone());
        add(
            &mut registry,
            &names::CHECKPOINT_AGE,
            inner.checkpoint_age.clone(),
        );
        add(&mut registry, &names::IN_FLIGHT, inner.in_flight.clone());
        add(&mut registry, &names::BUILD_INFO, build_info);
        inner.registry = registry;
        Telemetry {
            inner: Arc::new(inner),
            scope: PROCESS,
        }
    }

    /// The place of one log that this process reads: it has to show that it can be read, and that
    /// its checkpoint can be kept, before the process is ready.
    pub fn log(&self, name: &str) -> Telemetry {
        let mut state = self.state();
        let known = state.scopes.iter().skip(1).position(|it| it.name == name);
        let scope = known.map_or(state.scopes.len(), |at| at + 1);
        if scope == state.scopes.len() {
            let parts = [Part::Source, Part::Checkpoint];
            state.scopes.push(Scope::new(name, &parts));
        }
        drop(state);
        Telemetry {
            inner: Arc::clone(&self.inner),
            scope,
        }
    }

    /// The place of the process as a whole.
    pub fn process(&self) -> Telemetry {
        Telemetry {
            inner: Arc::clone(&self.inner),
            scope: PROCESS,
        }
    }

    /// Another replica reads, and this one waits for its Lease: that is as ready as it can be.
    /// `None`: this one reads.
    pub fn standby(&self, holder: Option<&str>) {
        self.inner.leader.set(i64::from(holder.is_none()));
        self.state().standby = holder.map(str::to_owned);
    }

    /// Who reads instead of this process, if it waits for a Lease.
    pub fn leader(&self) -> Option<String> {
        self.state().standby.clone()
    }

    /// Records came from the provider.
    pub fn received(&self, records: u64) {
        self.inner.records_received.inc_by(records);
    }

    /// The webhook accepted events, the newest of a record of this time.
    pub fn delivered(&self, events: u64, truncated: u64, newest: Option<Timestamp>) {
        self.inner.events_delivered.inc_by(events);
        self.inner.events_truncated.inc_by(truncated);
        self.own(|scope| scope.newest_delivered = scope.newest_delivered.max(newest));
    }

    /// A record was not for us.
    pub fn skipped(&self, reason: Skip) {
        count(&self.inner.records_skipped, "reason", reason.name());
    }

    /// A record, or an event of it, went to the dead letter.
    pub fn dead_lettered(&self, origin: &Origin, reason: Reject, error: &str) {
        tracing::warn!(%origin, %reason, error, "a record went to the dead letter");
        count(&self.inner.records_dead_lettered, "reason", reason.name());
    }

    /// A cursor of this age found records that no younger one had seen.
    pub fn late(&self, age: &str, records: u64) {
        let label = vec![("age", age.to_owned())];
        self.inner
            .late_records
            .get_or_create(&label)
            .inc_by(records);
    }

    /// A request to the webhook came to its end.
    pub fn webhook_request(&self, status: &str, seconds: f64) {
        count(&self.inner.webhook_requests, "status", status);
        self.inner.webhook_request_duration.observe(seconds);
    }

    /// A request to the provider came to its end.
    pub fn source_request(&self, status: &str) {
        count(&self.inner.source_requests, "status", status);
    }

    /// The provider throttled a request.
    pub fn source_throttled(&self) {
        self.inner.source_throttled.inc();
    }

    /// The provider had deleted records before they were read.
    pub fn expired(&self, place: &str, records: u64, remedy: &str) {
        tracing::error!(
            place,
            records,
            remedy,
            "the provider deleted records before they were read: they are lost"
        );
        self.inner.records_expired.inc_by(records);
    }

    /// Bytes of records that are read and not yet settled.
    pub fn in_flight(&self, bytes: usize) {
        self.own(|scope| scope.in_flight_bytes = bytes);
    }

    /// Whether the source has nothing more at this moment.
    pub fn drained(&self, drained: bool) {
        self.own(|scope| scope.drained = drained);
    }

    /// The checkpoint was written.
    pub fn checkpoint_written(&self) {
        self.own(|scope| scope.checkpoint_written = Some(Instant::now()));
        self.ready(Part::Checkpoint);
    }

    /// The loop made a turn.
    pub fn progress(&self) {
        self.own(|scope| scope.progress = Some(Instant::now()));
    }

    /// The loop has ended: its silence means nothing.
    pub fn ended(&self) {
        self.own(|scope| {
            scope.progress = None;
            scope.in_flight_bytes = 0;
        });
    }

    /// A part works.
    pub fn ready(&self, part: Part) {
        let before = self.own(|scope| scope.parts.insert(part, None));
        if let Some(Some(was)) = before {
            tracing::info!(part = part.name(), was, "ready");
        }
    }

    /// A part does not work: why, and what to do. The log has it once, until it changes.
    pub fn not_ready(&self, part: Part, why: impl Into<String>) {
        let why = why.into();
        let before = self.own(|scope| scope.parts.insert(part, Some(why.clone())));
        if before != Some(Some(why.clone())) {
            tracing::warn!(part = part.name(), why, "not ready");
        }
    }

    /// Whether a part works, from this place's view.
    pub fn is_ready(&self, part: Part) -> bool {
        self.own(|scope| matches!(scope.parts.get(&part), Some(None)))
    }

    /// What is not ready, and why; empty when all is. Who stands by has only to be able to
    /// deliver.
    pub fn unready(&self) -> BTreeMap<&'static str, String> {
        let state = self.state();
        let several = state.scopes.len() > 2;
        let mut unready = BTreeMap::<&'static str, String>::new();
        for (index, scope) in state.scopes.iter().enumerate() {
            for (part, why) in &scope.parts {
                let Some(why) = why else { continue };
                if state.standby.is_some() && (index != PROCESS || *part != Part::Webhook) {
                    continue;
                }
                let text = unready.entry(part.name()).or_default();
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

    /// How long a loop has been silent, when that is too long.
    pub fn stuck(&self) -> Option<Duration> {
        let state = self.state();
        let turns = state.scopes.iter().filter_map(|scope| scope.progress);
        let silent = turns.map(|turn| turn.elapsed()).max();
        silent.filter(|silent| *silent > PROGRESS_MAX)
    }

    /// All metrics in the text format of Prometheus (OpenMetrics 1.0).
    pub fn render(&self) -> String {
        {
            let state = self.state();
            // The process keeps no checkpoint of its own once there are logs.
            let logs = &state.scopes[(state.scopes.len() > 1).into()..];
            let lag = logs.iter().map(Scope::lag).fold(0.0, f64::max);
            let ages = logs.iter().map(|scope| {
                let written = scope.checkpoint_written.unwrap_or(scope.since);
                written.elapsed().as_secs_f64()
            });
            let in_flight: usize = logs.iter().map(|scope| scope.in_flight_bytes).sum();
            self.inner.lag.set(lag);
            self.inner.checkpoint_age.set(ages.fold(0.0, f64::max));
            self.inner
                .in_flight
                .set(i64::try_from(in_flight).unwrap_or(i64::MAX));
        }
        let unready = self.unready();
        for part in Part::ALL.map(Part::name) {
            let ready = i64::from(!unready.contains_key(part));
            let labels = vec![("part", part.to_owned())];
            self.inner.ready.get_or_create(&labels).set(ready);
        }
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut text, &self.inner.registry);
        text
    }

    /// Changes the state of whoever this is.
    fn own<T>(&self, change: impl FnOnce(&mut Scope) -> T) -> T {
        let mut state = self.state();
        // Scopes are never taken away.
        let scope = self.scope.min(state.scopes.len() - 1);
        change(&mut state.scopes[scope])
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Registers a metric; the encoder adds a counter's ending by itself.
fn add(registry: &mut Registry, metric: &Metric, value: impl prometheus_client::registry::Metric) {
    registry.register(metric.name.trim_end_matches("_total"), metric.about, value);
}

impl Observer for Telemetry {
    fn received(&mut self, records: u64) {
        Telemetry::received(self, records);
    }

    fn delivered(&mut self, events: u64, truncated: u64, newest: Option<Timestamp>) {
        Telemetry::delivered(self, events, truncated, newest);
    }

    fn skipped(&mut self, reason: Skip) {
        Telemetry::skipped(self, reason);
    }

    fn reject(&mut self, origin: &Origin, reason: Reject, error: &str) {
        self.dead_lettered(origin, reason, error);
    }

    fn problem(&mut self, problem: &Problem) {
        tracing::error!(
            place = problem.place,
            error = problem.error,
            "not all was read"
        );
    }

    fn checkpoint_written(&mut self) {
        Telemetry::checkpoint_written(self);
    }

    fn turn(&mut self, _: &Tally, doing: &Doing<'_>) {
        self.progress();
        self.in_flight(doing.in_flight_bytes);
        match (
            &doing.delivery.holding,
            doing.delivery.healthy,
            doing.delivery.last_accepted,
        ) {
            (Some(hold), _, _) => {
                self.not_ready(Part::Webhook, format!("{}; {}", hold.detail, hold.remedy));
            }
            (None, false, _) => {
                self.not_ready(
                    Part::Webhook,
                    "requests fail and are tried again, see the log",
                );
            }
            (None, true, Some(_)) => {
                self.ready(Part::Webhook);
                self.process().ready(Part::Webhook);
            }
            // Nothing was sent yet: whoever starts the run asks the webhook first.
            (None, true, None) => {}
        }
        match doing.keeping {
            Some(why) => self.not_ready(Part::Checkpoint, why),
            None => self.ready(Part::Checkpoint),
        }
    }
}

fn count(family: &Family<Labels, Counter>, label: &'static str, value: &str) {
    family.get_or_create(&vec![(label, value.to_owned())]).inc();
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::names::{ALL, Kind};
    use super::*;

    /// Everything happens once.
    fn busy() -> Telemetry {
        let telemetry = Telemetry::new("eks-audit-bridge", "1.2.3");
        telemetry.received(3);
        telemetry.delivered(2, 1, Some(Timestamp::now()));
        telemetry.skipped(Skip::OtherStream);
        let origin = Origin::Stream {
            stream: "s".into(),
            id: "i".to_owned(),
        };
        telemetry.dead_lettered(&origin, Reject::Refused, "no");
        telemetry.late("2m", 4);
        telemetry.webhook_request("200", 0.02);
        telemetry.source_request("ok");
        telemetry.source_throttled();
        telemetry.in_flight(77);
        telemetry
    }

    #[test]
    fn what_is_documented_is_exported_and_nothing_else() {
        let text = busy().render();
        let exported: BTreeSet<(String, String)> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE "))
            .filter_map(|line| line.split_once(' '))
            .map(|(name, kind)| {
                let ending = if kind == "counter" { "_total" } else { "" };
                (format!("{name}{ending}"), kind.to_owned())
            })
            .collect();
        let documented = ALL
            .iter()
            .map(|metric| {
                let kind = match metric.kind {
                    Kind::Counter => "counter",
                    Kind::Gauge => "gauge",
                    Kind::Histogram => "histogram",
                };
                (metric.name.to_owned(), kind.to_owned())
            })
            .collect();
        assert_eq!(exported, documented);
        for metric in ALL {
            assert_eq!(
                metric.kind == Kind::Counter,
                metric.name.ends_with("_total")
            );
            assert!(metric.name.starts_with(names::PREFIX));
            let sample = text
                .lines()
                .find(|line| line.starts_with(metric.name) && !line.starts_with('#'))
                .unwrap_or_else(|| panic!("{} has no sample", metric.name));
            for label in metric.labels {
                assert!(
                    sample.contains(&format!("{label}=\"")),
                    "{sample} has {label}"
                );
            }
        }
        for line in [
            "audit_bridge_records_received_total 3",
            "audit_bridge_events_delivered_total 2",
            "audit_bridge_records_skipped_total{reason=\"other_stream\"} 1",
            "audit_bridge_records_dead_lettered_total{reason=\"refused\"} 1",
            "audit_bridge_late_records_total{age=\"2m\"} 4",
            "audit_bridge_webhook_requests_total{status=\"200\"} 1",
            "audit_bridge_in_flight_bytes 77",
            "audit_bridge_build_info{bridge=\"eks-audit-bridge\",version=\"1.2.3\"} 1",
        ] {
            assert!(text.lines().any(|got| got == line), "{line} in\n{text}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn lag_is_zero_once_there_is_nothing_more() {
        let telemetry = Telemetry::new("b", "1");
        let hour_ago = Timestamp::now() - jiff::SignedDuration::from_hours(1);
        telemetry.delivered(1, 0, Some(hour_ago));
        let lag = |telemetry: &Telemetry| -> f64 {
            let text = telemetry.render();
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix("audit_bridge_lag_seconds "));
            line.unwrap().parse().unwrap()
        };
        assert!(lag(&telemetry) >= 3600.0);
        telemetry.drained(true);
        assert!(lag(&telemetry).abs() < f64::EPSILON);
    }

    #[tokio::test(start_paused = true)]
    async fn readiness_names_what_is_missing_and_liveness_the_silence() {
        let telemetry = Telemetry::new("b", "1");
        assert_eq!(telemetry.unready().len(), 4);
        for part in Part::ALL {
            telemetry.ready(part);
        }
        assert!(telemetry.unready().is_empty());
        telemetry.not_ready(Part::Webhook, "401: renew the token");
        assert_eq!(
            telemetry.unready().into_iter().collect::<Vec<_>>(),
            [("webhook", "401: renew the token".to_owned())]
        );
        telemetry.ready(Part::Webhook);

        let log = telemetry.log("l");
        assert_eq!(
            telemetry.unready().len(),
            2,
            "source and checkpoint of the log"
        );
        telemetry.standby(Some("another"));
        assert!(telemetry.unready().is_empty());
        telemetry.standby(None);

        tokio::time::advance(Duration::from_secs(61)).await;
        assert_eq!(telemetry.stuck(), None, "no loop runs");
        log.progress();
        tokio::time::advance(Duration::from_secs(61)).await;
        assert!(telemetry.stuck().is_some());
        log.progress();
        assert_eq!(telemetry.stuck(), None);
        log.ended();
        tokio::time::advance(Duration::from_secs(61)).await;
        assert_eq!(telemetry.stuck(), None);
    }
}
