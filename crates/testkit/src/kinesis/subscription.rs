//! The records that a subscription filter of CloudWatch Logs writes to a stream, and records of
//! other producers.
//!
//! The form follows "Log group-level subscription filters" of the CloudWatch Logs User Guide: gzip
//! of one JSON object with several log events. A `CONTROL_MESSAGE` tests whether the destination
//! can be reached.

use std::io::{Read as _, Write as _};

use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

/// The origin of a record's events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscriptionOrigin {
    /// The account of the log group.
    pub owner: String,
    /// The log group: `/aws/eks/NAME/cluster`.
    pub log_group: String,
    /// The log stream: `kube-apiserver-audit-…`.
    pub log_stream: String,
}

/// One event of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscribedEvent {
    /// 56 digits.
    pub id: String,
    /// When it was logged, in milliseconds.
    pub timestamp_ms: i64,
    pub message: String,
}

/// An event of a record, with its origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventWithOrigin {
    pub subscription: SubscriptionOrigin,
    pub event: SubscribedEvent,
}

impl SubscribedEvent {
    /// An event whose ID consists of its time and a number.
    pub fn new(number: usize, timestamp_ms: i64, message: impl Into<String>) -> SubscribedEvent {
        SubscribedEvent {
            id: format!("{timestamp_ms:020}{number:036}"),
            timestamp_ms,
            message: message.into(),
        }
    }
}

impl SubscriptionOrigin {
    /// The audit log of a cluster's API server in an account.
    pub fn of_cluster(owner: &str, cluster: &str) -> SubscriptionOrigin {
        SubscriptionOrigin {
            owner: owner.to_owned(),
            log_group: format!("/aws/eks/{cluster}/cluster"),
            log_stream: "kube-apiserver-audit-0a1b2c3d4e5f60718293a4b5c6d7e8f9".to_owned(),
        }
    }

    /// A `DATA_MESSAGE`, before compression.
    pub fn json(&self, events: &[SubscribedEvent]) -> Value {
        let event = |it: &SubscribedEvent| json!({"id": it.id, "timestamp": it.timestamp_ms, "message": it.message});
        json!({
            "messageType": "DATA_MESSAGE",
            "owner": self.owner,
            "logGroup": self.log_group,
            "logStream": self.log_stream,
            "subscriptionFilters": ["audit"],
            "logEvents": events.iter().map(event).collect::<Vec<_>>(),
        })
    }

    pub fn record(&self, events: &[SubscribedEvent]) -> Bytes {
        gzip(self.json(events).to_string().as_bytes())
    }
}

/// The record that only tests the destination.
pub fn control_message(timestamp_ms: i64) -> Bytes {
    let message = "CWL CONTROL MESSAGE: Checking health of destination Kinesis stream.";
    let json = json!({
        "messageType": "CONTROL_MESSAGE",
        "owner": "CloudwatchLogs",
        "logGroup": "",
        "logStream": "",
        "subscriptionFilters": [],
        "logEvents": [{"id": "", "timestamp": timestamp_ms, "message": message}],
    });
    gzip(json.to_string().as_bytes())
}

/// Compresses like CloudWatch Logs.
pub fn gzip(bytes: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap().into()
}

/// The events of a `DATA_MESSAGE`; none if the bytes are something else.
pub fn read(data: &[u8]) -> Vec<EventWithOrigin> {
    let mut text = String::new();
    if GzDecoder::new(data).read_to_string(&mut text).is_err() {
        return Vec::new();
    }
    let json: Value = serde_json::from_str(&text).unwrap_or_default();
    if json["messageType"] != "DATA_MESSAGE" {
        return Vec::new();
    }
    let member = |json: &Value, name: &str| json[name].as_str().unwrap_or_default().to_owned();
    let line = |event: &Value| EventWithOrigin {
        subscription: SubscriptionOrigin {
            owner: member(&json, "owner"),
            log_group: member(&json, "logGroup"),
            log_stream: member(&json, "logStream"),
        },
        event: SubscribedEvent {
            id: member(event, "id"),
            timestamp_ms: event["timestamp"].as_i64().unwrap_or(0),
            message: member(event, "message"),
        },
    };
    let events = json["logEvents"].as_array();
    events.into_iter().flatten().map(line).collect()
}

/// Invalid records that begin like a subscription's, each with its defect.
pub fn broken_records() -> Vec<(&'static str, Bytes)> {
    let subscription = SubscriptionOrigin::of_cluster(super::ACCOUNT, "prod");
    let events = [SubscribedEvent::new(1, 1_790_000_000_000, "{}")];
    let whole = subscription.record(&events);
    let changed = |name: &str, value: Value| {
        let mut json = subscription.json(&events);
        json[name] = value;
        gzip(json.to_string().as_bytes())
    };
    let mut checksum = whole.to_vec();
    let at = checksum.len() - 8;
    checksum[at] ^= 1;
    let mut trailing = whole.to_vec();
    trailing.extend(b"trailing");
    vec![
        ("cut within gzip", whole.slice(..whole.len() / 2)),
        ("only gzip's magic number", whole.slice(..2)),
        ("wrong checksum", checksum.into()),
        ("bytes behind gzip", trailing.into()),
        ("gzip of nothing", gzip(b"")),
        ("gzip of text", gzip(b"hello")),
        (
            "gzip of cut JSON",
            gzip(br#"{"messageType":"DATA_MESSAGE","logEv"#),
        ),
        ("gzip of an array", gzip(b"[]")),
        (
            "gzip of bytes that are no UTF-8",
            gzip(b"{\"messageType\":\"\xff\"}"),
        ),
        (
            "unknown message type",
            changed("messageType", "OTHER_MESSAGE".into()),
        ),
        ("no events", changed("logEvents", json!([]))),
        (
            "events that are no list",
            changed("logEvents", "none".into()),
        ),
        (
            "event without message",
            changed("logEvents", json!([{"id": "1", "timestamp": 1}])),
        ),
        (
            "event whose message is a number",
            changed(
                "logEvents",
                json!([{"id": "1", "timestamp": 1, "message": 1}]),
            ),
        ),
        ("group that is a number", changed("logGroup", 1.into())),
    ]
}

/// Records of producers other than CloudWatch Logs, each with its kind.
pub fn foreign_records() -> Vec<(&'static str, Bytes)> {
    vec![
        ("empty", Bytes::new()),
        ("text", Bytes::from_static(b"2026-11-21 hello")),
        (
            "JSON",
            Bytes::from_static(br#"{"order":1,"amount":"2.50"}"#),
        ),
        ("gzip of JSON", gzip(br#"{"order":1}"#)),
        // "KPL aggregated record format": a magic number, protobuf, MD5.
        (
            "aggregated by the producer library",
            Bytes::from_static(
                b"\xf3\x89\x9a\xc2\x0a\x01a\x1a\x05\x08\x00\x1a\x01x0123456789abcdef",
            ),
        ),
        (
            "zstd",
            Bytes::from_static(b"\x28\xb5\x2f\xfd\x00\x00\x01\x00\x00"),
        ),
    ]
}

/// A record that unpacks to this many bytes, and is a thousandth of that in the stream.
pub fn bomb(unpacked_bytes: usize) -> Bytes {
    let subscription = SubscriptionOrigin::of_cluster(super::ACCOUNT, "prod");
    let event = SubscribedEvent::new(1, 1_790_000_000_000, " ".repeat(unpacked_bytes));
    subscription.record(&[event])
}
