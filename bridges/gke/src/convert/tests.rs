mod others;
mod parts;
mod random;

use audit_bridge_core::convert::Outcome;
use audit_bridge_core::event::time;
use audit_bridge_core::record::Origin;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// An entry of a deployment's update.
fn entry() -> Value {
    json!({
        "insertId": "0c7d4f6e-1111-4222-8333-944455566677",
        "labels": {"authorization.k8s.io/decision": "allow"},
        "logName": "projects/p/logs/cloudaudit.googleapis.com%2Factivity",
        "operation": {"first": true, "id": "0c7d4f6e-1111-4222-8333-944455566677", "last": true, "producer": "k8s.io"},
        "protoPayload": {
            "@type": AUDIT_LOG,
            "authenticationInfo": {"principalEmail": "dev@example.com"},
            "methodName": "io.k8s.apps.v1.deployments.update",
            "request": {"@type": "apps.k8s.io/v1.Deployment", "metadata": {"name": "web", "uid": "u-1", "resourceVersion": "7"}, "spec": {"replicas": 3}},
            "requestMetadata": {"callerIp": "203.0.113.9", "callerSuppliedUserAgent": "kubectl/v1.30"},
            "resourceName": "apps/v1/namespaces/shop/deployments/web",
            "response": {"@type": "apps.k8s.io/v1.Deployment", "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}},
            "serviceName": "k8s.io",
            "status": {}
        },
        "receiveTimestamp": "2024-06-03T09:15:29Z",
        "resource": {"labels": {"cluster_name": "blue", "location": "eu", "project_id": "p"}, "type": "k8s_cluster"},
        "timestamp": "2024-06-03T09:15:27.104233Z"
    })
}

fn with(pointer: &str, value: impl Into<Value>) -> Value {
    set(entry(), pointer, value)
}

/// The entry with another member at this place; null takes it away.
fn set(mut entry: Value, pointer: &str, value: impl Into<Value>) -> Value {
    let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
    let name = name.replace("~1", "/");
    let parent = entry
        .pointer_mut(parent)
        .and_then(Value::as_object_mut)
        .expect(pointer);
    match value.into() {
        Value::Null => drop(parent.remove(&name)),
        value => drop(parent.insert(name, value)),
    }
    entry
}

fn record(text: impl Into<Bytes>) -> Record {
    let origin = Origin::File {
        file: "f".into(),
        record: 1,
    };
    Record::new(text, origin)
}

fn outcomes(out: &mut Output) -> Vec<(Value, Vec<u64>)> {
    out.drain()
        .map(|outcome| match outcome {
            Outcome::Event { event, records } => {
                let value: Value = serde_json::from_slice(event.text()).expect("json");
                let marked = value
                    .pointer("/annotations/audit.k8s.io~1truncated")
                    .is_some();
                assert_eq!(event.truncated(), marked, "{value}");
                (value, records.iter().map(|id| id.0).collect())
            }
            Outcome::Skip { record, reason } => (json!({"skip": reason.name()}), vec![record.0]),
            Outcome::Reject {
                record,
                reason,
                error,
            } => {
                assert!(!error.is_empty());
                (json!({"reject": reason.name()}), vec![record.0])
            }
        })
        .collect()
}

fn run_with(options: GkeConvertOptions, payloads: &[Value]) -> Vec<(Value, Vec<u64>)> {
    let mut convert = GkeConvert::new(options);
    let mut out = Output::default();
    for (id, payload) in payloads.iter().enumerate() {
        convert.convert(RecordId(id as u64), &record(payload.to_string()), &mut out);
    }
    convert.finish(&mut out);
    outcomes(&mut out)
}

fn run(payload: &Value) -> Value {
    let mut found = run_with(GkeConvertOptions::default(), std::slice::from_ref(payload));
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0).0
}

fn run_text(text: impl Into<Bytes>, damaged: bool) -> Value {
    let mut out = Output::default();
    let mut record = record(text);
    record.damaged = damaged;
    GkeConvert::default().convert(RecordId(0), &record, &mut out);
    outcomes(&mut out).remove(0).0
}

