//! Events that the provider cut, at every byte.

use super::*;

const SUFFIXES: [&str; 4] = ["", "\n", "[Truncated...]", "[Truncated...]\n"];

/// Events whose every prefix is tried.
fn samples() -> Vec<String> {
    let pretty =
        serde_json::to_string_pretty(&serde_json::from_str::<Value>(WHOLE).unwrap()).unwrap();
    let old = WHOLE.replace("audit.k8s.io/v1", "audit.k8s.io/v1beta1");
    let numbers = MINIMAL.replace(
        "\"stageTimestamp\"",
        r#""code":200,"f":-1.25e+10,"z":0,"b":true,"c":false,"n":null,"s":"\u00e9\ud83d\ude00\\","e":{},"l":[],"stageTimestamp""#,
    );
    // What decides comes last here.
    let reversed = r#"{"annotations":{"a":{"b":[1,{}]}},"code" : 200 ,"stageTimestamp":"2024-05-20T05:24:43Z","verb":"get","stage":"Panic","auditID":"i","apiVersion":"audit.k8s.io/v1","kind":"Event","last":12}"#;
    vec![
        WHOLE.to_owned(),
        pretty,
        old,
        MINIMAL.to_owned(),
        numbers,
        reversed.to_owned(),
    ]
}

/// Where each member is, found by parsing the whole event: key, value text, end of the value.
fn places(json: &str) -> Vec<(String, &str, usize)> {
    members(json)
        .into_iter()
        .map(|(key, value)| {
            let end = value.as_ptr().addr() - json.as_ptr().addr() + value.len();
            (key, value, end)
        })
        .collect()
}

/// Tries one cut and says whether an event came out.
fn check(
    json: &str,
    places: &[(String, &str, usize)],
    cut: usize,
    suffix: &str,
    claimed: bool,
    options: &Options,
) -> bool {
    let given = format!("{}{suffix}", &json[..cut]);
    let got = convert(&given, claimed, Some(RECORD_TIME), options);
    // What our side sees of the text: without the marker and the space at the end.
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
    let first_missing = ["auditID", "stage", "verb"]
        .into_iter()
        .find(|name| !has(name));
    let claims = claimed || has("auditID") || has("kind");
    match (got, first_missing) {
        (Err(Failure::Truncated(name)), Some(missing)) => {
            assert!(claims, "{given}");
            assert_eq!(name, missing, "{given}");
            false
        }
        (Err(Failure::NotAudit(_)), Some(_)) => {
            assert!(!claims, "{given}");
            false
        }
        (Ok(event), None) => {
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
                assert!(OURS.contains(&key.as_str()) || has(key), "{key} of {given}");
                let twins = out.iter().filter(|(other, _)| other == key).count();
                assert_eq!(twins, 1, "{key} of {given}");
            }
            // Annotations that were complete are all there.
            if let Some((_, had)) = complete.iter().find(|&&(key, _)| key == "annotations") {
                for (key, text) in members(had) {
                    let annotations = Raw::parse(super::text(&event)).unwrap();
                    let got = annotations.get("annotations").and_then(|raw| raw.get(&key));
                    assert_eq!(got.map(Raw::text), Some(text));
                }
            }
            // The time is the event's own when it is whole, and never half of one.
            let stamp = &value["stageTimestamp"];
            if let Some((_, text)) = complete.iter().find(|&&(key, _)| key == "stageTimestamp") {
                assert_eq!(stamp.to_string(), *text);
            } else if let Some((_, text)) = complete
                .iter()
                .find(|&&(key, _)| key == "requestReceivedTimestamp")
            {
                assert_eq!(stamp.to_string(), *text);
            } else {
                assert_eq!(stamp, RECORD_TIME);
                assert_eq!(
                    value["annotations"]["audit-bridge/stage-timestamp"],
                    "record"
                );
            }
            true
        }
        (got, missing) => panic!("{got:?}, missing {missing:?}: {given}"),
    }
}

#[test]
fn every_cut_keeps_what_is_complete_and_nothing_else() {
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
            // Annotations asked for change nothing of the rest.
            if let Ok(event) = convert(&json[..cut], true, Some(RECORD_TIME), &annotated) {
                assert_eq!(value(&event)["annotations"]["cluster"], "x");
            }
        }
        assert!(events > 0, "{json}");
    }
}

#[test]
fn half_a_number_is_no_number() {
    let front = MINIMAL.trim_end_matches('}');
    for (end, kept) in [
        (r#","code":200"#, None),
        (r#","code":20"#, None),
        (r#","code":-"#, None),
        (r#","code":1."#, None),
        (r#","code":1e"#, None),
        (r#","code":200 "#, None),
        (r#","code":200,"#, Some("200")),
        (r#","code":200 ,"#, Some("200")),
        (r#","code":1.5,"x"#, Some("1.5")),
        (r#","code":true"#, Some("true")),
        (r#","code":tru"#, None),
        (r#","code":null"#, Some("null")),
        (r#","code":"200""#, Some("\"200\"")),
        (r#","code":"200\"#, None),
        (r#","code":"200\""#, None),
        (r#","code":{"a":200"#, None),
        (r#","code":{"a":200}"#, Some("{\"a\":200}")),
    ] {
        for suffix in SUFFIXES {
            let event = plain(&format!("{front}{end}{suffix}")).unwrap();
            assert!(event.truncated());
            value(&event);
            let out = members(text(&event));
            let got = out
                .iter()
                .find(|(key, _)| key == "code")
                .map(|&(_, value)| value);
            // Space before the marker is the event's own, so the number was complete.
            let kept = match end {
                r#","code":200 "# if suffix.starts_with('[') => Some("200"),
                _ => kept,
            };
            assert_eq!(got, kept, "{end}{suffix}");
        }
    }
}

#[test]
fn damage_is_no_cut() {
    // A marker behind something that no longer text could mend.
    for wrong in [
        r#"{"auditID":"i",,"#,
        r#"{"auditID":"i" "stage""#,
        r#"{"auditID":"\x"#,
    ] {
        for suffix in SUFFIXES {
            let got = plain(&format!("{wrong}{suffix}"));
            assert!(
                matches!(got, Err(Failure::Unparsable(_))),
                "{wrong}: {got:?}"
            );
        }
    }
    // The marker inside the text is text.
    let json = MINIMAL.replace("\"get\"", "\"[Truncated...]\"");
    assert_eq!(text(&plain(&json).unwrap()), json);
}

#[test]
fn nothing_left_at_all() {
    for text in ["", " ", "[Truncated...]", "{", "{[Truncated...]"] {
        assert_eq!(plain(text), Err(Failure::Truncated("auditID")), "{text:?}");
        let unclaimed = convert(text, false, None, &Options::default());
        assert_eq!(unclaimed, Err(Failure::NotAudit("no auditID".to_owned())));
    }
}
