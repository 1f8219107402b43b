//! Remembers which log events a stream brought, and filters them out of a log group.
//!
//! Two log events are the same if log group, log stream and message are equal, byte for byte. They
//! are compared by a hash of 128 bits, with a key that is random for each process, so that nobody
//! who writes to the log can forge a collision. No identity that a client chooses (`auditID`)
//! matters.

use std::collections::BTreeSet;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::Arc;

use audit_bridge_core::convert::{Output, RecordId, Skip};
use audit_bridge_core::record::Record;
use audit_bridge_core::source::{Page, Source};
use jiff::{SignedDuration, Timestamp};
use siphasher::sip128::{Hasher128 as _, SipHasher24};

use crate::wire::{self, EksPayload, LogEvent};

/// The stream already brought this event.
const IN_STREAM: Skip = Skip::new("in_stream");
/// Most log events that are remembered, 16 bytes each.
const EVENTS_MAX: usize = 64 << 20;
/// Events this far outside the window are remembered too: the window's ends may be rounded.
const MARGIN: SignedDuration = SignedDuration::from_mins(1);

/// The events that a stream brought of some log groups in a window of time.
#[derive(Debug)]
pub(crate) struct InStream {
    key: (u64, u64),
    window: (Timestamp, Timestamp),
    hashes: Vec<u128>,
    is_full: bool,
    /// Names and accounts of the log groups of which the stream brought events.
    groups: BTreeSet<(String, String)>,
}

impl InStream {
    /// An empty set for events whose time in CloudWatch Logs is in this window.
    pub(crate) fn new(from: Timestamp, until: Timestamp) -> InStream {
        let random = || RandomState::new().hash_one(0);
        let outside = |end: Timestamp, by| end.checked_add(by).unwrap_or(end);
        InStream {
            key: (random(), random()),
            window: (outside(from, -MARGIN), outside(until, MARGIN)),
            hashes: Vec::new(),
            is_full: false,
            groups: BTreeSet::new(),
        }
    }

    /// Adds a record of the stream if it is an event of one of the `wanted` groups, by account and
    /// name.
    pub(crate) fn add(&mut self, record: &Record, wanted: impl Fn(&str, &str) -> bool) {
        record.with_text(|_, text, _| {
            let Ok(EksPayload::CloudWatch(event)) = wire::read(text) else {
                return;
            };
            let (Some(group), Some(account)) = (&event.group, &event.account) else {
                return;
            };
            let is_within = event
                .time
                .is_none_or(|time| self.window.0 <= time && time <= self.window.1);
            if !is_within || !wanted(account, group) {
                return;
            }
            let known = (group.to_string(), account.to_string());
            let Some(hash) = self.hash(group, &event) else {
                return;
            };
            self.groups.insert(known);
            if self.hashes.len() >= EVENTS_MAX {
                self.is_full = true;
                return;
            }
            self.hashes.push(hash);
        });
    }

    /// Sorts the set for lookups, once the stream is read.
    pub(crate) fn finish(&mut self) {
        self.hashes.sort_unstable();
        self.hashes.dedup();
    }

    /// The number of events.
    pub(crate) fn len(&self) -> usize {
        self.hashes.len()
    }

    /// Whether the stream had more events than can be remembered.
    pub(crate) fn is_full(&self) -> bool {
        self.is_full
    }

    /// The accounts that have a log group of this name in the stream.
    pub(crate) fn accounts(&self, group: &str) -> Vec<&str> {
        let of_group = self.groups.iter().filter(|(name, _)| name == group);
        of_group.map(|(_, account)| account.as_str()).collect()
    }

    /// Whether the stream brought this record of the group.
    fn contains(&self, group: &str, record: &Record) -> bool {
        record.with_text(|_, text, _| match wire::read(text) {
            Ok(EksPayload::CloudWatch(event)) => self
                .hash(group, &event)
                .is_some_and(|hash| self.hashes.binary_search(&hash).is_ok()),
            _ => false,
        })
    }

