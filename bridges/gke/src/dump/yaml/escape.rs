//! What `gcloud` prints and the parser does not take as it is meant.
//!
//! `gcloud` prints with ruamel.yaml, by the rules of YAML 1.2 for what is a number and of YAML 1.1
//! for what ends a line, and writes text of several lines as it is. So text that others choose can
//! hold characters that YAML forbids, or look like a number to another parser. Such text is escaped
//! before it is parsed, and restored in the strings that were read. An escape is [`ESCAPE`] and one
//! more character, and may stand in any scalar.

use std::borrow::Cow;

use serde_json::Value;

/// Starts an escape: a private-use character that YAML allows.
const ESCAPE: char = '\u{10fffd}';
/// Behind [`ESCAPE`]: nothing; only shows that a scalar is text.
const TEXT: char = '.';
/// Behind [`ESCAPE`]: that character itself.
const ITSELF: char = '=';
/// Behind [`ESCAPE`]: these, plus the low byte of the character that was replaced.
const REPLACED: u32 = 0xe000;

/// The same text, with escapes where they are needed.
pub(super) fn escaped(text: &str) -> Cow<'_, str> {
    let returns_are_text = !ends_lines_with_returns(text);
    let is_odd = |c: char| is_escaped(c, returns_are_text) || ends_line_in_yaml_1_1(c);
    let plain = |line: &str| number_like(line).is_none();
    if !text.contains(is_odd) && text.lines().all(plain) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + text.len() / 8);
    for line in text.split_inclusive('\n') {
        let number = number_like(line);
        let mut rest = line.char_indices().peekable();
        while let Some((at, c)) = rest.next() {
            if number == Some(at) {
                out.extend([ESCAPE, TEXT]);
            }
            let next = rest.peek().map(|(_, next)| *next);
            match c {
                ESCAPE => out.extend([ESCAPE, ITSELF]),
                _ if is_escaped(c, returns_are_text) => {
                    out.push(ESCAPE);
                    out.extend(char::from_u32(REPLACED + (u32::from(c) & 0xff)));
                }
                // The printer ends the line with it, and indents the next one.
                _ if ends_line_in_yaml_1_1(c)
                    && next.is_none_or(|next| {
                        matches!(next, ' ' | '\n') || ends_line_in_yaml_1_1(next)
                    }) =>
                {
                    out.push('\n');
                }
                c => out.push(c),
            }
        }
    }
    Cow::Owned(out)
}

