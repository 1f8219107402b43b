//! The log lines of delivery. In its own process, as log levels are cached for all threads.
#![allow(clippy::unwrap_used, reason = "tests, with their helpers")]

use std::borrow::Cow;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use audit_bridge_core::batch::{Batch, Item};
use audit_bridge_core::convert::RecordId;
use audit_bridge_core::deliver::{ConcurrencyLimit, Delivery};
use audit_bridge_core::event::Event;
use audit_bridge_core::event::conformance::EventOptions;
use audit_bridge_core::sink::{Cause, RequestFailure, Sink, Verdict};

/// Collects log lines.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(buffer);
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Unreachable at first, then without permission, then healthy.
#[derive(Default)]
struct Mending(AtomicUsize);

impl Sink for Mending {
    async fn send(&self, _: &[Event]) -> Verdict {
        match self.0.fetch_add(1, Ordering::Relaxed) {
            0..20 => Verdict::Failed(RequestFailure {
                cause: Cause::Status(503),
                detail: "the webhook answered 503".to_owned(),
                remedy: None,
                after: None,
            }),
            20..40 => Verdict::Failed(RequestFailure {
                cause: Cause::Status(401),
                detail: "the webhook answered 401".to_owned(),
                remedy: Some(Cow::Borrowed("check --webhook-token-file")),
                after: None,
            }),
            _ => Verdict::Accepted { status: 200 },
        }
    }
}

#[tokio::test(start_paused = true)]
async fn delivery_log_has_one_line_per_state_change() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::INFO)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let mut delivery = Delivery::new(Mending::default(), ConcurrencyLimit::default(), |_, _| {});
    for id in 0..3 {
        let item = Item::new(event(), RecordId(id));
        delivery.start(Batch::new(vec![item]));
        delivery.next().await;
    }
    while !delivery.is_idle() {
        delivery.next().await;
    }
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert!(lines[0].contains("WARN") && lines[0].contains("503"));
    assert!(lines[1].contains("ERROR") && lines[1].contains("--webhook-token-file"));
    assert!(lines[2].contains("INFO") && lines[2].contains("recovered"));
}

fn event() -> Event {
    let text =
        r#"{"auditID":"i","stage":"Panic","verb":"","stageTimestamp":"2026-11-21T00:00:00Z"}"#;
    EventOptions::default()
        .event(&text.into(), true, None)
        .unwrap()
}
