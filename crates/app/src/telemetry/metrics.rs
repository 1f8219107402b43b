//! The list of all metrics with type, name, labels and meaning. The registry is built from it, so a
//! metric that is not listed here does not exist.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
#[cfg(test)]
use prometheus_client::metrics::{MetricType, TypedMetric};
use prometheus_client::registry::{self, Registry};

/// Upper bounds of the request duration histogram, in seconds.
const DURATION_BUCKETS: [f64; 10] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 10.0];

/// Upper bounds of the canary histogram, in seconds: a provider alone takes seconds to minutes.
const CANARY_BUCKETS: [f64; 12] = [
    0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0,
];

type Labels = Vec<(&'static str, String)>;
// A counter only grows and starts at 0 with the process; its name ends in `_total`.
type Counters = Family<Labels, Counter>;
type Gauges = Family<Labels, Gauge>;
type Seconds = Gauge<f64, AtomicU64>;
type SecondsOf = Family<Labels, Seconds>;

/// A metric's declaration, for tests.
#[cfg(test)]
#[derive(Debug, Clone, Copy)]
pub(super) struct Declared {
    /// Its full name in `/metrics`.
    pub(super) name: &'static str,
    /// What its values mean over time.
    pub(super) kind: MetricType,
    /// Its labels; their values are bounded.
    pub(super) labels: &'static [&'static str],
}

