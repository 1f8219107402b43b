//! Tests of whole events, by theme in the modules below, with their shared helpers.

mod changes;
mod cut;
mod random;
mod repairs;
mod spelling;
mod time;
mod too_large;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::json::Raw;
use super::super::time as micro_time;
use super::*;

const WHOLE: &str = concat!(
    r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"RequestResponse","#,
    r#""auditID":"9d5c8b5a-5f2f-4f5e-8f56-6ea5a4d6d0b1","stage":"ResponseComplete","#,
    r#""requestURI":"/api/v1/namespaces/default/pods?limit=500","verb":"create","#,
    r#""user":{"username":"jürgen","groups":["a","b"]},"sourceIPs":["10.0.0.1"],"#,
    r#""objectRef":{"resource":"pods","namespace":"default","name":"x"},"#,
    r#""responseStatus":{"metadata":{},"code":201},"#,
    r#""requestObject":{"kind":"Pod","spec":{"a":1.50,"text":"say \"hi\" \\ 😀\n"}},"#,
    r#""responseObject":{"kind":"Pod","status":{"n":[1,2,{"x":[]}]}},"#,
    r#""requestReceivedTimestamp":"2024-05-20T05:24:43.000001Z","#,
    r#""stageTimestamp":"2024-05-20T05:24:43.100000Z","#,
    r#""annotations":{"authorization.k8s.io/decision":"allow","authorization.k8s.io/reason":""}}"#,
);

const MINIMAL: &str = concat!(
    r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","auditID":"i","stage":"Panic","verb":"get","#,
    r#""stageTimestamp":"2024-05-20T05:24:43.000000Z"}"#,
);

const RECORD_TIME: &str = "2024-01-02T03:04:05.678901Z";

fn options(annotations: &[(&str, &str)], event_bytes_max: usize) -> EventOptions {
    EventOptions {
        event_bytes_max,
        event_depth_max: 250,
        annotations: annotations
            .iter()
            .map(|&(key, value)| (key.to_owned(), value.to_owned()))
            .collect(),
    }
}

/// Converts with all options given.
fn convert(
    text: &str,
    claimed: bool,
    record_time: Option<&str>,
    options: &EventOptions,
) -> Result<Event, EventError> {
    let context = EventContext {
        claimed,
        record_time: record_time.map(|time| time.parse().unwrap()),
        ..options.context()
    };
    event(&Bytes::copy_from_slice(text.as_bytes()), &context)
}

/// Converts a claimed text without a record time.
fn plain(text: &str) -> Result<Event, EventError> {
    convert(text, true, None, &EventOptions::default())
}

fn text(event: &Event) -> &str {
    std::str::from_utf8(event.text()).unwrap()
}

/// The event as serde reads it: valid, and fit for a receiver.
#[track_caller]
fn value(event: &Event) -> Value {
    let value: Value = serde_json::from_slice(event.text())
        .unwrap_or_else(|error| panic!("{error}: {}", text(event)));
    assert_eq!(value["kind"], "Event");
    assert_eq!(value["apiVersion"], "audit.k8s.io/v1");
    for name in ["auditID", "stage", "verb"] {
        assert!(value[name].is_string(), "{name}");
    }
    let stamp = value["stageTimestamp"].as_str().unwrap();
    let read = micro_time::parse(stamp).unwrap();
    assert_eq!(micro_time::micros(read), stamp);
    value
}

/// The texts of an object's members, first to last.
fn members(text: &str) -> Vec<(String, &str)> {
    Raw::parse(text)
        .unwrap()
        .members()
        .unwrap()
        .map(|(key, value)| (key.into_owned(), value.text()))
        .collect()
}

fn count(event: &Event, name: &str) -> usize {
    members(text(event))
        .iter()
        .filter(|(key, _)| key == name)
        .count()
}

/// The members that may change.
const OURS: [&str; 8] = [
    "kind",
    "apiVersion",
    "stageTimestamp",
    "requestReceivedTimestamp",
    "annotations",
    "stage",
    "verb",
    "objectRef",
];

/// Checks that every other member keeps its text and order.
#[track_caller]
fn assert_rest_kept(before: &str, event: &Event, changed: &[&str]) {
    let rest = |text| {
        let mut members = members(text);
        members.retain(|(key, _)| !changed.contains(&key.as_str()));
        members
            .into_iter()
            .map(|(key, value)| (key, value.to_owned()))
            .collect::<Vec<_>>()
    };
    assert_eq!(rest(before), rest(text(event)));
}

#[test]
fn event_whole_is_neither_changed_nor_copied() {
    let pretty = serde_json::to_string_pretty(&serde_json::from_str::<Value>(WHOLE).unwrap());
    for json in [WHOLE, MINIMAL, &pretty.unwrap()] {
        for claimed in [true, false] {
            let padded = Bytes::from(format!(" \n{json}\r\n"));
            let options = EventOptions::default();
            let context = EventContext {
                claimed,
                ..options.context()
            };
            let event = event(&padded, &context).unwrap();
            assert_eq!(text(&event), json);
            assert_eq!(event.text().as_ptr(), padded[2..].as_ptr());
            assert!(!event.truncated());
            value(&event);
        }
    }
}

