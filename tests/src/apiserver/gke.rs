//! Google's mapping: the log entry that GKE would make of an audit event. Written from what is
//! known of the entries, not from our converter.

use serde_json::{Map, Value, json};

/// Groups whose requests are logged with their objects by Google's audit policy.
const KNOWN_GROUPS: [&str; 18] = [
    "",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "apiregistration.k8s.io",
    "apps",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "extensions",
    "metrics.k8s.io",
    "networking.k8s.io",
    "node.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "scheduling.k8s.io",
    "storage.k8s.io",
];
/// Requests without an end of their own; no entry contains their objects.
const CONNECTS: [&str; 3] = ["exec", "attach", "portforward"];

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// The event as logged with Google's audit policy; `None` if the policy does not log it.
pub fn under_googles_policy(event: &Value) -> Option<Value> {
    if event["stage"] == "RequestReceived" {
        return None;
    }
    let mut event = event.clone();
    let path = text(&event, "/requestURI")
        .split('?')
        .next()
        .unwrap_or_default();
    let of_resource = event["objectRef"].is_object();
    let silent = ["/healthz", "/version", "/swagger"];
    if !of_resource && silent.iter().any(|silent| path.starts_with(silent)) {
        return None;
    }
    let [resource, subresource, group] = ["resource", "subresource", "apiGroup"]
        .map(|name| text(&event["objectRef"], &format!("/{name}")));
    if group.is_empty() && resource == "events" {
        return None;
    }
    let secret = matches!(
        (group, resource, subresource),
        ("", "secrets" | "configmaps", _)
            | ("", "serviceaccounts", "token")
            | ("authentication.k8s.io", "tokenreviews", _)
    );
    let reads = ["get", "list", "watch"].contains(&text(&event, "/verb"));
    let level = match of_resource && !secret && KNOWN_GROUPS.contains(&group) {
        false => "Metadata",
        true if reads => "Request",
        true => "RequestResponse",
    };
    let connects = CONNECTS.contains(&subresource) || event["stage"] == "ResponseStarted";
    event["level"] = level.into();
    let members = event.as_object_mut()?;
    if level == "Metadata" || connects {
        members.remove("requestObject");
    }
    if level != "RequestResponse" || connects {
        members.remove("responseObject");
    }
    Some(event)
}

/// The entry of an event. `alone`: there is no other entry of the same request.
pub fn entry(event: &Value, alone: bool) -> Value {
    let id = text(event, "/auditID");
    let started = event["stage"] == "ResponseStarted";
    let (method, resource) = names(event);
    let reads = ["get", "list", "watch"].contains(&text(event, "/verb"));
    let log = if reads { "data_access" } else { "activity" };
    let mut labels = event["annotations"]
        .as_object()
        .cloned()
        .unwrap_or_default();
    let parameters = parameters(text(event, "/requestURI"));
    if parameters
        .iter()
        .any(|(name, value)| name == "dryRun" && value == "All")
    {
        labels.insert("command.gke.io/dryRun".to_owned(), "All".into());
    }
    let command: Vec<_> = parameters
        .iter()
        .filter(|(name, _)| name == "command")
        .collect();
    if text(event, "/objectRef/subresource") == "exec" && !command.is_empty() {
        let command: Vec<&str> = command.iter().map(|(_, value)| value.as_str()).collect();
        labels.insert(
            "command.gke.io/command".to_owned(),
            json!(command).to_string().into(),
        );
    }
    let mut operation = json!({"id": id, "producer": "k8s.io"});
    if alone || started {
        operation["first"] = true.into();
    }
    if !started {
        operation["last"] = true.into();
    }
    let mut payload = json!({
        "@type": "type.googleapis.com/google.cloud.audit.AuditLog",
        "authorizationInfo": [{"permission": method, "resource": resource}],
        "methodName": method,
        "requestMetadata": {},
        "resourceName": resource,
        "serviceName": "k8s.io",
        "status": status(&event["responseStatus"]),
    });
    let mut set = |pointer: [&str; 2], value: &str| {
        if !value.is_empty() {
            payload[pointer[0]][pointer[1]] = value.into();
        }
    };
    set(
        ["authenticationInfo", "principalEmail"],
        text(event, "/user/username"),
    );
    set(
        ["authenticationInfo", "authoritySelector"],
        text(event, "/impersonatedUser/username"),
    );
    set(["requestMetadata", "callerIp"], text(event, "/sourceIPs/0"));
    set(
        ["requestMetadata", "callerSuppliedUserAgent"],
        text(event, "/userAgent"),
    );
    for (from, to) in [("requestObject", "request"), ("responseObject", "response")] {
        if let Some(object) = event.get(from) {
            payload[to] = any(object, text(event, "/verb") == "patch" && to == "request");
        }
    }
    json!({
        "insertId": id,
        "labels": labels,
        "logName": format!("projects/p/logs/cloudaudit.googleapis.com%2F{log}"),
        "operation": operation,
        "protoPayload": payload,
        "receiveTimestamp": event["stageTimestamp"],
        "resource": {
            "labels": {"cluster_name": "blue", "location": "europe-west3", "project_id": "p"},
            "type": "k8s_cluster",
        },
        "timestamp": event["stageTimestamp"],
    })
}

