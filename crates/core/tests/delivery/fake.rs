//! A sink without a network: a function decides, and a log records the requests.

use std::borrow::Cow;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use audit_bridge_core::event::Event;
use audit_bridge_core::sink::{Cause, RequestFailure, Sink, Verdict};
use tokio::time::Instant;

#[derive(Debug, Default)]
pub(crate) struct Log {
    /// The events of each request and when it started, in that order.
    pub(crate) requests: Vec<(Instant, Vec<u64>)>,
    /// When empty lists came, which are no requests here.
    pub(crate) probes: Vec<Instant>,
    pub(crate) accepted: Vec<u64>,
    pub(crate) at_once: usize,
    pub(crate) at_once_max: usize,
}

type Decide = Box<dyn Fn(usize, &[u64], &[Event]) -> (Duration, Verdict) + Send + Sync>;

/// Calls its function for every request, with the request's number from 0, the events' identities,
/// and the events.
pub(crate) struct Fake {
    decide: Decide,
    log: Arc<Mutex<Log>>,
}

impl Fake {
    pub(crate) fn new(
        decide: impl Fn(usize, &[u64], &[Event]) -> (Duration, Verdict) + Send + Sync + 'static,
    ) -> (Fake, Arc<Mutex<Log>>) {
        let log = Arc::new(Mutex::new(Log::default()));
        let fake = Fake {
            decide: Box::new(decide),
            log: Arc::clone(&log),
        };
        (fake, log)
    }

    /// Refuses the events that match `poison`, and accepts all others, at once.
    pub(crate) fn refusing(
        poison: impl Fn(u64) -> bool + Send + Sync + 'static,
    ) -> (Fake, Arc<Mutex<Log>>) {
        Fake::new(move |_, ids, _| {
            let verdict = match ids.iter().any(|id| poison(*id)) {
                true => answered(400),
                false => accepted(),
            };
            (Duration::from_millis(1), verdict)
        })
    }
}

impl Sink for Fake {
    async fn send(&self, events: &[Event]) -> Verdict {
        let ids: Vec<u64> = events.iter().map(id).collect();
        let (delay, verdict) = {
            let mut log = self.log.lock().unwrap();
            let request = log.requests.len();
            if ids.is_empty() {
                log.probes.push(Instant::now());
            } else {
                log.requests.push((Instant::now(), ids.clone()));
                log.at_once += 1;
            }
            log.at_once_max = log.at_once_max.max(log.at_once);
            (self.decide)(request, &ids, events)
        };
        tokio::time::sleep(delay).await;
        let mut log = self.log.lock().unwrap();
        log.at_once -= usize::from(!ids.is_empty());
        if matches!(verdict, Verdict::Accepted { .. }) {
            log.accepted.extend(ids);
        }
        verdict
    }
}

fn id(event: &Event) -> u64 {
    let value: serde_json::Value = serde_json::from_slice(event.text()).unwrap();
    value["auditID"].as_str().unwrap().parse().unwrap()
}

pub(crate) fn accepted() -> Verdict {
    Verdict::Accepted { status: 200 }
}

/// The receiver answers with this status.
pub(crate) fn answered(status: u16) -> Verdict {
    failed(Cause::Status(status))
}

/// The receiver answers with this status, and `Retry-After` of this many seconds.
pub(crate) fn answered_after(status: u16, seconds: u64) -> Verdict {
    match answered(status) {
        Verdict::Failed(failure) => Verdict::Failed(RequestFailure {
            after: Some(Duration::from_secs(seconds)),
            ..failure
        }),
        other => other,
    }
}

pub(crate) fn failed(cause: Cause) -> Verdict {
    let person = matches!(cause, Cause::Status(300..=405 | 413 | 422) | Cause::Tls);
    Verdict::Failed(RequestFailure {
        cause,
        detail: format!("the webhook answered {}", cause.label()),
        remedy: person.then_some(Cow::Borrowed("check --webhook-token-file")),
        after: None,
    })
}
