//! Each shape of dump gives the event that the plain entry gives.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a test: what is not as it should be ends it"
)]

use std::borrow::Cow;

use audit_bridge_core::convert::{Convert, Outcome, Output, RecordId};
use audit_bridge_core::event::json::Raw;
use audit_bridge_core::record::{Origin, Record};
use audit_bridge_replay::dump::{Dump, PieceContext, Role};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use gke_audit_bridge::convert::{GkeConvert, GkeConvertOptions};
use gke_audit_bridge::dump::GkeDump;
use serde_json::{Value, json};

fn event(entry: &str) -> Value {
    let record = Record::new(
        entry.to_owned(),
        Origin::File {
            file: "shape".into(),
            record: 1,
        },
    );
    let mut out = Output::default();
    GkeConvert::new(GkeConvertOptions::default()).convert(RecordId(1), &record, &mut out);
    match out.drain().next() {
        Some(Outcome::Event { event, .. }) => serde_json::from_slice(event.text()).expect("json"),
        other => panic!("no event: {other:?}"),
    }
}

/// The records of a JSON dump, as the core finds them by the members' roles.
fn records(raw: Raw<'_>) -> Vec<String> {
    if let Some(elements) = raw.elements() {
        return elements.flat_map(records).collect();
    }
    for (key, value) in raw.members().expect("an object") {
        match GkeDump.role(&key) {
            Role::Neutral => {}
            Role::Record => return vec![raw.text().to_owned()],
            Role::Wrapped => {
                let record = GkeDump.record(raw, &PieceContext::empty());
                return vec![record.map(Cow::into_owned).expect("a record")];
            }
            Role::Records => return records(value),
        }
    }
    panic!("of no known role: {}", raw.text());
}

#[test]
fn entry_in_each_shape_gives_the_same_event() {
    let path = format!(
        "{}/fixtures/examples/02-pod-by-controller-modern.json",
        env!("CARGO_MANIFEST_DIR")
    );
    let pretty = std::fs::read_to_string(path).expect("a fixture");
    let entry: Value = serde_json::from_str(&pretty).expect("json");
    let want = event(&pretty);
    let line = entry.to_string();
    let mut payload = entry["protoPayload"].clone();
    payload.as_object_mut().expect("an object").remove("@type");
    for dump in [
        line.clone(),
        json!([entry]).to_string(),
        format!("[\n{pretty}\n]"),
        json!({"nextPageToken": "x", "entries": [entry]}).to_string(),
        json!({"message": {"data": STANDARD.encode(&line), "attributes": {}}, "subscription": "s"})
            .to_string(),
        json!([{"ackId": "a", "message": {"data": URL_SAFE_NO_PAD.encode(&pretty)}}]).to_string(),
        json!({"receivedMessages": [{"ackId": "a", "message": {"data": STANDARD.encode(&line)}}]})
            .to_string(),
        json!({
            "Entry": {"InsertID": entry["insertId"], "Labels": entry["labels"],
                "LogName": "projects/p/logs/cloudaudit.googleapis.com/activity",
                "Operation": entry["operation"], "Resource": entry["resource"],
                "Timestamp": entry["timestamp"]},
            "AuditPayload": payload.to_string(),
        })
        .to_string(),
    ] {
        let records = records(Raw::parse(&dump).expect("json"));
        assert_eq!(records.len(), 1, "{dump}");
        assert_eq!(event(&records[0]), want, "{dump}");
    }
    // JSON is YAML too, and so tests the reading of every value in it.
    for yaml in [format!("---\n{pretty}"), format!("- {line}\n")] {
        let mut split = GkeDump.text_split(Some("yaml"), &yaml).expect("a splitter");
        let mut found = Vec::new();
        split.split(yaml.as_bytes(), true, &mut |piece| {
            assert!(!piece.damaged && piece.recognised);
            found.push(String::from_utf8(piece.bytes.into_owned()).expect("utf-8"));
        });
        assert_eq!(found.len(), 1);
        assert_eq!(event(&found[0]), want);
    }
}
