//! The time that a stand-in's answers tell.

use axum::http::HeaderValue;
use jiff::fmt::rfc2822::DateTimePrinter;
use jiff::{SignedDuration, Timestamp};

/// The `Date` header of a server whose clock is so far ahead of this machine's: whole seconds, as
/// in any HTTP server.
pub(crate) fn http_date(ahead: SignedDuration) -> HeaderValue {
    let now = Timestamp::now() + ahead;
    let date = DateTimePrinter::new().timestamp_to_rfc9110_string(&now);
    date.expect("a time").parse().expect("a header")
}
