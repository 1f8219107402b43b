//! Cuts messages of the event hub into records.
//!
//! A message is `{"records":[…]}`, whose records are copied out. Any other form is read like a
//! dump, by the same code, which yields the same records. A message of no known shape becomes one
//! record: it goes to the dead letter, and the partition continues.

use std::io::Cursor;
use std::sync::Arc;
use std::time::Duration;

use audit_bridge_core::record::{Origin, Record};
use audit_bridge_core::source::{Page, ReadTo};
use audit_bridge_replay::dump::Dump;
use audit_bridge_replay::read_from;
use bytes::Bytes;
use jiff::Timestamp;

use crate::client::HubMessage;
use crate::dump::AksDump;
use crate::source::pages::HubPage;
use crate::source::position::MessagePosition;
use crate::source::records;

/// Cuts messages of one partition into records.
pub(crate) struct Cutter {
    dump: Arc<dyn Dump>,
    /// Which partition of the source.
    partition: u32,
    /// Its name in the dead letter: `HUB/ID`.
    stream: Arc<str>,
    /// A quiet partition is queried again within this time.
    again_within: Duration,
}

impl Cutter {
    pub(crate) fn new(partition: u32, stream: Arc<str>, again_within: Duration) -> Cutter {
        Cutter {
            dump: Arc::new(AksDump),
            partition,
            stream,
            again_within,
        }
    }

    /// The partition's name, for people.
    pub(crate) fn stream(&self) -> &str {
        &self.stream
    }

    /// All records of a message, with the position after it.
    pub(crate) fn page(&self, message: HubMessage, position: Option<&MessagePosition>) -> HubPage {
        let mut records = self.records(message.body);
        for (number, record) in (1..).zip(&mut records) {
            record.origin = self.origin(message.sequence_number, number);
            record.time = message.enqueued;
        }
        Page {
            partition: self.partition,
            records,
            position: position.cloned(),
            read_to: message.enqueued.map(|time| self.read_to(time)),
            ..Page::default()
        }
    }

    /// The records of a message's body. Unknown content, and none, is one damaged record, so that it
    /// is kept.
    fn records(&self, body: Bytes) -> Vec<Record> {
        let record = |payload: Bytes| Record::new(payload, self.origin(None, 0));
        if let Some(records) = records::of_plain(&body) {
            return records.into_iter().map(record).collect();
        }
        let content = read_from(&self.dump, &self.stream, Cursor::new(body.clone()));
        match content.problem.is_none() && !content.records.is_empty() {
            true => content.records,
            false => vec![Record {
                damaged: true,
                ..record(body)
            }],
        }
    }

    /// A page with what is known of a message that cannot be decoded. It has no position: the number
    /// is derived, so only a message behind it moves the position.
    pub(crate) fn undecodable(&self, sequence_number: i64, why: &str) -> HubPage {
        let origin = self.origin(Some(sequence_number), 1);
        Page {
            partition: self.partition,
            records: vec![Record {
                damaged: true,
                ..Record::new(why.to_owned(), origin)
            }],
            ..Page::default()
        }
    }

    /// A page without records: the new position, if any, and the time at which the partition had
    /// nothing more, if that was asked.
    pub(crate) fn standing(
        &self,
        position: Option<&MessagePosition>,
        nothing_more: Option<Timestamp>,
    ) -> HubPage {
        Page {
            partition: self.partition,
            position: position.cloned(),
            read_to: nothing_more.map(|time| self.read_to(time)),
            ..Page::default()
        }
    }

    fn read_to(&self, time: Timestamp) -> ReadTo {
        ReadTo {
            time,
            again_within: self.again_within,
        }
    }

