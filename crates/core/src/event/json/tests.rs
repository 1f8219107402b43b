mod blocks;

use super::*;
use proptest::prelude::*;

fn kind_of(text: &str) -> Result<&str, ErrorKind> {
    Raw::parse(text).map(Raw::text).map_err(|error| error.kind)
}

#[test]
fn scanner_valid_value_is_kept_to_the_byte() {
    for text in [
        "null",
        "true",
        "false",
        "0",
        "-0",
        "12",
        "1.5e+10",
        "1E5",
        "\"\"",
        "\"a\\u00e9\\n\"",
        "[]",
        "{}",
        "[1, 2 ,{\"a\":[{}]}]",
        "{\"a\" : null , \"b\":[[],[[]]]}",
        "\"\\ud800\"",
        "\"ü\u{10ffff}\"",
    ] {
        assert_eq!(kind_of(&format!(" \r\n\t{text} ")), Ok(text));
    }
}

#[test]
fn scanner_invalid_value_is_refused() {
    for text in [
        "nul1",
        "tru ",
        "01",
        "-",
        "1.",
        "1.e1",
        "+1",
        "NaN",
        "Infinity",
        "'a'",
        "\"\\x\"",
        "\"\\u12g4\"",
        "\"a\nb\"",
        "\"\u{1}\"",
        "[1,]",
        "[,1]",
        "[1 2]",
        "{\"a\"}",
        "{\"a\":}",
        "{a:1}",
        "{\"a\":1,}",
        "{\"a\":1 \"b\":2}",
        "[}",
        "{]",
        "1 2",
        "{} {}",
        "]",
        "\u{feff}{}",
    ] {
        let got = kind_of(text);
        assert!(
            matches!(got, Err(ErrorKind::Expected(_) | ErrorKind::Incomplete)),
            "{text}: {got:?}"
        );
    }
}

#[test]
fn scanner_deep_nesting_needs_no_stack() {
    let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    for (text, depth) in [
        ("1", 1),
        ("[]", 1),
        ("[1]", 2),
        ("[[]]", 2),
        ("{\"a\":[{},[1]]}", 4),
        (&deep(1_000_000), 1_000_000),
    ] {
        assert_eq!(Raw::parse(text).unwrap().findings().depth(), depth);
    }
    assert_eq!(
        kind_of(&"{\"a\":".repeat(1_000_000)),
        Err(ErrorKind::Incomplete)
    );
}

#[test]
fn scanner_string_is_decoded() {
    let decode = |text| Scanner::new(text).string().map_err(|error| error.kind);
    assert_eq!(decode(r#""plain""#), Ok(Cow::Borrowed("plain")));
    assert_eq!(
        decode(r#""{\"kind\":\"Event\",\"a\/b\":\"\u0026 \\ \n\r\t\b\f \u00e9 \ud83d\ude00\"}""#),
        Ok(Cow::Owned(
            "{\"kind\":\"Event\",\"a/b\":\"& \\ \n\r\t\u{8}\u{c} é 😀\"}".to_owned()
        ))
    );
    // As Go's decoder has them.
    for (half, want) in [
        (r#""\ud83d""#, "\u{fffd}"),
        (r#""\ud83dx""#, "\u{fffd}x"),
        (r#""\ude00""#, "\u{fffd}"),
        (r#""\ud83d\u0041""#, "\u{fffd}A"),
        (r#""\ud83d\ud83d\ude00""#, "\u{fffd}😀"),
    ] {
        assert_eq!(decode(half).as_deref(), Ok(want), "{half}");
    }
    assert_eq!(decode(r#""\ud83d\"#), Err(ErrorKind::Incomplete));
    assert_eq!(decode(r#""\n"#), Err(ErrorKind::Incomplete));
    assert_eq!(decode("7"), Err(ErrorKind::Expected("a string")));
}

#[test]
fn scanner_container_is_walked_once() {
    let text = r#" {"a":{"b":[1,"x",{"c":2.50}]},"d":"e","a":1} "#;
    let raw = Raw::parse(text).unwrap();
    assert!(raw.has_fractional());
    assert_eq!(
        raw.get("a").map(Raw::text),
        Some("1"),
        "the last of two wins"
    );
    assert_eq!(raw.get("d").and_then(Raw::as_str).as_deref(), Some("e"));

    let mut scanner = Scanner::new(text);
    scanner.open_object().unwrap();
    assert_eq!(scanner.key().unwrap().as_deref(), Some("a"));
    scanner.open_object().unwrap();
    assert_eq!(scanner.key().unwrap().as_deref(), Some("b"));
    scanner.open_array().unwrap();
    assert!(scanner.element().unwrap());
    assert!(!scanner.value().unwrap().has_fractional());
    assert!(scanner.element().unwrap());
    assert_eq!(scanner.string().unwrap(), "x");
    assert!(scanner.element().unwrap());
    assert!(scanner.value().unwrap().has_fractional());
    assert!(!scanner.element().unwrap());
    assert_eq!(scanner.key().unwrap(), None);
    assert_eq!(scanner.key().unwrap().as_deref(), Some("d"));
    scanner.value().unwrap();
    assert_eq!(scanner.key().unwrap().as_deref(), Some("a"));
    scanner.value().unwrap();
    assert_eq!(scanner.key().unwrap(), None);
    scanner.end().unwrap();
}

fn json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        "\\PC{0,20}".prop_map(Into::into),
        any::<String>().prop_map(Into::into),
    ];
    leaf.prop_recursive(6, 64, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Into::into),
            prop::collection::hash_map(".{0,12}", inner, 0..8)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn scanner_any_text_agrees_with_serde(text in "[\\[\\]{}\",:0-9a-u\\\\ .eE+-]{0,40}") {
        let ours = Raw::parse(&text).is_ok();
        let theirs = serde_json::from_str::<Box<serde_json::value::RawValue>>(&text).is_ok();
        prop_assert_eq!(ours, theirs, "{}", text);
    }

    #[test]
    fn scanner_prefix_of_object_is_incomplete(value in json()) {
        let text = serde_json::json!({"k": value}).to_string();
        prop_assert!(Raw::parse(&text).is_ok());
        for (cut, _) in text.char_indices() {
            let got = Raw::parse(&text[..cut]).map_err(|error| error.kind);
            prop_assert_eq!(got, Err(ErrorKind::Incomplete), "cut at {} of {}", cut, text);
        }
    }

    #[test]
    fn scanner_string_survives_a_round_trip(text in any::<String>()) {
        let mut out = Vec::new();
        write_string(&mut out, &text);
        let out = String::from_utf8(out).unwrap();
        prop_assert_eq!(Scanner::new(&out).string().unwrap(), text.as_str());
        prop_assert_eq!(serde_json::from_str::<String>(&out).unwrap(), text.as_str());
        let theirs = serde_json::to_string(&text).unwrap();
        prop_assert_eq!(Scanner::new(&theirs).string().unwrap(), text.as_str());
    }
}

proptest! {
    #[test]
    fn closing_quote_of_any_string_is_where_the_scanner_ends(
        text in "[a\"\\\\\n\u{e9}\u{1f600}]{0,80}",
        tail in "[\"\\\\a]{0,20}",
    ) {
        let mut written = Vec::new();
        write_string(&mut written, &text);
        let end = written.len() - 1;
        written.extend(tail.as_bytes());
        prop_assert_eq!(closing_quote(&written, 1), Some(end));
        prop_assert_eq!(closing_quote(&written[..end], 1), None);
    }
}
