use std::sync::Arc;

use audit_bridge_core::convert::{Convert, Outcome, Output, RecordId};
use audit_bridge_core::record::Record;
use audit_bridge_replay::read_bytes;

use super::*;
use crate::convert::AksConvert;

fn read(name: &str) -> Vec<Record> {
    let path = format!("{}/fixtures/{name}", env!("CARGO_MANIFEST_DIR"));
    let dump: Arc<dyn Dump> = Arc::new(AksDump);
    let content = read_bytes(&dump, name, std::fs::read(&path).expect(&path));
    assert_eq!(content.problem, None, "{name}");
    content.records
}

fn convert(records: Vec<Record>) -> Vec<Outcome> {
    let mut out = Output::default();
    let mut convert = AksConvert::default();
    for (id, record) in (1..).zip(records) {
        convert.convert(RecordId(id), &record, &mut out);
    }
    out.drain().collect()
}

fn events(outcomes: &[Outcome]) -> Vec<String> {
    let text = |outcome: &Outcome| match outcome {
        Outcome::Event { event, .. } => Some(String::from_utf8(event.text().to_vec()).unwrap()),
        _ => None,
    };
    outcomes.iter().filter_map(text).collect()
}

#[test]
fn dump_each_shape_gives_the_same_bytes() {
    let plain = events(&convert(read("logs.jsonl")))[..2].to_vec();
    for name in [
        "event-hub.json",
        "PT1H.json",
        "record-array.json",
        "other-casing.json",
        "properties-as-string.json",
        "log-as-object.json",
    ] {
        let outcomes = convert(read(name));
        let events = events(&outcomes);
        assert_eq!(events[..2], plain, "{name}: {outcomes:?}");
        // One category repeats the truncated event.
        assert_eq!(events.len(), 4, "{name}: {outcomes:?}");
        assert_eq!(events[2], events[3].replace("000200Z", "000100Z"), "{name}");
        let others: Vec<_> = outcomes
            .iter()
            .filter_map(|outcome| match outcome {
                Outcome::Skip { reason, .. } => Some(reason.name()),
                _ => None,
            })
            .collect();
        assert_eq!(
            others,
            ["duplicate", "other_category", "other_category"],
            "{name}"
        );
    }
    assert_eq!(events(&convert(read("record-pretty.json"))), plain[1..]);
}

#[test]
fn dump_each_fixture_has_its_outcome() {
    for name in [
        "event-hub.json",
        "partial-records.json",
        "properties-as-string.json",
    ] {
        let shown: Vec<String> = convert(read(name))
            .into_iter()
            .map(|outcome| match outcome {
                Outcome::Event { event, .. } => String::from_utf8(event.text().to_vec()).unwrap(),
                Outcome::Skip { reason, .. } => format!("skipped: {reason}"),
                Outcome::Reject { reason, error, .. } => format!("rejected: {reason}: {error}"),
            })
            .collect();
        insta::assert_snapshot!(name, shown.join("\n"));
    }
}

#[test]
fn dump_member_names_tell_the_object() {
    for (key, want) in [
        ("records", Role::Records),
        ("Records", Role::Records),
        ("properties", Role::Record),
        ("Category", Role::Record),
        ("operationName", Role::Record),
        ("ccpNamespace", Role::Record),
        ("resourceId", Role::Record),
        ("time", Role::Neutral),
        ("Cloud", Role::Neutral),
        ("", Role::Neutral),
    ] {
        assert_eq!(AksDump.role(key), want, "{key}");
    }
}

#[test]
fn dump_piece_that_is_no_object_is_kept() {
    let bring = |piece: &str| {
        AksDump
            .record(Raw::parse(piece).unwrap(), &PieceContext::empty())
            .map(Cow::into_owned)
    };
    assert_eq!(
        bring("\"{\\\"kind\\\":1}\\n\"").as_deref(),
        Ok("{\"kind\":1}\n")
    );
    assert_eq!(bring("\"\\ud800\"").as_deref(), Ok("\u{fffd}"));
    assert_eq!(bring("7").as_deref(), Ok("7"));
    assert!(AksDump.recognises(Raw::parse("\"{\\\"auditID\\\":1}\"").unwrap()));
    assert!(!AksDump.recognises(Raw::parse("\"text\"").unwrap()));
    assert!(AksDump.text_split(None, "text").is_none());
    assert!(AksDump.shapes().iter().all(|shape| shape.json));
}
