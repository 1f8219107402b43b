//! The metrics themselves, each registered as it is made.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::names::{self, Metric};

/// Upper bounds of the duration histogram, in seconds.
const DURATION_BUCKETS: [f64; 10] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 10.0];

type Labels = Vec<(&'static str, String)>;
type Counters = Family<Labels, Counter>;
type Gauges = Family<Labels, Gauge>;
type Seconds = Gauge<f64, AtomicU64>;
type SecondsOf = Family<Labels, Seconds>;

/// One of each of [`names`].
#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    pub(super) records_received: Counter,
    pub(super) events_delivered: Counter,
    pub(super) records_skipped: Counters,
    pub(super) records_dead_lettered: Counters,
    pub(super) dead_letter_bytes: Gauge,
    pub(super) dead_letter_payloads_dropped: Counter,
    pub(super) events_truncated: Counter,
    pub(super) events_shortened: Counters,
    pub(super) events_repaired: Counters,
    pub(super) late_records: Counters,
    pub(super) webhook_requests: Counters,
    pub(super) webhook_request_duration: Histogram,
    pub(super) source_requests: Counters,
    pub(super) source_throttled: Counter,
    pub(super) records_expired: Counter,
    pub(super) gaps_suspected: Counter,
    pub(super) ready: Gauges,
    pub(super) active_logs: Gauge,
    pub(super) leader: Gauge,
    pub(super) lag: Seconds,
    pub(super) silence: SecondsOf,
    pub(super) silence_max: Seconds,
    pub(super) checkpoint_age: Seconds,
    pub(super) in_flight: Gauge,
    pub(super) parked_events: Gauge,
    pub(super) parked_bytes: Gauge,
    pub(super) oldest_parked: Seconds,
}

impl Metrics {
    /// All at zero, but for what the process is.
    pub(super) fn new(bridge: &'static str, version: &'static str) -> Metrics {
        let mut registry = Registry::default();
        let new = &mut registry;
        let metrics = Metrics {
            records_received: made(new, &names::RECORDS_RECEIVED, Counter::default()),
            events_delivered: made(new, &names::EVENTS_DELIVERED, Counter::default()),
            records_skipped: made(new, &names::RECORDS_SKIPPED, Counters::default()),
            records_dead_lettered: made(new, &names::RECORDS_DEAD_LETTERED, Counters::default()),
            dead_letter_bytes: made(new, &names::DEAD_LETTER_BYTES, Gauge::default()),
            dead_letter_payloads_dropped: made(
                new,
                &names::DEAD_LETTER_PAYLOADS_DROPPED,
                Counter::default(),
            ),
            events_truncated: made(new, &names::EVENTS_TRUNCATED, Counter::default()),
            events_shortened: made(new, &names::EVENTS_SHORTENED, Counters::default()),
            events_repaired: made(new, &names::EVENTS_REPAIRED, Counters::default()),
            late_records: made(new, &names::LATE_RECORDS, Counters::default()),
            webhook_requests: made(new, &names::WEBHOOK_REQUESTS, Counters::default()),
            webhook_request_duration: made(
                new,
                &names::WEBHOOK_REQUEST_DURATION,
                Histogram::new(DURATION_BUCKETS),
            ),
            source_requests: made(new, &names::SOURCE_REQUESTS, Counters::default()),
            source_throttled: made(new, &names::SOURCE_THROTTLED, Counter::default()),
            records_expired: made(new, &names::RECORDS_EXPIRED, Counter::default()),
            gaps_suspected: made(new, &names::GAPS_SUSPECTED, Counter::default()),
            ready: made(new, &names::READY, Gauges::default()),
            active_logs: made(new, &names::ACTIVE_LOGS, Gauge::default()),
            leader: made(new, &names::LEADER, Gauge::default()),
            lag: made(new, &names::LAG, Seconds::default()),
            silence: made(new, &names::SILENCE, SecondsOf::default()),
            silence_max: made(new, &names::SILENCE_MAX, Seconds::default()),
            checkpoint_age: made(new, &names::CHECKPOINT_AGE, Seconds::default()),
            in_flight: made(new, &names::IN_FLIGHT, Gauge::default()),
            parked_events: made(new, &names::PARKED_EVENTS, Gauge::default()),
            parked_bytes: made(new, &names::PARKED_BYTES, Gauge::default()),
            oldest_parked: made(new, &names::OLDEST_PARKED, Seconds::default()),
            registry: Registry::default(),
        };
        let build_info = made(new, &names::BUILD_INFO, Gauges::default());
        let bridge = ("bridge", bridge.to_owned());
        let version = ("version", version.to_owned());
        build_info.get_or_create(&vec![bridge, version]).set(1);
        metrics.leader.set(1);
        Metrics {
            registry,
            ..metrics
        }
    }

    /// The text format of Prometheus (OpenMetrics 1.0).
    pub(super) fn render(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

/// Registers a metric; the encoder adds a counter's ending by itself.
fn made<M>(registry: &mut Registry, metric: &Metric, value: M) -> M
where
    M: prometheus_client::registry::Metric + Clone,
{
    let name = metric.name.trim_end_matches("_total");
    registry.register(name, metric.about, value.clone());
    value
}

/// One more with this label.
pub(super) fn count(family: &Counters, label: &'static str, value: &str) {
    count_many(family, label, value, 1);
}

/// Adds to the counter of this label.
pub(super) fn count_many(family: &Counters, label: &'static str, value: &str, many: u64) {
    let labels = vec![(label, value.to_owned())];
    family.get_or_create(&labels).inc_by(many);
}
