//! `responseStatus.details`, as `metav1.StatusDetails` has it.
//!
//! A response may come from any server of an API (an aggregated server, a webhook), but a typed
//! receiver cannot decode a batch in which one member has the wrong type. So members of a wrong
//! type are dropped, and so are unknown ones: the API server copies a typed value, which cannot
//! contain them.

use audit_bridge_core::event::json::{Raw, ValueKind};

use super::int32;

/// Writes the object, its members in Kubernetes' order.
pub(super) fn write(out: &mut String, details: Raw<'_>) {
    const NAMES: [&str; 6] = [
        "name",
        "group",
        "kind",
        "uid",
        "causes",
        "retryAfterSeconds",
    ];
    let [name, group, kind, uid, causes, retry_after] = members(details, NAMES);
    let start = out.len();
    for (key, text) in [
        ("name", name),
        ("group", group),
        ("kind", kind),
        ("uid", uid),
    ] {
        write_text(out, start, key, text);
    }
    write_causes(out, start, causes);
    if let Some(seconds) = retry_after.and_then(int32).filter(|&seconds| seconds != 0) {
        write_key(out, start, "retryAfterSeconds");
        out.push_str(&seconds.to_string());
    }
    close(out, start);
}

/// Writes each `metav1.StatusCause`.
fn write_causes(out: &mut String, start: usize, causes: Option<Raw<'_>>) {
    let causes = causes.and_then(Raw::elements).into_iter().flatten();
    let mut causes = causes
        .filter(|cause| cause.kind() == ValueKind::Object)
        .peekable();
    if causes.peek().is_none() {
        return;
    }
    write_key(out, start, "causes");
    for (at, cause) in causes.enumerate() {
        out.push(if at == 0 { '[' } else { ',' });
        let [reason, message, field] = members(cause, ["reason", "message", "field"]);
        let start = out.len();
        for (key, text) in [("reason", reason), ("message", message), ("field", field)] {
            write_text(out, start, key, text);
        }
        close(out, start);
    }
    out.push(']');
}

/// The members of these names; of two with one name the last.
fn members<'a, const N: usize>(object: Raw<'a>, names: [&str; N]) -> [Option<Raw<'a>>; N] {
    let mut found = [None; N];
    for (key, value) in object.members().into_iter().flatten() {
        let place = names.iter().position(|name| *name == key);
        if let Some(slot) = place.and_then(|place| found.get_mut(place)) {
            *slot = Some(value);
        }
    }
    found
}

/// Writes a string, unless it is absent or empty.
fn write_text(out: &mut String, start: usize, key: &str, value: Option<Raw<'_>>) {
    if let Some(value) = value
        && value.kind() == ValueKind::String
        && value.text() != "\"\""
    {
        write_key(out, start, key);
        out.push_str(value.text());
    }
}

/// Writes the key of the next member of the object that begins at `start`.
fn write_key(out: &mut String, start: usize, key: &str) {
    out.push(if out.len() == start { '{' } else { ',' });
    out.push('"');
    out.push_str(key);
    out.push_str("\":");
}

/// Ends the object that begins at `start`.
fn close(out: &mut String, start: usize) {
    out.push_str(if out.len() == start { "{}" } else { "}" });
}