#[test]
fn event_members_are_in_api_server_order() {
    let mut convert = GkeConvert::default();
    let mut out = Output::default();
    let entry = with("/protoPayload/authenticationInfo/authoritySelector", "root");
    convert.convert(RecordId(1), &record(entry.to_string()), &mut out);
    let Some(Outcome::Event { event, .. }) = out.drain().next() else {
        panic!("an event");
    };
    let text = std::str::from_utf8(event.text()).expect("utf-8");
    let raw = json::Raw::parse(text).expect("json");
    let keys: Vec<_> = raw
        .members()
        .expect("an object")
        .map(|(key, _)| key)
        .collect();
    let want = "kind apiVersion level auditID stage requestURI verb user impersonatedUser sourceIPs \
                userAgent objectRef responseStatus requestObject responseObject \
                requestReceivedTimestamp stageTimestamp annotations";
    assert_eq!(keys.join(" "), want);
    assert_eq!(
        raw.get("objectRef").expect("an object").text(),
        r#"{"resource":"deployments","namespace":"shop","name":"web","uid":"u-1","apiGroup":"apps","apiVersion":"v1","resourceVersion":"7"}"#
    );
}

#[test]
fn event_stage_follows_the_entry() {
    let stage = |operation: Value| run(&with("/operation", operation))["stage"].clone();
    let id = "x";
    assert_eq!(
        stage(json!({"id": id, "first": true, "last": true})),
        "ResponseComplete"
    );
    assert_eq!(
        stage(json!({"id": id, "first": "true", "last": "true"})),
        "ResponseComplete"
    );
    assert_eq!(stage(json!({"id": id, "first": true})), "ResponseStarted");
    assert_eq!(
        stage(json!({"id": id, "first": "true", "last": 7})),
        "ResponseStarted"
    );
    assert_eq!(stage(json!({"id": id, "last": true})), "ResponseComplete");
    assert_eq!(stage(json!({})), "ResponseComplete");
    let panicked = set(
        with(
            "/protoPayload/status",
            json!({"code": 13, "message": "APIServer panic'd: x"}),
        ),
        "/protoPayload/response",
        Value::Null,
    );
    let event = run(&panicked);
    assert_eq!(
        (&event["stage"], &event["responseStatus"]["code"]),
        (&json!("Panic"), &json!(500))
    );
}

fn exec() -> Value {
    let entry = with(
        "/protoPayload/methodName",
        "io.k8s.core.v1.pods.exec.create",
    );
    let entry = set(
        entry,
        "/protoPayload/resourceName",
        "core/v1/namespaces/shop/pods/web-0/exec",
    );
    set(entry, "/labels/apiserver.latency.k8s.io~1total", "2.5s")
}

#[test]
fn session_in_one_entry_gets_a_response_started_event() {
    let found = run_with(GkeConvertOptions::default(), &[exec()]);
    let stages: Vec<_> = found
        .iter()
        .map(|(event, ids)| (event["stage"].clone(), ids.clone()))
        .collect();
    assert_eq!(
        stages,
        [
            (json!("ResponseStarted"), vec![0]),
            (json!("ResponseComplete"), vec![0])
        ]
    );
    let [(started, _), (complete, _)] = found.as_slice() else {
        panic!("two events");
    };
    for field in [
        "auditID",
        "stageTimestamp",
        "requestReceivedTimestamp",
        "objectRef",
        "user",
        "annotations",
    ] {
        assert_eq!(started[field], complete[field], "{field}");
    }
    for event in [started, complete] {
        assert!(event.get("requestObject").is_none() && event.get("responseObject").is_none());
        assert_eq!(
            event["responseStatus"],
            json!({"metadata": {}, "code": 101})
        );
        assert_eq!(
            event["requestReceivedTimestamp"],
            "2024-06-03T09:15:24.604233Z"
        );
    }
    let underived = GkeConvertOptions {
        derive: Derive::NONE,
        ..GkeConvertOptions::default()
    };
    assert_eq!(run_with(underived, &[exec()]).len(), 1);
    // Too large even without objects: one reject, not two.
    let tiny = GkeConvertOptions {
        native: conformance::EventOptions {
            event_bytes_max: 100,
            ..conformance::EventOptions::default()
        },
        ..GkeConvertOptions::default()
    };
    assert_eq!(
        run_with(tiny, &[exec()]),
        [(json!({"reject": "too_large"}), vec![0])]
    );
}

