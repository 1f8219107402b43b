//! Too large events with unusual spelling: escapes in keys and values, and at each place where
//! something may be cut.

use super::*;

const LIMIT: usize = 64 << 10;

fn shortened(json: &str) -> Value {
    let event = convert(json, true, None, &options(&[], LIMIT)).unwrap();
    assert!(event.text().len() <= LIMIT, "{} bytes", event.text().len());
    let got: Value = serde_json::from_str(text(&event)).unwrap_or_else(|error| {
        let text = text(&event);
        panic!("{error}: {} … {}", &text[..200], &text[text.len() - 200..])
    });
    assert_eq!(got["annotations"][TRUNCATED], "true");
    got
}

/// An event with one member of this JSON.
fn with(member: &str, json: &str) -> String {
    let mut event: serde_json::Map<String, Value> = serde_json::from_str(WHOLE).unwrap();
    event.remove(member);
    let rest = Value::from(event).to_string();
    format!("{},\"{member}\":{json}}}", &rest[..rest.len() - 1])
}

#[test]
fn event_member_full_of_escapes_stays_a_string() {
    let pieces = [
        "\"", "\\", "\u{1}", "\n", "é", "😀", "%22", "%", ";", "&", "?", "=", "/", "\u{fffd}",
    ];
    for head in ["/api/v1/pods?x=", ""] {
        for piece in pieces {
            for tail in ["", "\"", "a"] {
                let value = format!("{head}{}{tail}", piece.repeat(80_000 / piece.len()));
                let value = Value::from(value).to_string();
                for member in ["requestURI", "userAgent", "auditID", "verb"] {
                    let got = shortened(&with(member, &value));
                    assert!(got[member].is_string(), "{member}: {piece:?}");
                }
                shortened(&with(
                    "user",
                    &format!("{{\"username\":{value},\"groups\":[{value}]}}"),
                ));
                shortened(&with("sourceIPs", &format!("[{value},\"10.0.0.1\"]")));
                shortened(&with(
                    "requestObject",
                    &format!("{{{value}:1,\"spec\":{value}}}"),
                ));
            }
        }
    }
}

#[test]
fn uri_of_quotes_too_long_keeps_what_fits_and_other_parameters() {
    let uri = format!("/api/v1/pods?x={}&limit=500", "\"".repeat(100_000));
    let got = shortened(&with("requestURI", &Value::from(uri).to_string()));
    let left = got["requestURI"].as_str().unwrap();
    assert!(
        left.starts_with("/api/v1/pods?x=\"\"") && left.ends_with("&limit=500"),
        "{left}"
    );
    assert!(
        Value::from(left).to_string().len() > LIMIT / 10,
        "{}",
        left.len()
    );
}

/// The key with its first letter as an escape.
fn spelled(key: &str) -> String {
    let first = key.as_bytes()[0];
    format!("\"\\u00{first:02x}{}\"", &key[1..])
}

#[test]
fn event_member_with_escaped_name_is_the_same_member() {
    let padding = "x".repeat(LIMIT);
    let object = format!("{{\"spec\":{{\"x\":\"{padding}\",\"hostPID\":true}}}}");
    let object = object.as_str();
    let uri = format!("\"/api/v1/pods?x={padding}\"");
    for (member, json) in [
        ("requestObject", object),
        ("responseObject", object),
        ("requestURI", &uri),
    ] {
        let event = with(member, json).replace(&format!("\"{member}\""), &spelled(member));
        let got = shortened(&event);
        assert!(got == shortened(&with(member, json)), "{member}");
    }
    // Beside the member that makes it too large, for each other one.
    let large = with("requestObject", object);
    for member in [
        "annotations",
        "user",
        "verb",
        "requestReceivedTimestamp",
        "kind",
    ] {
        let event = large.replacen(
            &format!("\"{member}\":"),
            &format!("{}:", spelled(member)),
            1,
        );
        assert_ne!(event, large, "{member}");
        let text = convert(&event, true, None, &options(&[], LIMIT)).unwrap();
        let text = super::text(&text).to_owned();
        let same: Vec<_> = Raw::parse(&text)
            .unwrap()
            .members()
            .unwrap()
            .filter(|(key, _)| key == member)
            .collect();
        assert_eq!(same.len(), 1, "{member} is there once");
        assert!(shortened(&event) == shortened(&large), "{member}");
    }
}

