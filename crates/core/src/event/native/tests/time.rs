//! Where the `stageTimestamp` comes from.

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
fn it_is_filled_from_the_next_best_time() {
    let received = "\"2024-05-20T05:24:43.5+02:00\"";
    let old = "\"2023-05-20T05:24:43Z\"";
    for none in NONE {
        for (received, old, record, want) in [
            (
                received,
                old,
                Some(RECORD_TIME),
                "2024-05-20T05:24:43.5+02:00",
            ),
            (none, old, Some(RECORD_TIME), "2023-05-20T05:24:43Z"),
            (none, none, Some(RECORD_TIME), RECORD_TIME),
        ] {
            let json = with(&[
                ("requestReceivedTimestamp", received),
                ("stageTimestamp", none),
                ("timestamp", old),
            ]);
            let event = convert(&json, false, record, &Options::default()).unwrap();
            let value = value(&event);
            assert_eq!(value["stageTimestamp"], want, "{json}");
            assert_eq!(count(&event, "stageTimestamp"), 1);
            let of_record = want == RECORD_TIME;
            let mark = &value["annotations"]["audit-bridge/stage-timestamp"];
            assert_eq!(mark == "record", of_record, "{json}");
            assert_eq!(count(&event, "annotations"), usize::from(of_record));
            assert_rest_kept(&json, &event, &["stageTimestamp", "annotations"]);
            assert!(!event.truncated());
        }
    }
}

#[test]
fn without_any_time_it_is_refused() {
    for none in NONE {
        let json = with(&[("stageTimestamp", none), ("requestReceivedTimestamp", none)]);
        for claimed in [true, false] {
            let got = convert(&json, claimed, None, &Options::default());
            let Err(Failure::Unparsable(what)) = got else {
                panic!("{json}: {got:?}");
            };
            assert!(what.ends_with("no other time to take instead"), "{what}");
        }
    }
}

#[test]
fn a_time_that_is_there_stays_as_it_is_written() {
    for time in [
        "\"2024-05-20T05:24:43.123456789123Z\"",
        "\"2024-05-20T05:24:43\\u005a\"",
        "\"1970-01-01T00:00:00Z\"",
    ] {
        let json = with(&[("stageTimestamp", time)]);
        let event = convert(&json, true, Some(RECORD_TIME), &Options::default()).unwrap();
        assert_eq!(text(&event), json);
    }
}
