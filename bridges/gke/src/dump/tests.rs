use base64::engine::general_purpose;
use serde_json::{Value, json};

use super::*;

const ENTRY: &str = r#"{"insertId":"i?>~","logName":"projects/p/logs/cloudaudit.googleapis.com%2Factivity","protoPayload":{"@type":"type.googleapis.com/google.cloud.audit.AuditLog","methodName":"io.k8s.get","resourceName":"ü?>~"}}"#;

fn record(text: &str) -> Result<String, RecordError> {
    let raw = Raw::parse(text).expect("json");
    GkeDump
        .record(raw, &PieceContext::empty())
        .map(Cow::into_owned)
}

#[test]
fn dump_entry_is_its_own_record() {
    assert_eq!(record(ENTRY).as_deref(), Ok(ENTRY));
    for text in [
        "{}",
        "[]",
        "3",
        r#"{"kind":"Event","auditID":"a"}"#,
        r#"{"message":"m"}"#,
        r#"{"message":{}}"#,
    ] {
        assert_eq!(record(text).as_deref(), Ok(text));
    }
}

#[test]
fn dump_pubsub_message_is_unpacked() {
    for data in [
        general_purpose::STANDARD.encode(ENTRY),
        general_purpose::STANDARD_NO_PAD.encode(ENTRY),
        general_purpose::URL_SAFE.encode(ENTRY),
        general_purpose::URL_SAFE_NO_PAD.encode(ENTRY),
    ] {
        let push = json!({"message": {"attributes": {}, "data": data, "messageId": "1"}, "subscription": "s"});
        assert_eq!(record(&push.to_string()).as_deref(), Ok(ENTRY));
        let pull = json!({"ackId": "a", "message": {"data": data}});
        assert_eq!(record(&pull.to_string()).as_deref(), Ok(ENTRY));
    }
    assert!(record(r#"{"message":{"data":"***"}}"#).is_err());
    assert!(record(r#"{"message":{"data":7}}"#).is_err());
    let binary = general_purpose::STANDARD.encode([0xff, 0xfe]);
    assert!(record(&json!({"message": {"data": binary}}).to_string()).is_err());
    let alert = format!(r#"{{"agent":"x","data":{ENTRY}}}"#);
    assert_eq!(record(&alert).as_deref(), Ok(ENTRY));
}

#[test]
fn dump_wrapped_entry_is_restored() {
    let payload = r#"{"methodName":"io.k8s.get","resourceName":"readyz"}"#;
    let wrapped = json!({
        "Entry": {"Timestamp": "2020-01-11T01:01:19.4108Z", "Severity": 0, "Payload": {"method_name": "io.k8s.get"},
            "Labels": {"a": "b"}, "InsertID": "i", "HTTPRequest": null, "Operation": {"id": "o", "first": true},
            "LogName": "projects/p/logs/cloudaudit.googleapis.com/activity", "Resource": {"type": "k8s_cluster"}, "Trace": ""},
        "AuditPayload": payload,
    });
    let found: Value =
        serde_json::from_str(&record(&wrapped.to_string()).expect("an entry")).expect("json");
    assert_eq!(
        found,
        json!({
            "protoPayload": {"@type": "type.googleapis.com/google.cloud.audit.AuditLog", "methodName": "io.k8s.get", "resourceName": "readyz"},
            "insertId": "i", "resource": {"type": "k8s_cluster"}, "timestamp": "2020-01-11T01:01:19.4108Z",
            "labels": {"a": "b"}, "logName": "projects/p/logs/cloudaudit.googleapis.com/activity",
            "operation": {"id": "o", "first": true}
        })
    );
    let typed = record(r#"{"Entry":null,"AuditPayload":" {\"@type\":\"x\"} "}"#).expect("an entry");
    assert_eq!(typed, r#"{"protoPayload":{"@type":"x"}}"#);
    let empty = record(r#"{"AuditPayload":{ }}"#).expect("an entry");
    assert!(Raw::parse(&empty).is_ok(), "{empty}");
    for text in [
        r#"{"Entry":{}}"#,
        r#"{"AuditPayload":7}"#,
        r#"{"AuditPayload":"x"}"#,
        r#"{"AuditPayload":"[]"}"#,
    ] {
        assert!(record(text).is_err(), "{text}");
    }
}

#[test]
fn dump_member_names_tell_the_object() {
    for (key, role) in [
        ("protoPayload", Role::Record),
        ("insertId", Role::Record),
        ("textPayload", Role::Record),
        ("message", Role::Wrapped),
        ("ackId", Role::Wrapped),
        ("AuditPayload", Role::Wrapped),
        ("entries", Role::Records),
        ("receivedMessages", Role::Records),
        ("labels", Role::Neutral),
        ("kind", Role::Neutral),
    ] {
        assert_eq!(GkeDump.role(key), role, "{key}");
    }
    assert!(GkeDump.recognises(Raw::parse(ENTRY).expect("json")));
    assert!(!GkeDump.recognises(Raw::parse("\"x\"").expect("json")));
}

#[test]
fn dump_yaml_is_told_from_other_text() {
    for (head, want) in [
        ("insertId: a\n", true),
        ("# comment\n\n---\nlabels:\n  a: b\n", true),
        ("- insertId: a\n", true),
        ("'protoPayload':\n", true),
        ("{\"insertId\": 1}", false),
        ("[1]", false),
        ("name: x\n", false),
        ("I0603 text: y", false),
        ("", false),
    ] {
        assert_eq!(GkeDump.text_split(None, head).is_some(), want, "{head}");
    }
    assert!(GkeDump.text_split(Some("yaml"), "").is_some());
    assert!(
        GkeDump
            .text_split(Some("log-entry"), "insertId: a")
            .is_none()
    );
    let names: Vec<_> = GkeDump.shapes().iter().map(|shape| shape.name).collect();
    assert!(names.contains(&"yaml") && names.contains(&"pubsub"));
}
