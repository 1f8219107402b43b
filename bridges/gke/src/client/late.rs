//! Finds entries that arrived too late for every cursor of the tail, by querying for the time at
//! which Google received them (`receiveTimestamp`) at a long interval.
//!
//! [`LateEntries`] is a log whose time is that of receipt. Entries' own times do not follow it, so
//! the filter divides a window into slices, and selects what was received in a slice and is older
//! than the slice's end by at least the oldest age of the tail. At the edges of slices this
//! includes entries that were in time. They are dropped from the answer, because a filter cannot
//! compare two fields.

use std::sync::Arc;
use std::time::Duration;

use audit_bridge_core::observer::SourceObserver;
use audit_bridge_core::record::Record;
use audit_bridge_tail::{LogPage, PageEntry, QueryError, TimeLog, Window};
use jiff::{SignedDuration, Timestamp};

use super::logging::CloudLoggingClient;
use super::page::IdentifiedEntry;

/// Entries that were older than this on receipt are not found.
const LATENESS_MAX: SignedDuration = SignedDuration::from_hours(24);
/// Most slices per window: a filter has at most 20,000 characters (Cloud Logging's quotas).
const SLICES_MAX: u32 = 72;
/// Label of late entries in `audit_bridge_late_records_total{age}`.
const LABEL: &str = "arrival";

/// The late entries of a log.
#[derive(Debug)]
pub struct LateEntries {
    pub(crate) client: CloudLoggingClient,
    pub(crate) name: String,
    /// Entries no older than this on receipt were found by the tail.
    pub(crate) age: Duration,
    /// Time after receipt at which an entry can be found by queries.
    pub(crate) settled_after: Duration,
    /// Where the tail began: older entries are not read.
    pub(crate) since: Timestamp,
    pub(crate) observer: Arc<dyn SourceObserver>,
}

impl LateEntries {
    /// The filter for late entries that were received in this window.
    fn filter(&self, received: &Window) -> String {
        let slice = (self.age / 2)
            .max(received.span() / SLICES_MAX)
            .max(Duration::from_millis(1));
        let mut slices = Vec::new();
        let mut start = received.start;
        while start < received.end {
            let end = (start + slice).min(received.end);
            let before = end - self.age;
            slices.push(format!(
                "(receiveTimestamp>=\"{start}\" AND receiveTimestamp<\"{end}\" AND \
                 timestamp<\"{before}\")"
            ));
            start = end;
        }
        let first = received.start.checked_sub(LATENESS_MAX);
        let first = first.unwrap_or(Timestamp::MIN).max(self.since);
        let last = received.end - self.age;
        format!(
            "timestamp>=\"{first}\" AND timestamp<\"{last}\" AND ({})",
            slices.join(" OR ")
        )
    }

    fn is_late(&self, entry: &IdentifiedEntry) -> bool {
        match (entry.time, entry.received) {
            (Some(time), Some(received)) => {
                let edge = time.checked_add(self.age);
                edge.is_ok_and(|edge| received > edge)
            }
            // Without both times its lateness is unknown: delivered twice is better than never.
            _ => true,
        }
    }
}

impl TimeLog for LateEntries {
    type Raw = IdentifiedEntry;

    fn name(&self) -> &str {
        &self.name
    }

    fn resolution(&self) -> Duration {
        self.client.resolution()
    }

    fn server_time(&self) -> Option<Timestamp> {
        self.client.server_time()
    }

    fn server_time_at_least(&self) -> Option<Timestamp> {
        self.client.server_time_at_least()
    }

    async fn query(
        &self,
        window: &Window,
        token: Option<&str>,
    ) -> Result<LogPage<IdentifiedEntry>, QueryError> {
        let received = Window {
            start: window.start - self.settled_after,
            end: window.end - self.settled_after,
        };
        let page = self.client.page(&self.filter(&received), token).await?;
        let late = page.entries.into_iter().filter(|entry| self.is_late(entry));
        let entries = late.map(|entry| PageEntry {
            time: entry.received.map_or(window.start, |received| {
                received.checked_add(self.settled_after).unwrap_or(received)
            }),
            identity: entry.identity(),
            raw: entry,
        });
        Ok(LogPage {
            entries: entries.collect(),
            next: page.next,
        })
    }

    fn record(&self, entry: IdentifiedEntry) -> Record {
        self.observer.late(LABEL, 1);
        self.client.record(entry)
    }
}

#[cfg(test)]
mod tests {
    use audit_bridge_core::readiness::Component;
    use proptest::prelude::*;

    use super::*;
    use crate::client::endpoint::Endpoint;
    use crate::client::filter::Selection;
    use crate::client::resource_name::ResourceName;

    #[derive(Debug)]
    struct Nobody;

    impl SourceObserver for Nobody {
        fn requested(&self, _: &str) {}
        fn throttled(&self) {}
        fn late(&self, _: &str, _: u64) {}
        fn answers(&self) {}
        fn not_ready(&self, _: Component, _: String) {}
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::new(1_795_000_000 + seconds, 123_456_789).unwrap()
    }

    fn late_entries(age: u64) -> LateEntries {
        let selection = Selection {
            resource_names: vec![ResourceName::project("p")],
            project: None,
            cluster: None,
            location: None,
            logs: Selection::logs(false),
        };
        let endpoint = Endpoint::read("http://127.0.0.1:1").unwrap();
        LateEntries {
            client: CloudLoggingClient::new(&endpoint, selection).unwrap(),
            name: "late".to_owned(),
            age: Duration::from_secs(age),
            settled_after: Duration::ZERO,
            since: at(-100_000),
            observer: Arc::new(Nobody),
        }
    }

    /// The slices of a filter: start and end of receipt, and the limit of the entry's own time.
    fn slices(filter: &str) -> Vec<[Timestamp; 3]> {
        let (_, slices) = filter.split_once(" AND (").unwrap();
        let times = |slice: &str| {
            let mut times = slice.split('"').skip(1).step_by(2);
            [(); 3].map(|()| times.next().unwrap().parse().unwrap())
        };
        slices.split(" OR ").map(times).collect()
    }

    proptest! {
        /// In any window, each late entry matches exactly one slice, and the filter stays short.
        #[test]
        fn late_entry_of_any_window_is_asked_for(
            span in 1_i64..200_000, age in 0_u64..3_600, received in 0_i64..200_000, late in 0_i64..90_000,
        ) {
            let log = late_entries(age);
            let filter = log.filter(&Window { start: at(0), end: at(span) });
            prop_assert!(filter.len() < 16_000, "{}", filter.len());
            let slices = slices(&filter);
            prop_assert_eq!(slices[0][0], at(0));
            prop_assert_eq!(slices[slices.len() - 1][1], at(span));
            for pair in slices.windows(2) {
                prop_assert_eq!(pair[0][1], pair[1][0]);
            }
            let received = at(received % span);
            let time = received - Duration::from_secs(late as u64 + age) - Duration::from_nanos(1);
            let asked = slices.iter().filter(|[from, to, before]| {
                *from <= received && received < *to && time < *before
            });
            prop_assert_eq!(asked.count(), 1);
        }
    }
}
