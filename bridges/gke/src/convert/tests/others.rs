//! What is not converted.

use super::*;

#[test]
fn entry_foreign_is_skipped_by_its_first_difference() {
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
fn entry_of_other_cluster_is_skipped() {
    let cluster = |name: &str| GkeConvertOptions {
        cluster: Some(name.to_owned()),
        ..GkeConvertOptions::default()
    };
    let of = |options: GkeConvertOptions, entry: Value| run_with(options, &[entry]).remove(0).0;
    assert_eq!(
        of(cluster("green"), entry()),
        json!({"skip": "other_cluster"})
    );
    assert_eq!(of(cluster("blue"), entry())["kind"], "Event");
    let unnamed = with("/resource/labels", json!({}));
    assert_eq!(of(cluster("green"), unnamed)["kind"], "Event");
    let elsewhere = GkeConvertOptions {
        location: Some("us".to_owned()),
        ..GkeConvertOptions::default()
    };
    assert_eq!(of(elsewhere, entry()), json!({"skip": "other_cluster"}));
    let project = GkeConvertOptions {
        project: Some("q".to_owned()),
        ..GkeConvertOptions::default()
    };
    assert_eq!(of(project, entry()), json!({"skip": "other_cluster"}));
}

#[test]
fn event_says_its_cluster_by_its_full_name_where_asked() {
    let run = |annotate_cluster, entry: Value| {
        let options = GkeConvertOptions {
            annotate_cluster,
            ..GkeConvertOptions::default()
        };
        let (event, _) = run_with(options, &[entry]).remove(0);
        assert_eq!(event["kind"], "Event");
        event["annotations"]["audit-bridge/cluster"].clone()
    };
    let full = "projects/p/locations/eu/clusters/blue";
    assert_eq!(run(true, entry()), json!(full));
    assert_eq!(run(false, entry()), Value::Null);
    // A label cannot forge another cluster's name.
    let forged = with(
        "/labels/audit-bridge~1cluster",
        "projects/q/locations/l/clusters/x",
    );
    assert_eq!(run(true, forged), json!(full));
    let unnamed = with("/resource/labels", json!({}));
    assert_eq!(run(true, unnamed), Value::Null);
    let partly = with("/resource/labels", json!({"cluster_name": "blue"}));
    assert_eq!(
        run(true, partly),
        json!("projects/-/locations/-/clusters/blue")
    );
}

#[test]
fn entry_without_required_member_is_rejected() {
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
    ] {
        assert_eq!(run(&entry), json!({"reject": "unparsable"}), "{entry}");
    }
    let late = run(&with("/timestamp", Value::Null));
    assert_eq!(late["stageTimestamp"], "2024-06-03T09:15:29.000000Z");
    let foreign = with("/operation/producer", "container.googleapis.com");
    assert_eq!(run(&set(foreign, "/insertId", "i-1"))["auditID"], "i-1");
}

/// Every member that is read, but for the two that an event cannot do without.
const MEMBERS: [&str; 30] = [
    "/labels",
    "/labels/authorization.k8s.io~1decision",
    "/logName",
    "/operation/first",
    "/operation/last",
    "/operation/producer",
    "/protoPayload/@type",
    "/protoPayload/authenticationInfo",
    "/protoPayload/authenticationInfo/authoritySelector",
    "/protoPayload/authenticationInfo/principalEmail",
    "/protoPayload/authenticationInfo/principalSubject",
    "/protoPayload/authorizationInfo",
    "/protoPayload/methodName",
    "/protoPayload/request",
    "/protoPayload/request/@type",
    "/protoPayload/request/metadata",
    "/protoPayload/request/metadata/name",
    "/protoPayload/requestMetadata",
    "/protoPayload/requestMetadata/callerIp",
    "/protoPayload/resourceName",
    "/protoPayload/response",
    "/protoPayload/response/kind",
    "/protoPayload/serviceName",
    "/protoPayload/status",
    "/protoPayload/status/code",
    "/receiveTimestamp",
    "/resource",
    "/resource/labels",
    "/resource/type",
    "/split",
];

#[test]
fn entry_member_of_wrong_type_keeps_the_event() {
    let values = [
        json!(7),
        json!(true),
        json!([]),
        json!([{}]),
        json!({}),
        json!({"a": 1.5}),
    ];
    let put = |entry: Value, pointer: &str, value: &Value| {
        let (parent, _) = pointer.rsplit_once('/').expect("a pointer");
        match entry.pointer(parent).is_some_and(Value::is_object) {
            true => set(entry, pointer, value.clone()),
            false => entry,
        }
    };
    for first in MEMBERS {
        for second in MEMBERS {
            for value in &values {
                let entry = put(put(entry(), first, value), second, value);
                let event = run(&entry);
                assert_eq!(event["kind"], "Event", "{first} {second} {value}: {event}");
                assert_eq!(event["auditID"], "0c7d4f6e-1111-4222-8333-944455566677");
                assert_eq!(event["stageTimestamp"], "2024-06-03T09:15:27.104233Z");
            }
        }
    }
}

#[test]
fn entry_id_or_time_of_wrong_type_is_taken_elsewhere() {
    for value in [json!(7), json!([]), json!({"id": 1})] {
        let event = run(&with("/operation/id", value.clone()));
        assert_eq!(event["auditID"], "0c7d4f6e-1111-4222-8333-944455566677");
        assert_eq!(run(&with("/insertId", value.clone()))["kind"], "Event");
        let event = run(&with("/timestamp", value));
        assert_eq!(event["stageTimestamp"], "2024-06-03T09:15:29.000000Z");
    }
}

