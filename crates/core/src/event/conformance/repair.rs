//! Finds what must change in a text so that every receiver reads it the same way: duplicate keys,
//! lone surrogates, too deep nesting. One walk finds all of it, and all edits are then applied at
//! once.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;

use super::super::json::{self, Edits, Scanner, Visit, surrogate};

/// The changes that a text needs.
#[derive(Debug, Default)]
pub(super) struct Repairs {
    pub(super) edits: Edits,
    pub(super) repeated_key: bool,
    pub(super) lone_surrogate: bool,
    pub(super) too_deep: bool,
}

/// Finds all changes that one JSON value needs.
///
/// Of duplicate keys in one object, compared after unescaping, the last stays, as the API server
/// read it. A container whose content lies deeper than `depth_max` levels (the value itself is
/// level 1, a scalar counts as a level) is emptied.
pub(super) fn repairs(text: &str, depth_max: usize) -> Repairs {
    let mut finder = Finder {
        text,
        depth_max,
        level: 0,
        open: Vec::new(),
        emptied: None,
        found: Repairs::default(),
    };
    // Invalid JSON is not repaired; its reader reports it.
    let _ = json::walk(text, &mut finder);
    finder.found
}

struct Finder<'a> {
    text: &'a str,
    depth_max: usize,
    level: usize,
    /// The open containers within the depth limit.
    open: Vec<Keys<'a>>,
    /// The start of the content of the container at the limit.
    emptied: Option<usize>,
    found: Repairs,
}

/// The keys of an open object.
#[derive(Default)]
struct Keys<'a> {
    /// The index of the last member with each key.
    members: HashMap<Cow<'a, str>, usize>,
    /// Where each member starts.
    starts: Vec<usize>,
}

impl<'a> Finder<'a> {
    fn is_within(&self) -> bool {
        self.level <= self.depth_max
    }

    fn decoded(&self, from: usize, to: usize) -> Cow<'a, str> {
        let text = self.text.get(from..to).unwrap_or_default();
        Scanner::new(text).string().unwrap_or_default()
    }

    /// Replaces lone surrogates in a string.
    fn look_for_halves(&mut self, from: usize, to: usize) {
        let text = self.text.get(from..to).unwrap_or_default();
        for range in lone_surrogates(text) {
            self.found.lone_surrogate = true;
            let range = range.start + from..range.end + from;
            self.found.edits.replace(range, "\\ufffd");
        }
    }
}

impl Visit for Finder<'_> {
    fn open(&mut self, at: usize, _is_object: bool) {
        self.level += 1;
        if self.is_within() {
            self.open.push(Keys::default());
        }
        if self.level == self.depth_max {
            self.emptied = Some(at + 1);
        }
    }

    fn close(&mut self, end: usize) {
        if self.is_within() {
            self.open.pop();
        }
        if self.level == self.depth_max
            && let Some(start) = self.emptied.take()
        {
            let content = self.text.get(start..end - 1).unwrap_or_default();
            if !content.trim_ascii().is_empty() {
                self.found.too_deep = true;
                self.found.edits.replace(start..end - 1, "");
            }
        }
        self.level -= 1;
    }

    fn key(&mut self, from: usize, to: usize) {
        if !self.is_within() {
            return;
        }
        self.look_for_halves(from, to);
        let key = self.decoded(from, to);
        let Some(keys) = self.open.last_mut() else {
            return;
        };
        let before = keys.members.insert(key, keys.starts.len());
        keys.starts.push(from);
        if let Some(before) = before
            && let Some(&[start, next]) = keys.starts.get(before..before + 2)
        {
            self.found.repeated_key = true;
            self.found.edits.replace(start..next, "");
        }
    }

    fn scalar(&mut self, from: usize, to: usize) {
        if self.is_within() {
            self.look_for_halves(from, to);
        }
    }
}

/// The escapes in a string's text that name a lone surrogate.
fn lone_surrogates(text: &str) -> Vec<Range<usize>> {
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(offset) = memchr::memchr(b'\\', bytes.get(from..).unwrap_or_default()) {
        let at = from + offset;
        from = match (surrogate(bytes, at), surrogate(bytes, at + 6)) {
            (Some(0xD800..0xDC00), Some(0xDC00..0xE000)) => at + 12,
            (Some(_), _) => {
                found.push(at..at + 6);
                at + 6
            }
            (None, _) => at + 2,
        };
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repaired(text: &str, depth_max: usize) -> String {
        repairs(text, depth_max).edits.apply(text)
    }

    #[test]
    fn duplicate_key_keeps_the_last_value() {
        for (text, want) in [
            (r#"{"a":1,"a":2}"#, r#"{"a":2}"#),
            (r#"{"a":1,"b":[],"a":2}"#, r#"{"b":[],"a":2}"#),
            (r#"{"a":1 , "a" : 2 , "a":3 }"#, r#"{"a":3 }"#),
            (r#"{"rules":[1],"r\u0075les":[2]}"#, r#"{"r\u0075les":[2]}"#),
            (
                r#"[{"a":{"b":1,"b":2},"c":{"a":1}},{"a":{"b":1,"b":{"c":0,"c":1}},"a":3}]"#,
                r#"[{"a":{"b":2},"c":{"a":1}},{"a":3}]"#,
            ),
            (r#"{"a":{"a":{"a":1}}}"#, r#"{"a":{"a":{"a":1}}}"#),
            (r#"{"":1,"":{"x":[1,2]},"":null}"#, r#"{"":null}"#),
        ] {
            assert_eq!(repaired(text, 100), want, "{text}");
        }
    }

    #[test]
    fn value_too_deep_leaves_an_empty_container() {
        for (depth_max, want) in [
            (5, r#"{"a":[{"b":[1]}],"c":true}"#),
            (4, r#"{"a":[{"b":[]}],"c":true}"#),
            (3, r#"{"a":[{}],"c":true}"#),
            (2, r#"{"a":[],"c":true}"#),
        ] {
            assert_eq!(repaired(r#"{"a":[{"b":[1]}],"c":true}"#, depth_max), want);
        }
        let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(repaired(&deep, 3), "[[[]]]");
    }

    #[test]
    fn lone_surrogate_becomes_replacement_character() {
        for (text, want) in [
            (r#"["\ud800"]"#, r#"["\ufffd"]"#),
            (r#"["\ud83d\ude00"]"#, r#"["\ud83d\ude00"]"#),
            (
                r#"["\ud83d\ud83d\ude00\ude00"]"#,
                r#"["\ufffd\ud83d\ude00\ufffd"]"#,
            ),
            (r#"["\\ud800","\\\ud800"]"#, r#"["\\ud800","\\\ufffd"]"#),
            (r#"{"\udc00":1}"#, r#"{"\ufffd":1}"#),
            (r#"{"\udc00":1,"\ud800":2}"#, r#"{"\ufffd":2}"#),
        ] {
            assert_eq!(repaired(text, 100), want, "{text}");
        }
    }
}
