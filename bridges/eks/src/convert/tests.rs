use std::sync::Arc;

use audit_bridge_core::convert::Outcome;
use audit_bridge_core::event::json::Raw;
use audit_bridge_core::record::Origin;
use audit_bridge_testkit::arbitrary::{any_event, any_json, assert_left_of_cut, quoted};
use proptest::prelude::*;

use super::*;

const STREAM: &str = "kube-apiserver-audit-6c1f4a0b9d2e4753a8f0c3d1b5e79a26";
const EVENT: &str = r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"a-1","stage":"ResponseComplete","requestURI":"/api?x=1\u0026y=2","verb":"get","stageTimestamp":"2026-03-05T09:15:02.149911Z"}"#;
const MESSAGES: &str = include_str!("../../fixtures/messages.txt");

fn record(payload: impl Into<Bytes>) -> Record {
    let origin = Origin::File {
        file: Arc::from("test"),
        record: 1,
    };
    Record::new(payload, origin)
}

fn run(record: &Record) -> Outcome {
    let mut out = Output::default();
    EksConvert::default().convert(RecordId(1), record, &mut out);
    let mut outcomes: Vec<_> = out.drain().collect();
    assert_eq!(outcomes.len(), 1, "{outcomes:?}");
    outcomes.remove(0)
}

/// The event's text, or the reason in brackets and the error.
fn show(record: &Record) -> String {
    match run(record) {
        Outcome::Event { event, .. } => String::from_utf8(event.text().to_vec()).unwrap(),
        Outcome::Skip { reason, .. } => format!("[{reason}]"),
        Outcome::Reject { reason, error, .. } => format!("[{reason}] {error}"),
    }
}

fn in_stream(message: &str) -> String {
    format!(
        "{{\"logStreamName\":\"{STREAM}\",\"timestamp\":1772702102149,\"message\":{},\"eventId\":\"1\"}}",
        quoted(message)
    )
}