    fn origin(&self, sequence_number: Option<i64>, record: usize) -> Origin {
        let message = sequence_number.map_or_else(|| "?".to_owned(), |number| number.to_string());
        Origin::Stream {
            stream: Arc::clone(&self.stream),
            id: format!("{message}:{record}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use audit_bridge_core::source::Position as _;
    use audit_bridge_testkit::arbitrary::any_json;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn page(body: &str) -> HubPage {
        let cutter = Cutter::new(3, Arc::from("hub/3"), Duration::ZERO);
        let message = HubMessage {
            sequence_number: Some(17),
            offset: Some("4711".to_owned()),
            enqueued: Some("2026-11-21T10:00:00Z".parse().unwrap()),
            body: body.to_owned().into(),
        };
        let position = MessagePosition::of(&message, None);
        cutter.page(message, position.as_ref())
    }

    fn record() -> impl Strategy<Value = String> {
        let object = |value| format!(r#"{{"category":"kube-audit","properties":{value}}}"#);
        prop_oneof![
            6 => any_json().prop_map(object),
            1 => any_json(),
            1 => Just(r#"{"records":[{"category":"x"}]}"#.to_owned()),
            1 => Just("{}".to_owned()),
        ]
    }

    fn payloads(page: &HubPage) -> Vec<&str> {
        let payloads = page.records.iter().map(|record| &*record.payload);
        payloads
            .map(|bytes| std::str::from_utf8(bytes).unwrap())
            .collect()
    }

    #[test]
    fn message_each_record_keeps_its_bytes() {
        let one = r#"{ "category":"kube-audit", "properties":{"log":"{\"a\":1.0}\n"}}"#;
        let two = r#"{"category":"kube-apiserver","properties":{"log":"I1121"}}"#;
        let page = page(&format!("{{\"records\": [{one},\n {two} ]}}"));
        assert_eq!(payloads(&page), [one, two]);
        assert_eq!(page.partition, 3);
        assert_eq!(
            page.position.map(|position| position.to_stored()),
            Some(json!({
                "sequence_number": 17,
                "offset": "4711",
                "enqueued": "2026-11-21T10:00:00Z",
            }))
        );
        let origins = page.records.iter().map(|record| record.origin.to_string());
        assert_eq!(origins.collect::<Vec<_>>(), ["hub/3: 17:1", "hub/3: 17:2"]);
        assert!(page.records.iter().all(|record| record.time.is_some()));
    }

    #[test]
    fn message_of_unknown_form_is_one_record() {
        for body in ["", "hello", "<xml/>", "[1,2]", "\u{0}\u{1}"] {
            let page = page(body);
            assert!(page.problems.is_empty(), "{body:?}: {:?}", page.problems);
            assert!(page.position.is_some(), "{body:?}");
            if !body.is_empty() {
                assert_eq!(payloads(&page), [body]);
                assert!(page.records[0].damaged, "{body:?}");
            }
        }
        let page = page(r#"{"records":[]}"#);
        assert!(page.records.is_empty() && page.problems.is_empty());
    }

    /// A record that waits for delivery must not keep its message of up to a MiB in memory, most of
    /// which is of other categories.
    #[test]
    fn message_is_freed_while_a_record_of_it_is_kept() {
        let small = r#"{"category":"kube-audit","properties":{"log":"{}"}}"#;
        let large = format!(
            r#"{{"category":"kube-apiserver","pad":"{}"}}"#,
            "x".repeat(1 << 16)
        );
        for body in [
            format!(r#"{{"records":[{small},{large}]}}"#),
            format!(r#"[{{"records":[{small},{large}]}}]"#),
        ] {
            let body = Bytes::from(body);
            let cutter = Cutter::new(3, Arc::from("hub/3"), Duration::ZERO);
            let message = HubMessage {
                sequence_number: Some(17),
                offset: None,
                enqueued: None,
                body: body.clone(),
            };
            let mut page = cutter.page(message, None);
            page.records.truncate(1);
            assert_eq!(payloads(&page), [small]);
            assert!(body.is_unique(), "the record holds its message");
        }
    }

    proptest! {
        /// For any message, cut or changed anywhere: records found by the short way equal those of
        /// the dump reader.
        #[test]
        fn message_read_the_short_way_gives_what_the_reader_of_dumps_gives(
            values in prop::collection::vec(record(), 0..4),
            space in "[ \n\t]{0,2}",
            damage in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
            cut in prop::option::of(any::<prop::sample::Index>()),
        ) {
            let values = values.join(&format!("{space},"));
            let mut body = format!("{space}{{\"records\":{space}[{values}]{space}}}{space}").into_bytes();
            if let Some((at, byte)) = damage {
                let at = at.index(body.len());
                body[at] = byte;
            }
            if let Some(at) = cut {
                body.truncate(at.index(body.len()));
            }
            let body = Bytes::from(body);
            let cutter = Cutter::new(3, Arc::from("hub/3"), Duration::ZERO);
            if let Some(records) = records::of_plain(&body) {
                let long = read_from(&cutter.dump, "hub/3", Cursor::new(body));
                prop_assert!(long.problem.is_none());
                let is_plain = |it: &Record| !it.damaged && !it.oversized && it.time.is_none();
                prop_assert!(long.records.iter().all(is_plain));
                let long: Vec<_> = long.records.into_iter().map(|it| it.payload).collect();
                prop_assert_eq!(records, long);
            }
        }
    }
}