/// The stages that the entry became, each with its code.
fn stages(entry: &Value) -> Vec<(String, i64)> {
    let found = run_with(GkeConvertOptions::default(), std::slice::from_ref(entry));
    let of = |event: &Value| {
        let stage = event["stage"].as_str().expect("a stage").to_owned();
        (stage, event["responseStatus"]["code"].as_i64().unwrap_or(0))
    };
    found.iter().map(|(event, _)| of(event)).collect()
}

#[test]
fn session_refused_gets_a_response_started_event() {
    for (rpc, code) in [
        (3, 400),
        (5, 404),
        (7, 403),
        (13, 500),
        (14, 503),
        (16, 401),
    ] {
        let refused = set(exec(), "/protoPayload/status", json!({ "code": rpc }));
        let refused = set(refused, "/protoPayload/response", Value::Null);
        let want = [
            ("ResponseStarted".to_owned(), code),
            ("ResponseComplete".to_owned(), code),
        ];
        assert_eq!(stages(&refused), want, "{rpc}");
        let found = run_with(GkeConvertOptions::default(), &[refused]);
        assert_eq!(found[0].0["responseStatus"], found[1].0["responseStatus"]);
    }
    // An unknown code.
    let unknown = set(exec(), "/protoPayload/status", json!({"code": 99}));
    let unknown = set(unknown, "/protoPayload/response", Value::Null);
    assert_eq!(stages(&unknown).len(), 2);
}

#[test]
fn session_without_flags_is_whole() {
    for operation in [
        Value::Null,
        json!({"id": "x", "producer": "k8s.io"}),
        json!({"id": "x", "first": false, "last": false}),
        json!({"id": "x", "first": [], "last": {}}),
        json!({"id": "x", "first": "true", "last": "true"}),
    ] {
        let entry = set(exec(), "/operation", operation.clone());
        let found: Vec<_> = stages(&entry).into_iter().map(|(stage, _)| stage).collect();
        assert_eq!(
            found,
            ["ResponseStarted", "ResponseComplete"],
            "{operation}"
        );
    }
    for (operation, want) in [
        (json!({"id": "x", "first": true}), "ResponseStarted"),
        (
            json!({"id": "x", "first": true, "last": false}),
            "ResponseStarted",
        ),
        (json!({"id": "x", "last": true}), "ResponseComplete"),
        (
            json!({"id": "x", "first": false, "last": true}),
            "ResponseComplete",
        ),
    ] {
        let entry = set(exec(), "/operation", operation.clone());
        assert_eq!(stages(&entry), [(want.to_owned(), 101)], "{operation}");
        let refused = set(entry, "/protoPayload/status", json!({"code": 7}));
        let refused = set(refused, "/protoPayload/response", Value::Null);
        assert_eq!(stages(&refused), [(want.to_owned(), 403)], "{operation}");
    }
}

#[test]
fn latency_impossible_is_ignored() {
    let received = |latency: &str| {
        run(&with("/labels/apiserver.latency.k8s.io~1total", latency))["requestReceivedTimestamp"]
            .clone()
    };
    let stage = "2024-06-03T09:15:27.104233Z";
    for latency in [
        "99999999h",
        "720h0m0.000001s",
        "17520000h",
        "-1s",
        "",
        "later",
        "9e99h",
    ] {
        assert_eq!(received(latency), stage, "{latency}");
    }
    assert_eq!(received("720h"), "2024-05-04T09:15:27.104233Z");
    assert_eq!(received("1.5s"), "2024-06-03T09:15:25.604233Z");
    let first = set(
        with("/labels/apiserver.latency.k8s.io~1total", "2h"),
        "/timestamp",
        "0000-01-01T00:00:00Z",
    );
    assert_eq!(
        run(&first)["requestReceivedTimestamp"],
        "0000-01-01T00:00:00.000000Z"
    );
}

