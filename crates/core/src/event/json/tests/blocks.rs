//! Scanning in blocks of 16 and 64 bytes must not affect the result: every length, every alignment.

use super::*;

/// A reference that reads one byte at a time.
fn slow_end(text: &str) -> Result<usize, ErrorKind> {
    let bytes = text.as_bytes();
    let mut at = 1;
    loop {
        match bytes.get(at) {
            None => return Err(ErrorKind::Incomplete),
            Some(b'"') => return Ok(at + 1),
            Some(0..0x20) => {
                return Err(ErrorKind::Expected("no control character in a string"));
            }
            Some(b'\\') => match bytes.get(at + 1) {
                None => return Err(ErrorKind::Incomplete),
                Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => at += 2,
                Some(b'u') => {
                    for n in 2..6 {
                        match bytes.get(at + n) {
                            None => return Err(ErrorKind::Incomplete),
                            Some(byte) if byte.is_ascii_hexdigit() => {}
                            Some(_) => {
                                return Err(ErrorKind::Expected("four hexadecimal digits"));
                            }
                        }
                    }
                    at += 6;
                }
                Some(_) => return Err(ErrorKind::Expected("an escape")),
            },
            Some(_) => at += 1,
        }
    }
}

/// Skips and decodes the string that `text` starts with, and compares with the reference and with
/// serde.
#[track_caller]
fn check(text: &str) {
    let want = slow_end(text);
    let mut scanner = Scanner::new(text);
    let skipped = scanner.value().map(|raw| raw.text().len());
    assert_eq!(skipped.map_err(|error| error.kind), want, "{text:?}");
    let mut scanner = Scanner::new(text);
    match (scanner.string(), want) {
        (Ok(decoded), Ok(end)) => {
            assert_eq!(scanner.at(), end, "{text:?}");
            // Serde refuses half a surrogate pair.
            match serde_json::from_str::<String>(&text[..end]) {
                Ok(theirs) => assert_eq!(decoded, theirs, "{text:?}"),
                Err(_) => assert!(scanner.replaced(), "{text:?}"),
            }
            assert_eq!(Raw::parse(&text[..end]).unwrap().as_str().unwrap(), decoded);
            let findings = Raw::parse(&text[..end]).unwrap().findings();
            assert_eq!(
                findings.has_lone_surrogate(),
                scanner.replaced(),
                "{text:?}"
            );
        }
        (Err(error), Ok(_)) => panic!("{error}: {text:?}"),
        (got, Err(kind)) => {
            let got = got.map_err(|error| error.kind);
            assert!(got == Err(kind), "{text:?}: {got:?}, not {kind:?}");
        }
    }
}

const SPECIALS: [&str; 19] = [
    "\\\"",
    "\\\\",
    "\\/",
    "\\n",
    "\\u00e9",
    "\\ud83d\\ude00",
    "\\ud83d",
    "\\x",
    "\\u12g4",
    "\\",
    "\u{0}",
    "\n",
    "\u{1f}",
    "\u{7f}",
    "\u{80}",
    "é",
    "😀",
    "\\\\\\\"",
    "\\\\\\n",
];

#[test]
fn block_scan_special_byte_after_any_run_is_found() {
    for special in SPECIALS {
        for before in 0..=130 {
            // What follows reaches the block's end, or does not, or is cut.
            for after in [
                "",
                "\"",
                "x\"",
                "\",\"next\":1}",
                &format!("{}\"", "y".repeat(100)),
            ] {
                check(&format!("\"{}{special}{after}", "x".repeat(before)));
            }
        }
    }
}

#[test]
fn block_scan_two_special_bytes_at_any_distance_are_found() {
    for first in SPECIALS {
        for second in SPECIALS {
            for before in [0, 1, 14, 15, 16, 17, 60, 61, 62, 63, 64, 65] {
                for between in [0, 1, 2, 15, 16, 31, 32, 33, 47, 48, 63, 64] {
                    let (x, y) = ("x".repeat(before), "y".repeat(between));
                    check(&format!("\"{x}{first}{y}{second}zz\" : \"{x}\""));
                }
            }
        }
    }
}