#[test]
fn convert_each_rule_of_the_table_holds() {
    let message = quoted(EVENT);
    let klog = quoted("I0520 05:24:43.888087      11 a.go:152] Skip");
    let no_time = EVENT.replace(r#","stageTimestamp":"2026-03-05T09:15:02.149911Z""#, "");
    let record_time = no_time.replace(
        "\"get\"}",
        "\"get\",\"stageTimestamp\":\"2026-03-05T09:15:02.149000Z\",\"annotations\":{\"audit-bridge/stage-timestamp\":\"record\"}}",
    );
    for (payload, want) in [
        // The event's bytes are unchanged, wherever the stream is named.
        (EVENT.to_owned(), EVENT),
        (format!(" \n{EVENT}\n"), EVENT),
        (in_stream(EVENT), EVENT),
        (format!("{{\"message\":{message}}}"), EVENT),
        (format!("{{\"message\":{EVENT}}}"), EVENT),
        (format!("{{\"message\":{message},\"logStreamName\":\"{STREAM}\"}}"), EVENT),
        (format!("{{\"message\":{message},\"logStreamName\":\"\"}}"), EVENT),
        (format!("{{\"message\":1,\"message\":{message}}}"), EVENT),
        (format!("{{\"foreign\":[{{}}],\"message\":{message}}}"), EVENT),
        // Records of other streams, whatever their content.
        (format!("{{\"logStreamName\":\"authenticator-1\",\"message\":{message}}}"), "[other_stream]"),
        (format!("{{\"message\":{message},\"logStreamName\":\"kube-apiserver-1\"}}"), "[other_stream]"),
        (r#"{"message":"\ud800","logStreamName":"kube-scheduler-1"}"#.to_owned(), "[other_stream]"),
        // Control messages.
        (r#"{"messageType":"CONTROL_MESSAGE","message":"anything"}"#.to_owned(), "[control_message]"),
        (r#"{"id":"","timestamp":1,"message":"CWL CONTROL MESSAGE: Checking health of destination Kinesis stream."}"#.to_owned(), "[control_message]"),
        // Text of other components, with no stream to identify it.
        (format!("{{\"timestamp\":1772702102149,\"message\":{klog},\"ingestionTime\":1}}"), "[not_audit]"),
        ("I0520 05:24:43.888087      11 a.go:152] Skip".to_owned(), "[not_audit]"),
        ("time=\"2022-10-07T18:10:46Z\" level=info".to_owned(), "[not_audit]"),
        ("Permission Check Successful".to_owned(), "[not_audit]"),
        ("".to_owned(), "[not_audit]"),
        ("{}".to_owned(), "[not_audit]"),
        (r#"{"level":"info","msg":"json log"}"#.to_owned(), "[not_audit]"),
        (r#"{"level":"info","message":"json log"}"#.to_owned(), "[not_audit]"),
        (r#"{"timestamp":1,"eventId":"1"}"#.to_owned(), "[not_audit]"),
        (r#"{"message":"{\"level\":\"info\"}"}"#.to_owned(), "[not_audit]"),
        (r#"{"message":[1,2]}"#.to_owned(), "[not_audit]"),
        ("[1,2]".to_owned(), "[not_audit]"),
        // A record of the audit stream is an event, or is kept.
        (in_stream(r#"{"level":"info"}"#), "[unparsable] no auditID"),
        (in_stream("I0520 05:24:43"), "[unparsable] expected an object at byte 0"),
        (in_stream("[]"), "[unparsable] expected an object at byte 0"),
        (in_stream(r#"{"kind":0}"#), "[unparsable] kind is 0, not \"Event\""),
        (format!("{{\"logStreamName\":\"{STREAM}\",\"eventId\":\"1\"}}"), "[unparsable] no message"),
        // Objects that look like an event and are none.
        (r#"{"kind":"Event"}"#.to_owned(), "[unparsable] no auditID"),
        (r#"{"kind":0}"#.to_owned(), "[not_audit]"),
        (r#"{"message":"\ud83d!"}"#.to_owned(), "[not_audit]"),
        // Damaged envelopes.
        (r#"{"message":"x""#.to_owned(), "[unparsable] json ends early, at byte 14"),
        (r#"{"message":"x"} {}"#.to_owned(), "[unparsable] expected the end of the text at byte 16"),
        (r#"{"message":'x'}"#.to_owned(), "[unparsable] expected a value at byte 11"),
        ("{nonsense".to_owned(), "[unparsable] expected a key at byte 1"),
        // The log event's time is the last resort.
        (in_stream(&no_time), &record_time),
        (format!("{{\"message\":{}}}", quoted(&no_time)), "[unparsable] no stageTimestamp and no other time to take instead"),
        (format!("{{\"timestamp\":-62135596800000,\"message\":{}}}", quoted(&no_time)), "[unparsable] no stageTimestamp and no other time to take instead"),
        (format!("{{\"timestamp\":99999999999999999999,\"message\":{}}}", quoted(&no_time)), "[unparsable] no stageTimestamp and no other time to take instead"),
        (format!("{{\"timestamp\":\"NaN\",\"message\":{}}}", quoted(&no_time)), "[unparsable] no stageTimestamp and no other time to take instead"),
        (format!("{{\"timestamp\":\"2026-03-05T09:15:02.149Z\",\"message\":{}}}", quoted(&no_time)), &record_time),
    ] {
        assert_eq!(show(&record(payload.clone())), want, "{payload}");
    }
}

#[test]
fn convert_damaged_text_is_kept_unless_of_another_component() {
    for (payload, want) in [
        ("duler\\\" cannot list resource", "[unparsable]"),
        ("", "[unparsable]"),
        (r#"{"message":"text"}"#, "[unparsable]"),
        (r#"{"a":1}"#, "[unparsable]"),
        (
            "I0520 05:24:43.888087      11 a.go:152] Skip",
            "[not_audit]",
        ),
        ("time=\"2022-10-07T18:10:46Z\" level=info", "[not_audit]"),
        (
            r#"{"message":"I0520 05:24:43.8 1 a.go:1] x"}"#,
            "[not_audit]",
        ),
        (EVENT, EVENT),
    ] {
        let mut damaged = record(payload);
        damaged.damaged = true;
        assert!(
            show(&damaged).starts_with(want),
            "{payload}: {}",
            show(&damaged)
        );
    }
}

#[test]
fn convert_stream_prefix_is_selected() {
    let mut convert = EksConvert::new(EksConvertOptions {
        stream_prefix: "audit/".to_owned(),
        ..EksConvertOptions::default()
    });
    for (stream, event) in [("audit/1", true), (STREAM, false)] {
        let payload = format!(
            "{{\"logStreamName\":\"{stream}\",\"message\":{}}}",
            quoted(EVENT)
        );
        let mut out = Output::default();
        convert.convert(RecordId(1), &record(payload), &mut out);
        let outcome = out.drain().next();
        assert_eq!(matches!(outcome, Some(Outcome::Event { .. })), event);
    }
}

#[test]
fn convert_event_without_time_takes_that_of_the_record() {
    let mut timed =
        record(r#"{"message":"{\"auditID\":\"a\",\"stage\":\"Panic\",\"verb\":\"get\"}"}"#);
    timed.time = Some("2026-03-05T09:15:02Z".parse().unwrap());
    assert!(show(&timed).contains("\"stageTimestamp\":\"2026-03-05T09:15:02.000000Z\""));
}

#[test]
fn convert_event_is_a_slice_of_its_payload() {
    let whole = record(EVENT);
    let Outcome::Event { event, .. } = run(&whole) else {
        panic!("no event");
    };
    assert_eq!(event.text().as_ptr(), whole.payload.as_ptr(), "copied");
}

#[test]
fn convert_invalid_utf8_is_read_as_go_reads_it() {
    assert_eq!(show(&record(&b"{\"message\":\"\xff\"}"[..])), "[not_audit]");
    assert_eq!(show(&record(&b"\xff\xfe"[..])), "[not_audit]");
    let mut bytes =
        in_stream(&EVENT.replace("\"get\"", "\"get\",\"userAgent\":\"x#y\"")).into_bytes();
    let at = bytes.iter().position(|byte| *byte == b'#').unwrap();
    bytes[at] = 0xff;
    assert!(show(&record(bytes)).contains("\"userAgent\":\"x\u{fffd}y\""));
}

#[test]
fn convert_deep_nesting_is_survived() {
    let nested = |levels: usize| {
        EVENT.replace(
            "\"verb\"",
            &format!(
                "\"requestObject\":{}{},\"verb\"",
                "[".repeat(levels),
                "]".repeat(levels)
            ),
        )
    };
    let deep = nested(200);
    assert_eq!(show(&record(in_stream(&deep))), deep);
    assert_eq!(show(&record(deep.clone())), deep);
    for payload in [
        in_stream(&nested(100_000)),
        nested(100_000),
        "{\"a\":".repeat(100_000),
    ] {
        let shown = show(&record(payload));
        // Text that is no event is not converted, however deep it nests.
        let is_event = shown.starts_with("{\"kind\"") && shown.contains("audit.k8s.io/truncated");
        assert!(
            is_event || shown.contains("json ends early"),
            "{}",
            &shown[..40]
        );
    }
}

#[test]
fn convert_any_cut_gives_whole_members_or_a_reject() {
    let whole: Vec<&str> = MESSAGES
        .lines()
        .filter(|line| line.ends_with('}'))
        .collect();
    assert_eq!(whole.len(), 2);
    for event in whole.into_iter().chain([EVENT]) {
        for cut in (0..event.len()).filter(|&cut| event.is_char_boundary(cut)) {
            for marker in ["", "[Truncated...]"] {
                let message = format!("{}{marker}", &event[..cut]);
                let outcome = run(&record(in_stream(&message)));
                match outcome {
                    Outcome::Event { event: cut, .. } => {
                        assert!(cut.truncated());
                        assert_left_of_cut(event, std::str::from_utf8(cut.text()).unwrap());
                    }
                    Outcome::Reject { .. } => {}
                    Outcome::Skip { reason, .. } => panic!("{message}: {reason}"),
                }
                // The same without an envelope; text too short to identify may be skipped.
                if let Outcome::Event { event: cut, .. } = run(&record(message)) {
                    assert_left_of_cut(event, std::str::from_utf8(cut.text()).unwrap());
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn convert_native_event_keeps_every_byte(event in any_event()) {
        prop_assert_eq!(&show(&record(event.clone())), &event);
        prop_assert_eq!(&show(&record(in_stream(&event))), &event);
        let escaped = serde_json::to_string(&event).unwrap().replace('/', "\\/");
        prop_assert_eq!(&show(&record(format!("{{\"message\":{escaped}}}"))), &event);
        let object = format!("{{\"logStreamName\":\"{STREAM}\",\"message\":{event}}}");
        prop_assert_eq!(&show(&record(object)), &event);
    }

    #[test]
    fn convert_any_bytes_have_one_outcome(bytes: Vec<u8>, damaged: bool) {
        let mut any = record(bytes);
        any.damaged = damaged;
        if let (Outcome::Skip { reason, .. }, true) = (run(&any), damaged) {
            prop_assert!([OTHER_STREAM, CONTROL_MESSAGE, Skip::NOT_AUDIT].contains(&reason));
        }
    }

    #[test]
    fn convert_mutated_record_has_one_outcome(at: prop::sample::Index, byte: u8, event in any_event()) {
        let mut bytes = in_stream(&event).into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Outcome::Event { event, .. } = run(&record(bytes)) {
            prop_assert!(Raw::parse(std::str::from_utf8(event.text()).unwrap()).is_ok());
        }
    }

    #[test]
    fn convert_any_json_has_one_outcome(json in any_json()) {
        run(&record(json.clone()));
        run(&record(format!("{{\"logStreamName\":{json},\"timestamp\":{json},\"message\":{json}}}")));
    }
}

#[test]
fn record_that_names_its_group_is_chosen_and_annotated_by_it() {
    let record = |group: &str, account: &str| {
        let message = serde_json::to_string(EVENT).unwrap();
        let head = r#""logStreamName":"kube-apiserver-audit-1""#;
        format!(r#"{{"owner":"{account}","logGroup":"{group}",{head},"message":{message}}}"#)
    };
    let none = format!(
        r#"{{"logStreamName":"kube-apiserver-audit-1","message":{}}}"#,
        serde_json::to_string(EVENT).unwrap()
    );
    let mut convert = EksConvert::new(EksConvertOptions {
        clusters: vec![
            ClusterName::read("prod"),
            ClusterName::read("111122223333/dev"),
        ],
        annotate_cluster: true,
        ..EksConvertOptions::default()
    });
    let mut made = |payload: String| {
        let origin = Origin::Stream {
            stream: "s".into(),
            id: "1".to_owned(),
        };
        let record = Record::new(payload, origin);
        let mut out = Output::default();
        convert.convert(RecordId(0), &record, &mut out);
        out.drain().next().unwrap()
    };
    for (group, account, cluster) in [
        ("/aws/eks/prod/cluster", "444455556666", Some("prod")),
        ("/aws/eks/dev/cluster", "111122223333", Some("dev")),
        ("/aws/eks/dev/cluster", "444455556666", None),
        ("/aws/eks/other/cluster", "111122223333", None),
        ("/own/group", "111122223333", None),
    ] {
        match (made(record(group, account)), cluster) {
            (Outcome::Event { event, .. }, Some(cluster)) => {
                let event: serde_json::Value = serde_json::from_slice(event.text()).unwrap();
                assert_eq!(event["annotations"]["audit-bridge/cluster"], cluster);
                assert_eq!(event["annotations"]["audit-bridge/account"], account);
            }
            (Outcome::Skip { reason, .. }, None) => assert_eq!(reason, Skip::OTHER_CLUSTER),
            (other, _) => panic!("{group} {account}: {other:?}"),
        }
    }
    // A record from a dump that names no cluster is not left out.
    assert!(matches!(made(none), Outcome::Event { .. }));
}