    fn hash(&self, group: &str, event: &LogEvent<'_>) -> Option<u128> {
        let (stream, message) = (event.stream.as_ref()?, event.message.as_ref()?);
        let mut hasher = SipHasher24::new_with_keys(self.key.0, self.key.1);
        for part in [group, stream, message.text()] {
            hasher.write(&(part.len() as u64).to_le_bytes());
            hasher.write(part.as_bytes());
        }
        Some(hasher.finish128().as_u128())
    }
}

/// A source of a log group that skips what a stream already brought.
#[derive(Debug)]
pub struct StreamDifference<S> {
    source: S,
    group: String,
    in_stream: Arc<InStream>,
}

impl<S: Source> StreamDifference<S> {
    pub(crate) fn new(source: S, group: String, in_stream: Arc<InStream>) -> StreamDifference<S> {
        StreamDifference {
            source,
            group,
            in_stream,
        }
    }
}

impl<S: Source> Source for StreamDifference<S> {
    type Position = S::Position;

    async fn read(&mut self) -> Option<Page<S::Position>> {
        let mut page = self.source.read().await?;
        let mut out = Output::default();
        for (number, record) in (0..).zip(&page.records) {
            if self.in_stream.contains(&self.group, record) {
                out.skip(RecordId(number), IN_STREAM);
                page.early.take(&mut out);
            }
        }
        Some(page)
    }

    fn commit(&mut self, partition: u32, position: &S::Position) {
        self.source.commit(partition, position);
    }

    async fn close(&mut self) {
        self.source.close().await;
    }
}

#[cfg(test)]
mod tests {
    use audit_bridge_core::record::Origin;

    use super::*;

    const GROUP: &str = "/aws/eks/prod/cluster";
    const ACCOUNT: &str = "111122223333";

    fn record(members: &str, stream: &str, message: &str) -> Record {
        let message = serde_json::to_string(message).unwrap();
        Record::new(
            format!(
                r#"{{{members}"logStreamName":"{stream}","timestamp":1790000000000,"message":{message}}}"#
            ),
            Origin::Stream {
                stream: "s".into(),
                id: "1".to_owned(),
            },
        )
    }

    fn brought(group: &str, stream: &str, message: &str) -> Record {
        let members = format!(r#""owner":"{ACCOUNT}","logGroup":"{group}","#);
        record(&members, stream, message)
    }

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millisecond(ms).unwrap()
    }

    #[test]
    fn same_bytes_of_the_same_log_stream_are_one_and_nothing_else_is() {
        let mut in_stream = InStream::new(at(1_789_999_990_000), at(1_790_000_010_000));
        let event = r#"{"auditID":"a","verb":"get","é":"\"\\/\n"}"#;
        in_stream.add(&brought(GROUP, "audit-1", event), |_, _| true);
        in_stream.add(&brought("/other", "audit-1", "of another group"), |_, _| {
            true
        });
        in_stream.add(&brought(GROUP, "audit-1", "not wanted"), |_, _| false);
        in_stream.finish();
        assert_eq!(in_stream.accounts(GROUP), [ACCOUNT]);
        let has = |stream: &str, text: &str| in_stream.contains(GROUP, &record("", stream, text));
        assert!(has("audit-1", event));
        assert!(!has("audit-2", event), "another API server");
        assert!(
            !has("audit-1", &event.replace("get", "delete")),
            "its auditID"
        );
        assert!(!has("audit-1", &format!("{event} ")), "a byte more");
        assert!(!has("audit-1", "of another group"));
        assert!(!has("audit-1", "not wanted"));
    }

    #[test]
    fn events_outside_the_window_are_not_kept() {
        let mut in_stream = InStream::new(at(1_790_000_100_000), at(1_790_000_200_000));
        in_stream.add(&brought(GROUP, "audit-1", "old"), |_, _| true);
        in_stream.finish();
        assert_eq!(in_stream.len(), 0);
        let mut in_stream = InStream::new(at(1_790_000_000_001), at(1_790_000_200_000));
        in_stream.add(&brought(GROUP, "audit-1", "at its end"), |_, _| true);
        assert_eq!(in_stream.len(), 1);
    }
}