#[test]
fn block_scan_backslash_run_of_any_length_is_read() {
    for before in 0..70 {
        for row in 0..140 {
            for after in ["\"", "n\"", "\"\"", "\"\",\"", "x\"", ""] {
                check(&format!(
                    "\"{}{}{after}",
                    "x".repeat(before),
                    "\\".repeat(row)
                ));
            }
        }
    }
}

#[test]
fn block_scan_string_inside_text_ends_at_its_quote() {
    // At every distance from the front and the end of the text.
    for front in 0..70 {
        for end in [0, 1, 2, 20, 70] {
            let text = format!(
                "[\"{}\",\"a\\\"b\\\\c\\nd{}\"{}]",
                "f".repeat(front),
                "é".repeat(front),
                " ".repeat(end)
            );
            let raw = Raw::parse(&text).unwrap();
            let second = raw.elements().unwrap().nth(1).unwrap();
            let want = format!("a\"b\\c\nd{}", "é".repeat(front));
            assert_eq!(second.as_str().unwrap(), want);
            let mut scanner = Scanner::new(&text);
            scanner.open_array().unwrap();
            scanner.element().unwrap();
            scanner.string().unwrap();
            scanner.element().unwrap();
            assert_eq!(scanner.string().unwrap(), want);
            assert!(!scanner.element().unwrap());
            scanner.end().unwrap();
        }
    }
}

#[test]
fn scanner_error_names_its_byte() {
    let at = |text| Raw::parse(text).map_err(|error| error.at);
    assert_eq!(at("{\"a\":1 \"b\":2}"), Err(7));
    assert_eq!(at("[1,]"), Err(3));
    assert_eq!(at("\"a\\x\""), Err(3));
    assert_eq!(at("\"abc\\n\u{1}\""), Err(6));
    assert_eq!(at("\"abc"), Err(4));
    assert_eq!(at("\"abc\\"), Err(5));
    assert_eq!(at("\"abc\\\"\\u12"), Err(10));
    assert_eq!(at("tru"), Err(3));
    assert_eq!(at("{} x"), Err(3));
    let long = format!("\"{}\\q\"", "\\\"".repeat(100));
    assert_eq!(at(&long), Err(202));
    let decoded = Scanner::new(&long).string().map_err(|error| error.at);
    assert_eq!(decoded, Err(202));
}

#[test]
fn scanner_mixed_containers_at_every_depth_are_read() {
    // Around the depth at which the register of open containers is full.
    for depth in [1, 2, 62, 63, 64, 65, 66, 127, 128, 129, 500, 1500] {
        let mut text = String::new();
        for level in 0..depth {
            text.push_str(if level % 3 == 0 {
                "[0,"
            } else {
                "{\"a\":1,\"b\":"
            });
        }
        text.push('2');
        for level in (0..depth).rev() {
            text.push_str(if level % 3 == 0 { ",3]" } else { ",\"c\":4}" });
        }
        assert_eq!(kind_of(&text), Ok(text.as_str()), "depth {depth}");
        for close in text
            .char_indices()
            .filter(|(_, c)| matches!(c, ']' | '}'))
            .map(|(at, _)| at)
        {
            let mut wrong = text.clone().into_bytes();
            wrong[close] = if wrong[close] == b']' { b'}' } else { b']' };
            let wrong = String::from_utf8(wrong).unwrap();
            let got = Raw::parse(&wrong).map_err(|error| error.at);
            assert_eq!(got, Err(close), "depth {depth}, byte {close}");
        }
    }
}

#[test]
fn scanner_long_string_takes_linear_time() {
    let event = "{\"a\":\"\\\\ b\n\"}".repeat(100_000);
    let mut text = Vec::new();
    write_string(&mut text, &event);
    let text = String::from_utf8(text).unwrap();
    assert_eq!(Scanner::new(&text).string().unwrap(), event);
    assert!(Raw::parse(&text).is_ok());
}

