//! Generates arbitrary JSON and events as text, for property tests.

use proptest::prelude::*;
use serde_json::Value;

/// The text as a JSON string.
pub fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// Any JSON value as text, including what a JSON library would not write, such as half a surrogate
/// pair and duplicate keys.
pub fn any_json() -> impl Strategy<Value = String> {
    json(true)
}

/// JSON that may leave the bridge: no half surrogate pairs, each key once.
pub fn any_sound_json() -> impl Strategy<Value = String> {
    json(false)
}

fn json(odd: bool) -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        if odd { "\\ud800" } else { "a" },
        "Z9 ",
        "ü",
        "😀",
        "\\u0026",
        "\\ud83d\\ude00",
        "\\\"",
        "\\\\",
        "\\/",
        "\\n",
        "\u{7f}",
        "{",
        "]",
        ",",
        "[Truncated...]",
    ]);
    let string =
        prop::collection::vec(piece, 0..6).prop_map(|parts| format!("\"{}\"", parts.concat()));
    let leaf = prop_oneof![
        prop::sample::select(vec![
            "null",
            "true",
            "false",
            "0",
            "-0",
            "9007199254740993",
            "123456789012345678901234567890",
            "1.0",
            "1e400",
            "-1.5E-7",
        ])
        .prop_map(str::to_owned),
        string.clone(),
    ];
    leaf.prop_recursive(4, 32, 4, move |inner| {
        let key = string.clone();
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4)
                .prop_map(|items| format!("[{}]", items.join(" , "))),
            prop::collection::vec((key, inner), 0..4).prop_map(move |members| {
                let members: Vec<_> = members
                    .iter()
                    .enumerate()
                    .map(move |(at, (key, value))| match odd {
                        true => format!("{key} :{value}"),
                        false => format!("\"{at}{} :{value}", &key[1..]),
                    })
                    .collect();
                format!("{{ {}}}", members.join(","))
            }),
        ]
    })
}

/// A valid event with its members in any order, and unknown members between them.
pub fn any_event() -> impl Strategy<Value = String> {
    let extra = prop::collection::hash_map("x[a-zA-Z]{0,8}", any_sound_json(), 0..5);
    (extra, any_sound_json(), any_sound_json())
        .prop_map(|(extra, request, response)| {
            let mut members: Vec<String> = vec![
                "\"kind\":\"Event\"".to_owned(),
                "\"apiVersion\": \"audit.k8s.io/v1\"".to_owned(),
                "\"auditID\":\"0\"".to_owned(),
                "\"stage\":\"ResponseComplete\"".to_owned(),
                "\"verb\" :\"get\"".to_owned(),
                "\"stageTimestamp\":\"2026-03-05T09:15:02.149911Z\"".to_owned(),
                format!("\"requestObject\":{request}"),
                format!("\"responseObject\":{response}"),
                "\"responseStatus\":{\"metadata\":{},\"code\":200}".to_owned(),
            ];
            members.extend(
                extra
                    .iter()
                    .map(|(key, value)| format!("\"{key}\":{value}")),
            );
            members
        })
        .prop_shuffle()
        .prop_map(|members| format!("{{{}}}", members.join(", ")))
}

/// Asserts that `text` can be what is left of the event `whole` after a cut: valid, and without
/// anything that `whole` does not have, except for members that are derived or describe the cut.
///
/// # Panics
/// It is not.
#[expect(clippy::panic, clippy::expect_used, reason = "it judges for tests")]
pub fn assert_left_of_cut(whole: &str, text: &str) {
    let whole: Value = serde_json::from_str(whole).expect("the whole event is valid");
    let left: Value = serde_json::from_str(text).expect("what is left is valid");
    for (key, value) in left.as_object().expect("an event is an object") {
        let ok = match &**key {
            "stageTimestamp" => value.is_string(),
            "kind" | "apiVersion" | "objectRef" => true,
            "stage" | "verb" if value == "" => true,
            "annotations" => value.as_object().is_some_and(|annotations| {
                annotations.iter().all(|(key, value)| {
                    key.starts_with("audit.k8s.io/")
                        || key.starts_with("audit-bridge/")
                        || whole["annotations"].get(key) == Some(value)
                })
            }),
            key => is_part_of(value, &whole[key]),
        };
        if !ok {
            panic!("{key} is {value} in {text}");
        }
    }
}

/// Whether `part` can be what is left of `whole` after a cut.
pub fn is_part_of(part: &Value, whole: &Value) -> bool {
    match (part, whole) {
        (Value::Object(part), Value::Object(whole)) => part
            .iter()
            .all(|(key, part)| whole.get(key).is_some_and(|whole| is_part_of(part, whole))),
        (Value::Array(part), Value::Array(whole)) => {
            part.len() <= whole.len() && part.iter().zip(whole).all(|(a, b)| is_part_of(a, b))
        }
        (Value::String(part), Value::String(whole)) => whole.starts_with(part.as_str()),
        (part, whole) => part == whole,
    }
}
