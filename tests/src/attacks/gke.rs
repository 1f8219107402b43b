//! Google's log entries: hostile objects of other attacks as an entry's request, and attacks that
//! only entries allow.

use serde_json::{Value, json};

use super::event::{Draft, NO_UTF8, POD, broken};
use super::{Attack, Expected, Falco, Rule};

/// An entry of the activity log.
fn entry(method: &str, resource: &str, change: impl FnOnce(&mut Value)) -> Value {
    let mut entry = json!({
        "insertId": "6b1e0a3c-2f1d-4c57-9a8e-0d5c3f7e9a10",
        "labels": { "authorization.k8s.io/decision": "allow", "authorization.k8s.io/reason": "" },
        "logName": "projects/acme-prod/logs/cloudaudit.googleapis.com%2Factivity",
        "operation": { "first": true, "id": "6b1e0a3c-2f1d-4c57-9a8e-0d5c3f7e9a10", "last": true, "producer": "k8s.io" },
        "protoPayload": {
            "@type": "type.googleapis.com/google.cloud.audit.AuditLog",
            "authenticationInfo": { "principalEmail": "mallory@example.com" },
            "authorizationInfo": [{ "granted": true, "permission": method, "resource": resource }],
            "methodName": format!("io.k8s.{method}"),
            "requestMetadata": { "callerIp": "203.0.113.7", "callerSuppliedUserAgent": "kubectl/v1.33" },
            "resourceName": resource,
            "serviceName": "k8s.io",
            "status": { "code": 0 },
        },
        "receiveTimestamp": "2026-11-21T10:00:01.000000Z",
        "resource": { "labels": { "cluster_name": "blue", "location": "europe-west3", "project_id": "acme-prod" }, "type": "k8s_cluster" },
        "timestamp": "2026-11-21T10:00:00.123456Z",
    });
    change(&mut entry);
    entry
}

/// What a receiver must see of the entry.
fn expected(event: &Value) -> Expected {
    let mut expected = Expected::equal_to(&Draft::pod());
    expected.reference = event.to_string();
    expected.falco = Falco::Only("ka.req.");
    expected
}

fn seen(verb: &str, uri: &str, object_ref: &Value, code: i32) -> Value {
    json!({
        "kind": "Event", "apiVersion": "audit.k8s.io/v1", "auditID": "6b1e0a3c-2f1d-4c57-9a8e-0d5c3f7e9a10",
        "stage": "ResponseComplete", "verb": verb, "requestURI": uri,
        "user": { "username": "mallory@example.com" }, "sourceIPs": ["203.0.113.7"],
        "userAgent": "kubectl/v1.33", "objectRef": object_ref, "responseStatus": { "code": code },
        "stageTimestamp": "2026-11-21T10:00:00.123456Z",
    })
}

fn pod_seen() -> Value {
    let object_ref =
        json!({ "resource": "pods", "namespace": "shop", "name": "evil", "apiVersion": "v1" });
    let mut event = seen("create", "/api/v1/namespaces/shop/pods", &object_ref, 201);
    event["requestObject"] = serde_json::from_str(POD).unwrap_or_default();
    event
}

fn attack(name: &str, record: Vec<u8>, expected: Vec<Expected>) -> Attack {
    Attack {
        name: format!("{name} (gke)"),
        bridge: "gke",
        records: vec![record],
        expected,
    }
}