#[test]
fn entry_method_of_wrong_type_is_taken_from_authorization() {
    let authorized = with(
        "/protoPayload/authorizationInfo",
        json!([{"permission": "io.k8s.apps.v1.deployments.update", "resource": "apps/v1/namespaces/shop/deployments/web", "granted": true}]),
    );
    let want = run(&entry());
    let without_method = set(authorized.clone(), "/protoPayload/methodName", 7);
    assert_eq!(run(&without_method), want);
    let without_both = set(without_method, "/protoPayload/resourceName", json!({}));
    assert_eq!(run(&without_both), want);
    // Otherwise from the resource name, which does not contain the verb.
    let guessed = run(&with("/protoPayload/methodName", Value::Null));
    assert_eq!(guessed["verb"], "");
    assert_eq!(guessed["requestURI"], want["requestURI"]);
    assert_eq!(guessed["objectRef"]["resource"], "deployments");
    // An entry of Kubernetes' audit log stays one without a Kubernetes method.
    let odd = run(&with(
        "/protoPayload/methodName",
        "google.iam.admin.CreateRole",
    ));
    assert_eq!(odd["verb"], "CreateRole");
    assert_eq!(odd["objectRef"]["name"], "web");
}

#[test]
fn entry_status_code_with_fraction_is_read() {
    let refused = set(entry(), "/protoPayload/response", Value::Null);
    for code in [json!(7), json!("7"), json!(7.0)] {
        let event = run(&set(
            refused.clone(),
            "/protoPayload/status",
            json!({ "code": code }),
        ));
        assert_eq!(event["responseStatus"]["code"], 403, "{code}");
    }
}

#[test]
fn entry_cut_is_converted_unless_contradictory() {
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
    // The operation also names the service.
    assert_eq!(run(&other)["verb"], "x");
    assert_eq!(
        run(&set(other, "/operation", Value::Null)),
        json!({"skip": "other_service"})
    );
}

#[test]
fn entry_invalid_is_skipped_or_kept() {
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
    assert_eq!(run_text(nested, false), skip);
    let bom = format!("\u{feff}{}", entry());
    assert_eq!(run_text(bom, false)["kind"], "Event");
}

#[test]
fn native_event_passes_unchanged() {
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
    // Cut, but recognised by the rest.
    let cut = run_text(event[..event.len() - 6].to_owned(), false);
    assert_eq!(cut["annotations"]["audit.k8s.io/truncated"], "true");
}

/// The one event of an entry's text.
fn only_event(text: String) -> Event {
    let mut out = Output::default();
    GkeConvert::default().convert(RecordId(1), &record(text), &mut out);
    let mut outcomes: Vec<_> = out.drain().collect();
    match (outcomes.pop(), &outcomes[..]) {
        (Some(Outcome::Event { event, .. }), []) => event,
        other => unreachable!("{other:?}"),
    }
}

#[test]
fn patch_has_each_key_once_wherever_its_method_stands() {
    let patch = r#""request":{"@type":"k8s.io/Patch","rules":["harmless"],"r\u0075les":["all"]}"#;
    let method = r#""methodName":"io.k8s.authorization.rbac.v1.clusterroles.patch""#;
    let rest = with("/protoPayload/methodName", Value::Null);
    let rest = set(rest, "/protoPayload/request", Value::Null);
    let rest = set(rest, "/protoPayload/response", Value::Null);
    let name = "rbac.authorization.k8s.io/v1/clusterroles/view";
    let rest = set(rest, "/protoPayload/resourceName", name).to_string();
    for members in [format!("{method},{patch}"), format!("{patch},{method}")] {
        let text = rest.replace(
            "\"protoPayload\":{",
            &format!("\"protoPayload\":{{{members},"),
        );
        let event = only_event(text);
        let text = std::str::from_utf8(event.text()).expect("utf-8");
        assert!(text.contains("[\"all\"]"), "{text}");
        assert!(!text.contains("harmless"), "{text}");
        let repaired: Vec<_> = event.notes().repaired().collect();
        assert_eq!(repaired, [conformance::Repair::DuplicateKey]);
    }
}

#[test]
fn entry_lone_surrogate_anywhere_is_replaced() {
    for place in [
        r#""request":{"\ud800":1}"#,
        r#""request":{"metadata":{"\ud800":"a","\ud801":"b"}}"#,
        r#""request":{"a":{"\ud800":["\udfff"]}}"#,
        r#""response":{"kind":"Status","details":{"name":"\ud800"}}"#,
        r#""response":{"\ud800":{}}"#,
    ] {
        let rest = with("/protoPayload/request", Value::Null);
        let rest = set(rest, "/protoPayload/response", Value::Null).to_string();
        let payload = format!("\"protoPayload\":{{{place},");
        let labels = r#""labels":{"\ud800":"a","b":"\ud800","#;
        let text = rest.replace("\"protoPayload\":{", &payload).replace(
            "\"labels\":{\"authorization",
            &format!("{labels}\"authorization"),
        );
        let event = only_event(text);
        let text = std::str::from_utf8(event.text()).expect("utf-8");
        assert!(!text.contains("\\ud"), "{text}");
        assert!(text.contains('\u{fffd}'), "{text}");
    }
}

#[test]
fn entry_unknown_verb_is_checked_like_a_patch() {
    let rest = with("/protoPayload/request", Value::Null);
    let rest = set(
        rest,
        "/protoPayload/methodName",
        "io.k8s.apps.v1.deployments.p\"x",
    );
    let twice = "\"protoPayload\":{\"request\":{\"a\":1,\"a\":2},";
    let text = rest.to_string().replace("\"protoPayload\":{", twice);
    let event = only_event(text);
    let text = std::str::from_utf8(event.text()).expect("utf-8");
    assert!(text.contains("\"verb\":\"p\\\"x\""), "{text}");
    assert!(!text.contains("\"a\":1"), "{text}");
}
