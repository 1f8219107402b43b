//! What a request's path refers to, derived as the API server does
//! (`k8s.io/apiserver/pkg/endpoints/request/requestinfo.go`).
//!
//! Without the HTTP method the verb is not known; everything else follows from the path and, for a
//! list of one object, from the query.

use std::borrow::Cow;

/// The object or collection that a path names. An empty member is not in the path.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RequestInfo {
    /// `pods`
    pub resource: String,
    /// `exec`
    pub subresource: String,
    /// For a namespaced object, and for a namespace itself.
    pub namespace: String,
    /// The object's name.
    pub name: String,
    /// Empty for the core group.
    pub api_group: String,
    /// `v1`
    pub api_version: String,
}

/// Whether a URI is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    Whole,
    /// It was cut: its last segment may be incomplete.
    Cut,
}

/// Verbs that old API servers have in the path.
const PATH_VERBS: [&str; 2] = ["proxy", "watch"];
/// Segments after a namespace's name that are not resources in it.
const NAMESPACE_SUBRESOURCES: [&str; 2] = ["status", "finalize"];

impl RequestInfo {
    /// What a request URI names; `None` when it is about no resource, or too short to say which.
    ///
    /// Of a cut URI only segments that are certainly whole are used, and nothing is claimed that
    /// the missing rest could contradict. `verb` is Kubernetes' verb, if known: only a list or a
    /// watch names its object in the query.
    pub fn of(uri: &str, extent: Extent, verb: Option<&str>) -> Option<RequestInfo> {
        let (path, query) = match uri.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (uri, None),
        };
        let path = unescape(path);
        let cut = extent == Extent::Cut && query.is_none();
        let trimmed = path.trim_start_matches('/');
        let mut segments: Vec<&str> = match cut {
            // The part behind the last slash may be incomplete.
            true => {
                let mut segments: Vec<&str> = trimmed.split('/').collect();
                segments.pop();
                segments
            }
            false => trimmed.trim_end_matches('/').split('/').collect(),
        };
        segments.reverse();
        let mut next = || segments.pop();
        let mut info = RequestInfo::default();
        match next()? {
            "api" => {}
            "apis" => info.api_group = next()?.to_owned(),
            _ => return None,
        }
        info.api_version = next()?.to_owned();
        let mut parts: Vec<&str> = segments.into_iter().rev().collect();
        let mut path_verb = "";
        if let Some(first) = parts.first()
            && PATH_VERBS.contains(first)
        {
            path_verb = first;
            parts.remove(0);
        }
        if parts.is_empty() {
            return None;
        }
        if parts.first() == Some(&"namespaces") {
            // The next segment may be a resource in this namespace.
            if let Some(namespace) = parts.get(1) {
                info.namespace = (*namespace).to_owned();
            }
            match parts.get(2) {
                Some(part) if !NAMESPACE_SUBRESOURCES.contains(part) => {
                    parts.drain(..2);
                }
                Some(_) => {}
                None if cut => return (!info.namespace.is_empty()).then_some(info),
                None => {}
            }
        }
        let part = |at: usize| parts.get(at).map(|part| (*part).to_owned());
        info.resource = part(0)?;
        info.name = part(1).unwrap_or_default();
        if path_verb != "proxy" {
            info.subresource = part(2).unwrap_or_default();
        }
        if info.name.is_empty()
            && extent == Extent::Whole
            && matches!(verb, Some("list" | "watch"))
            && let Some(name) = query.and_then(selected_name)
        {
            info.name = name;
        }
        Some(info)
    }
}

/// The one name that a list or watch selects: `fieldSelector=metadata.name=x`. Parses the query
/// like Go's `url.ParseQuery` and the selector like `fields.ParseSelector`; if they refuse it,
/// there is no name.
fn selected_name(query: &str) -> Option<String> {
    let decoded = |text: &str| unescape(&text.replace('+', " ")).into_owned();
    let selector = query.split('&').find_map(|parameter| {
        let (key, value) = parameter.split_once('=')?;
        (decoded(key) == "fieldSelector" && !parameter.contains(';')).then(|| decoded(value))
    })?;
    let name = terms(&selector)
        .into_iter()
        .find_map(|term| term.strip_prefix("metadata.name=").map(str::to_owned))?;
    let name = name.strip_prefix('=').unwrap_or(&name);
    let name = unescape_selector(name)?;
    let is_segment = !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '%']);
    is_segment.then_some(name)
}

