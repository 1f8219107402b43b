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

fn run_with(options: Options, payloads: &[Value]) -> Vec<(Value, Vec<u64>)> {
    let mut convert = GkeConvert::new(options);
    let mut out = Output::default();
    for (id, payload) in payloads.iter().enumerate() {
        convert.convert(RecordId(id as u64), &record(payload.to_string()), &mut out);
    }
    convert.finish(&mut out);
    outcomes(&mut out)
}

fn run(payload: &Value) -> Value {
    let mut found = run_with(Options::default(), std::slice::from_ref(payload));
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
fn fields_stand_in_the_order_of_the_api_server() {
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
fn other_entries_are_skipped_by_the_first_thing_that_differs() {
    for (entry, want) in [
        (with("/protoPayload", Value::Null), "not_audit"),
        (with("/protoPayload/@type", "x"), "not_audit"),
        (
            with(
                "/logName",
                "projects/p/logs/cloudaudit.googleapis.com%2Fsystem_event",
            ),
            "other_log",
        ),
        (with("/logName", "projects/p"), "other_log"),
        (
            with(
                "/logName",
                "projects/p/logs/notcloudaudit.googleapis.com%2Factivity",
            ),
            "other_log",
        ),
        (
            with(
                "/logName",
                "projects/p/logs/cloudaudit.googleapis.com%2Fdata_access",
            ),
            "data_access_disabled",
        ),
        (
            with(
                "/logName",
                "projects/p/logs/cloudaudit.googleapis.com/data_access",
            ),
            "data_access_disabled",
        ),
        (
            with("/protoPayload/serviceName", "container.googleapis.com"),
            "other_service",
        ),
        (with("/resource/type", "gke_cluster"), "other_resource"),
        (json!({"textPayload": "x", "logName": "y"}), "not_audit"),
        (json!({}), "not_audit"),
        (json!(["x"]), "not_audit"),
        (json!(3), "not_audit"),
    ] {
        assert_eq!(run(&entry), json!({ "skip": want }), "{entry}");
    }
    for name in [
        "projects/p/logs/cloudaudit.googleapis.com/activity",
        "organizations/1/logs/cloudaudit.googleapis.com%2factivity",
    ] {
        assert_eq!(run(&with("/logName", name))["kind"], "Event", "{name}");
    }
}

#[test]
fn other_clusters_are_skipped_when_one_is_asked_for() {
    let cluster = |name: &str| Options {
        cluster: Some(name.to_owned()),
        ..Options::default()
    };
    let of = |options: Options, entry: Value| run_with(options, &[entry]).remove(0).0;
    assert_eq!(
        of(cluster("green"), entry()),
        json!({"skip": "other_cluster"})
    );
    assert_eq!(of(cluster("blue"), entry())["kind"], "Event");
    let unnamed = with("/resource/labels", json!({}));
    assert_eq!(of(cluster("green"), unnamed)["kind"], "Event");
    let elsewhere = Options {
        location: Some("us".to_owned()),
        ..Options::default()
    };
    assert_eq!(of(elsewhere, entry()), json!({"skip": "other_cluster"}));
    let project = Options {
        project: Some("q".to_owned()),
        ..Options::default()
    };
    assert_eq!(of(project, entry()), json!({"skip": "other_cluster"}));
}

#[test]
fn entries_without_what_an_event_needs_are_rejected() {
    let without_ids = set(with("/insertId", Value::Null), "/operation", Value::Null);
    let without_times = set(
        with("/timestamp", Value::Null),
        "/receiveTimestamp",
        Value::Null,
    );
    for entry in [
        without_ids,
        without_times,
        set(with("/timestamp", "yesterday"), "/receiveTimestamp", 5),
        with("/protoPayload/methodName", Value::Null),
        with("/protoPayload/methodName", "google.iam.admin.CreateRole"),
    ] {
        assert_eq!(run(&entry), json!({"reject": "unparsable"}), "{entry}");
    }
    let late = run(&with("/timestamp", Value::Null));
    assert_eq!(late["stageTimestamp"], "2024-06-03T09:15:29.000000Z");
    let foreign = with("/operation/producer", "container.googleapis.com");
    assert_eq!(run(&set(foreign, "/insertId", "i-1"))["auditID"], "i-1");
}

#[test]
fn cut_entries_convert_when_nothing_contradicts() {
    let mut cut = entry();
    for pointer in [
        "/protoPayload/@type",
        "/protoPayload/serviceName",
        "/resource",
        "/logName",
    ] {
        cut = set(cut, pointer, Value::Null);
        assert_eq!(run(&cut)["kind"], "Event", "{pointer}");
    }
    let foreign = set(
        cut.clone(),
        "/operation/producer",
        "container.googleapis.com",
    );
    assert_eq!(run(&foreign), json!({"skip": "not_audit"}));
    let unnamed = set(cut.clone(), "/protoPayload/resourceName", Value::Null);
    assert_eq!(run(&unnamed), json!({"skip": "not_audit"}));
    let other = set(
        cut,
        "/protoPayload/methodName",
        "google.container.v1.ClusterManager.CreateCluster",
    );
    assert_eq!(
        run(&set(other, "/operation", Value::Null)),
        json!({"skip": "not_audit"})
    );
    let other = set(
        with("/protoPayload/serviceName", Value::Null),
        "/protoPayload/methodName",
        "x",
    );
    assert_eq!(run(&other), json!({"skip": "other_service"}));
}

#[test]
fn what_is_no_entry_is_skipped_or_kept() {
    let skip = json!({"skip": "not_audit"});
    let reject = json!({"reject": "unparsable"});
    assert_eq!(run_text("I0603 klog line", false), skip);
    assert_eq!(run_text("I0603 klog line", true), reject);
    assert_eq!(run_text(&b"\xff\xfe"[..], false), skip);
    assert_eq!(run_text(&b"\xff protoPayload"[..], false), reject);
    assert_eq!(run_text("{\"a\":1}", true), reject);
    let cut = entry().to_string();
    assert_eq!(run_text(cut[..cut.len() - 40].to_owned(), false), reject);
    let nested = format!(
        "{{\"protoPayload\":{{\"request\":{}{}}}}}",
        "[".repeat(5000),
        "]".repeat(5000)
    );
    assert_eq!(run_text(nested, false), reject);
    let bom = format!("\u{feff}{}", entry());
    assert_eq!(run_text(bom, false)["kind"], "Event");
}

#[test]
fn native_events_pass_through() {
    let event = r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"a","stage":"ResponseComplete","verb":"get","stageTimestamp":"2024-06-03T09:15:27.104233Z","z":1.50}"#;
    let mut out = Output::default();
    GkeConvert::default().convert(RecordId(0), &record(event), &mut out);
    let Some(Outcome::Event { event: found, .. }) = out.drain().next() else {
        panic!("an event");
    };
    assert_eq!(found.text(), event.as_bytes());
    assert_eq!(
        run_text(r#"{"kind":"Event","apiVersion":"v1"}"#, false),
        json!({"reject": "unparsable"})
    );
    // Cut, but told by what is left.
    let cut = run_text(event[..event.len() - 6].to_owned(), false);
    assert_eq!(cut["annotations"]["audit.k8s.io/truncated"], "true");
}

#[test]
fn the_stage_is_what_the_entry_stands_for() {
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
fn a_session_in_one_entry_has_a_started_twin() {
    let found = run_with(Options::default(), &[exec()]);
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
    let underived = Options {
        derive: Derive::NONE,
        ..Options::default()
    };
    assert_eq!(run_with(underived, &[exec()]).len(), 1);
    let denied = set(exec(), "/protoPayload/status", json!({"code": 7}));
    assert_eq!(run(&denied)["responseStatus"]["code"], 403);
    assert_eq!(
        run(&set(exec(), "/operation/last", Value::Null))["stage"],
        "ResponseStarted"
    );
    assert_eq!(
        run(&set(exec(), "/operation", Value::Null))["stage"],
        "ResponseComplete"
    );
    // Too large even without objects: one reject, not two.
    let tiny = Options {
        native: native::Options {
            event_bytes_max: 100,
            ..native::Options::default()
        },
        ..Options::default()
    };
    assert_eq!(
        run_with(tiny, &[exec()]),
        [(json!({"reject": "too_large"}), vec![0])]
    );
}

#[test]
fn users_have_the_groups_that_kubernetes_determines() {
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
        selected["impersonatedUser"]["groups"][1],
        "system:serviceaccounts:a"
    );
    let underived = Options {
        derive: Derive::NONE,
        ..Options::default()
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
fn the_address_is_one_or_it_is_left_out() {
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
fn annotations_are_labels_and_the_cluster_and_what_the_user_wants() {
    let entry = with(
        "/labels",
        json!({"a": "1", "odd": 7, "worse": {"x": "y"}, "cluster_name": "mine", "b": "1"}),
    );
    let mut options = Options::default();
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
fn names_come_from_the_request_where_the_path_has_none() {
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
fn events_too_large_lose_their_objects_and_say_so() {
    let entry = with("/protoPayload/request/spec", json!({"x": "y".repeat(5000)}));
    let options = |event_bytes_max| Options {
        native: native::Options {
            event_bytes_max,
            ..native::Options::default()
        },
        ..Options::default()
    };
    let event = &run_with(options(4000), std::slice::from_ref(&entry))[0].0;
    assert!(event.get("requestObject").is_none() && event.get("responseObject").is_none());
    assert_eq!(event["annotations"]["audit.k8s.io/truncated"], "true");
    assert_eq!(
        run_with(options(50), &[entry])[0].0,
        json!({"reject": "too_large"})
    );
}

/// A part of the entry, with this request.
fn part(index: u64, total: u64, request: Value) -> Value {
    let entry = with(
        "/split",
        json!({"uid": "u", "index": index, "totalSplits": total}),
    );
    let entry = set(entry, "/protoPayload/response", Value::Null);
    let entry = set(entry, "/insertId", format!("0c7d4f6e-{index}"));
    set(entry, "/protoPayload/request", request)
}

fn parts() -> [Value; 3] {
    [
        part(
            0,
            3,
            json!({"@type": "apps.k8s.io/v1.Deployment", "metadata": {"name": "we"}, "spec": {"replicas": 3, "list": ["a", "b"]}}),
        ),
        part(
            1,
            3,
            json!({"metadata": {"name": "b"}, "spec": {"list": ["", "c", {"x": "1"}]}}),
        ),
        part(
            2,
            3,
            json!({"spec": {"list": ["", "", {"x": "2"}], "paused": true}}),
        ),
    ]
}

#[test]
fn parts_become_one_event_in_any_order() {
    let [a, b, c] = parts();
    for (order, ids) in [
        (vec![a.clone(), b.clone(), c.clone()], vec![0, 1, 2]),
        (vec![c.clone(), a.clone(), b.clone()], vec![0, 1, 2]),
        (vec![b.clone(), b.clone(), c, a], vec![0, 1, 2, 3]),
    ] {
        let found = run_with(Options::default(), &order);
        let [(event, records)] = found.as_slice() else {
            panic!("one event: {found:?}");
        };
        assert_eq!(*records, ids);
        assert_eq!(event["level"], "Request");
        assert_eq!(
            event["requestObject"],
            json!({"kind": "Deployment", "apiVersion": "apps/v1", "metadata": {"name": "web"},
                   "spec": {"replicas": 3, "list": ["a", "bc", {"x": "12"}], "paused": true}})
        );
    }
}

#[test]
fn a_split_entry_in_one_part_is_whole() {
    let event = run(&part(0, 1, json!({"a": 1})));
    assert_eq!(event["requestObject"], json!({"a": 1}));
    let bare = run(&set(entry(), "/split", json!({})));
    assert_eq!(bare["level"], "RequestResponse");
}

#[test]
fn the_first_part_stands_for_the_others() {
    let [a, b, c] = parts();
    let found = run_with(Options::default(), &[b.clone(), a.clone()]);
    let [(event, records)] = found.as_slice() else {
        panic!("one event: {found:?}");
    };
    assert_eq!(*records, [0, 1]);
    assert_eq!(
        (&event["level"], event.get("requestObject")),
        (&json!("Metadata"), None)
    );
    assert_eq!(event["annotations"]["audit.k8s.io/truncated"], "true");
    assert_eq!(event["objectRef"]["name"], "web");
    let lost = json!({"reject": "incomplete_split"});
    let found = run_with(Options::default(), &[b, c]);
    assert_eq!(found, [(lost.clone(), vec![0]), (lost.clone(), vec![1])]);
    // Numbers that cannot be.
    let stray = set(a, "/split/totalSplits", 99_999);
    assert_eq!(run(&stray)["annotations"]["audit.k8s.io/truncated"], "true");
    assert_eq!(run(&part(7, 3, json!({}))), lost);
}

#[test]
fn parts_wait_for_a_while() {
    let [a, b, c] = parts();
    let mut convert = GkeConvert::default();
    let mut out = Output::default();
    convert.convert(RecordId(5), &record(a.to_string()), &mut out);
    convert.overdue(Duration::from_secs(1), &mut out);
    convert.convert(RecordId(6), &record(b.to_string()), &mut out);
    convert.overdue(Duration::from_secs(30), &mut out);
    assert!(outcomes(&mut out).is_empty(), "still waiting");
    convert.overdue(Duration::from_secs(31), &mut out);
    let found = outcomes(&mut out);
    assert_eq!(found[0].1, [5, 6]);
    assert_eq!(found[0].0["stage"], "ResponseComplete");
    convert.convert(RecordId(7), &record(c.to_string()), &mut out);
    assert!(outcomes(&mut out).is_empty());
    convert.finish(&mut out);
    assert_eq!(
        outcomes(&mut out),
        [(json!({"reject": "incomplete_split"}), vec![7])]
    );
}

#[test]
fn parts_wait_in_bounded_memory() {
    let mut convert = GkeConvert::default();
    let mut out = Output::default();
    let filler = "x".repeat(1 << 20);
    for id in 0..9 {
        let part = set(
            part(0, 2, json!({ "x": filler })),
            "/split/uid",
            format!("u{id}"),
        );
        convert.convert(RecordId(id), &record(part.to_string()), &mut out);
    }
    let found = outcomes(&mut out);
    let ids: Vec<_> = found.iter().map(|(_, ids)| ids.clone()).collect();
    assert_eq!(ids, [[0], [1]], "the oldest made room");
}

#[test]
fn the_index_is_no_part_of_the_audit_id() {
    let entry = |id: &str| {
        set(
            set(part(0, 1, json!({})), "/operation", Value::Null),
            "/insertId",
            id,
        )
    };
    assert_eq!(run(&entry("abc-0"))["auditID"], "abc");
    assert_eq!(run(&entry("abc0"))["auditID"], "abc");
    assert_eq!(run(&entry("abc"))["auditID"], "abc");
    assert_eq!(run(&entry("0"))["auditID"], "0");
}

#[test]
fn derive_is_read_and_written() {
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

/// Every event is one that receivers can read.
fn check(outcomes: Vec<Outcome>) {
    for outcome in outcomes {
        let Outcome::Event { event, records } = outcome else {
            continue;
        };
        assert!(!records.is_empty());
        let value: Value = serde_json::from_slice(event.text()).expect("json");
        assert_eq!(value["kind"], "Event");
        assert_eq!(value["apiVersion"], "audit.k8s.io/v1");
        for field in ["auditID", "stage", "verb"] {
            assert!(
                value[field].as_str().is_some_and(|text| !text.is_empty()),
                "{value}"
            );
        }
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
    let mut convert = GkeConvert::new(Options {
        include_data_access: true,
        ..Options::default()
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

/// Places in an entry to put something odd.
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
    fn conversion_is_total(text in "\\PC*", bytes in prop::collection::vec(any::<u8>(), 0..80), damaged: bool) {
        convert_all(vec![text.into(), bytes.into()], damaged);
    }

    #[test]
    fn conversion_of_json_is_total(values in prop::collection::vec(arb_json(), 1..4), damaged: bool) {
        let wrapped = values.iter().map(|value| json!({"protoPayload": value, "insertId": "i", "timestamp": "2024-01-01T00:00:00Z"}));
        let payloads = values.iter().cloned().chain(wrapped).map(|value| value.to_string().into());
        convert_all(payloads.collect(), damaged);
    }

    #[test]
    fn conversion_of_mutated_entries_is_total(
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
