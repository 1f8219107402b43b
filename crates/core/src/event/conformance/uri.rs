//! Shortens a request URI that is too long; what says most stays longest.
//!
//! The largest values of the query are shortened first, then parameters that Kubernetes does not
//! know are dropped, then others; the path is shortened last. The order stays. Nothing is cut
//! inside an escape, and no bare `;` stays in a changed query: receivers read parameters with Go's
//! `url.ParseQuery`, which refuses a query for either.

use std::borrow::Cow;

/// Parameters that the API server reads (`metav1.ListOptions`, `GetOptions`, `DeleteOptions`,
/// `PatchOptions`, `core/v1.PodExecOptions` and its like).
const KNOWN: [&str; 39] = [
    "allowWatchBookmarks",
    "command",
    "container",
    "continue",
    "dryRun",
    "fieldManager",
    "fieldSelector",
    "fieldValidation",
    "follow",
    "force",
    "gracePeriodSeconds",
    "insecureSkipTLSVerifyBackend",
    "labelSelector",
    "limit",
    "limitBytes",
    "orphanDependents",
    "path",
    "ports",
    "pretty",
    "previous",
    "propagationPolicy",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "sinceSeconds",
    "sinceTime",
    "stderr",
    "stdin",
    "stdout",
    "stream",
    "tailLines",
    "timeout",
    "timeoutSeconds",
    "timestamps",
    "tty",
    "watch",
    "includeObject",
    "export",
    "exact",
];
/// Marks a gap in a query or a path.
const LEFT_OUT: &str = "%E2%80%A6";
/// Parameters are dropped before values are cut below this length.
const VALUE_MIN: usize = 512;

/// Shortens the URI to at most `bytes_max` bytes.
pub(super) fn shorten(uri: &str, bytes_max: usize) -> String {
    if uri.len() <= bytes_max {
        return uri.to_owned();
    }
    let (path, query) = match uri.split_once('?') {
        Some((path, query)) => (path, query),
        None => (uri, ""),
    };
    let mut parameters: Vec<Parameter<'_>> = match query {
        "" => Vec::new(),
        query => query.split('&').map(Parameter::of).collect(),
    };
    let room = bytes_max.saturating_sub(path.len() + 1);
    shorten_values(&mut parameters, room);
    drop_parameters(&mut parameters, room, |parameter| !parameter.known);
    drop_parameters(&mut parameters, room, |_| true);
    let mut out = match path.len() < bytes_max {
        true => path.to_owned(),
        false => ends(path, bytes_max),
    };
    for (at, parameter) in parameters.iter().enumerate() {
        out.push(if at == 0 { '?' } else { '&' });
        out.push_str(&parameter.text);
    }
    out
}

/// Removes a partial escape from the end of a cut URI.
pub(super) fn without_cut_escape(uri: &str) -> &str {
    let from = uri.len().saturating_sub(2);
    match uri
        .as_bytes()
        .get(from..)
        .and_then(|end| end.iter().position(|&byte| byte == b'%'))
    {
        Some(at) => &uri[..from + at],
        None => uri,
    }
}

struct Parameter<'a> {
    text: Cow<'a, str>,
    /// The length of the name with the sign behind it.
    name: usize,
    known: bool,
}