/// Undoes the escapes in all keys and strings.
pub(super) fn restore(value: &mut Value) {
    match value {
        Value::String(text) => {
            if let Some(restored) = restored(text) {
                *text = restored;
            }
        }
        Value::Array(values) => values.iter_mut().for_each(restore),
        Value::Object(members) => {
            members.values_mut().for_each(restore);
            if members.keys().any(|key| key.contains(ESCAPE)) {
                let all = std::mem::take(members);
                let restore =
                    |(key, value): (String, Value)| (restored(&key).unwrap_or(key), value);
                *members = all.into_iter().map(restore).collect();
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// The text without escapes, if it has any.
fn restored(text: &str) -> Option<String> {
    let mut parts = text.split(ESCAPE);
    let mut out = parts.next()?.to_owned();
    if out.len() == text.len() {
        return None;
    }
    for part in parts {
        let mut rest = part.chars();
        match rest.next() {
            Some(TEXT) | None => {}
            Some(ITSELF) => out.push(ESCAPE),
            Some(c) => out.extend(replaced(c)),
        }
        out.push_str(rest.as_str());
    }
    Some(out)
}

/// The character that an escape stands for.
fn replaced(escape: char) -> Option<char> {
    let low = u32::from(escape).checked_sub(REPLACED)?;
    char::from_u32(match low {
        0xfe | 0xff => 0xff00 | low,
        low => low,
    })
}

/// Whether YAML forbids it, or a parser would take it for the end of a line.
fn is_escaped(c: char, returns_are_text: bool) -> bool {
    match c {
        '\r' => returns_are_text,
        '\n' | '\t' | '\u{85}' => false,
        ESCAPE | '\u{fffe}' | '\u{ffff}' => true,
        c => c.is_control(),
    }
}

/// Whether the printer takes it for the end of a line, and the parser does not.
fn ends_line_in_yaml_1_1(c: char) -> bool {
    matches!(c, '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// Whether lines end with `\r\n`, as in a file from Windows.
fn ends_lines_with_returns(text: &str) -> bool {
    text.contains("\r\n")
        && text
            .split_inclusive('\n')
            .all(|line| line.ends_with("\r\n") || !line.ends_with('\n'))
}

/// Where a value starts that ends the line and is text, though it begins like a number: the printer
/// writes numbers as JSON does, and quotes text that looks like one to itself.
fn number_like(line: &str) -> Option<usize> {
    let line = line.trim_end();
    let start = |mark: &str| line.rfind(mark).map(|at| at + mark.len());
    let at = start(": ").max(start("- "))?;
    let value = &line[at..];
    let begins = value.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c));
    // Anything else, such as a bracket that closes a flow collection, is not part of a number.
    let is_like_one = |c: char| c.is_ascii_alphanumeric() || "+-._:".contains(c);
    let is_number = serde_json::from_str::<serde_json::Number>(value).is_ok();
    (begins && value.len() > 1 && value.chars().all(is_like_one) && !is_number).then_some(at)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::entries;
    use super::*;

    fn first(yaml: &str) -> Option<Value> {
        let found = entries(yaml.as_bytes())?;
        serde_json::from_str(found.first()?).ok()
    }

    /// Printed by ruamel.yaml 0.17.21 with gcloud's settings.
    #[test]
    fn text_that_looks_like_a_number_stays_text() {
        for text in [
            "-.nan", "+.NaN", "-.NAN", "0X1F", "0O17", "0B1", ".1e5", "+0x1", "1_000.5", "1.2.3",
            "-a",
        ] {
            let yaml = format!("insertId: a\nq: {text}\nl:\n- {text}\nn:\n  k: {text}\n");
            let want = json!({"insertId": "a", "q": text, "l": [text], "n": {"k": text}});
            assert_eq!(first(&yaml), Some(want), "{text}");
        }
        let yaml = "insertId: a\np: {a: 8080}\nc: 80  # no text\nq: [{b: -7},\n  2]\n";
        let want = json!({"insertId": "a", "p": {"a": 8080}, "c": 80, "q": [{"b": -7}, 2]});
        assert_eq!(first(yaml), Some(want));
        let yaml = "insertId: a\nq: [-1, 2.5]\nl:\n- 0\n- -7\n- 1.0e+16\n- - 5\n";
        let want = json!({"insertId": "a", "q": [-1, 2.5], "l": [0, -7, 1.0e16, [5]]});
        assert_eq!(first(yaml), Some(want));
    }

    #[test]
    fn characters_that_yaml_forbids_are_kept() {
        let odd = (0..0x20)
            .chain(0x7f..0xa0)
            .chain([0xfffe, 0xffff, 0x0010_fffd]);
        for c in odd.filter_map(char::from_u32) {
            if matches!(c, '\n' | '\u{85}') {
                continue;
            }
            for (yaml, want) in [
                (format!("|\n  one\n  a{c}b\n"), format!("one\na{c}b\n")),
                (format!("|-\n  a{c}\n  b"), format!("a{c}\nb")),
            ] {
                let yaml = format!("insertId: a\nargs:\n- {yaml}");
                let want = json!({"insertId": "a", "args": [want]});
                assert_eq!(first(&yaml), Some(want), "{c:?} in {yaml:?}");
            }
        }
    }

    /// They leave as the ends of lines that they are to the printer.
    #[test]
    fn ends_of_lines_of_yaml_1_1_cost_no_entry() {
        for c in ['\u{85}', '\u{2028}', '\u{2029}'] {
            let yaml = format!("insertId: a\nargs:\n  - |\n    a\n{c}    b\nz: 'x{c}  y'\n");
            let want = json!({"insertId": "a", "args": ["a\n\nb\n"], "z": "x y"});
            assert_eq!(first(&yaml), Some(want), "{c:?}");
            let yaml = format!("insertId: a{c}b\n");
            assert_eq!(first(&yaml), Some(json!({"insertId": format!("a{c}b")})));
        }
    }

    #[test]
    fn returns_are_text_unless_they_end_every_line() {
        let yaml = "insertId: a\nargs: |-\n  a\r\n  b";
        assert_eq!(
            first(yaml),
            Some(json!({"insertId": "a", "args": "a\r\nb"}))
        );
        let yaml = "insertId: a\r\nargs: |-\r\n  a\r\n  b";
        assert_eq!(first(yaml), Some(json!({"insertId": "a", "args": "a\nb"})));
    }

    proptest! {
        /// What is in double quotes, keys too, says nothing else after it was escaped and restored.
        #[test]
        fn escapes_are_restored(key in "\\PC{1,8}", text in "(\\PC|[\u{10fffd}.=\u{e001}-]){0,20}") {
            let yaml = format!("insertId: a\n{}: {}\n", json!(key), json!(text));
            let mut want = json!({"insertId": "a"});
            want[&key] = json!(text);
            prop_assert_eq!(first(&yaml), Some(want));
        }
    }
}
