//! Replaces invalid UTF-8.

use std::borrow::Cow;

/// The bytes as text: each byte that belongs to no character becomes U+FFFD, as in Go's decoder.
pub fn replace_invalid(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => {
            let mut out = String::with_capacity(bytes.len() + 16);
            for chunk in bytes.utf8_chunks() {
                out.push_str(chunk.valid());
                for _ in chunk.invalid() {
                    out.push(char::REPLACEMENT_CHARACTER);
                }
            }
            Cow::Owned(out)
        }
    }
}
