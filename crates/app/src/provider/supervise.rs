//! A source that never gives up: it opens a log, and reopens it where it stopped when it fails or
//! ends.
//!
//! It resumes behind the last position that was handed out, not the last one that was committed:
//! the pipeline still has the records in flight.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use audit_bridge_core::readiness::{Component, Unavailable};
use audit_bridge_core::retry::Backoff;
use audit_bridge_core::source::{Page, PartitionChange, Position as _, Source};
use tokio::time::{Instant, sleep_until};

use super::{ProviderLog, Resume};

/// A source that ran this long counts as opened successfully.
const STEADY: Duration = Duration::from_secs(60);

type Opening<S> = Pin<Box<dyn Future<Output = Result<S, Unavailable>> + Send>>;

/// A log that is read for ever.
pub(crate) struct Supervised<L: ProviderLog> {
    log: Arc<L>,
    /// Where an earlier run stopped, and since a source has ended, where that one did.
    resume: Resume,
    /// The positions that the current source has handed out.
    handed_out: BTreeMap<u32, <L::Source as Source>::Position>,
    source: Option<L::Source>,
    opening: Option<Opening<L::Source>>,
    opened_at: Instant,
    not_before: Instant,
    failures: u32,
    backoff: Backoff,
    /// Records handed out per partition: by all sources, and by those before the current one.
    given: BTreeMap<u32, u64>,
    given_before: BTreeMap<u32, u64>,
}

impl<L: ProviderLog> Supervised<L> {
    /// Opens nothing yet; the first read does.
    pub(crate) fn new(log: Arc<L>, resume: Resume) -> Supervised<L> {
        let now = Instant::now();
        Supervised {
            log,
            resume,
            handed_out: BTreeMap::new(),
            source: None,
            opening: None,
            opened_at: now,
            not_before: now,
            failures: 0,
            backoff: Backoff::seeded(fastrand::u64(..)),
            given: BTreeMap::new(),
            given_before: BTreeMap::new(),
        }
    }

    /// Opens the source if it is not open. Cancel-safe: an opening in progress is stored here.
    async fn open(&mut self) {
        while self.source.is_none() {
            sleep_until(self.not_before).await;
            let (log, resume) = (&self.log, &self.resume);
            let opening = self.opening.get_or_insert_with(|| {
                let (log, resume) = (Arc::clone(log), resume.clone());
                Box::pin(async move { log.open(resume).await })
            });
            let opened = opening.await;
            self.opening = None;
            match opened {
                Ok(source) => {
                    self.source = Some(source);
                    self.given_before.clone_from(&self.given);
                    self.opened_at = Instant::now();
                }
                Err(unavailable) => {
                    // How the checkpoint can be written is said by the loop, over what others say.
                    let component = match unavailable.component {
                        Component::Checkpoint => Component::Source,
                        component => component,
                    };
                    self.resume
                        .telemetry
                        .not_ready(component, unavailable.to_string());
                    self.wait();
                }
            }
        }
    }

    fn wait(&mut self) {
        self.failures = self.failures.saturating_add(1);
        self.not_before = Instant::now() + self.backoff.wait(self.failures);
    }
}

impl<L: ProviderLog> Source for Supervised<L> {
    type Position = <L::Source as Source>::Position;

    const HEARS_OF_EACH: bool = <L::Source as Source>::HEARS_OF_EACH;