macro_rules! metrics {
    ($($field:ident: $type:ty = $name:literal, [$($label:literal),*], $about:literal;)*) => {
        /// One of each.
        #[derive(Debug)]
        pub(super) struct Metrics {
            registry: Registry,
            $(#[doc = $about] pub(super) $field: $type,)*
        }

        impl Metrics {
            fn registered() -> Metrics {
                let mut registry = Registry::default();
                Metrics {
                    $($field: made(
                        &mut registry,
                        concat!("audit_bridge_", $name),
                        $about,
                        <$type as Made>::made($name),
                    ),)*
                    registry,
                }
            }
        }

        #[cfg(test)]
        pub(super) const ALL: &[Declared] = &[$(Declared {
            name: concat!("audit_bridge_", $name),
            kind: <$type as TypedMetric>::TYPE,
            labels: &[$($label),*],
        }),*];
    };
}

metrics! {
    records_received: Counter = "records_received_total", [],
        "Provider records read";
    events_delivered: Counter = "events_delivered_total", [],
        "Events that the webhook accepted";
    records_skipped: Counters = "records_skipped_total", ["reason"],
        "Records that are not for this bridge";
    records_dead_lettered: Counters = "records_dead_lettered_total", ["reason"],
        "Records and events kept in the dead letter";
    dead_letter_bytes: Gauge = "dead_letter_bytes", [],
        "Bytes of the dead letter, all its files together";
    dead_letter_payloads_dropped: Counter = "dead_letter_payloads_dropped_total", [],
        "Payloads of which the full dead letter kept only the beginning, or the line about it";
    events_truncated: Counter = "events_truncated_total", [],
        "Delivered events that carry the mark audit.k8s.io/truncated";
    events_shortened: Counters = "events_shortened_total", ["what"],
        "Events of which something is missing, by what: an event that lacks several things counts for each";
    events_repaired: Counters = "events_repaired_total", ["what"],
        "Events in which something was mended so that receivers take them, by what";
    late_records: Counters = "late_records_total", ["age"],
        "Records that only an older cursor of the tail found, by that cursor's age";
    webhook_requests: Counters = "webhook_requests_total", ["status"],
        "Requests to the webhook, by the answer's status or by connect, timeout, tls, dns, error";
    webhook_request_duration: Histogram = "webhook_request_duration_seconds", [],
        "How long requests to the webhook took, in seconds";
    source_requests: Counters = "source_requests_total", ["status"],
        "Requests to the provider, by outcome";
    source_throttled: Counter = "source_throttled_total", [],
        "Requests that the provider throttled";
    records_expired: Counter = "records_expired_total", [],
        "Records that the provider had deleted before they were read: an expired position";
    gaps_suspected: Counter = "gaps_suspected_total", [],
        "Times for which a log that was busy has no events: the API server was silent, what feeds the log skipped them, or it goes on in another place (failover)";
    ready: Gauges = "ready", ["part"],
        "1 when this part works: identity, source, checkpoint, webhook, progress; 0 when /readyz says why it does not";
    active_logs: Gauge = "active_logs", [],
        "Logs that this process reads now: log groups, clusters, event hubs, or partitions of one that replicas share";
    leader: Gauge = "leader", [],
        "1 when this process reads, 0 while it waits for the Lease";
    lag: Seconds = "lag_seconds", [],
        "Seconds from the settled frontier to now: from the time of the oldest record that is read and not settled, else from the last answer that there is nothing more; 0 while that answer is fresh, the largest of all logs";
    silence: SecondsOf = "silence_seconds", ["log"],
        "Seconds without the arrival of an audit record, up to the last time that the head of the log could be read; for at most 1000 logs";
    silence_max: Seconds = "silence_max_seconds", [],
        "Silence for longer than so many seconds is warned about (--silence-max); 0 when it is not";
    checkpoint_age: Seconds = "checkpoint_age_seconds", [],
        "Seconds since the checkpoint was last written";
    in_flight: Gauge = "in_flight_bytes", [],
        "Bytes of records that are read and not yet settled";
    canary_latency: Histogram = "canary_latency_seconds", [],
        "Seconds from this pod's own request to the API server until the webhook had accepted its audit event, with --canary-interval";
    canaries_lost: Counters = "canary_lost_total", ["leg"],
        "Own requests whose audit event did not arrive within --canary-wait-max, by the leg of the way that is silent";
    canaries_unverified: Gauge = "canary_unverified", [],
        "1 while audit events come and no canary has ever arrived: the log may be another cluster's";
    canary_requests: Counters = "canary_requests_total", ["status"],
        "Own requests to the API server as canaries, by its answer";
    parked_events: Gauge = "parked_events", [],
        "Events that the webhook does not take while it takes others: tried again outside the slots";
    parked_bytes: Gauge = "parked_bytes", [],
        "Bytes of parked events, or of their records where those are more; above 8 MiB the oldest goes to the dead letter";
    oldest_parked: Seconds = "oldest_parked_seconds", [],
        "Seconds since the oldest parked event first failed alone; 0 when none is parked";
    build_info: Gauges = "build_info", ["bridge", "version"],
        "Always 1; which bridge this is";
}

impl Metrics {
    /// All metrics at zero, except build information.
    pub(super) fn new(bridge: &'static str, version: &'static str) -> Metrics {
        let metrics = Metrics::registered();
        let bridge = ("bridge", bridge.to_owned());
        let version = ("version", version.to_owned());
        let build_info = &metrics.build_info;
        build_info.get_or_create(&vec![bridge, version]).set(1);
        metrics.leader.set(1);
        metrics
    }

    /// The text format of Prometheus (OpenMetrics 1.0).
    pub(super) fn render(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

/// The initial value of a metric.
trait Made {
    fn made(name: &str) -> Self;
}

impl Made for Counter {
    fn made(_: &str) -> Counter {
        Counter::default()
    }
}

impl Made for Gauge {
    fn made(_: &str) -> Gauge {
        Gauge::default()
    }
}

impl Made for Seconds {
    fn made(_: &str) -> Seconds {
        Seconds::default()
    }
}

impl Made for Histogram {
    fn made(name: &str) -> Histogram {
        match name {
            "canary_latency_seconds" => Histogram::new(CANARY_BUCKETS),
            _ => Histogram::new(DURATION_BUCKETS),
        }
    }
}

impl<M: Default> Made for Family<Labels, M> {
    fn made(_: &str) -> Family<Labels, M> {
        Family::default()
    }
}

/// Registers a metric; the encoder appends a counter's suffix.
fn made<M>(registry: &mut Registry, name: &str, about: &str, value: M) -> M
where
    M: registry::Metric + Clone,
{
    registry.register(name.trim_end_matches("_total"), about, value.clone());
    value
}

/// Increments the counter with this label.
pub(super) fn count(family: &Counters, label: &'static str, value: &str) {
    count_many(family, label, value, 1);
}

/// Adds to the counter with this label.
pub(super) fn count_many(family: &Counters, label: &'static str, value: &str, many: u64) {
    let labels = vec![(label, value.to_owned())];
    family.get_or_create(&labels).inc_by(many);
}