/// `methodName` and `resourceName`.
fn names(event: &Value) -> (String, String) {
    let verb = text(event, "/verb");
    let path = text(event, "/requestURI")
        .split('?')
        .next()
        .unwrap_or_default();
    let Some(object) = event["objectRef"].as_object() else {
        let resource = path.trim_start_matches('/').to_owned();
        return (format!("io.k8s.{verb}"), resource);
    };
    let of = |name: &str| object.get(name).and_then(Value::as_str).unwrap_or_default();
    let (group, version) = (of("apiGroup"), of("apiVersion"));
    let mut labels: Vec<String> = qualified(group).split('.').map(str::to_owned).collect();
    labels.reverse();
    let mut method = format!("{}.{version}.{}", labels.join("."), of("resource"));
    let first = if group.is_empty() { "core" } else { group };
    let mut resource = format!("{first}/{version}");
    let of_namespaces = of("resource") == "namespaces" && group.is_empty();
    if !of("namespace").is_empty() && !of_namespaces {
        resource.push_str(&format!("/namespaces/{}", of("namespace")));
    }
    resource.push_str(&format!("/{}", of("resource")));
    if !of("name").is_empty() {
        resource.push_str(&format!("/{}", of("name")));
    }
    if !of("subresource").is_empty() {
        method.push_str(&format!(".{}", of("subresource")));
        let whole = format!("/{}", of("subresource"));
        resource.push_str(&whole);
        // The path of a proxied request.
        let rest = path.split_once(&format!("/{}{whole}", of("name")));
        resource.push_str(rest.map_or("", |(_, rest)| rest).trim_end_matches('/'));
    }
    (format!("{method}.{verb}"), resource)
}

/// The group's name, with a domain.
fn qualified(group: &str) -> String {
    match group {
        "" => "core.k8s.io".to_owned(),
        group if group.contains('.') => group.to_owned(),
        group => format!("{group}.k8s.io"),
    }
}

/// An object as a `Struct` with its type: numbers become doubles, and a list gets a name.
fn any(object: &Value, is_patch: bool) -> Value {
    let kind = match is_patch {
        true => "k8s.io/Patch".to_owned(),
        false => {
            let version = text(object, "/apiVersion");
            let (group, version) = version.split_once('/').unwrap_or(("", version));
            format!("{}/{version}.{}", qualified(group), text(object, "/kind"))
        }
    };
    let mut all = Map::new();
    all.insert("@type".to_owned(), kind.into());
    match as_struct(object) {
        Value::Object(members) => all.extend(members),
        other => {
            all.insert("value".to_owned(), other);
        }
    }
    all.into()
}

/// The value after a conversion to a `Struct` and back.
pub fn as_struct(value: &Value) -> Value {
    match value {
        Value::Number(number) => {
            let double = number.as_f64().unwrap_or_default();
            let is_whole = double.fract() == 0.0 && double.abs() < 1e15;
            #[expect(clippy::cast_possible_truncation, reason = "it is whole and small")]
            let whole = double as i64;
            if is_whole {
                whole.into()
            } else {
                double.into()
            }
        }
        Value::Array(all) => all.iter().map(as_struct).collect(),
        Value::Object(all) => {
            let all = all
                .iter()
                .map(|(name, value)| (name.clone(), as_struct(value)));
            Value::Object(all.collect())
        }
        other => other.clone(),
    }
}

/// Google's status code for an HTTP status.
#[expect(
    clippy::match_overlapping_arm,
    reason = "the first that fits, as Google's own table"
)]
fn status(response: &Value) -> Value {
    let rpc = match response["code"].as_u64().unwrap_or_default() {
        200..300 => return json!({}),
        400 => 3,
        401 => 16,
        403 => 7,
        404 => 5,
        409 => 10,
        416 => 11,
        429 => 8,
        499 => 1,
        400..500 => 9,
        501 => 12,
        503 => 14,
        504 => 4,
        500..600 => 13,
        _ => 2,
    };
    let mut status = json!({"code": rpc});
    if let Some(message) = response["message"].as_str() {
        status["message"] = message.into();
    }
    status
}

/// The decoded query.
pub fn parameters(uri: &str) -> Vec<(String, String)> {
    let query = uri.split_once('?').map_or("", |(_, query)| query);
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(name), decoded(value))
        })
        .collect()
}

/// The text of a URI without escapes.
pub fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let code = (first == b'%')
            .then(|| std::str::from_utf8(tail.get(..2)?).ok())
            .flatten();
        match code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(if first == b'+' { b' ' } else { first });
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