#[test]
fn event_error_tells_foreign_text_from_broken_event() {
    let cases = [
        ("{}", "no auditID"),
        ("[]", "expected an object at byte 0"),
        ("7", "expected an object at byte 0"),
        ("hello", "expected an object at byte 0"),
        (
            r#"{"kind":"Pod","metadata":{}}"#,
            "kind is \"Pod\", not \"Event\"",
        ),
        (r#"{"kind":0}"#, "kind is 0, not \"Event\""),
        (r#"{"kind":{}}"#, "kind is {}, not \"Event\""),
        (r#"{"level":"info","msg":"x"}"#, "no auditID"),
        (
            r#"{"a":1} trailing"#,
            "expected the end of the text at byte 8",
        ),
    ];
    for (json, want) in cases {
        assert_eq!(
            plain(json),
            Err(EventError::Unparsable(want.to_owned())),
            "{json}"
        );
        let unclaimed = convert(json, false, None, &EventOptions::default());
        assert_eq!(
            unclaimed,
            Err(EventError::NotAudit(want.to_owned())),
            "{json}"
        );
    }
}

#[test]
fn event_claimed_but_broken_is_rejected() {
    for (json, want) in [
        (r#"{"kind":"Event"}"#, "no auditID"),
        (
            r#"{"kind":"Event","apiVersion":"v1","reason":"Pulled"}"#,
            "no auditID",
        ),
        (r#"{"auditID":"x","verb":"get"}"#, "no stage"),
        (r#"{"auditID":"x","stage":"Panic"}"#, "no verb"),
        (r#"{"auditID":"x","stage":"","verb":"get"}"#, "no stage"),
        (
            r#"{"auditID":"","stage":"Panic","verb":"get"}"#,
            "no auditID",
        ),
        (
            r#"{"auditID":7,"stage":"Panic","verb":"get"}"#,
            "auditID is a number, not a string",
        ),
        (r#"{"auditID":"x","stage":null,"verb":"get"}"#, "no stage"),
        (
            r#"{"auditID":"x","stage":"Panic","verb":["get"]}"#,
            "verb is an array, not a string",
        ),
        (
            r#"{"auditID":"x","kind":"EventList"}"#,
            "kind is \"EventList\", not \"Event\"",
        ),
        (
            r#"{"auditID":"x"} trailing"#,
            "expected the end of the text at byte 16",
        ),
        (r#"{"auditID":"x",}"#, "expected a key at byte 15"),
    ] {
        for claimed in [true, false] {
            let got = convert(json, claimed, None, &EventOptions::default());
            assert_eq!(got, Err(EventError::Unparsable(want.to_owned())), "{json}");
        }
    }
    let other = WHOLE.replace("audit.k8s.io/v1", "audit.k8s.io/v2");
    let want = "apiVersion is \"audit.k8s.io/v2\", not audit.k8s.io/v1";
    assert_eq!(plain(&other), Err(EventError::Unparsable(want.to_owned())));
    let garbage = format!("{WHOLE}{WHOLE}");
    assert!(matches!(plain(&garbage), Err(EventError::Unparsable(_))));
}

#[test]
fn event_error_message_stays_short() {
    let long = format!(r#"{{"kind":"{}"}}"#, "ä".repeat(10_000));
    let Err(EventError::Unparsable(what)) = plain(&long) else {
        panic!("it is none");
    };
    assert!(what.len() < 150, "{what}");
}

#[test]
fn event_empty_verb_is_accepted() {
    let json = MINIMAL.replace("\"get\"", "\"\"");
    assert_eq!(text(&plain(&json).unwrap()), json);
}

#[test]
fn event_ten_megabyte_string_is_shortened() {
    let long = "\\\"x\\\\ü".repeat(1_500_000);
    let json = MINIMAL.replace("\"get\"", &format!("\"get\",\"userAgent\":\"{long}\""));
    let unlimited = options(&[], usize::MAX);
    assert_eq!(text(&convert(&json, true, None, &unlimited).unwrap()), json);
    let annotated = options(&[("a", "b")], usize::MAX);
    let event = convert(&json, true, None, &annotated).unwrap();
    assert_rest_kept(&json, &event, &["annotations"]);
    let event = plain(&json).unwrap();
    assert!(event.text().len() <= EventOptions::default().event_bytes_max);
    let agent = &value(&event)["userAgent"];
    let agent = agent.as_str().unwrap();
    assert!(
        agent.starts_with("\"x\\ü\"x") && agent.ends_with("\\ü"),
        "{agent}"
    );
    assert!(event.notes().given_up().eq([GivenUp::Identity]));
}