#[test]
fn resource_name_of_any_length_is_delivered() {
    let mut options = GkeConvertOptions::default();
    options.native.event_bytes_max = 8 << 20;
    for piece in ["a", "/", "%2F", "é", ".", "namespaces/", "pods/p/"] {
        for prefix in ["core/v1/namespaces/shop/pods/", "core/v1/", ""] {
            let name = format!("{prefix}{}", piece.repeat(300_000 / piece.len()));
            let entry = set(
                with("/protoPayload/methodName", "io.k8s.core.v1.pods.get"),
                "/protoPayload/resourceName",
                name,
            );
            let found = run_with(options.clone(), &[entry]);
            assert_eq!(found[0].0["kind"], "Event", "{prefix}{piece}");
        }
    }
}

#[test]
fn user_groups_are_those_kubernetes_determines() {
    let user = |name: &str| {
        run(&with(
            "/protoPayload/authenticationInfo/principalEmail",
            name,
        ))["user"]
            .clone()
    };
    assert_eq!(
        user("system:serviceaccount:ns:sa"),
        json!({"username": "system:serviceaccount:ns:sa", "groups": ["system:serviceaccounts", "system:serviceaccounts:ns", "system:authenticated"]})
    );
    assert_eq!(
        user("system:node:n"),
        json!({"username": "system:node:n", "groups": ["system:nodes", "system:authenticated"]})
    );
    assert_eq!(
        user("system:anonymous"),
        json!({"username": "system:anonymous", "groups": ["system:unauthenticated"]})
    );
    for name in [
        "a@example.com",
        "system:serviceaccount:odd",
        "system:serviceaccount::sa",
    ] {
        assert_eq!(user(name), json!({ "username": name }));
    }
    assert_eq!(user(""), json!({}));
    let subject = |name: &str| {
        run(&with(
            "/protoPayload/authenticationInfo",
            json!({"principalSubject": name}),
        ))["user"]["username"]
            .clone()
    };
    assert_eq!(subject("user:a@example.com"), "a@example.com");
    assert_eq!(subject("serviceAccount:b"), "b");
    assert_eq!(subject("principal://x/y"), "principal://x/y");
    let selected = run(&with(
        "/protoPayload/authenticationInfo/authoritySelector",
        "system:serviceaccount:a:b",
    ));
    assert_eq!(selected["user"]["username"], "dev@example.com");
    assert_eq!(
        selected["impersonatedUser"],
        json!({"username": "system:serviceaccount:a:b"})
    );
    // `--as` takes any name, and its groups are those of `--as-group`.
    for name in ["system:node:n", "system:anonymous", "root"] {
        let selected = run(&with(
            "/protoPayload/authenticationInfo/authoritySelector",
            name,
        ));
        assert_eq!(selected["impersonatedUser"], json!({"username": name}));
    }
    let underived = GkeConvertOptions {
        derive: Derive::NONE,
        ..GkeConvertOptions::default()
    };
    let entry = with(
        "/protoPayload/authenticationInfo/principalEmail",
        "system:node:n",
    );
    assert_eq!(
        run_with(underived, &[entry])[0].0["user"],
        json!({"username": "system:node:n"})
    );
}

#[test]
fn source_ip_invalid_is_left_out() {
    let ips =
        |ip: &str| run(&with("/protoPayload/requestMetadata/callerIp", ip))["sourceIPs"].clone();
    for ip in ["::1", "127.0.0.1", "2001:db8::7"] {
        assert_eq!(ips(ip), json!([ip]));
    }
    for ip in ["private", "gce-internal-ip", "", "10.0.0.x"] {
        assert_eq!(ips(ip), Value::Null, "{ip}");
    }
}

