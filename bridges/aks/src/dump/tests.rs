use std::sync::Arc;

use audit_bridge_core::convert::{Convert, Outcome, Output, RecordId};
use audit_bridge_core::event::json::Scanner;
use audit_bridge_core::record::{Origin, Record};
use bytes::Bytes;

use super::*;
use crate::convert::AksConvert;

const LOGS: &str = include_str!("../../fixtures/logs.jsonl");

type Owned = (Vec<u8>, bool, bool);

/// Reads a JSON dump by structure, as far as the fixtures need it.
fn walk(text: &str) -> Vec<Owned> {
    let mut pieces = Vec::new();
    let mut scanner = Scanner::new(text);
    while scanner.peek().is_some() {
        let value = scanner.value().unwrap();
        match value.kind() {
            Kind::Array => value
                .elements()
                .unwrap()
                .for_each(|piece| visit(piece, &mut pieces)),
            _ => visit(value, &mut pieces),
        }
    }
    pieces
}

fn visit(value: Raw<'_>, pieces: &mut Vec<Owned>) {
    let mut members = Vec::new();
    for (key, raw) in value.members().into_iter().flatten() {
        match AksDump.role(&key) {
            Role::Records => {
                let context = Context::new(members);
                for piece in raw.elements().unwrap() {
                    pieces.push(bring(piece, &context));
                }
                return;
            }
            Role::Record | Role::Wrapped => break,
            Role::Neutral => {}
        }
        let names = AksDump.context_names().iter();
        if let Some(name) = names.copied().find(|&name| name == key) {
            members.push((name, raw.text().to_owned()));
        }
    }
    pieces.push(bring(value, &Context::empty()));
}

fn bring(piece: Raw<'_>, context: &Context) -> Owned {
    match AksDump.record(piece, context) {
        Ok(text) => (
            text.into_owned().into_bytes(),
            false,
            AksDump.recognises(piece),
        ),
        Err(error) => (error.into_bytes(), true, true),
    }
}

fn read(name: &str) -> Vec<Owned> {
    let path = format!("{}/fixtures/{name}", env!("CARGO_MANIFEST_DIR"));
    walk(&std::fs::read_to_string(&path).expect(&path))
}

fn convert(pieces: Vec<Owned>) -> Vec<Outcome> {
    let mut out = Output::default();
    let mut convert = AksConvert::default();
    for (id, (payload, damaged, _)) in (1..).zip(pieces) {
        let record = Record {
            payload: Bytes::from(payload),
            origin: Origin::File {
                file: Arc::from("test"),
                record: id,
            },
            time: None,
            damaged,
            oversized: false,
        };
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
fn every_shape_gives_the_same_bytes() {
    let bare = |line: &str| (line.as_bytes().to_vec(), false, true);
    let plain = events(&convert(LOGS.lines().take(2).map(bare).collect()));
    assert_eq!(plain.len(), 2);
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
        // The cut one is told twice by one category.
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
fn what_becomes_of_each_fixture() {
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
fn names_say_what_an_object_is() {
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
fn pieces_that_are_no_objects() {
    let bring = |piece: &str| {
        AksDump
            .record(Raw::parse(piece).unwrap(), &Context::empty())
            .map(Cow::into_owned)
    };
    assert_eq!(
        bring("\"{\\\"kind\\\":1}\\n\"").as_deref(),
        Ok("{\"kind\":1}\n")
    );
    assert!(bring("\"\\ud800\"").is_err());
    assert_eq!(bring("7").as_deref(), Ok("7"));
    assert!(AksDump.recognises(Raw::parse("\"{\\\"auditID\\\":1}\"").unwrap()));
    assert!(!AksDump.recognises(Raw::parse("\"text\"").unwrap()));
    assert!(AksDump.text_split(None, "text").is_none());
    assert!(AksDump.shapes().iter().all(|shape| shape.json));
}