#[test]
fn scanner_short_string_does_not_hold_the_page() {
    let text = format!("[\"a\\nb\",{}]", "1,".repeat(5000));
    let mut scanner = Scanner::new(&text);
    scanner.open_array().unwrap();
    scanner.element().unwrap();
    let Cow::Owned(decoded) = scanner.string().unwrap() else {
        panic!("it was decoded");
    };
    assert_eq!(decoded, "a\nb");
    assert!(decoded.capacity() < 256, "{}", decoded.capacity());
}

#[test]
fn scanner_key_with_lone_surrogate_hides_no_other() {
    let raw = Raw::parse(r#"{"\ud800":1,"b":2}"#).unwrap();
    assert_eq!(raw.get("b").map(Raw::text), Some("2"));
    let keys: Vec<_> = raw.members().unwrap().map(|(key, _)| key).collect();
    assert_eq!(keys, ["\u{fffd}", "b"]);
}

proptest! {
    #[test]
    fn scanner_dense_escapes_agree_with_reference(
        text in r#""([a-f"\\/nu0-9é😀 ]|\\"|\\\\|\\\\\\"|[a-z]{0,40}|\\u[0-9a-f]{4}){0,60}"?"#,
    ) {
        check(&text);
    }

    #[test]
    fn scanner_nested_quoting_survives_a_round_trip(text in r#"[a-z"\\\n\t\u{1}é😀/]{0,300}"#, times in 1..5) {
        let mut quoted = text.clone();
        for _ in 0..times {
            quoted = serde_json::to_string(&quoted).unwrap();
            check(&quoted);
            let mut ours = Vec::new();
            write_string(&mut ours, &Raw::parse(&quoted).unwrap().as_str().unwrap());
            check(std::str::from_utf8(&ours).unwrap());
        }
        for _ in 0..times {
            let decoded = Scanner::new(&quoted).string().unwrap().into_owned();
            quoted = decoded;
        }
        prop_assert_eq!(quoted, text);
    }

    #[test]
    fn scanner_whitespace_anywhere_changes_nothing(value in json(), space in "[ \n\r\t]{0,3}") {
        let compact = value.to_string();
        let pretty = serde_json::to_string_pretty(&value).unwrap();
        for text in [&compact, &pretty, &format!("{space}{pretty}{space}")] {
            let raw = Raw::parse(text).map_err(|error| error.kind);
            prop_assert_eq!(raw.map(Raw::text), Ok(text.trim_ascii()));
        }
    }

    #[test]
    fn scanner_damaged_text_agrees_with_serde(value in json(), at in any::<prop::sample::Index>(), byte in "[\\[\\]{}\",:0e\\\\ tn\u{1}.-]") {
        let mut text = value.to_string();
        let at = at.index(text.len());
        if text.is_char_boundary(at) && text.is_char_boundary(at + 1) {
            text.replace_range(at..=at, &byte);
            let ours = Raw::parse(&text).is_ok();
            let theirs = serde_json::from_str::<Box<serde_json::value::RawValue>>(&text).is_ok();
            prop_assert_eq!(ours, theirs, "{}", text);
        }
    }
}

/// Both ways of writing say what the text says, with each byte at each place of strings of every
/// length that is looked at in another way.
#[test]
fn written_string_of_any_length_says_its_text() {
    for len in 1..=40 {
        for at in 0..len {
            for byte in 0..=0x7f {
                let mut text = "é".repeat(len / 2) + if len % 2 == 1 { "x" } else { "" };
                let at = text.floor_char_boundary(at);
                text.insert(at, char::from(byte));
                let mut out = String::from("[");
                push_string(&mut out, &text);
                out.push(',');
                push_written(&mut out, |out| out.push_str(&text));
                out.push(']');
                let read: [String; 2] = serde_json::from_str(&out).unwrap();
                assert_eq!(read, [text.clone(), text], "{out}");
            }
        }
    }
}
