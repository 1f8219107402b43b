//! Every metric: its name, unit, labels and meaning. The registry is built from this list, so a
//! metric that is not here does not exist, and one that is not registered does not compile.

/// What a metric's value means over time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MetricKind {
    /// Only grows; starts at 0 with the process. Its name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts observations by size.
    Histogram,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Metric {
    /// Its full name in `/metrics`.
    pub name: &'static str,
    pub kind: MetricKind,
    /// Its labels; their values are bounded.
    pub labels: &'static [&'static str],
    /// What it counts or measures, for a person.
    pub about: &'static str,
}

macro_rules! metrics {
    ($($constant:ident = $name:literal, $kind:ident, [$($label:literal),*], $about:literal;)*) => {
        $(
            #[doc = $about]
            pub(crate) const $constant: Metric = Metric {
                name: concat!("audit_bridge_", $name),
                kind: MetricKind::$kind,
                labels: &[$($label),*],
                about: $about,
            };
        )*
        /// All of them.
        #[cfg(test)]
        pub(crate) const ALL: &[Metric] = &[$($constant),*];
    };
}

metrics! {
    RECORDS_RECEIVED = "records_received_total", Counter, [],
        "Provider records read";
    EVENTS_DELIVERED = "events_delivered_total", Counter, [],
        "Events that the webhook accepted";
    RECORDS_SKIPPED = "records_skipped_total", Counter, ["reason"],
        "Records that are not for this bridge";
    RECORDS_DEAD_LETTERED = "records_dead_lettered_total", Counter, ["reason"],
        "Records and events kept in the dead letter";
    DEAD_LETTER_BYTES = "dead_letter_bytes", Gauge, [],
        "Bytes of the dead letter, all its files together";
    DEAD_LETTER_PAYLOADS_DROPPED = "dead_letter_payloads_dropped_total", Counter, [],
        "Payloads of which the full dead letter kept only the beginning, or the line about it";
    EVENTS_TRUNCATED = "events_truncated_total", Counter, [],
        "Delivered events that carry the mark audit.k8s.io/truncated";
    EVENTS_SHORTENED = "events_shortened_total", Counter, ["what"],
        "Events of which something is missing, by what: an event that lacks several things counts for each";
    EVENTS_REPAIRED = "events_repaired_total", Counter, ["what"],
        "Events in which something was mended so that receivers take them, by what";
    LATE_RECORDS = "late_records_total", Counter, ["age"],
        "Records that only an older cursor of the tail found, by that cursor's age";
    WEBHOOK_REQUESTS = "webhook_requests_total", Counter, ["status"],
        "Requests to the webhook, by the answer's status or by connect, timeout, tls, dns, error";
    WEBHOOK_REQUEST_DURATION = "webhook_request_duration_seconds", Histogram, [],
        "How long requests to the webhook took, in seconds";
    SOURCE_REQUESTS = "source_requests_total", Counter, ["status"],
        "Requests to the provider, by outcome";
    SOURCE_THROTTLED = "source_throttled_total", Counter, [],
        "Requests that the provider throttled";
    RECORDS_EXPIRED = "records_expired_total", Counter, [],
        "Records that the provider had deleted before they were read: an expired position";
    GAPS_SUSPECTED = "gaps_suspected_total", Counter, [],
        "Times for which a log that was busy has no events: the API server was silent, or what feeds the log skipped them";
    READY = "ready", Gauge, ["part"],
        "1 when this part works: identity, source, checkpoint, webhook, progress; 0 when /readyz says why it does not";
    ACTIVE_LOGS = "active_logs", Gauge, [],
        "Logs that this process reads now: log groups, clusters, event hubs, or partitions of one that replicas share";
    LEADER = "leader", Gauge, [],
        "1 when this process reads, 0 while it waits for the Lease that another one holds";
    LAG = "lag_seconds", Gauge, [],
        "Seconds from the settled frontier to now: from the time of the oldest record that is read and not settled, else from the last answer that there is nothing more; 0 while that answer is fresh, the largest of all logs";
    SILENCE = "silence_seconds", Gauge, ["log"],
        "Seconds without the arrival of an audit record, up to the last time that the head of the log could be read; for at most 1000 logs";
    SILENCE_MAX = "silence_max_seconds", Gauge, [],
        "Silence for longer than so many seconds is warned about (--silence-max); 0 when it is not";
    CHECKPOINT_AGE = "checkpoint_age_seconds", Gauge, [],
        "Seconds since the checkpoint was last written";
    IN_FLIGHT = "in_flight_bytes", Gauge, [],
        "Bytes of records that are read and not yet settled";
    PARKED_EVENTS = "parked_events", Gauge, [],
        "Events that the webhook does not take while it takes others: tried again outside the slots";
    PARKED_BYTES = "parked_bytes", Gauge, [],
        "Bytes of parked events; above 8 MiB the oldest goes to the dead letter";
    OLDEST_PARKED = "oldest_parked_seconds", Gauge, [],
        "Seconds since the oldest parked event first failed alone; 0 when none is parked";
    BUILD_INFO = "build_info", Gauge, ["bridge", "version"],
        "Always 1; which bridge this is";
}
