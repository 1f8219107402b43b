//! Writes one line of the dead letter, and finds the holder of one.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use memchr::memmem;
use sha2::{Digest as _, Sha256};

use super::usage::{Holder, Keep};
use crate::convert::Reject;
use crate::event::json;
use crate::json_lines::blank_line_ends;
use crate::record::Origin;

/// How much of a payload is kept when it cannot be kept whole.
pub(super) const HEAD_BYTES: usize = 16 << 10;

/// The members of a line besides its payload.
pub(super) struct LineMetadata<'a> {
    pub(super) time: &'a str,
    pub(super) provider: &'a str,
    pub(super) reason: Reject,
    pub(super) error: &'a str,
    pub(super) origin: &'a Origin,
}

/// Appends a line. Returns whether it has the whole payload.
pub(super) fn write(
    out: &mut Vec<u8>,
    about: &LineMetadata<'_>,
    payload: &[u8],
    keep: Keep,
) -> bool {
    write_member(out, "{\"time\":", about.time);
    write_member(out, ",\"provider\":", about.provider);
    write_member(out, ",\"reason\":", about.reason.name());
    write_member(out, ",\"error\":", about.error);
    out.extend_from_slice(b",\"source\":");
    match about.origin {
        Origin::File { file, record } => {
            write_member(out, "{\"file\":", file);
            out.extend_from_slice(format!(",\"record\":{record}}}").as_bytes());
        }
        Origin::Stream { stream, id } => {
            write_member(out, "{\"stream\":", stream);
            write_member(out, ",\"id\":", id);
            out.push(b'}');
        }
    }
    let kept = match keep {
        Keep::Whole => payload.len(),
        Keep::Head => payload.len().min(HEAD_BYTES),
        Keep::Line => 0,
    };
    let whole = kept == payload.len();
    match whole {
        true => write_payload(out, payload),
        false => write_beginning(out, payload, kept),
    }
    out.extend_from_slice(b"}\n");
    whole
}

fn write_member(out: &mut Vec<u8>, head: &str, text: &str) {
    out.extend_from_slice(head.as_bytes());
    json::write_string(out, text);
}

fn write_payload(out: &mut Vec<u8>, payload: &[u8]) {
    match std::str::from_utf8(payload) {
        Ok(text) => match json::Raw::parse(text) {
            // A payload that is a JSON string is written as text with its quotes, so that `replay`
            // restores it unchanged.
            Ok(raw) if raw.kind() != json::ValueKind::String => {
                out.extend_from_slice(b",\"payload\":");
                let from = out.len();
                out.extend_from_slice(raw.text().as_bytes());
                blank_line_ends(out, from);
            }
            _ => write_member(out, ",\"payload\":", text),
        },
        Err(_) => write_member(out, ",\"payload_base64\":", &STANDARD.encode(payload)),
    }
}

/// Writes the beginning of a payload, always as text, so that it is not mistaken for the whole.
fn write_beginning(out: &mut Vec<u8>, payload: &[u8], kept: usize) {
    out.extend_from_slice(format!(",\"payload_bytes\":{}", payload.len()).as_bytes());
    let digest = hex::encode(Sha256::digest(payload));
    write_member(out, ",\"payload_sha256\":", &digest);
    match std::str::from_utf8(payload) {
        Ok(text) => {
            let end = text.floor_char_boundary(kept);
            write_member(out, ",\"payload\":", &text[..end]);
        }
        Err(_) => {
            let text = STANDARD.encode(&payload[..kept]);
            write_member(out, ",\"payload_base64\":", &text);
        }
    }
}

/// The holder of a line, according to the line: the reason, and the file or stream as spelled
/// there. The line may be cut. A foreign line gets an empty holder.
pub(super) fn holder(line: &[u8]) -> Holder {
    let text_after = |mark: &[u8]| {
        let from = memmem::find(line, mark)? + mark.len();
        let text = &line[from..];
        let end = json::closing_quote(text, 0)?;
        Some(String::from_utf8_lossy(&text[..end]).into_owned())
    };
    // Neither pattern can match within a string: quotes are escaped there.
    let reason = text_after(b",\"reason\":\"").unwrap_or_default();
    let place = text_after(b",\"source\":{\"file\":\"")
        .or_else(|| text_after(b",\"source\":{\"stream\":\""))
        .unwrap_or_default();
    (reason, place)
}
