//! Kubernetes' own decoder and Falco's parser judge what the bridges emit: see
//! [`audit_bridge_tests::judges`].
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod convert;
mod fixtures;
mod generated;
mod hostile;
mod judges;
mod receiver;

/// A request body as sent to the webhook.
fn event_list<T: AsRef<[u8]>>(events: &[T]) -> Vec<u8> {
    let mut body =
        br#"{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{},"items":["#.to_vec();
    for (index, event) in events.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        body.extend_from_slice(event.as_ref());
    }
    body.extend_from_slice(b"]}");
    body
}
