//! Events larger than receivers accept: their author must not choose what stays visible.

use super::*;

/// Enough for every event here without its padding.
const LIMIT: usize = 64 << 10;

fn limit() -> EventOptions {
    options(&[], LIMIT)
}

/// A create event with this requestObject.
fn create(request_object: &str) -> String {
    let at = WHOLE.find("\"requestObject\":").unwrap();
    let end = WHOLE.find(",\"responseObject\"").unwrap();
    format!(
        "{}\"requestObject\":{request_object}{}",
        &WHOLE[..at],
        &WHOLE[end..]
    )
}

#[track_caller]
fn shortened(json: &str) -> (Event, Value) {
    let event = convert(json, true, None, &limit()).unwrap();
    let got = serde_value(text(&event));
    assert!(event.text().len() <= LIMIT, "{} bytes", event.text().len());
    assert_eq!(got["annotations"][TRUNCATED], "true");
    // No more than needed is removed: at least half of the limit is used.
    assert!(
        event.text().len() > LIMIT / 2,
        "{} bytes left",
        event.text().len()
    );
    let before = serde_value(json);
    for name in [
        "auditID",
        "stage",
        "verb",
        "objectRef",
        "responseStatus",
        "level",
    ] {
        if before[name].to_string().len() < 1000 {
            assert_eq!(got[name], before[name], "{name}");
        }
    }
    (event, got)
}

/// The event as serde reads it. Serde reads at most 128 levels; events may have more.
fn serde_value(text: &str) -> Value {
    let repairs = repair::repairs(text, 100);
    serde_json::from_str(&repairs.edits.apply(text)).unwrap()
}

fn padding(bytes: usize) -> String {
    format!("head{}tail", "x".repeat(bytes))
}

#[test]
fn event_at_the_size_limit_is_whole() {
    let limit = options(&[], WHOLE.len());
    assert_eq!(text(&convert(WHOLE, true, None, &limit).unwrap()), WHOLE);
}

