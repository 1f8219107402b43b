//! Completes a text that ends too early because the provider cut it.
//!
//! The API server writes its members in a fixed order, so everything in front of the cut is whole.
//! All of it stays, at every depth: the member that was cut is dropped, and the containers around
//! it are closed. Of the URI and the audit ID even a partial value stays, because a client can make
//! them long enough for the cut to fall into them.

use std::borrow::Cow;

use super::super::json::{self, Raw, Scanner, Visit};
use super::known::Member;

/// A cut text, completed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Completed {
    /// Valid JSON.
    pub(super) json: String,
    /// The member of the event in whose value the cut fell, decoded; `None` between two members.
    pub(super) within: Option<String>,
}

/// Completes an event's cut text. `None` when it is no object.
///
/// Content deeper than `depth_max` levels is left out: it would be removed anyway.
pub(super) fn complete(text: &str, depth_max: usize) -> Option<Completed> {
    let mut reader = Reader {
        text,
        depth_max,
        open: Vec::new(),
        level: 0,
        key: None,
        pending: None,
    };
    let _ = json::walk(text, &mut reader);
    let innermost = reader.open.last()?;
    if text.as_bytes().get(reader.open.first()?.start) != Some(&b'{') {
        return None;
    }
    let mut json = text.get(..innermost.whole)?.to_owned();
    let within = reader.key.map(|(from, to)| {
        let key = text.get(from..to).unwrap_or_default();
        (Scanner::new(key).string().unwrap_or_default(), to)
    });
    if let Some((key, to)) = &within
        && reader.open.len() == 1
        && (key == Member::RequestUri.name() || key == Member::AuditId.name())
        && let Some(part) = cut_string(text.get(*to..).unwrap_or_default())
    {
        if !json.trim_ascii_end().ends_with('{') {
            json.push(',');
        }
        json.push_str(&format!("\"{key}\":\"{part}\""));
    }
    // Of a key that stands twice the last value counts. That one is lost, so the first must not stand
    // for it.
    if let Some((from, to)) = reader.pending
        && reader.open.len() > 1
        && let Some(key) = text.get(from..to)
        && let Some(before) = json.get(innermost.start..)
        && has_member(before, key)
    {
        json.push_str(&format!(",{key}:null"));
    }
    for open in reader.open.iter().rev() {
        json.push(if open.is_object { '}' } else { ']' });
    }
    Some(Completed {
        json,
        within: within.map(|(key, _)| key.into_owned()),
    })
}

/// Whether an object without its end has this key, which is a JSON string.
fn has_member(object: &str, key: &str) -> bool {
    let Ok(key) = Scanner::new(key).string() else {
        return false;
    };
    let object = format!("{object}}}");
    let members = Raw::parse(&object).ok().and_then(Raw::members);
    members.is_some_and(|mut members| members.any(|(other, _)| other == key))
}

/// The inner text of the cut string behind a key, up to its last whole character.
fn cut_string(text: &str) -> Option<Cow<'_, str>> {
    let text = text.trim_ascii_start();
    let text = text.strip_prefix(':')?.trim_ascii_start();
    let inner = text.strip_prefix('"')?;
    // With a backslash appended, a partial escape at the end is one that `ends_of` cuts off.
    let longer = format!("{inner}\\");
    let mut whole = json::ends_of(&longer, inner.len(), 0).0.len();
    // A high surrogate is useless without its low half.
    if let Some(at) = inner.get(..whole)?.rfind('\\')
        && whole - at == 6
        && let Some(hex) = inner.get(at + 2..whole)
        && u32::from_str_radix(hex, 16).is_ok_and(|code| (0xD800..0xDC00).contains(&code))
    {
        whole = at;
    }
    Some(Cow::Borrowed(inner.get(..whole)?))
}

struct Open {
    start: usize,
    is_object: bool,
    /// The end of its last whole member or element.
    whole: usize,
}

struct Reader<'a> {
    text: &'a str,
    depth_max: usize,
    /// The open containers down to the depth limit.
    open: Vec<Open>,
    level: usize,
    /// The key of the event's member that is being read.
    key: Option<(usize, usize)>,
    /// The key of the innermost open container whose value is not whole yet.
    pending: Option<(usize, usize)>,
}

impl Reader<'_> {
    /// Notes the end of a whole value.
    fn whole(&mut self, end: usize) {
        self.pending = None;
        if self.level <= self.depth_max
            && let Some(open) = self.open.last_mut()
        {
            open.whole = end;
        }
        if self.level == 1 {
            self.key = None;
        }
    }
}

