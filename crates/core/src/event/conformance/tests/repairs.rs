//! Content that receivers would read differently, or not at all.

use super::*;

fn with_object(object: &str, verb: &str) -> String {
    MINIMAL.replace("\"get\"", &format!("\"{verb}\"")).replace(
        ",\"stageTimestamp\"",
        &format!(",\"requestObject\":{object},\"stageTimestamp\""),
    )
}

#[test]
fn patch_with_duplicate_key_keeps_value_the_api_server_took() {
    for (object, want) in [
        (
            r#"{"rules":["harmless"],"rules":["everything"]}"#,
            r#"{"rules":["everything"]}"#,
        ),
        (
            r#"{"rules":["harmless"],"r\u0075les":["everything"]}"#,
            r#"{"r\u0075les":["everything"]}"#,
        ),
        (r#"{"a":[{"b":{"c":1,"c":2}}]}"#, r#"{"a":[{"b":{"c":2}}]}"#),
    ] {
        let event = plain(&with_object(object, "patch")).unwrap();
        assert_eq!(text(&event), with_object(want, "patch"));
        assert!(event.notes().repaired().eq([Repair::DuplicateKey]));
        assert!(!event.truncated());
    }
    let many = (0..300)
        .map(|n| format!("\"k{n}\":{n},"))
        .collect::<String>();
    let object = format!(r#"{{{many}"k7":"last"}}"#);
    let event = plain(&with_object(&object, "patch")).unwrap();
    assert_eq!(value(&event)["requestObject"]["k7"], "last");
    assert_eq!(text(&event).matches("\"k7\"").count(), 1);
    // Many different keys do not require a change.
    let object = format!(r#"{{{many}"k300":1}}"#);
    let json = with_object(&object, "patch");
    let event = plain(&json).unwrap();
    assert_eq!(text(&event), json);
    assert!(event.notes().none());
}

#[test]
fn event_known_member_twice_leaves_once() {
    for (from, to) in [
        (
            r#""username":"jürgen""#,
            r#""username":"x","username":"jürgen""#,
        ),
        (
            r#""resource":"pods""#,
            r#""resource":"secrets","resource":"pods""#,
        ),
        (r#""verb":"create""#, r#""verb":"get","verb":"create""#),
        (r#""code":201"#, r#""code":200,"code":201"#),
        (
            r#""authorization.k8s.io/decision":"allow""#,
            r#""authorization.k8s.io/decision":"forbid","authorization.k8s.io/decision":"allow""#,
        ),
    ] {
        let event = plain(&WHOLE.replacen(from, to, 1)).unwrap();
        assert_eq!(text(&event), WHOLE, "{to}");
    }
}

#[test]
fn event_too_deep_loses_only_what_lies_below_the_limit() {
    for levels in [100, 245, 246, 247, 248, 400, 2000, 100_000] {
        let deep = format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
        let object = format!(r#"{{"spec":{{"a":{deep},"hostPID":true}},"z":[{deep}]}}"#);
        for verb in ["patch", "create"] {
            let json = with_object(&object, verb);
            let unlimited = options(&[], 10 << 20);
            let event = convert(&json, true, None, &unlimited).unwrap();
            let depth = Raw::parse(text(&event)).unwrap().findings().depth();
            assert!(depth + LEVELS_AROUND <= 250, "{levels}: {depth}");
            // Event, requestObject, spec, and the scalar at the bottom.
            let fits = levels + 4 + LEVELS_AROUND <= 250;
            assert_eq!(text(&event) == json, fits, "{levels}");
            assert_eq!(event.truncated(), !fits, "{levels}");
            if !fits {
                assert!(event.notes().given_up().eq([GivenUp::Depth]));
                assert_eq!(depth + LEVELS_AROUND, 250, "no more than needed");
                assert!(text(&event).contains("\"hostPID\":true}"), "{levels}");
            }
        }
    }
}

#[test]
fn event_invalid_utf8_leaves_as_go_decodes_it() {
    let at = WHOLE.find("say").unwrap();
    let mut bytes = WHOLE.as_bytes().to_vec();
    bytes.splice(at..at + 3, *b"\xff\xc3\x28\xe2\x82");
    let options = EventOptions::default();
    let made = event(&Bytes::from(bytes), &options.context()).unwrap();
    let want = WHOLE.replacen("say", "\u{fffd}\u{fffd}(\u{fffd}\u{fffd}", 1);
    assert_eq!(text(&made), want);
    assert!(made.notes().repaired().eq([Repair::Encoding]));

    for (half, want) in [
        (r"\ud800", r"\ufffd"),
        (r"\uDFFF\ud83d\ude00", r"\ufffd\ud83d\ude00"),
    ] {
        let json = with_object(&format!("{{\"a\":[\"{half}\"]}}"), "create");
        let event = plain(&json).unwrap();
        assert_eq!(text(&event), json.replace(half, want));
        assert!(event.notes().repaired().eq([Repair::Encoding]));
    }
}

#[test]
fn event_ending_inside_a_character_counts_as_cut() {
    let at = WHOLE.find('😀').unwrap();
    for cut in at + 1..at + 4 {
        for end in [&b""[..], b"[Truncated...]", b"\n"] {
            let bytes = [&WHOLE.as_bytes()[..cut], end].concat();
            let options = EventOptions::default();
            let context = EventContext {
                record_time: RECORD_TIME.parse().ok(),
                ..options.context()
            };
            let event = event(&Bytes::from(bytes), &context).unwrap();
            let got = value(&event);
            assert_eq!(
                got["requestObject"],
                json!({"kind": "Pod", "spec": {"a": 1.5}})
            );
            assert!(event.notes().given_up().eq([GivenUp::ProviderObjects]));
        }
    }
}

#[test]
fn event_escaped_member_name_is_recognised() {
    for (from, to) in [
        ("\"audit.k8s.io/v1\"", r#""audit.k8s.io\/v1""#),
        ("\"kind\"", r#""kin\u0064""#),
        ("\"auditID\"", r#""\u0061uditID""#),
        ("\"Event\"", r#""\u0045vent""#),
    ] {
        let json = MINIMAL.replacen(from, to, 1);
        for claimed in [true, false] {
            let event = convert(&json, claimed, None, &EventOptions::default()).unwrap();
            assert_eq!(text(&event), json);
        }
    }
}

#[test]
fn event_member_of_wrong_type_is_named_and_numbers_are_repaired() {
    for (from, to, want) in [
        (
            r#""groups":["a","b"]"#,
            r#""groups":"a""#,
            "user.groups is a string, not a list of strings",
        ),
        (
            r#""groups":["a","b"]"#,
            r#""groups":["a",{}]"#,
            "user.groups[1] is an object, not a string",
        ),
        (
            r#""username":"jürgen""#,
            r#""username":["x"]"#,
            "user.username is an array, not a string",
        ),
        (
            r#""groups":["a","b"]"#,
            r#""extra":{"a":"b"}"#,
            "user.extra.a is a string, not a list of strings",
        ),
        (
            r#""code":201"#,
            r#""code":200.5"#,
            "responseStatus.code is a number, not an integer in range",
        ),
        (
            r#""code":201"#,
            r#""code":"200""#,
            "responseStatus.code is a string, not an integer",
        ),
        (
            r#""code":201"#,
            r#""details":{"causes":[{"reason":1}]}"#,
            "responseStatus.details.causes[0].reason is a number, not a string",
        ),
        (
            r#""resource":"pods""#,
            r#""resource":1"#,
            "objectRef.resource is a number, not a string",
        ),
        (
            r#""sourceIPs":["10.0.0.1"]"#,
            r#""sourceIPs":"10.0.0.1""#,
            "sourceIPs is a string, not a list of strings",
        ),
        (
            r#""sourceIPs":["10.0.0.1"]"#,
            r#""userAgent":{}"#,
            "userAgent is an object, not a string",
        ),
        (
            r#""authorization.k8s.io/decision":"allow""#,
            r#""x":1"#,
            "annotations.x is a number, not a string",
        ),
        (
            r#""level":"RequestResponse""#,
            r#""level":false"#,
            "level is a boolean, not a string",
        ),
    ] {
        let json = WHOLE.replacen(from, to, 1);
        assert_eq!(
            plain(&json),
            Err(EventError::Unparsable(want.to_owned())),
            "{to}"
        );
    }
    for (from, to, want) in [
        (r#""code":201"#, r#""code":201.0"#, r#""code":201"#),
        (
            r#""code":201"#,
            r#""details":{"retryAfterSeconds":1e1}"#,
            r#""details":{"retryAfterSeconds":10}"#,
        ),
    ] {
        let event = plain(&WHOLE.replacen(from, to, 1)).unwrap();
        assert_eq!(text(&event), WHOLE.replacen(from, want, 1));
        assert!(event.notes().repaired().eq([Repair::Number]));
    }
    // Absent, as Kubernetes writes it.
    for to in [
        r#""groups":null"#,
        r#""groups":[]"#,
        r#""extra":{"a":null}"#,
        r#""extra":{"a":["b"]},"uid":"u""#,
    ] {
        let json = WHOLE.replacen(r#""groups":["a","b"]"#, to, 1);
        assert_eq!(text(&plain(&json).unwrap()), json, "{to}");
    }
}

#[test]
fn event_of_older_version_loses_members_unknown_to_v1() {
    let old = WHOLE
        .replace("audit.k8s.io/v1", "audit.k8s.io/v1beta1")
        .replacen(
            "{\"kind\"",
            r#"{"metadata":{"creationTimestamp":null},"timestamp":"2024-05-20T05:24:42Z","kind""#,
            1,
        );
    let event = plain(&old).unwrap();
    assert_eq!(count(&event, "metadata") + count(&event, "timestamp"), 0);
    assert!(event.notes().repaired().eq([Repair::Version]));
    // Unknown members stay as they are.
    let json = WHOLE.replacen(
        "{\"kind\"",
        r#"{"metadata":{"x":[1.50]},"other":{"a":1e400},"kind""#,
        1,
    );
    assert_eq!(text(&plain(&json).unwrap()), json);
}

#[test]
fn event_in_api_server_form_is_scanned_once() {
    let extra = r#""uid":"u-1","groups":["system:authenticated"],"extra":{"authentication.kubernetes.io/credential-id":["JTI=1"],"scopes":["a","b"]}"#;
    for user in [
        "{}".to_owned(),
        r#"{"username":"u"}"#.to_owned(),
        r#"{"username":"u","groups":["a"]}"#.to_owned(),
        format!(r#"{{"username":"u",{extra}}}"#),
    ] {
        let json = WHOLE.replace(r#"{"username":"jürgen","groups":["a","b"]}"#, &user);
        let (seen, end) = Inspection::read(&json);
        assert!(
            end.is_ok() && is_clean(&seen, &EventOptions::default()),
            "{user}"
        );
    }
    // A value of the wrong type is refused.
    for user in [
        r#"{"username":"u","uid":["a"]}"#,
        r#"{"username":"u","groups":"a"}"#,
        r#"{"username":"u","groups":[["a"]]}"#,
        r#"{"username":"u","groups":["a",{}]}"#,
        r#"{"username":"u","groups":[{"a":"b"}]}"#,
        r#"{"username":"u","extra":"x"}"#,
        r#"{"username":"u","extra":{"a":"b"}}"#,
        r#"{"username":"u","extra":{"a":[["b"]]}}"#,
        r#"{"username":"u","extra":{"a":["b"],"c":"d"}}"#,
        r#"{"username":{"a":"b"}}"#,
        r#"{"groups":"x","username":"u"}"#,
        r#"["username"]"#,
        r#""username""#,
    ] {
        let json = WHOLE.replace(r#"{"username":"jürgen","groups":["a","b"]}"#, user);
        let (seen, _) = Inspection::read(&json);
        assert!(seen.odd_types, "{user}");
        assert!(
            matches!(plain(&json), Err(EventError::Unparsable(_))),
            "{user}"
        );
    }
}

#[test]
fn event_of_a_refusal_in_api_server_form_is_scanned_once() {
    let status = r#"{"metadata":{},"status":"Failure","message":"pods \"x\" is forbidden: \u003cb\u003e","reason":"Forbidden","details":{"name":"x","kind":"pods","causes":[{"reason":"r","message":"m","field":"f"}],"retryAfterSeconds":1},"code":403}"#;
    let json = WHOLE.replace(r#"{"metadata":{},"code":201}"#, status);
    let (seen, end) = Inspection::read(&json);
    assert!(end.is_ok() && is_clean(&seen, &EventOptions::default()));
    let event = plain(&json).unwrap();
    assert_eq!(text(&event), json);
}
