//! Events that the provider cut, at every byte.

use audit_bridge_testkit::arbitrary::is_part_of;

use super::*;

const SUFFIXES: [&str; 4] = ["", "\n", "[Truncated...]", "[Truncated...]\n"];

/// Events whose every prefix is tried.
fn samples() -> Vec<String> {
    let pretty =
        serde_json::to_string_pretty(&serde_json::from_str::<Value>(WHOLE).unwrap()).unwrap();
    let numbers = MINIMAL.replace(
        "\"stageTimestamp\"",
        r#""status":200,"f":-1.25e+10,"z":0,"b":true,"c":false,"n":null,"s":"\u00e9\ud83d\ude00\\","e":{},"l":[],"stageTimestamp""#,
    );
    // The deciding members come last here.
    let reversed = r#"{"annotations":{"a":"b"},"status" : 200 ,"stageTimestamp":"2024-05-20T05:24:43.000000Z","verb":"get","stage":"Panic","auditID":"i","apiVersion":"audit.k8s.io/v1","kind":"Event","last":12}"#;
    vec![
        WHOLE.to_owned(),
        pretty,
        MINIMAL.to_owned(),
        numbers,
        reversed.to_owned(),
    ]
}

/// The place of each member, found by parsing the whole event: key, value text, end of the value.
fn places(json: &str) -> Vec<(String, &str, usize)> {
    members(json)
        .into_iter()
        .map(|(key, value)| {
            let end = value.as_ptr().addr() - json.as_ptr().addr() + value.len();
            (key, value, end)
        })
        .collect()
}

/// Tries one cut and returns whether an event resulted.
fn check(
    json: &str,
    places: &[(String, &str, usize)],
    cut: usize,
    suffix: &str,
    claimed: bool,
    options: &EventOptions,
) -> bool {
    let given = format!("{}{suffix}", &json[..cut]);
    let got = convert(&given, claimed, Some(RECORD_TIME), options);
    // The text without the marker and trailing whitespace.
    let left = given.trim_ascii();
    let left = left.strip_suffix("[Truncated...]").unwrap_or(left);
    let complete: Vec<(&str, &str)> = places
        .iter()
        .filter(|&(_, value, end)| {
            let number = value.starts_with(|c: char| c == '-' || c.is_ascii_digit());
            end + usize::from(number) <= left.len()
        })
        .map(|(key, value, _)| (key.as_str(), *value))
        .collect();
    let has = |name: &str| complete.iter().any(|&(key, _)| key == name);
    let claims = claimed || has("auditID") || has("kind");
    let event = match got {
        Ok(event) => event,
        Err(failure) => {
            // Conversion fails only for a text that does not reach the audit ID's value.
            let starts_id = left.contains("\"auditID\":\"") || left.contains("\"auditID\": \"");
            assert!(!starts_id, "{failure}: {given}");
            let want = matches!(failure, EventError::Truncated("auditID")) == claims;
            assert!(want, "{failure:?}: {given}");
            return false;
        }
    };
    let whole = left == json && !suffix.starts_with('[');
    let value = value(&event);
    assert_eq!(event.truncated(), !whole, "{given}");
    assert_eq!(
        value["annotations"]["audit.k8s.io/truncated"] == "true",
        !whole
    );
    assert!(!text(&event).contains("[Truncated...]"));
    let out = members(text(&event));
    for &(key, text) in &complete {
        if !OURS.contains(&key) {
            assert!(out.contains(&(key.to_owned(), text)), "{key} of {given}");
        }
    }
    for (key, _) in &out {
        let twins = out.iter().filter(|(other, _)| other == key).count();
        assert_eq!(twins, 1, "{key} of {given}");
    }
    for name in ["stage", "verb"] {
        let Some((_, text)) = complete.iter().find(|&&(key, _)| key == name) else {
            assert_eq!(value[name], "", "{given}");
            continue;
        };
        assert_eq!(value[name].to_string(), *text);
    }
    // The remaining part of a cut member equals the whole event's.
    let mut before: Value = serde_json::from_str(json).unwrap();
    if let Some(object) = before["objectRef"].as_object_mut() {
        object.insert("apiVersion".to_owned(), json!("v1"));
    }
    for (key, part) in value.as_object().unwrap() {
        if !["annotations", "stageTimestamp", "kind", "apiVersion"].contains(&key.as_str()) {
            let ok = part == "" || is_part_of(part, &before[key]);
            assert!(ok, "{key} is {part} of {given}");
        }
    }
    // Annotations that were complete are all there.
    if let Some((_, had)) = complete.iter().find(|&&(key, _)| key == "annotations") {
        for (key, text) in members(had) {
            let annotations = Raw::parse(super::text(&event)).unwrap();
            let got = annotations.get("annotations").and_then(|raw| raw.get(&key));
            assert_eq!(got.map(Raw::text), Some(text));
        }
    }
    // The time is the event's own if that is whole, and never a partial one.
    let stamp = &value["stageTimestamp"];
    let own = |name| complete.iter().find(|&&(key, _)| key == name);
    match own("stageTimestamp").or_else(|| own("requestReceivedTimestamp")) {
        Some((_, text)) => assert_eq!(stamp.to_string(), *text),
        None => {
            assert_eq!(stamp, RECORD_TIME);
            assert_eq!(
                value["annotations"]["audit-bridge/stage-timestamp"],
                "record"
            );
        }
    }
    true
}

