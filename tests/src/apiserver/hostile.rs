//! Sends to a real API server what attackers write into a request to hide it.

use std::time::Duration;

use serde_json::json;

use super::client::ApiRequest;
use super::tour::{NS, Tour, config_map};

const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";

pub(super) fn visit(tour: &mut Tour<'_>) {
    bodies(tour);
    requests(tour);
}

fn bodies(tour: &mut Tour<'_>) {
    let role = "/apis/rbac.authorization.k8s.io/v1/namespaces/tour/roles/r";
    let harmless = r#"[{"apiGroups":[""],"resources":["pods"],"verbs":["get"]}]"#;
    let everything = r#"[{"apiGroups":["*"],"resources":["*"],"verbs":["*"]}]"#;
    for second in ["rules", "r\\u0075les"] {
        let patch = format!(r#"{{"rules":{harmless},"{second}":{everything}}}"#);
        for kind in [MERGE, STRATEGIC] {
            tour.patch(200, role, kind, &patch);
        }
    }
    let maps = format!("{NS}/configmaps");
    tour.post(201, &maps, &config_map("h", &json!({"k": "v"})));
    let map = format!("{maps}/h");
    for levels in [400, 9000] {
        let nested = format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        let patch = format!(r#"{{"data":{{"seen":"yes"}},"x":{nested}}}"#);
        tour.patch(200, &map, MERGE, patch);
    }
    // The newest release answers 400, the oldest closes the connection.
    let nested = format!("{}{}", "[".repeat(11_000), "]".repeat(11_000));
    let patch = ApiRequest::new("PATCH", &*map).body(MERGE, format!(r#"{{"x":{nested}}}"#));
    let admin = tour.admin.clone();
    tour.send_as(&admin, &[0, 400], &patch.listen(Duration::from_secs(5)));
    for value in [
        &b"\xff\xfe\xc3("[..],
        br"\ud800",
        br"\u0000",
        b"<>&\xe2\x80\xa8",
    ] {
        let patch = [&br#"{"data":{"odd":""#[..], value, br#""}}"#].concat();
        tour.send(200, &ApiRequest::new("PATCH", &*map).body(MERGE, patch));
    }
    // Padding next to what matters, in the object and in many small members.
    let long = "p".repeat(280_000);
    tour.patch(
        200,
        &map,
        MERGE,
        json!({"data": {"pad": long, "seen": "yes"}}),
    );
    let many = vec!["0"; 130_000].join(",");
    let patch = format!(r#"{{"x":[{many}],"data":{{"seen":"yes"}}}}"#);
    tour.patch(200, &map, MERGE, patch);
}

fn requests(tour: &mut Tour<'_>) {
    let admin = tour.admin.clone();
    let pod = format!("{NS}/pods/p1");
    let long = "a".repeat(200_000);
    tour.send(
        200,
        &ApiRequest::new("GET", format!("{pod}?x={long}&command=cat")),
    );
    tour.send(404, &ApiRequest::new("GET", format!("{NS}/pods/{long}")));
    // Many parameters, of which the last matters.
    let many: String = (0..20_000).map(|n| format!("p{n}=0123&")).collect();
    tour.send(
        200,
        &ApiRequest::new("GET", format!("{pod}?{many}dryRun=All")),
    );
    let version = || ApiRequest::new("GET", "/version");
    tour.send(200, &version().header("Audit-ID", "my-own-audit-id"));
    tour.send(
        200,
        &version().header("Audit-ID", "quote\"backslash\\tab\tend"),
    );
    tour.send(200, &version().header("Audit-ID", "i".repeat(33_000)));
    tour.send(200, &version().header("User-Agent", "u".repeat(270_000)));
    tour.send(200, &version().header("User-Agent", &b"caf\xe9 \xff"[..]));
    let chain = "203.0.113.7, 198.51.100.2";
    let apis = ApiRequest::new("GET", "/apis").header("X-Real-Ip", "192.0.2.9");
    tour.send(200, &apis.header("X-Forwarded-For", chain));
    let chain: Vec<String> = (0..20_000)
        .map(|n| format!("10.{}.{}.1", n / 250, n % 250))
        .collect();
    tour.send(200, &version().header("X-Forwarded-For", chain.join(", ")));
    for target in [
        &b"/api/v1/namespaces/tour/pods/\xff\xfe"[..],
        b"/version?x=\xc3(",
    ] {
        tour.send_as(&admin, &[200, 400, 404], &ApiRequest::new("GET", target));
    }
    let mut groups = ApiRequest::new("GET", pod).header("Impersonate-User", "alice");
    for n in 0..9_000 {
        let group = format!("group-{n:020}");
        groups = groups.header("Impersonate-Group", group);
    }
    groups = groups.header("Impersonate-Group", "system:masters");
    tour.send(200, &groups);
}
