//! Prints an error or a panic with its causes, and makes foreign text safe for a terminal.

use std::any::Any;
use std::borrow::Cow;
use std::error::Error;

/// An error with its causes, in one line. A cause that the text already contains is left out: many
/// libraries repeat theirs.
pub fn chain(error: &dyn Error) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let part = error.to_string();
        if !text.contains(&part) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&part);
        }
        next = error.source();
    }
    printable(&text.replace(['\n', '\r'], " ")).into_owned()
}

/// The message of a panic.
pub fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "no message".to_owned())
}

/// Makes foreign text (a file name, a part of a dump) safe to print: control characters, line
/// separators and characters that change the text's direction are escaped.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(is_obeyed) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match is_obeyed(c) {
            true => out.extend(c.escape_unicode()),
            false => out.push(c),
        }
    }
    Cow::Owned(out)
}

fn is_obeyed(c: char) -> bool {
    let turns =
        matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let ends_line = matches!(c, '\u{2028}' | '\u{2029}');
    c.is_control() || turns || ends_line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printable_text_has_no_terminal_control() {
        for (text, want) in [
            ("näme\u{1f980}.json", "näme\u{1f980}.json"),
            ("a\u{1b}]0;x\u{7}b\n", "a\\u{1b}]0;x\\u{7}b\\u{a}"),
            ("a\u{9b}2J\u{202e}b", "a\\u{9b}2J\\u{202e}b"),
        ] {
            assert_eq!(printable(text), want);
        }
    }

    #[derive(Debug, thiserror::Error)]
    #[error("{said}")]
    struct Step {
        said: &'static str,
        source: Option<Box<Step>>,
    }

    #[test]
    fn error_chain_prints_each_cause_once_on_one_line() {
        let mut error = None;
        for said in [
            "reset\nby peer",
            "cannot connect: refused",
            "refused",
            "cannot connect: refused",
        ] {
            error = Some(Box::new(Step {
                said,
                source: error,
            }));
        }
        let text = chain(&*error.unwrap());
        assert_eq!(text, "cannot connect: refused: reset by peer");
    }
}