#[test]
fn event_too_large_keeps_host_pid_beside_padding() {
    let big = padding(300_000);
    let small = |sep: &str, item: &dyn Fn(usize) -> String| {
        (0..40_000).map(item).collect::<Vec<_>>().join(sep)
    };
    let key = |n: usize| format!("\"k{n}\":{n}");
    let annotations = small(",", &|n| format!("\"k{n}\":\"v\""));
    let list = small(",", &|n| n.to_string());
    let pods = [
        format!(r#"{{"metadata":{{"annotations":{{"a":"{big}"}}}},"spec":{{"hostPID":true}}}}"#),
        format!(r#"{{"spec":{{"a":"{big}","hostPID":true,"z":"{big}"}}}}"#),
        format!(r#"{{"metadata":{{"annotations":{{{annotations}}}}},"spec":{{"hostPID":true}}}}"#),
        format!(
            r#"{{"spec":{{{},"hostPID":true,{}}}}}"#,
            small(",", &key),
            small(",", &key).replace("\"k", "\"m")
        ),
        format!(r#"{{"spec":{{"tolerations":[{list}],"hostPID":true,"x":[{list}]}}}}"#),
        format!(r#"{{"{big}":1,"spec":{{"{big}y":{{}},"hostPID":true}}}}"#),
        format!(
            r#"{{"spec":{{"a":{}1{},"hostPID":true}}}}"#,
            r#"{"deep":["#.repeat(100),
            "]}".repeat(100)
                .replace("]}", &format!("],\"p\":\"{}\"}}", padding(3000)))
        ),
        format!(
            r#"{{"spec":{{"number":1.{},"hostPID":true}}}}"#,
            "0".repeat(200_000)
        ),
        format!(
            r#"{{"metadata":{{"annotations":{{"a":"{big}"}},"labels":{{"b":"{big}"}},"name":"evil"}},"spec":{{"hostPID":true}}}}"#
        ),
    ];
    for pod in &pods {
        let (event, got) = shortened(&create(pod));
        assert_eq!(
            got["requestObject"]["spec"]["hostPID"],
            true,
            "{}",
            &pod[..80]
        );
        assert!(
            event
                .notes()
                .given_up()
                .any(|what| what == GivenUp::RequestObject)
        );
        if pod.contains("evil") {
            assert_eq!(got["requestObject"]["metadata"]["name"], "evil");
        }
    }
    let (_, got) = shortened(&create(&pods[0]));
    let kept = got["requestObject"]["metadata"]["annotations"]["a"]
        .as_str()
        .unwrap();
    assert!(
        kept.starts_with("headxx") && kept.ends_with("xxtail"),
        "{}",
        &kept[..50]
    );
    let (_, got) = shortened(&create(&pods[4]));
    let kept = got["requestObject"]["spec"]["tolerations"]
        .as_array()
        .unwrap();
    assert_eq!(
        (kept.first(), kept.last()),
        (Some(&json!(0)), Some(&json!(39_999)))
    );
}

#[test]
fn event_too_large_loses_response_before_request() {
    let request = format!(r#"{{"spec":{{"a":"{}"}}}}"#, padding(40_000));
    let response = format!(
        r#"{{"metadata":{{"name":"n","managedFields":["{}"]}}}}"#,
        padding(200_000)
    );
    let json = create(&request);
    let at = json.find("\"responseObject\":").unwrap();
    let end = json.find(",\"requestReceivedTimestamp\"").unwrap();
    let json = format!(
        "{}\"responseObject\":{response}{}",
        &json[..at],
        &json[end..]
    );
    let (event, got) = shortened(&json);
    assert_eq!(got["requestObject"].to_string(), request);
    assert_eq!(got["responseObject"]["metadata"]["name"], "n");
    assert!(event.notes().given_up().eq([GivenUp::ResponseObject]));
}

#[test]
fn event_too_large_shortens_members_to_their_budgets() {
    let big = padding(100_000);
    let groups: Vec<String> = (0..9000)
        .map(|n| match n {
            4500 => "\"system:masters\"".to_owned(),
            n => format!("\"group{n}\""),
        })
        .collect();
    let user = format!(
        r#"{{"username":"eve","groups":[{}],"extra":{{"scopes":["{big}"]}}}}"#,
        groups.join(",")
    );
    let addresses = "\"10.0.0.1\",".repeat(9000);
    for (from, to) in [
        (
            r#""requestURI":"/api/v1/namespaces/default/pods?limit=500""#,
            format!(
                r#""requestURI":"/api/v1/namespaces/default/pods?limit=500&x={big}&command=sh""#
            ),
        ),
        (
            r#""sourceIPs":["10.0.0.1"]"#,
            format!(r#""sourceIPs":["8.8.8.8",{addresses}"10.9.9.9"]"#),
        ),
        (
            r#""sourceIPs":["10.0.0.1"]"#,
            format!(r#""sourceIPs":["10.0.0.1"],"userAgent":"{big}""#),
        ),
        (
            r#""user":{"username":"jürgen","groups":["a","b"]}"#,
            format!(r#""user":{user}"#),
        ),
        (
            r#""user":{"username":"jürgen","groups":["a","b"]}"#,
            format!(r#""user":{{"username":"admin"}},"impersonatedUser":{user}"#),
        ),
        (
            r#""auditID":"9d5c8b5a-5f2f-4f5e-8f56-6ea5a4d6d0b1""#,
            format!(r#""auditID":"{big}""#),
        ),
        (
            r#""code":201"#,
            format!(r#""code":201,"message":"{big}","reason":"Bad""#),
        ),
        (
            r#""authorization.k8s.io/decision":"allow""#,
            format!(r#""authorization.k8s.io/decision":"allow","z":"{big}""#),
        ),
        (
            r#""kind":"Event""#,
            format!(r#""kind":"Event","unknown":"{big}""#),
        ),
    ] {
        let json = WHOLE.replacen(from, &to, 1);
        assert!(json.len() > LIMIT);
        let event = convert(&json, true, None, &limit()).unwrap();
        let got = value(&event);
        assert!(event.text().len() <= LIMIT);
        assert!(event.notes().given_up().eq([GivenUp::Identity]), "{from}");
        assert!(
            got["annotations"][SHORTENED]
                .as_str()
                .unwrap()
                .contains("sha256:"),
            "{from}"
        );
        let before: Value = serde_json::from_str(WHOLE).unwrap();
        for (name, want) in before.as_object().unwrap() {
            if !to.starts_with(&format!("\"{name}\""))
                && !["annotations", "responseStatus"].contains(&name.as_str())
            {
                assert_eq!(got[name], *want, "{from}");
            }
        }
        let user = match got["impersonatedUser"].is_null() {
            true => &got["user"],
            false => &got["impersonatedUser"],
        };
        if to.contains("masters") {
            assert_eq!(user["username"], "eve");
            let groups = user["groups"].as_array().unwrap();
            assert_eq!(
                (&groups[0], groups.last()),
                (&json!("group0"), Some(&json!("group8999")))
            );
            assert!(groups.contains(&json!("system:masters")));
        }
        let uri = got["requestURI"].as_str().unwrap();
        assert!(uri.starts_with("/api/v1/namespaces/default/pods?limit=500"));
        if to.contains("command") {
            assert!(uri.ends_with("tail&command=sh"), "{uri}");
        }
        if to.contains("8.8.8.8") {
            assert_eq!(got["sourceIPs"][0], "8.8.8.8");
            assert_eq!(
                got["sourceIPs"].as_array().unwrap().last(),
                Some(&json!("10.9.9.9"))
            );
        }
        assert_eq!(got["responseStatus"]["code"], 201);
        if to.contains("Bad") {
            assert_eq!(got["responseStatus"]["reason"], "Bad");
        }
        assert_eq!(got["annotations"]["authorization.k8s.io/decision"], "allow");
    }
}

#[test]
fn event_with_every_member_too_large_still_fits() {
    let big = padding(50_000);
    let list = format!("[{}]", vec![format!("\"{big}\""); 5].join(","));
    let json = format!(
        r#"{{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"{big}","auditID":"{big}","stage":"{big}","requestURI":"{big}","verb":"{big}","user":{{"username":"{big}","uid":"{big}","groups":{list},"extra":{{"{big}":{list}}}}},"impersonatedUser":{{"username":"{big}"}},"sourceIPs":{list},"userAgent":"{big}","objectRef":{{"resource":"{big}","name":"{big}"}},"responseStatus":{{"message":"{big}","code":200}},"requestObject":"{big}","responseObject":{list},"stageTimestamp":"2024-05-20T05:24:43.000000Z","annotations":{{"{big}":"{big}"}},"x":{list},"{big}":1}}"#
    );
    for max in [EventOptions::EVENT_BYTES_MIN, LIMIT, 250 << 10] {
        let event = convert(&json, true, None, &options(&[], max)).unwrap();
        assert!(event.text().len() <= max);
        let got = value(&event);
        for name in ["auditID", "stage", "verb", "userAgent", "requestURI"] {
            let text = got[name].as_str().unwrap();
            assert!(
                text.starts_with("head") && text.ends_with("tail"),
                "{name}: {text}"
            );
        }
        assert_eq!(got["responseStatus"]["code"], 200);
        assert!(
            got["user"]["username"]
                .as_str()
                .unwrap()
                .starts_with("head")
        );
    }
}

#[test]
fn event_without_objects_drops_objects_of_any_type() {
    let json = MINIMAL.replacen(
        '{',
        concat!(
            r#"{"requestObject":"skipped-too-big-size-object","responseObject":null,"#,
            r#""annotations":{"audit.k8s.io/truncated":"no"},"#,
        ),
        1,
    );
    let event = plain(&json).unwrap().without_objects().unwrap();
    assert!(event.truncated());
    let want = MINIMAL.replace('}', r#","annotations":{"audit.k8s.io/truncated":"true"}}"#);
    assert_eq!(text(&event), want);
    assert_eq!(event.without_objects(), None);
}

#[test]
fn event_shortened_holds_little_memory() {
    let big = format!("{{\"data\":\"{}\"}}", "x".repeat(5 << 20));
    let json = MINIMAL.replacen('{', &format!("{{\"requestObject\":{big},"), 1);
    let event = plain(&json).unwrap();
    let vec = Vec::from(event.text().clone());
    assert!(vec.capacity() < 600 << 10, "{}", vec.capacity());
}

#[test]
fn event_shortening_takes_linear_time() {
    // Each level holds nearly all the bytes below it: scanning the content at each level would take
    // minutes.
    let mut object = format!("\"{}\"", "y".repeat(1 << 20));
    for _ in 0..120 {
        object = format!("{{\"a\":[{object},1]}}");
    }
    let (_, got) = shortened(&create(&object));
    assert!(got["requestObject"].is_object());
    let dense = format!("[{}0]", "0,".repeat(4 << 20));
    let (_, got) = shortened(&create(&dense));
    assert!(got["requestObject"].as_array().unwrap().len() > 10_000);
}
