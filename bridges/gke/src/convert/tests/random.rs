//! Random entries.

use super::*;

/// Any JSON, with the names that mean something.
fn arb_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
        "(io.k8s.core.v1.pods(.exec)?.(create|get)|core/v1/namespaces/n/pods/p|k8s.io|k8s_cluster|2024-01-0[0-9]T00:00:00(.5)?Z)"
            .prop_map(Value::from),
    ];
    let key = prop_oneof![
        "\\PC{0,6}",
        "(protoPayload|@type|kind|auditID|stage|verb|labels|resource|type|operation|id|first|split|uid|index|totalSplits|request|response|metadata|name|status|code|message|details|insertId|timestamp|methodName|resourceName|authenticationInfo|principalEmail)",
    ];
    leaf.prop_recursive(4, 40, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((key.clone(), inner), 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// Checks that receivers can decode every event.
fn check(outcomes: Vec<Outcome>) {
    for outcome in outcomes {
        let Outcome::Event { event, records } = outcome else {
            continue;
        };
        assert!(!records.is_empty());
        let value: Value = serde_json::from_slice(event.text()).expect("json");
        assert_eq!(value["kind"], "Event");
        assert_eq!(value["apiVersion"], "audit.k8s.io/v1");
        for field in ["auditID", "stage"] {
            assert!(
                value[field].as_str().is_some_and(|text| !text.is_empty()),
                "{value}"
            );
        }
        // Empty if Kubernetes has no verb for the method.
        assert!(
            value["verb"].is_string() && value["requestURI"].is_string(),
            "{value}"
        );
        let time = value["stageTimestamp"].as_str().expect("a time");
        assert!(time::parse(time).is_some(), "{time}");
        assert!(
            value["annotations"]
                .as_object()
                .is_none_or(|all| all.values().all(Value::is_string))
        );
    }
}

fn convert_all(payloads: Vec<Bytes>, damaged: bool) {
    let mut convert = GkeConvert::new(GkeConvertOptions {
        include_data_access: true,
        ..GkeConvertOptions::default()
    });
    let mut out = Output::default();
    let mut settled = std::collections::HashSet::new();
    let count = payloads.len() as u64;
    for (id, payload) in payloads.into_iter().enumerate() {
        let mut record = record(payload);
        record.damaged = damaged;
        convert.convert(RecordId(id as u64), &record, &mut out);
    }
    convert.finish(&mut out);
    let outcomes: Vec<_> = out.drain().collect();
    for outcome in &outcomes {
        match outcome {
            Outcome::Event { records, .. } => settled.extend(records.iter().copied()),
            Outcome::Skip { record, .. } | Outcome::Reject { record, .. } => {
                assert!(settled.insert(*record), "settled once");
            }
        }
    }
    assert_eq!(settled.len() as u64, count, "each record is settled");
    check(outcomes);
}

/// Pointers to members that are replaced by random values.
const PLACES: [&str; 24] = [
    "/insertId",
    "/labels",
    "/labels/authorization.k8s.io~1decision",
    "/logName",
    "/operation",
    "/operation/id",
    "/operation/first",
    "/operation/last",
    "/protoPayload/@type",
    "/protoPayload/authenticationInfo",
    "/protoPayload/authenticationInfo/principalEmail",
    "/protoPayload/methodName",
    "/protoPayload/resourceName",
    "/protoPayload/request",
    "/protoPayload/request/metadata",
    "/protoPayload/request/@type",
    "/protoPayload/response",
    "/protoPayload/response/kind",
    "/protoPayload/requestMetadata",
    "/protoPayload/status",
    "/resource/labels",
    "/split",
    "/timestamp",
    "/receiveTimestamp",
];

proptest! {
    #[test]
    fn convert_any_bytes_have_one_outcome(text in "\\PC*", bytes in prop::collection::vec(any::<u8>(), 0..80), damaged: bool) {
        convert_all(vec![text.into(), bytes.into()], damaged);
    }

    #[test]
    fn convert_any_json_has_one_outcome(values in prop::collection::vec(arb_json(), 1..4), damaged: bool) {
        let wrapped = values.iter().map(|value| json!({"protoPayload": value, "insertId": "i", "timestamp": "2024-01-01T00:00:00Z"}));
        let payloads = values.iter().cloned().chain(wrapped).map(|value| value.to_string().into());
        convert_all(payloads.collect(), damaged);
    }

    #[test]
    fn convert_mutated_entry_has_one_outcome(
        changes in prop::collection::vec((0..PLACES.len(), arb_json()), 0..4),
        splits in prop::collection::vec((-1i64..4, -1i64..4), 1..4),
        cut in any::<prop::sample::Index>(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
    ) {
        let mut entry = entry();
        for (place, value) in changes {
            let (parent, _) = PLACES[place].rsplit_once('/').expect("a pointer");
            if entry.pointer(parent).is_some_and(Value::is_object) {
                entry = set(entry, PLACES[place], value);
            }
        }
        let text = entry.to_string();
        let mut payloads: Vec<Bytes> = vec![text.clone().into()];
        payloads.push(Bytes::copy_from_slice(&text.as_bytes()[..cut.index(text.len())]));
        let mut bytes = text.into_bytes();
        for (at, byte) in flips {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        payloads.push(bytes.into());
        for (index, total) in splits {
            let part = set(entry.clone(), "/split", json!({"uid": "u", "index": index, "totalSplits": total}));
            payloads.push(part.to_string().into());
        }
        convert_all(payloads, false);
    }
}
