//! Follows an observer's decision on an event: deliver it, deliver it and report its end, or leave
//! it out. Its record ends once in any case.

#![allow(clippy::unwrap_used, reason = "a test may stop at once")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use audit_bridge_core::batch::BatchLimits;
use audit_bridge_core::checkpoint::FileStore;
use audit_bridge_core::convert::{Convert, Output, RecordId, Skip};
use audit_bridge_core::event::Event;
use audit_bridge_core::event::conformance::EventOptions;
use audit_bridge_core::observer::{EventHandling, Observer};
use audit_bridge_core::read_budget::ReadBudget;
use audit_bridge_core::record::{Origin, Record};
use audit_bridge_core::run::{Ended, Pipeline, RetryPolicy, run};
use audit_bridge_core::sink::{Cause, RequestFailure, Sink, Verdict};
use audit_bridge_core::source::{Page, Source};
use tokio_util::sync::CancellationToken;

const LEFT_OUT: Skip = Skip::new("left_out");

/// A source of these records.
struct Records(Vec<Page<u64>>);

impl Source for Records {
    type Position = u64;

    async fn read(&mut self) -> Option<Page<u64>> {
        self.0.pop()
    }
}

struct Native;

impl Convert for Native {
    fn convert(&mut self, id: RecordId, record: &Record, out: &mut Output) {
        let event = EventOptions::default().event(&record.payload, true, None);
        out.settle(id, record, event);
    }
}

/// Refuses every body that contains the event `bad`.
#[derive(Clone, Default)]
struct Receiver(Arc<Mutex<Vec<String>>>);

fn name_of(event: &Event) -> String {
    let json: serde_json::Value = serde_json::from_slice(event.text()).unwrap();
    json["auditID"].as_str().unwrap().to_owned()
}

impl Sink for Receiver {
    async fn send(&self, events: &[Event]) -> Verdict {
        let names: Vec<String> = events.iter().map(name_of).collect();
        if names.iter().any(|name| name == "bad") {
            return Verdict::Failed(RequestFailure {
                cause: Cause::Status(400),
                detail: "no".to_owned(),
                remedy: None,
                after: None,
            });
        }
        self.0.lock().unwrap().extend(names);
        Verdict::Accepted { status: 200 }
    }
}

/// Follows and leaves out events by their names.
#[derive(Default)]
struct Watcher {
    ended: Vec<(u64, bool)>,
    skipped: Vec<&'static str>,
}

impl Observer for Watcher {
    fn inspect(&mut self, event: &Event) -> EventHandling {
        match name_of(event).as_str() {
            "good" => EventHandling::Follow(7),
            "bad" => EventHandling::Follow(8),
            "out" => EventHandling::Skip(LEFT_OUT),
            _ => EventHandling::Deliver,
        }
    }

    fn followed(&mut self, number: u64, accepted: bool) {
        self.ended.push((number, accepted));
    }

    fn skipped(&mut self, reason: Skip) {
        self.skipped.push(reason.name());
    }
}

fn record(number: usize, name: &str) -> Record {
    let origin = Origin::Stream {
        stream: "s".into(),
        id: number.to_string(),
    };
    let event = format!(
        r#"{{"auditID":"{name}","stage":"ResponseComplete","verb":"get","stageTimestamp":"2026-11-21T00:00:00.000000Z"}}"#
    );
    Record::new(event, origin)
}

#[tokio::test(start_paused = true)]
async fn event_followed_or_left_out_ends_once_and_its_neighbours_are_untouched() {
    let names = ["a", "good", "out", "b", "bad", "c", "good"];
    let records = names.iter().enumerate();
    let page = Page {
        records: records.map(|(n, name)| record(n, name)).collect(),
        ..Page::default()
    };
    let receiver = Receiver::default();
    let outcome = run(Pipeline {
        source: Records(vec![page]),
        converter: Native,
        sink: receiver.clone(),
        dead_letter: None,
        checkpoint: None::<audit_bridge_core::checkpoint::Checkpointer<FileStore, u64>>,
        lease_hold: None,
        observer: Watcher::default(),
        on_request: Box::new(|_, _| {}),
        batch: BatchLimits::default(),
        in_flight_batches_max: 2,
        in_flight_bytes: ReadBudget::new(1 << 20),
        retry_policy: RetryPolicy::GiveUpAfter(Duration::from_secs(300)),
        stop: CancellationToken::new(),
        grace: Duration::from_secs(1),
    })
    .await;
    assert_eq!(outcome.ended, Ended::Done, "every record ended");
    let mut accepted = receiver.0.lock().unwrap().clone();
    accepted.sort();
    assert_eq!(accepted, ["a", "b", "c", "good", "good"]);
    let mut ended = outcome.observer.ended;
    ended.sort_unstable();
    assert_eq!(ended, [(7, true), (7, true), (8, false)]);
    assert_eq!(outcome.observer.skipped, ["left_out"]);
    assert_eq!(outcome.stats.events, 5);
}
