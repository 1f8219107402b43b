//! Reconstructs `requestURI`.
//!
//! The path follows from group, version and names. Of the query only what the entry implies is
//! restored (`fieldSelector`, `watch`, `dryRun`, `command`); the rest is lost.

use audit_bridge_core::event::json::Raw;

use crate::convert::method::{Request, RequestTarget, Resource, is_of_collection};

/// What the labels of an entry say about the query.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Query<'a> {
    /// `command.gke.io/dryRun`.
    pub(crate) dry_run: Option<&'a str>,
    /// `command.gke.io/command`: a JSON array of strings, or the command as it is.
    pub(crate) command: Option<&'a str>,
}

/// Appends the URI. Without `query` it ends with the path.
pub(crate) fn write(out: &mut String, request: &Request<'_>, query: Option<Query<'_>>) {
    match &request.target {
        RequestTarget::Path(path) => {
            out.push('/');
            write_path(out, path);
        }
        RequestTarget::Resource(resource) => write_resource(out, request.verb, resource),
    }
    if let Some(query) = query {
        write_query(out, request, query);
    }
}

fn write_resource(out: &mut String, verb: &str, resource: &Resource<'_>) {
    if resource.group.is_empty() {
        out.push_str("/api");
    } else {
        out.push_str("/apis");
        write_segment(out, &resource.group);
    }
    write_segment(out, resource.version);
    if !resource.namespace.is_empty() {
        out.push_str("/namespaces");
        write_segment(out, resource.namespace);
    }
    write_segment(out, resource.resource);
    if !resource.subresource.is_empty() || !is_of_collection(verb) {
        write_segment(out, resource.name);
    }
    write_segment(out, resource.subresource);
    if !resource.rest.is_empty() {
        out.push('/');
        write_path(out, resource.rest);
    }
}

fn write_query(out: &mut String, request: &Request<'_>, query: Query<'_>) {
    let mut mark = '?';
    let mut parameter = |name: &str, value: &str| {
        out.push(mark);
        mark = '&';
        out.push_str(name);
        out.push('=');
        write_query_value(out, value);
    };
    let resource = request.resource();
    // In the order of Go's `url.Values.Encode`, which sorts by name.
    if let (Some(command), Some("exec")) = (query.command, resource.map(|r| r.subresource)) {
        match Raw::parse(command).ok().and_then(Raw::elements) {
            Some(words) => {
                for word in words {
                    match word.as_str() {
                        Some(word) => parameter("command", &word),
                        None => parameter("command", word.text()),
                    }
                }
            }
            None => parameter("command", command),
        }
    }
    if let Some(dry_run) = query.dry_run {
        parameter("dryRun", if dry_run == "true" { "All" } else { dry_run });
    }
    if let ("list" | "watch", Some(resource)) = (request.verb, resource) {
        // With these verbs, the API server takes a name only from such a selector.
        if !resource.name.is_empty() {
            let selector = format!("metadata.name={}", resource.name);
            parameter("fieldSelector", &selector);
        }
        if request.verb == "watch" {
            parameter("watch", "true");
        }
    }
}

/// Appends `/` and the segment, if there is one.
fn write_segment(out: &mut String, segment: &str) {
    if !segment.is_empty() {
        out.push('/');
        write_path(out, segment);
    }
}

/// What RFC 3986 allows in a path, by the byte: `pchar` without escapes, and slashes.
const PATH: [bool; 256] = {
    let mut allowed = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        allowed[byte] = matches!(
            byte as u8,
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'!' | b'$'
                | b'&'..=b',' | b';' | b'=' | b':' | b'@' | b'/'
        );
        byte += 1;
    }
    allowed
};

/// Escapes what RFC 3986 does not allow in a path; a `%41` that is there already stays.
fn write_path(out: &mut String, path: &str) {
    let bytes = path.as_bytes();
    // Nearly every path goes through in one piece.
    let mut copied = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        if PATH[usize::from(byte)] {
            continue;
        }
        let hex = bytes.get(at + 1..at + 3).filter(|_| byte == b'%');
        if !hex.is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit)) {
            // Empty between two escaped bytes of one character.
            out.push_str(path.get(copied..at).unwrap_or_default());
            push_escaped(out, byte);
            copied = at + 1;
        }
    }
    out.push_str(path.get(copied..).unwrap_or_default());
}

/// Escapes as Go's `url.QueryEscape`.
fn write_query_value(out: &mut String, value: &str) {
    for byte in value.bytes() {
        match byte {
            b' ' => out.push('+'),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            _ => push_escaped(out, byte),
        }
    }
}

fn push_escaped(out: &mut String, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    out.push('%');
    out.extend(
        [byte >> 4, byte & 15]
            .iter()
            .filter_map(|&nibble| HEX.get(usize::from(nibble)))
            .map(|&digit| char::from(digit)),
    );
}

#[cfg(test)]
mod tests;