/// The terms of a field selector; a comma behind a backslash belongs to its term.
fn terms(selector: &str) -> Vec<&str> {
    let (mut terms, mut from, mut escaped) = (Vec::new(), 0, false);
    for (at, c) in selector.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                terms.push(&selector[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    terms.push(&selector[from..]);
    terms
}

/// A field selector's value without its escapes; `None` if the API server refuses it.
fn unescape_selector(value: &str) -> Option<String> {
    let mut out = String::with_capacity(value.len());
    let mut characters = value.chars();
    while let Some(c) = characters.next() {
        match c {
            '\\' => match characters.next() {
                Some(c @ ('\\' | ',' | '=')) => out.push(c),
                _ => return None,
            },
            ',' | '=' => return None,
            c => out.push(c),
        }
    }
    Some(out)
}

/// The text with `%XX` decoded; invalid UTF-8 becomes U+FFFD.
pub(super) fn unescape(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let hex = bytes
            .get(at + 1..at + 3)
            .and_then(|hex| std::str::from_utf8(hex).ok());
        match hex
            .filter(|_| byte == b'%')
            .map(|hex| u8::from_str_radix(hex, 16))
        {
            Some(Ok(decoded)) => {
                out.push(decoded);
                at += 3;
            }
            _ => {
                out.push(byte);
                at += 1;
            }
        }
    }
    Cow::Owned(super::json::replace_invalid(&out).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn short(info: &RequestInfo) -> String {
        [
            ("r", &info.resource),
            ("s", &info.subresource),
            ("ns", &info.namespace),
            ("n", &info.name),
            ("g", &info.api_group),
            ("v", &info.api_version),
        ]
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(key, value)| format!("{key}={value}"))
        .collect::<Vec<_>>()
        .join(" ")
    }

    #[track_caller]
    fn check(uri: &str, extent: Extent, want: &str) {
        let got = RequestInfo::of(uri, extent, Some("list"))
            .map_or_else(String::new, |info| short(&info));
        assert_eq!(got, want, "{uri}");
    }

    #[test]
    fn request_info_whole_path_matches_api_server() {
        for (uri, want) in [
            (
                "/api/v1/namespaces/x/pods/y/exec?command=sh",
                "r=pods s=exec ns=x n=y v=v1",
            ),
            ("/api/v1/namespaces/x/pods", "r=pods ns=x v=v1"),
            ("/api/v1/namespaces/x", "r=namespaces ns=x n=x v=v1"),
            (
                "/api/v1/namespaces/x/finalize",
                "r=namespaces s=finalize ns=x n=x v=v1",
            ),
            ("/api/v1/namespaces", "r=namespaces v=v1"),
            ("/api/v1/nodes/n/proxy/logs/x", "r=nodes s=proxy n=n v=v1"),
            ("/apis/apps/v1/deployments", "r=deployments g=apps v=v1"),
            (
                "/apis/apps/v1/namespaces/x/deployments/d/scale",
                "r=deployments s=scale ns=x n=d g=apps v=v1",
            ),
            ("/api/v1/watch/namespaces/x/pods/y", "r=pods ns=x n=y v=v1"),
            (
                "/api/v1/pods?fieldSelector=metadata.name%3Dp&watch=true",
                "r=pods n=p v=v1",
            ),
            (
                "/api/v1/pods?x=1&field%53elector=status.phase%3DRunning%2Cmetadata.name%3D%3Dp",
                "r=pods n=p v=v1",
            ),
            (
                r"/api/v1/pods?fieldSelector=metadata.name%3Da%5C%2Cb",
                "r=pods n=a,b v=v1",
            ),
            (
                "/api/v1/pods?fieldSelector=metadata.name=p+",
                "r=pods n=p  v=v1",
            ),
            ("/api/v1/pods?fieldSelector=metadata.name!=p", "r=pods v=v1"),
            (
                r"/api/v1/pods?fieldSelector=metadata.name=a\p",
                "r=pods v=v1",
            ),
            (
                r"/api/v1/pods?fieldSelector=a=\,metadata.name=p",
                "r=pods v=v1",
            ),
            (
                "/api/v1/namespaces/x/pods/a%2Fb",
                "r=pods s=b ns=x n=a v=v1",
            ),
            ("/apis/apps/v1", ""),
            ("/apis/apps", ""),
            ("/api/v1", ""),
            ("/api", ""),
            ("/healthz/etcd", ""),
            ("/", ""),
            ("", ""),
        ] {
            check(uri, Extent::Whole, want);
        }
    }

    #[test]
    fn request_info_cut_path_uses_whole_segments_only() {
        for (uri, want) in [
            ("/api/v1/namespaces/x/pods/y/ex", "r=pods ns=x n=y v=v1"),
            ("/api/v1/namespaces/x/pods/y/", "r=pods ns=x n=y v=v1"),
            ("/api/v1/namespaces/x/pods/y", "r=pods ns=x v=v1"),
            ("/api/v1/namespaces/x/po", "ns=x v=v1"),
            ("/api/v1/namespaces/x/", "ns=x v=v1"),
            ("/api/v1/namespaces/x", ""),
            ("/api/v1/nodes/n", "r=nodes v=v1"),
            ("/api/v1/no", ""),
            ("/apis/apps/v1/deployments/", "r=deployments g=apps v=v1"),
            (
                "/api/v1/namespaces/x/pods/y/exec?command=%",
                "r=pods s=exec ns=x n=y v=v1",
            ),
            ("/api/v1/namespaces/x/pods/y/%6", "r=pods ns=x n=y v=v1"),
        ] {
            check(uri, Extent::Cut, want);
        }
    }

    #[test]
    fn request_info_cut_path_never_contradicts_the_whole_one() {
        for whole in [
            "/api/v1/namespaces/x/pods/y/exec?command=sh&fieldSelector=metadata.name=z",
            "/api/v1/namespaces/x/status?a=b",
            "/apis/apps/v1/namespaces/x/deployments/d/scale",
            "/api/v1/watch/namespaces/x/pods/y?c=d",
            "/api/v1/proxy/namespaces/x/pods/y/z/w",
            "/api/v1/nodes/n/proxy/a/b/c",
        ] {
            let truth = RequestInfo::of(whole, Extent::Whole, None).unwrap_or_default();
            for cut in 0..whole.len() {
                let Some(info) = RequestInfo::of(&whole[..cut], Extent::Cut, None) else {
                    continue;
                };
                for (got, want) in [
                    (&info.resource, &truth.resource),
                    (&info.subresource, &truth.subresource),
                    (&info.namespace, &truth.namespace),
                    (&info.name, &truth.name),
                    (&info.api_group, &truth.api_group),
                    (&info.api_version, &truth.api_version),
                ] {
                    assert!(
                        got.is_empty() || got == want,
                        "{:?} of {whole}",
                        &whole[..cut]
                    );
                }
            }
        }
    }
}
