//! Pipelines that share a read budget together hold no more than it while nothing is accepted; all
//! of them make progress, and everything is delivered eventually.

#![allow(clippy::unwrap_used, reason = "a test may stop at once")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use audit_bridge_core::batch::BatchLimits;
use audit_bridge_core::checkpoint::FileStore;
use audit_bridge_core::convert::{Convert, Output, RecordId};
use audit_bridge_core::event::Event;
use audit_bridge_core::event::conformance::EventOptions;
use audit_bridge_core::observer::{Observer, Progress};
use audit_bridge_core::read_budget::ReadBudget;
use audit_bridge_core::record::{Origin, Record};
use audit_bridge_core::run::{Ended, Pipeline, RetryPolicy, run};
use audit_bridge_core::run_stats::RunStats;
use audit_bridge_core::sink::{Cause, RequestFailure, Sink, Verdict};
use audit_bridge_core::source::{Page, Source};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

const PIPELINES: usize = 16;
const RECORDS: usize = 300;
const BYTES_MAX: usize = 40_000;
/// A record with its overhead, and its event.
const PAGE_BYTES: usize = 2 * 600 + 256;

fn record(id: &str, verb: &str) -> Record {
    let padding = "x".repeat(450);
    let event = format!(
        r#"{{"auditID":"a","stage":"ResponseComplete","verb":"{verb}","padding":"{padding}","stageTimestamp":"2026-11-21T00:00:00.000000Z"}}"#
    );
    let origin = Origin::Stream {
        stream: "s".into(),
        id: id.to_owned(),
    };
    Record::new(event, origin)
}

/// A source with one record per page.
struct Records(usize);

impl Source for Records {
    type Position = u64;

    async fn read(&mut self) -> Option<Page<u64>> {
        self.0 = self.0.checked_sub(1)?;
        Some(Page {
            records: vec![record(&self.0.to_string(), "get")],
            ..Page::default()
        })
    }
}

/// The same behind a page with an event that is never accepted.
struct Poisoned {
    begun: bool,
    rest: Records,
}

impl Source for Poisoned {
    type Position = u64;

    async fn read(&mut self) -> Option<Page<u64>> {
        if std::mem::replace(&mut self.begun, true) {
            return self.rest.read().await;
        }
        Some(Page {
            records: [("a", "get"), ("b", "poison"), ("c", "get")]
                .map(|(id, verb)| record(id, verb))
                .into(),
            ..Page::default()
        })
    }
}

/// Accepts all but poison.
struct Choosy(Arc<AtomicUsize>);

impl Sink for Choosy {
    async fn send(&self, events: &[Event]) -> Verdict {
        let is_poison = |event: &Event| event.text().windows(6).any(|part| part == b"poison");
        if events.iter().any(is_poison) {
            return Verdict::Failed(RequestFailure {
                cause: Cause::Status(500),
                detail: "500".to_owned(),
                remedy: None,
                after: None,
            });
        }
        self.0.fetch_add(events.len(), Ordering::Relaxed);
        Verdict::Accepted { status: 200 }
    }
}

struct Native;

impl Convert for Native {
    fn convert(&mut self, id: RecordId, record: &Record, out: &mut Output) {
        let event = EventOptions::default().event(&record.payload, true, None);
        out.settle(id, record, event);
    }
}

/// Accepts nothing until it is opened.
struct Gate {
    opened: watch::Receiver<bool>,
    accepted: Arc<AtomicUsize>,
}

impl Sink for Gate {
    async fn send(&self, events: &[Event]) -> Verdict {
        let _ = self.opened.clone().wait_for(|opened| *opened).await;
        self.accepted.fetch_add(events.len(), Ordering::Relaxed);
        Verdict::Accepted { status: 200 }
    }
}

/// Reports what its pipeline holds.
struct Held(Arc<AtomicUsize>);

impl Observer for Held {
    fn progressed(&mut self, _: &RunStats, progress: &Progress<'_>) {
        self.0.store(progress.in_flight_bytes, Ordering::Relaxed);
    }
}

/// A pipeline of a process whose pipelines share this budget.
fn pipeline<Src: Source, Snk>(
    source: Src,
    sink: Snk,
    observer: Held,
    budget: &ReadBudget,
) -> Pipeline<Src, Native, Snk, FileStore, Held> {
    Pipeline {
        source,
        converter: Native,
        sink,
        dead_letter: None,
        checkpoint: None,
        lease_hold: None,
        observer,
        on_request: Box::new(|_, _| {}),
        batch: BatchLimits::default(),
        in_flight_batches_max: 2,
        in_flight_bytes: budget.clone(),
        retry_policy: RetryPolicy::Forever,
        stop: CancellationToken::new(),
        grace: Duration::from_secs(1),
    }
}

#[tokio::test(start_paused = true)]
async fn pipelines_sharing_a_budget_hold_no_more_than_it_and_all_go_on() {
    let (open, opened) = watch::channel(false);
    let accepted = Arc::new(AtomicUsize::new(0));
    let budget = ReadBudget::new(BYTES_MAX);
    let held: Vec<_> = (0..PIPELINES)
        .map(|_| Arc::new(AtomicUsize::new(0)))
        .collect();
    let running: Vec<_> = held
        .iter()
        .map(|held| {
            let sink = Gate {
                opened: opened.clone(),
                accepted: Arc::clone(&accepted),
            };
            let held = Held(Arc::clone(held));
            tokio::spawn(run(pipeline(Records(RECORDS), sink, held, &budget)))
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(10)).await;
    let all: Vec<usize> = held.iter().map(|it| it.load(Ordering::Relaxed)).collect();
    let sum: usize = all.iter().sum();
    assert!(
        all.iter().all(|&bytes| bytes > 0),
        "none is left out: {all:?}"
    );
    assert!(sum >= BYTES_MAX, "{all:?}");
    // A pipeline that holds nothing may read a page, whatever the others hold.
    assert!(sum <= BYTES_MAX + PIPELINES * PAGE_BYTES, "{all:?}");
    open.send_replace(true);
    for pipeline in running {
        assert_eq!(pipeline.await.unwrap().ended, Ended::Done);
    }
    assert_eq!(accepted.load(Ordering::Relaxed), PIPELINES * RECORDS);
}

/// Who else holds the budget may never give it back.
#[tokio::test(start_paused = true)]
async fn pipeline_with_a_parked_event_goes_on_while_others_hold_the_budget() {
    let accepted = Arc::new(AtomicUsize::new(0));
    let budget = ReadBudget::new(BYTES_MAX);
    let _others = budget.hold(BYTES_MAX);
    let source = Poisoned {
        begun: false,
        rest: Records(RECORDS),
    };
    let sink = Choosy(Arc::clone(&accepted));
    let outcome = run(pipeline(source, sink, Held(Arc::default()), &budget));
    let outcome = tokio::time::timeout(Duration::from_secs(3600), outcome).await;
    assert_eq!(accepted.load(Ordering::Relaxed), RECORDS + 2);
    assert_eq!(outcome.unwrap().ended, Ended::Done);
}