#[test]
fn event_cut_anywhere_keeps_exactly_its_complete_members() {
    let unlimited = options(&[], usize::MAX);
    let annotated = options(&[("cluster", "x")], usize::MAX);
    for json in samples() {
        let places = places(&json);
        let mut events = 0;
        let cuts = (0..=json.len()).filter(|&cut| json.is_char_boundary(cut));
        for cut in cuts {
            for suffix in SUFFIXES {
                for claimed in [true, false] {
                    events += usize::from(check(&json, &places, cut, suffix, claimed, &unlimited));
                }
            }
            // Configured annotations do not change the rest.
            if let Ok(event) = convert(&json[..cut], true, Some(RECORD_TIME), &annotated) {
                assert_eq!(value(&event)["annotations"]["cluster"], "x");
            }
        }
        assert!(events > 0, "{json}");
    }
}

#[test]
fn event_cut_inside_a_number_drops_it() {
    let front = MINIMAL.trim_end_matches('}');
    for (end, kept) in [
        (r#","status":200"#, None),
        (r#","status":20"#, None),
        (r#","status":-"#, None),
        (r#","status":1."#, None),
        (r#","status":1e"#, None),
        (r#","status":200 "#, None),
        (r#","status":200,"#, Some("200")),
        (r#","status":200 ,"#, Some("200")),
        (r#","status":1.5,"x"#, Some("1.5")),
        (r#","status":true"#, Some("true")),
        (r#","status":tru"#, None),
        (r#","status":null"#, Some("null")),
        (r#","status":"200""#, Some("\"200\"")),
        (r#","status":"200\"#, None),
        (r#","status":"200\""#, None),
        (r#","status":{"a":200"#, Some("{}")),
        (r#","status":{"a":200}"#, Some("{\"a\":200}")),
    ] {
        for suffix in SUFFIXES {
            let event = plain(&format!("{front}{end}{suffix}")).unwrap();
            assert!(event.truncated());
            value(&event);
            let out = members(text(&event));
            let got = out
                .iter()
                .find(|(key, _)| key == "status")
                .map(|&(_, value)| value);
            // Whitespace before the marker is the event's own, so the number was complete.
            let kept = match end {
                r#","status":200 "# if suffix.starts_with('[') => Some("200"),
                _ => kept,
            };
            assert_eq!(got, kept, "{end}{suffix}");
        }
    }
}

#[test]
fn event_damaged_is_not_taken_for_cut() {
    // A marker after an error that no continuation could correct.
    for wrong in [
        r#"{"auditID":"i",,"#,
        r#"{"auditID":"i" "stage""#,
        r#"{"auditID":"\x"#,
    ] {
        for suffix in SUFFIXES {
            let got = plain(&format!("{wrong}{suffix}"));
            assert!(
                matches!(got, Err(EventError::Unparsable(_))),
                "{wrong}: {got:?}"
            );
        }
    }
    // A marker inside the text is text.
    let json = MINIMAL.replace("\"get\"", "\"[Truncated...]\"");
    assert_eq!(text(&plain(&json).unwrap()), json);
}

#[test]
fn event_cut_derives_object_ref_from_the_path() {
    let front =
        r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"i""#;
    let uri = r#","stage":"ResponseComplete","requestURI":"/api/v1/namespaces/x/pods/y/exec?command=a%20b"#;
    for (cut, stage, verb, uri, object) in [
        (format!("{front}{uri}"), "ResponseComplete", "", true, true),
        (
            format!("{front}{uri}\",\"verb\":\"cre"),
            "ResponseComplete",
            "",
            true,
            true,
        ),
        (
            format!(
                "{front}{uri}\",\"verb\":\"create\",\"user\":{{\"username\":\"eve\",\"groups\":[\"a\",\"b"
            ),
            "ResponseComplete",
            "create",
            true,
            true,
        ),
        (
            format!(
                "{front}{uri}\",\"verb\":\"create\",\"objectRef\":{{\"resource\":\"pods\",\"namespace\":\"x\",\"na"
            ),
            "ResponseComplete",
            "create",
            true,
            true,
        ),
        (format!("{front},\"stage\":\"Resp"), "", "", false, false),
        (
            front.trim_end_matches("i\"").to_owned() + "abc",
            "",
            "",
            false,
            false,
        ),
    ] {
        let event = convert(&cut, true, Some(RECORD_TIME), &EventOptions::default()).unwrap();
        let value = value(&event);
        assert_eq!(
            (&value["stage"], &value["verb"]),
            (&json!(stage), &json!(verb)),
            "{cut}"
        );
        assert!(event.notes().given_up().eq([GivenUp::ProviderIdentity]));
        let want = match object {
            true => json!({"resource": "pods", "namespace": "x", "name": "y",
                "apiVersion": "v1", "subresource": "exec"}),
            false => Value::Null,
        };
        assert_eq!(value["objectRef"], want, "{cut}");
        if uri {
            let uri = value["requestURI"].as_str().unwrap();
            assert!(
                uri.starts_with("/api/v1/namespaces/x/pods/y/exec?command=a"),
                "{uri}"
            );
        }
        if cut.contains("groups") {
            assert_eq!(value["user"], json!({"username": "eve", "groups": ["a"]}));
        }
        if cut.ends_with("abc") {
            assert_eq!(value["auditID"], "abc");
        }
    }
    // Inside an escape, and inside a segment.
    let cut = format!("{front}{}", uri.replace("a%20b", "a%2"));
    let event = convert(&cut, true, Some(RECORD_TIME), &EventOptions::default()).unwrap();
    assert_eq!(
        value(&event)["requestURI"],
        "/api/v1/namespaces/x/pods/y/exec?command=a"
    );
    let cut = format!("{front}{}", uri.replace("ec?command=a%20b", ""));
    let event = convert(&cut, true, Some(RECORD_TIME), &EventOptions::default()).unwrap();
    assert_eq!(value(&event)["objectRef"]["subresource"], Value::Null);
    assert_eq!(value(&event)["objectRef"]["name"], "y");
}

#[test]
fn event_cut_with_nothing_left_is_rejected() {
    for text in ["", " ", "[Truncated...]", "{", "{[Truncated...]"] {
        assert_eq!(
            plain(text),
            Err(EventError::Truncated("auditID")),
            "{text:?}"
        );
        let unclaimed = convert(text, false, None, &EventOptions::default());
        assert_eq!(
            unclaimed,
            Err(EventError::NotAudit("no auditID".to_owned()))
        );
    }
}

#[test]
fn event_cut_without_any_time_gets_the_zero_time() {
    let cut = &WHOLE[..WHOLE.find(",\"user\"").unwrap()];
    let event = plain(cut).unwrap();
    let got = value(&event);
    assert_eq!(got["stageTimestamp"], "1970-01-01T00:00:00.000000Z");
    assert_eq!(got["annotations"][STAGE_TIMESTAMP], "unknown");
    assert_eq!(got["verb"], "create");
    assert!(event.notes().repaired().next().is_none());
}

/// Space before what is left out, too: a partial character, or the mark of a cut.
#[test]
fn event_is_given_without_the_space_behind_it() {
    for space in ["", "\r", " \n\t"] {
        for rest in [
            &b"\xc3"[..],
            b"\xf0\x9f\x98",
            b"[Truncated...]",
            b" \xe2\x82\n",
        ] {
            for json in [WHOLE, MINIMAL] {
                let given = [json.as_bytes(), space.as_bytes(), rest].concat();
                let options = EventOptions::default();
                let event = event(&Bytes::from(given), &options.context()).unwrap();
                assert_eq!(
                    text(&event).trim_ascii(),
                    text(&event),
                    "{space:?} {rest:?}"
                );
                value(&event);
            }
        }
    }
}