#[test]
fn annotations_are_labels_cluster_and_configured_ones() {
    let entry = with(
        "/labels",
        json!({"a": "1", "odd": 7, "worse": {"x": "y"}, "cluster_name": "mine", "b": "1"}),
    );
    let mut options = GkeConvertOptions::default();
    options.native.annotations = vec![("b".into(), "2".into()), ("location".into(), "here".into())];
    assert_eq!(
        run_with(options, &[entry])[0].0["annotations"],
        json!({"a": "1", "cluster_name": "mine", "b": "2", "location": "here", "project_id": "p"})
    );
    let bare = set(
        with("/labels", Value::Null),
        "/resource/labels",
        Value::Null,
    );
    assert_eq!(run(&bare).get("annotations"), None);
    // The API server's own mark is passed on, and counted.
    let marked = run(&with("/labels/audit.k8s.io~1truncated", "true"));
    assert_eq!(marked["annotations"]["audit.k8s.io/truncated"], "true");
    let lone = entry_text().replace("\"allow\"", "\"al\\udc00low\"");
    assert_eq!(
        run_text(lone, false)["annotations"]["authorization.k8s.io/decision"],
        "al\u{fffd}low"
    );
}

fn entry_text() -> String {
    entry().to_string()
}

#[test]
fn object_name_missing_in_path_comes_from_the_request() {
    let create = with(
        "/protoPayload/methodName",
        "io.k8s.apps.v1.deployments.create",
    );
    let create = set(
        create,
        "/protoPayload/resourceName",
        "apps/v1/namespaces/shop/deployments",
    );
    assert_eq!(run(&create)["objectRef"]["name"], "web");
    let generated = set(
        create.clone(),
        "/protoPayload/request/metadata",
        json!({"generateName": "web-"}),
    );
    assert_eq!(run(&generated)["objectRef"].get("name"), None);
    let patch = set(
        entry(),
        "/protoPayload/methodName",
        "io.k8s.apps.v1.deployments.patch",
    );
    let reference = run(&patch)["objectRef"].clone();
    assert_eq!(
        (reference.get("uid"), reference.get("resourceVersion")),
        (None, None)
    );
    let odd = set(
        create,
        "/protoPayload/request/metadata",
        json!({"name": 7, "uid": [], "resourceVersion": null}),
    );
    assert_eq!(
        run(&odd)["objectRef"],
        json!({"resource": "deployments", "namespace": "shop", "apiGroup": "apps", "apiVersion": "v1"})
    );
}

#[test]
fn event_too_large_is_shortened_and_marked() {
    let spec = json!({"x": "y".repeat(50_000), "hostPID": true});
    let entry = with("/protoPayload/request/spec", spec);
    let options = |event_bytes_max| GkeConvertOptions {
        native: conformance::EventOptions {
            event_bytes_max,
            ..conformance::EventOptions::default()
        },
        ..GkeConvertOptions::default()
    };
    let event = &run_with(options(20_000), &[entry])[0].0;
    assert!(event.to_string().len() <= 20_000);
    assert_eq!(event["requestObject"]["spec"]["hostPID"], true);
    assert_eq!(event["annotations"]["audit.k8s.io/truncated"], "true");
}

#[test]
fn derive_option_survives_a_round_trip() {
    for (text, want) in [
        ("groups,query,started", Some(Derive::default())),
        ("none", Some(Derive::NONE)),
        (
            "query",
            Some(Derive {
                query: true,
                ..Derive::NONE
            }),
        ),
        (
            " groups , started",
            Some(Derive {
                groups: true,
                started: true,
                ..Derive::NONE
            }),
        ),
        ("", None),
        ("all", None),
        ("groups,none", None),
    ] {
        assert_eq!(text.parse::<Derive>().ok(), want, "{text}");
    }
    assert_eq!(Derive::default().to_string(), "groups,query,started");
    assert_eq!(Derive::NONE.to_string(), "none");
}