    async fn read(&mut self) -> Option<Page<Self::Position>> {
        loop {
            self.open().await;
            let Some(source) = &mut self.source else {
                continue;
            };
            if let Some(page) = source.read().await {
                for change in &page.partitions {
                    if let PartitionChange::Retired(partition) = change {
                        self.resume.positions.remove(partition);
                        self.handed_out.remove(partition);
                    }
                }
                if L::Source::HEARS_OF_EACH {
                    *self.given.entry(page.partition).or_default() += page.records.len() as u64;
                }
                if let Some(position) = &page.position {
                    self.handed_out.insert(page.partition, position.clone());
                }
                return Some(page);
            }
            let handed_out = std::mem::take(&mut self.handed_out).into_iter();
            let stored = handed_out.map(|(partition, position)| (partition, position.to_stored()));
            self.resume.positions.extend(stored);
            if self.resume.until.is_some() || self.log.is_at_end(&self.resume.positions) {
                return None;
            }
            self.source = None;
            if self.opened_at.elapsed() > STEADY {
                self.failures = 0;
            }
            self.wait();
            self.resume.telemetry.not_ready(
                Component::Source,
                "the source ended; it is opened again where it stopped",
            );
        }
    }

    fn commit(&mut self, partition: u32, position: &Self::Position) {
        if let Some(source) = &mut self.source {
            source.commit(partition, position);
        }
    }

    /// Records of a source that has ended can no longer be acknowledged.
    fn settled(&mut self, partition: u32, number: u64) {
        let before = self.given_before.get(&partition).copied();
        let number = number.checked_sub(before.unwrap_or_default());
        if let (Some(source), Some(number)) = (&mut self.source, number) {
            source.settled(partition, number);
        }
    }

