//! What the fuzz targets hold the bridges to.
//!
//! An input is a byte of flags and the content: see [`records`] and [`read`].

use std::collections::{HashMap, HashSet};
use std::io::{Cursor, Read};
use std::sync::Arc;

use audit_bridge_core::convert::{Convert, Outcome, Output, RecordId};
use audit_bridge_core::event::conformance::EventOptions as Limits;
use audit_bridge_core::event::json::{Raw, ValueKind};
use audit_bridge_core::event::{Event, time};
use audit_bridge_core::record::{Origin, Record};
use audit_bridge_replay::dump::Dump;
use audit_bridge_replay::{read_bytes, read_from};

/// Converts the records of an input: each must end in exactly one way, and every event must be one
/// that receivers take.
pub fn convert(input: &[u8], dump: impl Dump + 'static, mut converter: impl Convert) {
    let mut ends = Ends::default();
    let mut out = Output::default();
    let mut opened = 0;
    for record in records(input, Arc::new(dump)) {
        converter.convert(RecordId(opened), &record, &mut out);
        opened += 1;
        ends.take(&mut out, opened);
    }
    converter.finish(&mut out);
    ends.take(&mut out, opened);
    for id in 0..opened {
        assert!(
            ends.0.contains_key(&RecordId(id)),
            "record {id} never ended"
        );
    }
}

/// Bit 0 of the first byte: the records are damaged; bit 1: they are oversized; bit 2: the source
/// knows their time; bit 3: they are what a dump gives, else they stand one after the other, with
/// the record separator of RFC 7464 in between.
fn records(input: &[u8], dump: Arc<dyn Dump>) -> Vec<Record> {
    let (&flags, content) = input.split_first().unwrap_or((&0, b""));
    let mut records = match flags & 8 {
        0 => content.split(|byte| *byte == 0x1e).map(record).collect(),
        _ => read_bytes(&dump, "fuzz", content.to_vec()).records,
    };
    for record in &mut records {
        record.damaged |= flags & 1 != 0;
        record.oversized |= flags & 2 != 0;
        record.time = (flags & 4 != 0)
            .then(|| time::parse("2026-11-21T10:00:00Z"))
            .flatten();
    }
    records
}

fn record(payload: &[u8]) -> Record {
    Record::new(
        payload.to_vec(),
        Origin::File {
            file: "fuzz".into(),
            record: 1,
        },
    )
}

/// How records ended.
#[derive(Default)]
struct Ends(HashMap<RecordId, End>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Event,
    Skip,
    Reject,
}

impl Ends {
    /// A record may give several events, but all at once.
    fn take(&mut self, out: &mut Output, opened: u64) {
        let mut now = HashMap::new();
        for outcome in out.drain() {
            let (records, end) = match outcome {
                Outcome::Event { event, records } => {
                    check(&event);
                    assert!(!records.is_empty(), "an event of no record");
                    (records, End::Event)
                }
                Outcome::Skip { record, .. } => (record.into(), End::Skip),
                Outcome::Reject { record, error, .. } => {
                    assert!(!error.is_empty(), "a reject without a word");
                    (record.into(), End::Reject)
                }
            };
            for &id in records.iter() {
                assert!(id.0 < opened, "{id:?} was never given");
                assert!(!self.0.contains_key(&id), "{id:?} ended before");
                let before = now.insert(id, end);
                let again = before.is_some_and(|before| before != end || end != End::Event);
                assert!(!again, "{id:?} ended twice: {before:?}, {end:?}");
            }
        }
        self.0.extend(now);
    }
}

/// What is asked of all events: limits so small that inputs exceed them.
pub fn limits() -> Limits {
    Limits {
        event_bytes_max: Limits::EVENT_BYTES_MIN,
        event_depth_max: 20,
        ..Limits::default()
    }
}

/// Holds an event to what [`Event`] promises.
fn check(event: &Event) {
    let limits = limits();
    let text = std::str::from_utf8(event.text()).expect("utf-8");
    assert!(text.len() <= limits.event_bytes_max, "{} bytes", text.len());
    let raw = Raw::parse(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert_eq!(raw.text(), text, "space around it");
    serde_json::from_str::<serde::de::IgnoredAny>(text)
        .unwrap_or_else(|error| panic!("{error}: {text}"));
    let findings = raw.findings();
    // The list and its items are around it.
    assert!(findings.depth() + 2 <= limits.event_depth_max, "{text}");
    assert!(!findings.has_lone_surrogate(), "{text}");
    let member = |name: &str| raw.get(name).unwrap_or_else(|| panic!("no {name}: {text}"));
    assert_eq!(member("kind").as_str().as_deref(), Some("Event"), "{text}");
    let version = member("apiVersion").as_str();
    assert_eq!(version.as_deref(), Some("audit.k8s.io/v1"), "{text}");
    for name in ["auditID", "stage", "verb"] {
        let value = member(name);
        assert_eq!(value.kind(), ValueKind::String, "{name}: {text}");
        let may_be_empty = name == "verb" || event.truncated();
        assert!(may_be_empty || value.text() != "\"\"", "{name}: {text}");
    }
    let mut keys = HashSet::new();
    for (key, _) in raw.members().expect("an object") {
        assert!(keys.insert(key.clone()), "{key} twice: {text}");
    }
    for name in ["stageTimestamp", "requestReceivedTimestamp"] {
        let Some(stamp) = raw.get(name).filter(|raw| raw.text() != "null") else {
            assert_ne!(name, "stageTimestamp", "{text}");
            continue;
        };
        let stamp = stamp.as_str().expect("a string");
        let read = time::parse(&stamp).map(time::micros);
        assert_eq!(read.as_deref(), Some(&*stamp), "{name}: {text}");
    }
    let marked = raw
        .get("annotations")
        .and_then(|annotations| annotations.get("audit.k8s.io/truncated"))
        .is_some();
    assert_eq!(marked, event.truncated(), "the mark: {text}");
}

/// Reads an input as a dump, at once and in chunks whose size its first byte says, but in no more
/// than 64: the same must come out.
pub fn read(input: &[u8], dump: &Arc<dyn Dump>) {
    let (&chunk, content) = input.split_first().unwrap_or((&0, b""));
    let whole = read_bytes(dump, "fuzz", content.to_vec());
    let bytes: usize = whole
        .records
        .iter()
        .map(|record| record.payload.len())
        .sum();
    // A splitter may put a container's context into each record, and write text as JSON.
    let most = (content.len() + 64) * (content.len() + 64);
    assert!(
        bytes <= most,
        "{bytes} bytes of records out of {}",
        content.len()
    );
    let chunk = (usize::from(chunk) + 1).max(content.len() / 64);
    let chunks = Chunks(Cursor::new(content.to_vec()), chunk);
    let pieced = read_from(dump, "fuzz", chunks);
    assert_eq!(whole.records, pieced.records, "in chunks of {chunk}");
    assert_eq!(
        whole.problem,
        pieced.problem,
        "in chunks of {}",
        chunk + 1
    );
}

/// Gives its bytes in chunks of one size.
struct Chunks(Cursor<Vec<u8>>, usize);

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let most = buffer.len().min(self.1);
        self.0.read(&mut buffer[..most])
    }
}