impl Visit for Reader<'_> {
    fn open(&mut self, at: usize, is_object: bool) {
        self.pending = None;
        self.level += 1;
        if self.level <= self.depth_max {
            self.open.push(Open {
                start: at,
                is_object,
                whole: at + 1,
            });
        }
    }

    fn close(&mut self, end: usize) {
        if self.level <= self.depth_max {
            self.open.pop();
        }
        self.level -= 1;
        self.whole(end);
    }

    fn key(&mut self, from: usize, to: usize) {
        if self.level == 1 {
            self.key = Some((from, to));
        }
        self.pending = (self.level <= self.depth_max).then_some((from, to));
    }

    fn scalar(&mut self, from: usize, to: usize) {
        let first = self.text.as_bytes().get(from);
        // A number at the very end may have lost digits.
        if to == self.text.len() && matches!(first, Some(b'-' | b'0'..=b'9')) {
            return;
        }
        self.whole(to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cut_event_keeps_whole_members_at_every_depth() {
        for (text, want, within) in [
            (r#"{"#, "{}", None),
            (r#"{"au"#, "{}", None),
            (r#"{"a":1"#, "{}", Some("a")),
            (r#"{"a":1,"#, r#"{"a":1}"#, None),
            (r#"{"a":"x"#, "{}", Some("a")),
            (r#"{"a":"x""#, r#"{"a":"x"}"#, None),
            (r#"{"a":tr"#, "{}", Some("a")),
            (
                r#"{"a":{"b":[1,2,{"c":"d","e":"f"#,
                r#"{"a":{"b":[1,2,{"c":"d"}]}}"#,
                Some("a"),
            ),
            (r#"{"a":{"b":[1,2"#, r#"{"a":{"b":[1]}}"#, Some("a")),
            (
                r#"{"a":[],"b":{"c":{}, "#,
                r#"{"a":[],"b":{"c":{}}}"#,
                Some("b"),
            ),
        ] {
            let completed = complete(text, 100).expect(text);
            assert_eq!(completed.json, want, "{text}");
            assert_eq!(completed.within.as_deref(), within, "{text}");
        }
        assert_eq!(complete("", 9), None);
        assert_eq!(complete("[{", 9), None);
    }

    #[test]
    fn cut_event_does_not_go_back_to_an_earlier_value_of_the_same_key() {
        for (text, want) in [
            (
                r#"{"a":{"k":"one","k":"tw"#,
                r#"{"a":{"k":"one","k":null}}"#,
            ),
            (
                r#"{"a":[{"b":1,"k":{},"\u006b":12"#,
                r#"{"a":[{"b":1,"k":{},"\u006b":null}]}"#,
            ),
            (r#"{"a":{"k":"one","k""#, r#"{"a":{"k":"one","k":null}}"#),
            (r#"{"a":{"k":"one","k"#, r#"{"a":{"k":"one"}}"#),
            (r#"{"a":{"k":"one","l":"k"#, r#"{"a":{"k":"one"}}"#),
            (r#"{"a":{"k":{"k":"x"#, r#"{"a":{"k":{}}}"#),
            (r#"{"a":{"k":1,"k":[2,3"#, r#"{"a":{"k":1,"k":[2]}}"#),
            (r#"{"k":1,"k":2"#, r#"{"k":1}"#),
        ] {
            let json = complete(text, 9).map(|completed| completed.json);
            assert_eq!(json.as_deref(), Some(want), "{text}");
        }
    }

    #[test]
    fn cut_event_keeps_partial_uri_and_audit_id() {
        for (cut, want) in [
            ("/api/v1/na", "/api/v1/na"),
            (r"/a?x=\u0026\", r"/a?x=\u0026"),
            (r"/a?x=\u00", "/a?x="),
            (r"/a\ud83d", "/a"),
            (r"/a\ud83d\ude", "/a"),
            (r"/a\ud83d\ude00", r"/a\ud83d\ude00"),
            (r"/a\\", r"/a\\"),
            ("", ""),
        ] {
            for key in ["requestURI", "auditID"] {
                let text = format!(r#"{{"level":"None","{key}":"{cut}"#);
                let want = format!(r#"{{"level":"None","{key}":"{want}"}}"#);
                assert_eq!(complete(&text, 9).map(|c| c.json), Some(want), "{text}");
            }
        }
        let text = r#"{"userAgent":"kube"#;
        assert_eq!(complete(text, 9).map(|c| c.json).as_deref(), Some("{}"));
    }

    #[test]
    fn cut_event_deeply_nested_needs_no_memory() {
        let text = format!(r#"{{"a":1,"b":{}"#, "[".repeat(100_000));
        let json = complete(&text, 3).map(|completed| completed.json);
        assert_eq!(json.as_deref(), Some(r#"{"a":1,"b":[[]]}"#));
    }
}