    async fn close(&mut self) {
        if let Some(source) = &mut self.source {
            source.close().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use audit_bridge_core::record::{Origin, Record};
    use audit_bridge_core::source::{StoredPosition, StoredPositions};
    use serde_json::json;

    use super::*;
    use crate::provider::{Finding, Start};
    use crate::telemetry::Telemetry;

    fn resume(positions: StoredPositions, telemetry: &Telemetry) -> Resume {
        Resume {
            positions,
            start: Start::Earliest,
            until: None,
            term: None,
            seen_dir: "nowhere".into(),
            identities: None,
            telemetry: telemetry.clone(),
        }
    }

    /// A log of numbers. Each opening fails, or returns some of them and ends.
    struct Numbers {
        /// How many numbers each opening returns; `None` is a failure.
        script: Mutex<Vec<Option<u64>>>,
        opened_at: Mutex<Vec<u64>>,
    }

    struct Counting {
        next: u64,
        left: u64,
    }

    impl Source for Counting {
        type Position = u64;

        async fn read(&mut self) -> Option<Page<u64>> {
            self.left = self.left.checked_sub(1)?;
            self.next += 1;
            Some(Page {
                position: Some(self.next),
                ..Page::default()
            })
        }
    }

    impl ProviderLog for Numbers {
        type Source = Counting;

        fn name(&self) -> &'static str {
            "numbers"
        }

        fn silence_remedy(&self) -> String {
            "count".to_owned()
        }

        async fn open(&self, resume: Resume) -> Result<Counting, Unavailable> {
            let next = resume.positions.get(&0).and_then(StoredPosition::as_u64);
            let next = next.unwrap_or_default();
            self.opened_at.lock().unwrap().push(next);
            let step = self.script.lock().unwrap().pop().flatten();
            tokio::task::yield_now().await;
            match step {
                Some(left) => Ok(Counting { next, left }),
                None => Err(Unavailable {
                    component: Component::Identity,
                    reason: "no".to_owned(),
                    remedy: "wait".to_owned(),
                }),
            }
        }

        async fn check(&self) -> Vec<Finding> {
            Vec::new()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn supervised_log_reopened_continues_behind_its_last_record() {
        let log = Arc::new(Numbers {
            script: Mutex::new(vec![Some(9), None, Some(0), Some(2), None, None, Some(3)]),
            opened_at: Mutex::default(),
        });
        let telemetry = Telemetry::new("b", "1").log("numbers");
        let resume = resume([(0, json!(10))].into(), &telemetry);
        let mut source = Supervised::new(Arc::clone(&log), resume);
        for want in 11..=20 {
            // A caller that keeps dropping the future loses nothing.
            let page = loop {
                let hurry = Duration::from_millis(7);
                if let Ok(page) = tokio::time::timeout(hurry, source.read()).await {
                    break page.unwrap();
                }
            };
            assert_eq!(page.position, Some(want));
        }
        assert_eq!(*log.opened_at.lock().unwrap(), [10, 13, 13, 13, 15, 15, 15]);
        assert!(telemetry.unready().contains_key("identity"));
    }

    /// A log whose position in the checkpoint is none of its own.
    struct Refusing;

    impl ProviderLog for Refusing {
        type Source = Counting;

        fn name(&self) -> &'static str {
            "refusing"
        }

        fn silence_remedy(&self) -> String {
            "restore it".to_owned()
        }

        async fn open(&self, _: Resume) -> Result<Counting, Unavailable> {
            Err(Unavailable {
                component: Component::Checkpoint,
                reason: "the position of partition 0 is -5".to_owned(),
                remedy: "restore it".to_owned(),
            })
        }

        async fn check(&self) -> Vec<Finding> {
            Vec::new()
        }
    }

    /// The loop says four times a second that the checkpoint can be written.
    #[tokio::test(start_paused = true)]
    async fn supervised_log_that_refuses_its_position_says_so_as_a_source() {
        let telemetry = Telemetry::new("b", "1").log("refusing");
        let resume = resume([(0, json!(-5))].into(), &telemetry);
        let mut source = Supervised::new(Arc::new(Refusing), resume);
        let read = tokio::time::timeout(Duration::from_secs(5), source.read());
        assert!(read.await.is_err());
        let unready = telemetry.unready();
        assert!(unready["source"].contains("-5"), "{unready:?}");
    }

    /// Returns one record per page, so many and ends; stores what it is told is settled.
    struct Hearing {
        opening: u64,
        left: u64,
        heard: Arc<Mutex<Vec<(u64, u64)>>>,
    }

    impl Source for Hearing {
        type Position = u64;

        const HEARS_OF_EACH: bool = true;

        async fn read(&mut self) -> Option<Page<u64>> {
            self.left = self.left.checked_sub(1)?;
            let origin = Origin::File {
                file: "x".into(),
                record: 1,
            };
            Some(Page {
                partition: 3,
                records: vec![Record::new("{}", origin)],
                ..Page::default()
            })
        }

        fn settled(&mut self, partition: u32, number: u64) {
            assert_eq!(partition, 3);
            self.heard.lock().unwrap().push((self.opening, number));
        }
    }

    /// Each opening returns two records.
    #[derive(Default)]
    struct Pairs {
        openings: Mutex<u64>,
        heard: Arc<Mutex<Vec<(u64, u64)>>>,
    }

    impl ProviderLog for Pairs {
        type Source = Hearing;

        fn name(&self) -> &'static str {
            "pairs"
        }

        fn silence_remedy(&self) -> String {
            "count".to_owned()
        }

        async fn open(&self, _: Resume) -> Result<Hearing, Unavailable> {
            let mut openings = self.openings.lock().unwrap();
            *openings += 1;
            Ok(Hearing {
                opening: *openings,
                left: 2,
                heard: Arc::clone(&self.heard),
            })
        }

        async fn check(&self) -> Vec<Finding> {
            Vec::new()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn supervised_source_hears_of_its_own_records_only() {
        let log = Arc::new(Pairs::default());
        let resume = resume([].into(), &Telemetry::new("b", "1").log("pairs"));
        let mut source = Supervised::new(Arc::clone(&log), resume);
        for _ in 0..3 {
            source.read().await.unwrap();
        }
        // The first two are of a source that has ended.
        for number in [2, 0, 1] {
            source.settled(3, number);
        }
        source.read().await.unwrap();
        source.settled(3, 3);
        assert_eq!(*log.heard.lock().unwrap(), [(2, 0), (2, 1)]);
    }
}
