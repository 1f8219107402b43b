//! Random events.

use super::*;

/// Any JSON, rendered with random spacing and equivalent escapes.
fn any_json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        any::<bool>().prop_map(|b| b.to_string()),
        "-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?",
        any_string(),
    ];
    leaf.prop_recursive(4, 24, 5, |inner| {
        prop_oneof![
            (prop::collection::vec(inner.clone(), 0..5), "[ \n\r\t]{0,2}").prop_map(
                |(items, space)| {
                    let items = items.join(&format!("{space},"));
                    format!("[{space}{items}{space}]")
                }
            ),
            (
                prop::collection::vec((any_string(), inner), 0..5),
                "[ \n\r\t]{0,2}"
            )
                .prop_map(|(items, space)| {
                    let items: Vec<String> = items
                        .iter()
                        .map(|(key, value)| format!("{key}{space}:{value}"))
                        .collect();
                    format!(
                        "{{{space}{}{space}}}",
                        items.join(&format!("{space},{space}"))
                    )
                }),
        ]
    })
}

fn any_string() -> impl Strategy<Value = String> {
    let escape = prop_oneof![
        Just("\\u0041".to_owned()),
        Just("\\ud83d\\ude00".to_owned()),
        Just("\\/".to_owned()),
        Just("\\\"".to_owned()),
        Just("\\\\".to_owned()),
        any::<String>().prop_map(|text| {
            let json = serde_json::to_string(&text).unwrap();
            json[1..json.len() - 1].to_owned()
        }),
    ];
    prop::collection::vec(escape, 0..4).prop_map(|parts| format!("\"{}\"", parts.concat()))
}

/// The members of an event in random order, some of them unknown.
fn any_event() -> impl Strategy<Value = Vec<(String, String)>> {
    let needed = [
        ("kind", "\"Event\""),
        ("apiVersion", "\"audit.k8s.io/v1\""),
        ("stage", "\"RequestReceived\""),
        ("verb", "\"patch\""),
        ("stageTimestamp", "\"2024-05-20T05:24:43.100000Z\""),
    ];
    let needed = Just(needed.map(|(key, value)| (key.to_owned(), value.to_owned())));
    (
        needed,
        "[0-9a-f]{8}".prop_map(|id| ("auditID".to_owned(), format!("\"{id}\""))),
        prop::collection::hash_map("[xyzüé][a-z]{0,8}", any_json(), 0..5),
        prop::option::of(any_json().prop_map(|json| ("requestObject".to_owned(), json))),
        prop::option::of(any_json().prop_map(|json| ("responseObject".to_owned(), json))),
        prop::option::of(
            prop::collection::hash_map("[a-zé./]{1,9}", "[a-z]{0,9}", 1..4).prop_map(|map| {
                (
                    "annotations".to_owned(),
                    serde_json::to_string(&map).unwrap(),
                )
            }),
        ),
    )
        .prop_map(|(needed, id, others, request, response, annotations)| {
            let mut members = needed.to_vec();
            members.push(id);
            members.extend(others);
            members.extend([request, response, annotations].into_iter().flatten());
            members
        })
        .prop_shuffle()
}

fn render(members: &[(String, String)], space: &str) -> String {
    let members: Vec<String> = members
        .iter()
        .map(|(key, value)| format!("{space}\"{key}\"{space}:{space}{value}{space}"))
        .collect();
    format!("{{{}}}", members.join(","))
}

proptest! {
    #[test]
    fn event_generated_whole_passes_unchanged(members in any_event(), space in "[ \n\r\t]{0,3}") {
        let json = render(&members, &space);
        let bytes = Bytes::from(format!("{space}{json}{space}"));
        let options = EventOptions::default();
        let event = event(&bytes, &options.context()).unwrap();
        // The text is rewritten only for a duplicate key; in a responseObject, which the API server
        // encodes itself, duplicates may go unnoticed.
        let mended = repair::repairs(&json, 1000).edits.apply(&json);
        let untouched = text(&event) == json;
        prop_assert!(untouched || text(&event) == mended, "{} from {}", text(&event), json);
        prop_assert!(untouched || mended != json);
        if members.iter().all(|(name, _)| name != "responseObject") {
            prop_assert_eq!(text(&event), &mended);
        }
        if untouched {
            prop_assert_eq!(event.text().as_ptr(), bytes[space.len()..].as_ptr());
        }
    }

    #[test]
    fn event_generated_with_annotations_changes_nothing_else(
        members in any_event(),
        space in "[ \n\r\t]{0,3}",
        annotations in prop::collection::vec((any::<String>(), any::<String>()), 1..4),
    ) {
        let json = repair::repairs(&render(&members, &space), 1000).edits.apply(&render(&members, &space));
        let options = EventOptions { annotations: annotations.clone(), ..EventOptions::default() };
        let event = convert(&json, true, None, &options).unwrap();
        assert_rest_kept(&json, &event, &["annotations"]);
        let annotated = Raw::parse(text(&event)).unwrap().get("annotations").unwrap();
        for (key, _) in &annotations {
            let last = annotations.iter().rfind(|(other, _)| other == key).unwrap();
            let got = annotated.get(key).and_then(Raw::as_str);
            prop_assert_eq!(got.as_deref(), Some(last.1.as_str()));
        }
        // The event's own annotations keep their text.
        if let Some((_, had)) = members.iter().find(|(key, _)| key == "annotations") {
            for (key, value) in Raw::parse(had).unwrap().members().into_iter().flatten() {
                if annotations.iter().all(|(name, _)| *name != key) {
                    let kept = annotated.members().unwrap().any(|had| had == (key.clone(), value));
                    prop_assert!(kept, "{}", key);
                }
            }
        }
    }

    #[test]
    fn event_generated_cut_is_salvaged_or_rejected(
        members in any_event(),
        space in "[ \n\r\t]{0,1}",
        at in any::<prop::sample::Index>(),
        marked in any::<bool>(),
    ) {
        let json = render(&members, &space);
        let cut = at.index(json.len());
        prop_assume!(json.is_char_boundary(cut));
        let given = format!("{}{}", &json[..cut], if marked { "[Truncated...]" } else { "" });
        match convert(&given, true, Some(RECORD_TIME), &EventOptions::default()) {
            Ok(event) => {
                prop_assert!(event.truncated());
                prop_assert!(Raw::parse(text(&event)).is_ok(), "{}", text(&event));
            }
            Err(failure) => prop_assert!(matches!(failure, EventError::Truncated(_)), "{}", failure),
        }
    }

    #[test]
    fn event_from_any_text_never_panics(text in "(\\{\"auditID\":\"x\",)?[\\[\\]{}\",:0-9a-u\\\\ .-]{0,60}", claimed: bool) {
        let _ = convert(&text, claimed, None, &EventOptions::default());
    }
}
