//! The sources of the `stageTimestamp`.

use super::*;

const NO_TIME: &str =
    r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","auditID":"i","stage":"s","verb":"v""#;

/// Values that are no time.
const NONE: [&str; 13] = [
    "",
    "null",
    "0",
    "-1",
    "1716182683",
    "\"\"",
    "\"NaN\"",
    "\"0\"",
    "\"2024-05-20 05:24:43\"",
    "\"2024-13-20T05:24:43Z\"",
    "\"0001-01-01T00:00:00Z\"",
    "\"0001-01-01T00:00:00.000000Z\"",
    "{\"seconds\":1}",
];

fn with(members: &[(&str, &str)]) -> String {
    let mut json = NO_TIME.to_owned();
    for (key, value) in members {
        if !value.is_empty() {
            json += &format!(",\"{key}\":{value}");
        }
    }
    json + "}"
}

#[test]
fn event_without_time_takes_the_next_best() {
    let received = "\"2024-05-20T05:24:43.5+02:00\"";
    let old = "\"2023-05-20T05:24:43Z\"";
    for none in NONE {
        for (received, old, record, want) in [
            (
                received,
                old,
                Some(RECORD_TIME),
                "2024-05-20T03:24:43.500000Z",
            ),
            (none, old, Some(RECORD_TIME), "2023-05-20T05:24:43.000000Z"),
            (none, none, Some(RECORD_TIME), RECORD_TIME),
        ] {
            let json = with(&[
                ("requestReceivedTimestamp", received),
                ("stageTimestamp", none),
                ("timestamp", old),
            ]);
            let event = convert(&json, false, record, &EventOptions::default()).unwrap();
            let value = value(&event);
            assert_eq!(value["stageTimestamp"], want, "{json}");
            assert_eq!(count(&event, "stageTimestamp"), 1);
            let of_record = want == RECORD_TIME;
            let mark = &value["annotations"]["audit-bridge/stage-timestamp"];
            assert_eq!(mark == "record", of_record, "{json}");
            let changed = ["stageTimestamp", "requestReceivedTimestamp", "annotations"];
            assert_rest_kept(&json, &event, &changed);
            assert!(event.notes().repaired().eq([Repair::Time]), "{json}");
            let received = &value["requestReceivedTimestamp"];
            assert!(
                received.is_null() || received.as_str().is_some_and(crate::event::time::is_micros),
                "{json}"
            );
            assert!(!event.truncated());
        }
    }
}

#[test]
fn event_without_any_time_is_rejected() {
    for none in NONE {
        let json = with(&[("stageTimestamp", none), ("requestReceivedTimestamp", none)]);
        for claimed in [true, false] {
            let got = convert(&json, claimed, None, &EventOptions::default());
            let Err(EventError::Unparsable(what)) = got else {
                panic!("{json}: {got:?}");
            };
            assert!(what.ends_with("no other time to take instead"), "{what}");
        }
    }
}

#[test]
fn event_time_in_any_form_leaves_in_utc_microseconds() {
    for (time, want) in [
        (
            "2024-05-20T05:24:43.123456789123Z",
            "2024-05-20T05:24:43.123456Z",
        ),
        ("2024-05-20T05:24:43.123Z", "2024-05-20T05:24:43.123000Z"),
        ("2024-05-20T05:24:43\\u005a", "2024-05-20T05:24:43.000000Z"),
        ("1970-01-01T00:00:00Z", "1970-01-01T00:00:00.000000Z"),
        ("2024-12-31T23:59:59.999999Z", "2024-12-31T23:59:59.999999Z"),
        ("2024-05-20T05:24:43.5-01:30", "2024-05-20T06:54:43.500000Z"),
    ] {
        let quoted = format!("\"{time}\"");
        for name in ["stageTimestamp", "requestReceivedTimestamp"] {
            let other = ("stageTimestamp", "\"2024-05-20T05:24:43.000000Z\"");
            let json = match name {
                "stageTimestamp" => with(&[(name, &quoted)]),
                _ => with(&[other, (name, &quoted)]),
            };
            let event = convert(&json, true, Some(RECORD_TIME), &EventOptions::default()).unwrap();
            assert_eq!(value(&event)[name], want, "{json}");
            assert_eq!(text(&event) == json, time == want, "{json}");
        }
    }
}

#[test]
fn event_with_odd_record_time_takes_its_own() {
    let stage = ("stageTimestamp", "\"2024-05-20T05:24:43.000000Z\"");
    for odd in [
        "7",
        "\"\"",
        "\"10000-01-01T00:00:00.000000Z\"",
        "{}",
        "\"yesterday\"",
    ] {
        let json = with(&[("requestReceivedTimestamp", odd), stage]);
        let event = convert(&json, true, Some(RECORD_TIME), &EventOptions::default()).unwrap();
        let got = value(&event);
        assert_eq!(got["requestReceivedTimestamp"], RECORD_TIME, "{json}");
        assert_eq!(got["annotations"][RECEIVED_TIMESTAMP], "record");
        let event = convert(&json, true, None, &EventOptions::default()).unwrap();
        assert_eq!(count(&event, "requestReceivedTimestamp"), 0);
    }
    let json = with(&[("requestReceivedTimestamp", "null"), stage]);
    assert_eq!(text(&plain(&json).unwrap()), json);
}
