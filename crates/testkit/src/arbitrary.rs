//! Arbitrary JSON and arbitrary events, as text, for properties.

use proptest::prelude::*;
use serde_json::Value;

/// A text as a JSON string.
pub fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// Any JSON value, as text: what a JSON library would not write included.
pub fn any_json() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "a",
        "Z9 ",
        "ü",
        "😀",
        "\\u0026",
        "\\ud83d\\ude00",
        "\\ud800",
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
            prop::collection::vec((key, inner), 0..4).prop_map(|members| {
                let members: Vec<_> = members
                    .iter()
                    .map(|(key, value)| format!("{key} :{value}"))
                    .collect();
                format!("{{ {}}}", members.join(","))
            }),
        ]
    })
}

/// A valid event with its members in any order, and others between them.
pub fn any_event() -> impl Strategy<Value = String> {
    let extra = prop::collection::vec(("x[a-zA-Z]{0,8}", any_json()), 0..5);
    (extra, any_json(), any_json())
        .prop_map(|(extra, request, status)| {
            let mut members: Vec<String> = vec![
                "\"kind\":\"Event\"".to_owned(),
                "\"apiVersion\": \"audit.k8s.io/v1\"".to_owned(),
                "\"auditID\":\"0\"".to_owned(),
                "\"stage\":\"ResponseComplete\"".to_owned(),
                "\"verb\" :\"get\"".to_owned(),
                "\"stageTimestamp\":\"2026-03-05T09:15:02.149911Z\"".to_owned(),
                format!("\"requestObject\":{request}"),
                format!("\"responseStatus\":{status}"),
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
