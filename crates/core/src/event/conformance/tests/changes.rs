//! Kind and API version, annotations, duplicate members.

use super::*;

#[test]
fn event_without_kind_and_version_gets_both() {
    let bare = WHOLE.replace(r#""kind":"Event","apiVersion":"audit.k8s.io/v1","#, "");
    let kind = |kind| bare.replacen('{', &format!("{{\"kind\":{kind},"), 1);
    for json in [&bare, &kind("\"\""), &kind("null"), &kind("\"Event\"")] {
        for (version, added) in [
            ("", true),
            ("\"apiVersion\":\"\",", true),
            ("\"apiVersion\":null,", true),
            ("\"apiVersion\" : \"audit.k8s.io/v1\",", false),
        ] {
            let json = json.replacen('{', &format!("{{{version}"), 1);
            for claimed in [true, false] {
                let event = convert(&json, claimed, None, &EventOptions::default()).unwrap();
                value(&event);
                assert_eq!(count(&event, "kind"), 1, "{}", text(&event));
                assert_eq!(count(&event, "apiVersion"), 1, "{}", text(&event));
                assert_rest_kept(&json, &event, &["kind", "apiVersion"]);
                assert!(!event.truncated());
                assert_eq!(text(&event).contains("\"apiVersion\":"), added, "{json}");
            }
        }
    }
    // At the end of the object, alone except for others, and with whitespace around.
    let json = "{ \"auditID\":\"i\" ,\n \"stage\":\"s\",\"verb\":\"v\", \
                \"stageTimestamp\":\"2024-05-20T05:24:43.000000Z\" , \"kind\" : null }";
    let want = "{\"kind\":\"Event\",\"apiVersion\":\"audit.k8s.io/v1\",\"auditID\":\"i\" ,\n \
                \"stage\":\"s\",\"verb\":\"v\", \"stageTimestamp\":\"2024-05-20T05:24:43.000000Z\"}";
    assert_eq!(text(&plain(json).unwrap()), want);
}

#[test]
fn event_of_older_version_becomes_v1() {
    for version in ["v1beta1", "v1alpha1"] {
        let old = WHOLE.replace("audit.k8s.io/v1", &format!("audit.k8s.io/{version}"));
        let event = plain(&old).unwrap();
        value(&event);
        assert_eq!(count(&event, "apiVersion"), 1);
        assert_rest_kept(&old, &event, &["apiVersion"]);
        // The same version inside an object is left alone.
        let inner = old.replace(
            "\"kind\":\"Pod\"",
            "\"apiVersion\":\"audit.k8s.io/v1beta1\"",
        );
        assert!(text(&plain(&inner).unwrap()).contains("{\"apiVersion\":\"audit.k8s.io/v1beta1\""));
    }
}

#[test]
fn event_own_annotation_wins_over_existing() {
    let asked = options(
        &[
            ("cluster", "prod \"eu\" \\ \u{1} ü😀\n"),
            ("authorization.k8s.io/decision", "mine"),
        ],
        1 << 20,
    );
    let without = |what: &str| {
        let at = WHOLE.find(",\"annotations\"").unwrap();
        format!("{}{what}}}", &WHOLE[..at])
    };
    for (json, kept) in [
        (WHOLE.to_owned(), r#""authorization.k8s.io/reason":"","#),
        (without(""), ""),
        (without(r#","annotations":null"#), ""),
        (without(r#","annotations":{}"#), ""),
        (without(r#","annotations":{"cluster":"theirs"}"#), ""),
        (without(r#","annotations":{"cl\u0075ster":"theirs"}"#), ""),
        (
            without(r#","annotations":{ "n" : "1.50" , "\/k" :"\u00e9", "\ud800":"x" , "z":"" }"#),
            r#""n" : "1.50","\/k" :"\u00e9","\ufffd":"x","z":"","#,
        ),
    ] {
        let event = convert(&json, true, None, &asked).unwrap();
        let want = concat!(
            r#""cluster":"prod \"eu\" \\ \u0001 ü😀\n","#,
            r#""authorization.k8s.io/decision":"mine""#,
        );
        let want = format!(",\"annotations\":{{{kept}{want}}}}}");
        assert!(text(&event).ends_with(&want), "{}\n{want}", text(&event));
        assert!(Raw::parse(text(&event)).is_ok());
        assert_rest_kept(&json, &event, &["annotations"]);
        assert_eq!(count(&event, "annotations"), 1);
        assert!(!event.truncated());
    }
}

#[test]
fn event_annotation_configured_twice_comes_once() {
    let asked = options(&[("a", "1"), ("b", "2"), ("a", "3")], 1 << 20);
    let event = convert(MINIMAL, true, None, &asked).unwrap();
    assert!(
        text(&event).ends_with(r#","annotations":{"b":"2","a":"3"}}"#),
        "{}",
        text(&event)
    );
}

#[test]
fn event_duplicate_member_keeps_the_last() {
    let twice = MINIMAL.replacen('{', r#"{"kind":"Pod","auditID":7,"annotations":1,"#, 1);
    let want = EventError::Unparsable("annotations is a number, not a map of strings".to_owned());
    assert_eq!(plain(&twice), Err(want));
    let twice = MINIMAL.replacen('{', r#"{"kind":"Pod","auditID":7,"#, 1);
    let event = plain(&twice).unwrap();
    assert_eq!(text(&event), MINIMAL);
    assert!(event.notes().repaired().eq([Repair::DuplicateKey]));
    let last = MINIMAL.replace(r#","verb":"get""#, r#","verb":"get","kind":"Pod""#);
    assert!(matches!(plain(&last), Err(EventError::Unparsable(_))));
}

#[test]
fn event_changed_member_leaves_no_stale_duplicate() {
    let asked = options(&[("cluster", "x")], 1 << 20);
    let json = MINIMAL.replacen(
        '{',
        concat!(
            r#"{"annotations":{"old":"1"},"annotations":{"new":"2"},"kind":"Event","#,
            r#""apiVersion":"audit.k8s.io/v1beta1","stageTimestamp":"2001-01-01T00:00:00Z","#,
        ),
        1,
    ) + "";
    let json = json
        .replace("05:24:43.000000Z", "oops")
        .replace("audit.k8s.io/v1\"", "\"");
    let json = json.replacen(
        '{',
        r#"{"requestReceivedTimestamp":"2024-05-20T05:24:42.000000Z","#,
        1,
    );
    let event = convert(&json, true, None, &asked).unwrap();
    for name in ["annotations", "apiVersion", "stageTimestamp"] {
        assert_eq!(count(&event, name), 1, "{name} in {}", text(&event));
    }
    let value = value(&event);
    assert_eq!(value["stageTimestamp"], "2024-05-20T05:24:42.000000Z");
    assert_eq!(value["annotations"], json!({"new": "2", "cluster": "x"}));

    // More duplicate members than fit without allocating.
    let many = r#""annotations":{"old":"1"},"requestObject":{},"#.repeat(20);
    let json = MINIMAL.replacen('{', &format!("{{{many}"), 1);
    let event = convert(&json, true, None, &asked).unwrap();
    assert_eq!(count(&event, "annotations"), 1);
    assert_eq!(count(&event, "requestObject"), 1);
    let event = event.without_objects().unwrap();
    assert_eq!(count(&event, "requestObject"), 0);
    assert_rest_kept(MINIMAL, &event, &["annotations"]);
}

#[test]
fn event_truncation_annotation_of_api_server_is_counted() {
    for (annotations, truncated) in [
        (r#"{"audit.k8s.io/truncated":"true"}"#, true),
        (r#"{"audit.k8s.io\/trunc\u0061ted":"true"}"#, true),
        (r#"{"a":"audit.k8s.io/truncated"}"#, false),
        ("null", false),
    ] {
        let json = MINIMAL.replacen('{', &format!("{{\"annotations\":{annotations},"), 1);
        let event = plain(&json).unwrap();
        assert_eq!(event.truncated(), truncated, "{annotations}");
        assert_eq!(text(&event), json);
        assert_eq!(event.notes().given_up().eq([GivenUp::ApiServer]), truncated);
        let asked = options(&[("a", "b")], 1 << 20);
        let event = convert(&json, true, None, &asked).unwrap();
        assert_eq!(event.truncated(), truncated, "{annotations}");
    }
}