/// The entry for creating a pod with this request.
fn pod_entry(request: &str) -> Vec<u8> {
    let entry = entry(
        "core.v1.pods.create",
        "core/v1/namespaces/shop/pods/evil",
        |entry| {
            entry["protoPayload"]["request"] = "@@".into();
        },
    );
    let typed = request.replacen('{', r#"{"@type":"core.k8s.io/v1.Pod","#, 1);
    broken(&entry.to_string().replacen("\"@@\"", &typed, 1))
}

pub(super) fn attacks() -> Vec<Attack> {
    let mut all = objects();
    all.extend(requests());
    all.extend(statuses());
    all
}

fn objects() -> Vec<Attack> {
    let front = |x: &str| format!(r#"{{"x":{x},{}"#, &POD[1..]);
    let nested = |levels| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    let long = "p".repeat(300_000);
    [
        ("depth: 400 levels in the request", front(&nested(400))),
        ("depth: 9000 levels in the request", front(&nested(9_000))),
        (
            "padding: a long string in the request",
            front(&format!("\"{long}\"")),
        ),
        (
            "padding: a long key in the request",
            front(&format!("{{\"{long}\":0}}")),
        ),
        (
            "padding: a list of small things in the request",
            front(&format!("[{}]", vec!["0"; 150_000].join(","))),
        ),
        ("encoding: half a pair in the request", front(r#""\ud800""#)),
        (
            "encoding: a byte that is no UTF-8 in the request",
            front(&format!("\"{NO_UTF8}\"")),
        ),
    ]
    .into_iter()
    .map(|(name, request)| attack(name, pod_entry(&request), vec![expected(&pod_seen())]))
    .collect()
}

fn requests() -> Vec<Attack> {
    let mut all = Vec::new();
    let web = "core/v1/namespaces/shop/pods/web-0";
    let object_ref =
        json!({ "resource": "pods", "namespace": "shop", "name": "web-0", "apiVersion": "v1" });
    let impersonated = entry("core.v1.pods.delete", web, |entry| {
        entry["protoPayload"]["authenticationInfo"]["authoritySelector"] = "system:admin".into();
    });
    let mut event = seen(
        "delete",
        "/api/v1/namespaces/shop/pods/web-0",
        &object_ref,
        200,
    );
    event["impersonatedUser"] = json!({ "username": "system:admin" });
    for (name, as_user) in [
        ("a person", "system:admin"),
        ("a service account", "system:serviceaccount:kube-system:a"),
    ] {
        let mut entry = impersonated.clone();
        entry["protoPayload"]["authenticationInfo"]["authoritySelector"] = as_user.into();
        let mut event = event.clone();
        event["impersonatedUser"]["username"] = as_user.into();
        let expected = expected(&event).rule("/impersonatedUser/groups", Rule::Is(Value::Null));
        all.push(attack(
            &format!("impersonated: groups of {name} are not invented"),
            entry.to_string().into_bytes(),
            vec![expected],
        ));
    }
    // Whether refused or not, the stage that rules wait for comes first.
    let exec_ref = json!({ "resource": "pods", "namespace": "shop", "name": "web-0", "apiVersion": "v1", "subresource": "exec" });
    for code in [7, 5] {
        for operation in [json!({ "first": true, "last": true }), json!({})] {
            let refused = entry(
                "core.v1.pods.exec.create",
                &format!("{web}/exec"),
                |entry| {
                    entry["protoPayload"]["status"] = json!({ "code": code, "message": "refused" });
                    entry["operation"] = json!({ "id": "6b1e0a3c-2f1d-4c57-9a8e-0d5c3f7e9a10", "producer": "k8s.io" });
                    if let (Some(all), Some(more)) =
                        (entry["operation"].as_object_mut(), operation.as_object())
                    {
                        all.extend(more.clone());
                    }
                },
            );
            let http = if code == 7 { 403 } else { 404 };
            let mut started = seen(
                "create",
                "/api/v1/namespaces/shop/pods/web-0/exec",
                &exec_ref,
                http,
            );
            let complete = started.clone();
            started["stage"] = "ResponseStarted".into();
            let both = [started, complete].iter().map(expected).collect();
            all.push(attack(
                &format!("exec: refused with {code}, operation {operation}"),
                refused.to_string().into_bytes(),
                both,
            ));
        }
    }
    // A resource of a custom API, named namespaces.
    let custom = entry(
        "com.example.v1.namespaces.update",
        "example.com/v1/namespaces/a/namespaces/b",
        |_| (),
    );
    let custom_ref = json!({ "resource": "namespaces", "namespace": "a", "name": "b", "apiGroup": "example.com", "apiVersion": "v1" });
    let event = seen(
        "update",
        "/apis/example.com/v1/namespaces/a/namespaces/b",
        &custom_ref,
        200,
    );
    all.push(attack(
        "names: a plural that is namespaces",
        custom.to_string().into_bytes(),
        vec![expected(&event)],
    ));
    // An impossible name.
    let long = "n".repeat(300_000);
    let named = entry(
        "core.v1.pods.delete",
        &format!("core/v1/namespaces/shop/pods/{long}"),
        |entry| {
            entry["protoPayload"]["status"] = json!({ "code": 5 });
        },
    );
    let mut event = seen(
        "delete",
        &format!("/api/v1/namespaces/shop/pods/{long}"),
        &object_ref,
        404,
    );
    event["objectRef"]["name"] = long.into();
    let expected = expected(&event)
        .rule("/requestURI", Rule::Shortened)
        .rule("/objectRef", Rule::Shortened);
    all.push(attack(
        "names: 300 kB",
        named.to_string().into_bytes(),
        vec![expected],
    ));
    all
}

fn statuses() -> Vec<Attack> {
    let mut all = Vec::new();
    let web = "core/v1/namespaces/shop/pods/web-0";
    let object_ref =
        json!({ "resource": "pods", "namespace": "shop", "name": "web-0", "apiVersion": "v1" });
    let event = |code| {
        seen(
            "delete",
            "/api/v1/namespaces/shop/pods/web-0",
            &object_ref,
            code,
        )
    };
    for (name, details) in [
        ("causes as a string", json!({ "causes": "x" })),
        ("a name as a number", json!({ "name": 7 })),
        (
            "retryAfterSeconds as a string",
            json!({ "retryAfterSeconds": "soon" }),
        ),
        ("a list", json!([1])),
        ("causes of numbers", json!({ "causes": [1, {"reason": 2}] })),
        (
            "a huge number",
            json!({ "retryAfterSeconds": 99_999_999_999_u64 }),
        ),
    ] {
        let entry = entry("core.v1.pods.delete", web, |entry| {
            entry["protoPayload"]["status"] = json!({ "code": 5 });
            entry["protoPayload"]["response"] = json!({
                "@type": "core.k8s.io/v1.Status", "apiVersion": "v1", "kind": "Status", "status": "Failure",
                "reason": "NotFound", "code": 404, "details": details,
            });
        });
        all.push(attack(
            &format!("status: details with {name}"),
            entry.to_string().into_bytes(),
            vec![expected(&event(404))],
        ));
    }
    let latency = entry("core.v1.pods.delete", web, |entry| {
        entry["labels"]["apiserver.latency.k8s.io/total"] = "99999999h".into();
    });
    all.push(attack(
        "status: a latency of 99999999h",
        latency.to_string().into_bytes(),
        vec![expected(&event(200))],
    ));
    let refused = entry("core.v1.pods.delete", web, |entry| {
        entry["protoPayload"]["status"] = json!({ "code": 3, "message": "only the following media types are accepted: application/json" });
        entry["protoPayload"]["response"] = json!({
            "@type": "core.k8s.io/v1.Status", "apiVersion": "v1", "kind": "Status", "status": "Failure",
            "reason": "NotAcceptable", "code": 406,
            "message": "only the following media types are accepted: application/json",
        });
    });
    all.push(attack(
        "status: 406",
        refused.to_string().into_bytes(),
        vec![expected(&event(406))],
    ));
    all
}
