//! A log is read to its end, but its last checkpoint cannot be written: the run must not report the
//! end as saved.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use audit_bridge_core::batch::BatchLimits;
use audit_bridge_core::checkpoint::{Checkpoint, Checkpointer, Owner, Store, StoreError};
use audit_bridge_core::convert::{Convert, Output, RecordId};
use audit_bridge_core::event::Event;
use audit_bridge_core::observer::Observer;
use audit_bridge_core::read_budget::ReadBudget;
use audit_bridge_core::record::Record;
use audit_bridge_core::run::{Ended, Pipeline, RetryPolicy, run};
use audit_bridge_core::sink::{Sink, Verdict};
use audit_bridge_core::source::{Page, Source};
use tokio_util::sync::CancellationToken;

/// A source of these pages; once it ends, the store fails.
struct Ending {
    pages: Vec<Page<u64>>,
    failures: Failures,
    /// Number of failures to set then.
    then: usize,
}

/// How many more writes of the store fail.
type Failures = Arc<AtomicUsize>;

impl Source for Ending {
    type Position = u64;

    async fn read(&mut self) -> Option<Page<u64>> {
        let page = self.pages.pop();
        if page.is_none() {
            self.failures.store(self.then, Ordering::Relaxed);
        }
        page
    }
}

/// Converts, delivers and reports nothing.
struct Nothing;

impl Convert for Nothing {
    fn convert(&mut self, _: RecordId, _: &Record, _: &mut Output) {}
}

impl Sink for Nothing {
    async fn send(&self, _: &[Event]) -> Verdict {
        Verdict::Accepted { status: 200 }
    }
}

impl Observer for Nothing {}

struct Failing(Failures);

impl Store for Failing {
    async fn load(&mut self) -> Result<Option<Checkpoint>, StoreError> {
        Ok(None)
    }

    async fn save(&mut self, _: &Checkpoint) -> Result<(), StoreError> {
        let left = |left: usize| left.checked_sub(1);
        match self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, left)
        {
            Err(_) => Ok(()),
            Ok(_) => Err(StoreError::Unavailable {
                place: "/state".to_owned(),
                problem: "cannot be written".to_owned(),
                remedy: "make room".to_owned(),
                source: None,
            }),
        }
    }
}

async fn ended(failures: usize) -> Ended {
    let owner = Owner {
        provider: "eks".to_owned(),
        source: "shard".to_owned(),
    };
    let page = |position| Page {
        position: Some(position),
        ..Page::default()
    };
    let store = Failures::default();
    let pipeline = Pipeline {
        source: Ending {
            // The first is saved at once, the other waits for the interval.
            pages: vec![page(7), page(1)],
            failures: Arc::clone(&store),
            then: failures,
        },
        converter: Nothing,
        sink: Nothing,
        dead_letter: None,
        checkpoint: Some(Checkpointer::new(
            Failing(store),
            owner,
            None,
            Duration::from_secs(1),
        )),
        lease_hold: None,
        observer: Nothing,
        on_request: Box::new(|_, _| {}),
        batch: BatchLimits::default(),
        in_flight_batches_max: 1,
        in_flight_bytes: ReadBudget::new(1 << 20),
        retry_policy: RetryPolicy::Forever,
        stop: CancellationToken::new(),
        grace: Duration::from_secs(25),
    };
    run(pipeline).await.ended
}

#[tokio::test(start_paused = true)]
async fn end_that_the_checkpoint_never_holds_is_told_as_unsaved() {
    assert_eq!(ended(0).await, Ended::Done);
    assert_eq!(ended(2).await, Ended::Done, "it was tried again");
    let Ended::Unsaved(why) = ended(usize::MAX).await else {
        unreachable!("it is not kept");
    };
    assert!(why.contains("/state") && why.contains("make room"), "{why}");
}
