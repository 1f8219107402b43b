//! The worked examples of the mapping: an entry in, what comes out as a snapshot beside it.

#![expect(
    clippy::expect_used,
    reason = "a test: what is not as it should be ends it"
)]

use audit_bridge_core::convert::{Convert, Outcome, Output, RecordId};
use audit_bridge_core::record::{Origin, Record};
use gke_audit_bridge::convert::{GkeConvert, GkeConvertOptions};
use serde_json::{Value, json};

fn convert(text: &str, options: GkeConvertOptions) -> Vec<Value> {
    let record = Record::new(
        text.to_owned(),
        Origin::File {
            file: "fixture".into(),
            record: 1,
        },
    );
    let mut out = Output::default();
    let mut convert = GkeConvert::new(options);
    convert.convert(RecordId(1), &record, &mut out);
    convert.finish(&mut out);
    out.drain()
        .map(|outcome| match outcome {
            Outcome::Event { event, .. } => {
                let text = std::str::from_utf8(event.text()).expect("utf-8");
                assert!(!text.contains('\n'), "one line: {text}");
                json!({ "event": serde_json::from_str::<Value>(text).expect("json") })
            }
            Outcome::Skip { reason, .. } => json!({ "skip": reason.name() }),
            Outcome::Reject { reason, error, .. } => {
                json!({ "reject": reason.name(), "error": error })
            }
        })
        .collect()
}

#[test]
fn examples_convert_as_recorded() {
    insta::glob!("../fixtures/examples", "*.json", |path| {
        let text = std::fs::read_to_string(path).expect("a fixture");
        let options = GkeConvertOptions {
            include_data_access: true,
            ..GkeConvertOptions::default()
        };
        insta::assert_json_snapshot!(convert(&text, options));
    });
}

#[test]
fn data_access_is_skipped_unless_selected() {
    for name in ["12-nodes-list", "13a-anonymous-probe", "14-path-denied"] {
        let path = format!(
            "{}/fixtures/examples/{name}.json",
            env!("CARGO_MANIFEST_DIR")
        );
        let text = std::fs::read_to_string(path).expect("a fixture");
        let found = convert(&text, GkeConvertOptions::default());
        assert_eq!(found, [json!({ "skip": "data_access_disabled" })], "{name}");
    }
}
