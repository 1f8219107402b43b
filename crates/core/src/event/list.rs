//! The body of a webhook POST: an `audit.k8s.io/v1` `EventList`.

use bytes::Bytes;

use super::Event;

const HEAD: &[u8] =
    b"{\"kind\":\"EventList\",\"apiVersion\":\"audit.k8s.io/v1\",\"metadata\":{},\"items\":[";
const TAIL: &[u8] = b"]}";

/// The bytes of a body besides its events and the commas between them.
pub(crate) const OVERHEAD_BYTES: usize = HEAD.len() + TAIL.len();

/// Joins events into one body; an empty list is a valid body too.
pub fn body(events: &[Event]) -> Bytes {
    let bytes = events
        .iter()
        .map(|event| event.text().len() + 1)
        .sum::<usize>();
    let mut out = Vec::with_capacity(OVERHEAD_BYTES + bytes);
    out.extend_from_slice(HEAD);
    for (index, event) in events.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(event.text());
    }
    out.extend_from_slice(TAIL);
    out.into()
}
