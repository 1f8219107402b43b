use std::collections::BTreeSet;

use audit_bridge_core::event::conformance::EventOptions;

use super::health::tests::silent;
use prometheus_client::metrics::MetricType;

use super::metrics::ALL;
use super::*;

/// Telemetry in which everything has happened once.
fn busy() -> Telemetry {
    let telemetry = Telemetry::new("eks-audit-bridge", "1.2.3").log("l");
    telemetry.progress();
    telemetry.log_progress(&silent(7));
    telemetry.received(3);
    telemetry.delivered(2, 1);
    telemetry.skipped(Skip::new("other_stream"));
    let origin = Origin::Stream {
        stream: "s".into(),
        id: "i".to_owned(),
    };
    telemetry.dead_lettered(&origin, Reject::REFUSED, "no");
    let cut = r#"{"auditID":"i","stage":"Panic","verb":"","stageTimestamp":"2026-11-21T00:00:00Z","x":[1"#;
    let event = EventOptions::default()
        .event(&cut.into(), true, None)
        .unwrap();
    telemetry.noted(event.notes());
    telemetry.late("2m", 4);
    telemetry.webhook_request("200", 0.02);
    telemetry.source_request("ok");
    telemetry.source_throttled();
    telemetry.in_flight(77);
    telemetry.begin_canaries(["webhook", "source_silent"]);
    telemetry.canary_requested("ok");
    telemetry.canary_arrived(Duration::from_secs(45), false);
    telemetry.canary_lost("webhook");
    telemetry
}

/// Collects what a test's subscriber writes.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Heard {
    fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn ready_is_logged_once_then_per_recovered_component() {
    let heard = Heard::default();
    let writer = heard.clone();
    // With one subscriber in the process, tracing asks the thread that first meets a place that logs
    // whether anybody listens there. That may be the thread of another test, where nobody does.
    let _another = tracing::Dispatch::new(tracing_subscriber::registry());
    let subscriber = tracing_subscriber::fmt()
        .with_writer(move || writer.clone())
        .with_ansi(false)
        .finish();
    tracing::subscriber::with_default(subscriber, || {
        let process = Telemetry::new("eks-audit-bridge", "1.2.3");
        let log = process.log("a");
        for telemetry in [&process, &log] {
            for component in Component::ALL {
                telemetry.ready(component);
            }
        }
        log.not_ready(Component::Source, "throttled");
        log.ready(Component::Source);
    });
    let text = String::from_utf8(heard.0.lock().unwrap().clone()).unwrap();
    let lines: Vec<_> = text.lines().filter(|line| !line.contains("WARN")).collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(!text.contains("not tried yet"), "{text}");
    assert!(lines[1].contains("throttled"), "{text}");
}

#[test]
fn metrics_exported_are_exactly_those_documented() {
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
        .map(|metric| (metric.name.to_owned(), metric.kind.as_str().to_owned()))
        .collect();
    assert_eq!(exported, documented);
    for metric in ALL {
        assert_eq!(
            matches!(metric.kind, MetricType::Counter),
            metric.name.ends_with("_total")
        );
        assert!(metric.name.starts_with("audit_bridge_"));
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
        "audit_bridge_canary_requests_total{status=\"ok\"} 1",
        "audit_bridge_canary_latency_seconds_bucket{le=\"30.0\"} 0",
        "audit_bridge_canary_latency_seconds_bucket{le=\"60.0\"} 1",
        "audit_bridge_canary_lost_total{leg=\"webhook\"} 1",
        "audit_bridge_canary_lost_total{leg=\"source_silent\"} 0",
        "audit_bridge_silence_seconds{log=\"l\"} 7.0",
        "audit_bridge_build_info{bridge=\"eks-audit-bridge\",version=\"1.2.3\"} 1",
    ] {
        assert!(text.lines().any(|got| got == line), "{line} in\n{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn readyz_names_missing_components_and_livez_a_stuck_loop() {
    let telemetry = Telemetry::new("b", "1");
    assert_eq!(telemetry.unready().len(), 4);
    for component in Component::ALL {
        telemetry.ready(component);
    }
    assert!(telemetry.unready().is_empty());
    telemetry.not_ready(Component::Webhook, "401: renew the token");
    assert_eq!(
        telemetry.unready().into_iter().collect::<Vec<_>>(),
        [("webhook", "401: renew the token".to_owned())]
    );
    telemetry.ready(Component::Webhook);

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
    assert_eq!(telemetry.stuck_for(), None, "no loop runs");
    log.progress();
    tokio::time::advance(Duration::from_secs(61)).await;
    assert!(telemetry.stuck_for().is_some());
    log.progress();
    assert_eq!(telemetry.stuck_for(), None);
    log.ended();
    tokio::time::advance(Duration::from_secs(61)).await;
    assert_eq!(telemetry.stuck_for(), None);
}