#[test]
fn event_padded_essential_member_leaves_the_rest_visible() {
    let spec = r#"{"template":{"spec":{"hostPID":true,"containers":[{"name":"c","image":"busybox","command":["sh","-c","evil"],"securityContext":{"privileged":true}}]}}}"#;
    let text = Value::from("x".repeat(4 * LIMIT)).to_string();
    let many: Vec<String> = (0..40_000).map(|n| format!("\"k{n}\":{n}")).collect();
    let map = format!("{{{}}}", many.join(","));
    let list = format!("[{}]", vec!["1"; 120_000].join(","));
    for member in ["data", "rules", "subjects", "kind", "roleRef", "apiVersion"] {
        for padding in [&text, &map, &list] {
            for object in [
                format!("{{\"{member}\":{padding},\"spec\":{spec}}}"),
                format!("{{\"spec\":{spec},\"{member}\":{padding}}}"),
            ] {
                let got = shortened(&with("requestObject", &object));
                let left = &got["requestObject"]["spec"];
                assert_eq!(
                    *left,
                    serde_json::from_str::<Value>(spec).unwrap(),
                    "{member}"
                );
                let kept = got["requestObject"][member].to_string().len();
                assert!(kept > LIMIT / 2, "{member}: {kept} bytes left");
            }
        }
    }
    // The same one level below.
    let name =
        format!("{{\"metadata\":{{\"name\":{text},\"labels\":{{\"a\":\"b\"}}}},\"spec\":{spec}}}");
    let got = shortened(&with("requestObject", &name));
    assert_eq!(got["requestObject"]["metadata"]["labels"]["a"], "b");
}

#[test]
fn event_negative_status_code_is_kept() {
    let event = WHOLE.replacen("\"code\":201", "\"code\":-1", 1);
    assert_ne!(event, WHOLE);
    let got = convert(&event, true, None, &options(&[], 1 << 20)).unwrap();
    assert_eq!(text(&got), event);
}

#[test]
fn event_many_unknown_members_take_linear_time() {
    let many: Vec<String> = (0..300_000).map(|n| format!("\"u{n}\":1")).collect();
    let event = format!("{},{}}}", &WHOLE[..WHOLE.len() - 1], many.join(","));
    // Quadratic, this would take minutes.
    shortened(&event);
}

#[test]
fn event_with_many_groups_keeps_those_kubernetes_gives() {
    let object = format!("{{\"pad\":\"{}\"}}", "x".repeat(2 * LIMIT));
    let large = with("requestObject", &object);
    let around: Vec<String> = (0..300)
        .map(|n| format!("system:padding-{n:020}"))
        .collect();
    let others: Vec<String> = (0..3_000).map(|n| format!("team-{n}")).collect();
    for padding in [&around, &others] {
        let mut groups = padding.clone();
        groups.insert(groups.len() / 2, "system:masters".to_owned());
        let user =
            json!({"username": "mallory", "uid": "1", "groups": groups, "extra": {"x": others}});
        let mut event: Value = serde_json::from_str(&large).unwrap();
        event["impersonatedUser"] = user;
        let got = shortened(&event.to_string());
        let left = got["impersonatedUser"]["groups"].as_array().unwrap();
        assert!(left.contains(&json!("system:masters")), "{}", left.len());
    }
    // A long name takes nothing from the groups.
    for member in ["username", "uid"] {
        let mut event: Value = serde_json::from_str(&large).unwrap();
        event["user"] = json!({"username": "m", "groups": ["admins", "dev"]});
        event["user"][member] = json!("n".repeat(LIMIT));
        let got = shortened(&event.to_string());
        assert_eq!(got["user"]["groups"], json!(["admins", "dev"]));
    }
}