impl<'a> Parameter<'a> {
    fn of(text: &'a str) -> Parameter<'a> {
        let name = text.find('=').map_or(text.len(), |at| at + 1);
        let spelled = text[..name].trim_end_matches('=');
        let known = KNOWN.contains(&&*unescape(spelled));
        // Go refuses a whole query for a bare `;`.
        let text = match text.contains(';') {
            true => Cow::Owned(text.replace(';', "%3B")),
            false => Cow::Borrowed(text),
        };
        let name = text.find('=').map_or(text.len(), |at| at + 1);
        Parameter { text, name, known }
    }

    /// Its length with the sign before it.
    fn bytes(&self) -> usize {
        self.text.len() + 1
    }

    fn value(&self) -> usize {
        self.text.len() - self.name
    }

    fn shorten_value(&mut self, value_max: usize) {
        let value = ends(&self.text[self.name..], value_max);
        self.text = Cow::Owned(format!("{}{value}", &self.text[..self.name]));
    }
}

fn bytes_of(parameters: &[Parameter<'_>]) -> usize {
    parameters.iter().map(Parameter::bytes).sum()
}

/// Cuts the largest values to one size, as large as fits.
fn shorten_values(parameters: &mut [Parameter<'_>], room: usize) {
    let bytes = bytes_of(parameters);
    if bytes <= room {
        return;
    }
    let values: Vec<usize> = parameters.iter().map(Parameter::value).collect();
    let fixed = bytes - values.iter().sum::<usize>();
    let level = super::shrink::level(&values, room.saturating_sub(fixed)).max(VALUE_MIN);
    for parameter in parameters {
        if parameter.value() > level {
            parameter.shorten_value(level);
        }
    }
}

/// Drops parameters until the rest fits, those in the middle first.
fn drop_parameters(
    parameters: &mut Vec<Parameter<'_>>,
    room: usize,
    may_go: impl Fn(&Parameter<'_>) -> bool,
) {
    let mut excess = bytes_of(parameters).saturating_sub(room);
    if excess == 0 {
        return;
    }
    let candidates: Vec<usize> = (0..parameters.len())
        .filter(|&at| may_go(&parameters[at]))
        .collect();
    let mut gone = vec![false; parameters.len()];
    for at in from_the_middle(candidates.len()) {
        if excess == 0 {
            break;
        }
        let at = candidates[at];
        gone[at] = true;
        excess = excess.saturating_sub(parameters[at].bytes());
    }
    let mut gone = gone.into_iter();
    parameters.retain(|_| !gone.next().unwrap_or(false));
}

/// The indices of a list from its middle to its ends.
fn from_the_middle(len: usize) -> impl Iterator<Item = usize> {
    let middle = len / 2;
    (0..len)
        .map(move |step| {
            let offset = step.div_ceil(2);
            match step % 2 {
                _ if len == 0 => 0,
                0 => middle + offset,
                _ => middle - offset,
            }
        })
        .filter(move |&at| at < len)
}

/// The front and the back of a text that may contain escapes.
fn ends(text: &str, bytes_max: usize) -> String {
    if text.len() <= bytes_max {
        return text.to_owned();
    }
    let Some(room) = bytes_max.checked_sub(LEFT_OUT.len()) else {
        return String::new();
    };
    let front = text.floor_char_boundary(room - room / 2);
    let back = text.ceil_char_boundary(text.len() - room / 2);
    let bytes = text.as_bytes();
    let inside =
        |at: usize| (1..=2).find(|back| at >= *back && bytes.get(at - back) == Some(&b'%'));
    let front = front - inside(front).unwrap_or(0);
    let back = (back + inside(back).map_or(0, |into| 3 - into)).min(text.len());
    let front = text.get(..front).unwrap_or_default();
    format!("{front}{LEFT_OUT}{}", text.get(back..).unwrap_or_default())
}

fn unescape(text: &str) -> Cow<'_, str> {
    super::super::request_info::unescape(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn uri_too_long_shortens_largest_values_and_keeps_known_parameters() {
        let padding = "x".repeat(5000);
        let uri = format!("/api/v1/p?command=sh&a={padding}&command=-c&b=1");
        let short = shorten(&uri, 2000);
        assert!(short.len() <= 2000);
        assert!(short.starts_with("/api/v1/p?command=sh&a=xxx"), "{short}");
        assert!(short.ends_with("xx&command=-c&b=1"), "{short}");
        assert!(short.contains("x%E2%80%A6x"));

        let many = "pad=1&".repeat(3000);
        let uri = format!("/p?{many}command=sh&{many}stdin=true");
        let short = shorten(&uri, 1000);
        assert!(
            short.len() <= 1000 && short.contains("&command=sh&"),
            "{short}"
        );
        assert!(short.ends_with("&stdin=true"));

        let uri = format!("/p?comm%61nd=sh;x&{}", "y=1&".repeat(1000));
        assert!(shorten(&uri, 100).starts_with("/p?comm%61nd=sh%3Bx&y=1"));
    }

    #[test]
    fn uri_too_long_shortens_path_last() {
        let path = format!("/api/v1/namespaces/x/pods/{}", "%41".repeat(2000));
        let short = shorten(&format!("{path}?command=sh"), 1000);
        assert!(short.len() <= 1000 && short.starts_with("/api/v1/namespaces/x/pods/%41"));
        assert!(short.ends_with("%41%41"), "{short}");
    }

    #[test]
    fn uri_cut_drops_half_an_escape() {
        for (uri, want) in [
            ("/a%4", "/a"),
            ("/a%", "/a"),
            ("/a%41", "/a%41"),
            ("%", ""),
            ("", ""),
        ] {
            assert_eq!(without_cut_escape(uri), want);
        }
    }

    proptest! {
        #[test]
        fn uri_any_text_fits_the_limit_with_whole_escapes(
            path in "(/[a-zé]{0,9}|%[0-9A-F]{2}){0,60}",
            query in "([a-z;]{1,8}=[a-z;]{0,30}(%[0-9A-F]{2}){0,200}&){0,30}",
            bytes_max in 20_usize..2000,
        ) {
            let uri = format!("{path}?{query}");
            let short = shorten(&uri, bytes_max);
            prop_assert!(short.len() <= bytes_max.max(uri.len().min(bytes_max)));
            let whole = short.split('%').skip(1).all(|rest| {
                rest.get(..2).is_some_and(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
            });
            prop_assert!(whole, "{}", short);
            if uri.len() > bytes_max {
                prop_assert!(!short.contains(';'), "{}", short);
            }
        }
    }
}
