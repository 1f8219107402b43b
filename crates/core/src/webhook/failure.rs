//! Interprets an answer's status, or why there was no answer.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::time::Duration;

use super::DETAIL_BYTES_MAX;
use crate::chain::chain;
use crate::sink::{Cause, RequestFailure, Verdict};

pub(super) const TOKEN_REMEDY: &str = "check --webhook-token-file \
     (AUDIT_BRIDGE_WEBHOOK_TOKEN_FILE): the file must hold one token and be readable by this \
     process; it is read again before each post";

const CREDENTIALS_REMEDY: &str = "check the credentials: --webhook-token-file \
     (AUDIT_BRIDGE_WEBHOOK_TOKEN_FILE), or --webhook-client-cert-file \
     (AUDIT_BRIDGE_WEBHOOK_CLIENT_CERT_FILE) and its key, and what the receiver allows them";

const PATH_REMEDY: &str = "check the path of --webhook-url (AUDIT_BRIDGE_WEBHOOK_URL)";

const REDIRECT_REMEDY: &str = "redirects are not followed: set --webhook-url \
     (AUDIT_BRIDGE_WEBHOOK_URL) to where the receiver really is";

const BODY_REMEDY: &str = "check that --webhook-url (AUDIT_BRIDGE_WEBHOOK_URL) names an endpoint that \
     takes audit.k8s.io/v1 EventLists";

const TLS_REMEDY: &str = "check that --webhook-ca-file (AUDIT_BRIDGE_WEBHOOK_CA_FILE) names the \
     authority of the receiver's certificate, that the certificate is for the host in \
     --webhook-url and has not expired, and, if the receiver wants one, \
     --webhook-client-cert-file (AUDIT_BRIDGE_WEBHOOK_CLIENT_CERT_FILE)";

const DNS_REMEDY: &str = "check the host in --webhook-url (AUDIT_BRIDGE_WEBHOOK_URL) and the \
     name resolution of this machine or pod";

/// Interprets an answer that is not 2xx.
pub(super) fn of_status(
    status: u16,
    reason: &str,
    body: &[u8],
    after: Option<Duration>,
) -> Verdict {
    let mut detail = format!("the webhook answered {status}");
    if !reason.is_empty() {
        detail.push(' ');
        detail.push_str(&reason.to_ascii_lowercase());
    }
    let said = printable(body);
    if !said.is_empty() {
        detail.push_str(": ");
        detail.push_str(&said);
    }
    let remedy = match status {
        400 | 413 | 422 => Some(BODY_REMEDY),
        401 | 403 => Some(CREDENTIALS_REMEDY),
        404 | 405 => Some(PATH_REMEDY),
        300..=399 => Some(REDIRECT_REMEDY),
        _ => None,
    };
    Verdict::Failed(RequestFailure {
        cause: Cause::Status(status),
        detail,
        remedy: remedy.map(Cow::Borrowed),
        after,
    })
}

/// How long a connection may take, a little less than the whole request: a server that is gone
/// without a word would otherwise look like an event that makes the receiver hang.
pub(super) fn connect_time(timeout: Duration) -> Duration {
    timeout.mul_f64(0.9)
}

/// Interprets a request that got no answer.
pub(super) fn of_error(error: reqwest::Error, timeout: Duration) -> Verdict {
    // The URL may hold a secret in its query.
    let error = error.without_url();
    // No receiver saw what timed out before there was a connection.
    let (cause, remedy) = if error.is_timeout() && !error.is_connect() {
        (Cause::Timeout, None)
    } else if any_cause(&error, is_tls) {
        (Cause::Tls, Some(TLS_REMEDY))
    } else if any_cause(&error, is_dns) {
        (Cause::Dns, Some(DNS_REMEDY))
    } else if error.is_connect() {
        (Cause::Connect, None)
    } else {
        (Cause::Other, None)
    };
    Verdict::Failed(RequestFailure {
        detail: match cause {
            Cause::Timeout => format!("no answer within {}s", timeout.as_secs_f64()),
            Cause::Connect if error.is_timeout() => {
                format!(
                    "no connection within {}s",
                    connect_time(timeout).as_secs_f64()
                )
            }
            _ => chain(&error),
        },
        cause,
        remedy: remedy.map(Cow::Borrowed),
        after: None,
    })
}

/// Whether the error or one of its causes matches.
fn any_cause(
    error: &(dyn StdError + 'static),
    kind: fn(&(dyn StdError + 'static)) -> bool,
) -> bool {
    let mut causes = std::iter::successors(Some(error), |&error| error.source());
    causes.any(kind)
}

/// Whether a name did not resolve. The HTTP client has no type for this.
fn is_dns(error: &(dyn StdError + 'static)) -> bool {
    error.to_string() == "dns error"
}

/// Whether this is a TLS error. `source` skips errors that an `io::Error` wraps, so wrapped errors,
/// even nested ones, are unwrapped here.
fn is_tls(error: &(dyn StdError + 'static)) -> bool {
    if error.is::<rustls::Error>() {
        return true;
    }
    let inner = error
        .downcast_ref::<std::io::Error>()
        .and_then(std::io::Error::get_ref);
    inner.is_some_and(|inner| is_tls(inner))
}

/// The start of a receiver's answer, fit for a log: one line, printable, bounded.
fn printable(body: &[u8]) -> String {
    let start = &body[..body.len().min(DETAIL_BYTES_MAX)];
    let mut text = String::new();
    for c in String::from_utf8_lossy(start).trim().chars() {
        let c = match c.is_control() || c == char::REPLACEMENT_CHARACTER {
            true => ' ',
            false => c,
        };
        // A line end and the indentation after it become one space.
        if c != ' ' || !text.ends_with(' ') {
            text.push(c);
        }
    }
    text.truncate(text.trim_end().len());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdict_of_each_status_follows_the_table() {
        for status in 100..=599_u16 {
            if (200..300).contains(&status) {
                continue;
            }
            let verdict = of_status(status, "", b"", None);
            let Verdict::Failed(failure) = &verdict else {
                panic!("{status}: {verdict:?}");
            };
            assert_eq!(failure.cause, Cause::Status(status));
            assert_eq!(
                failure.cause.blames_body(),
                matches!(status, 400 | 413 | 422)
            );
            let needs_a_person =
                matches!(status, 300..=399 | 400 | 401 | 403 | 404 | 405 | 413 | 422);
            assert_eq!(failure.remedy.is_some(), needs_a_person, "{status}");
            if let Some(remedy) = &failure.remedy {
                assert!(remedy.contains("--webhook-") && remedy.contains("AUDIT_BRIDGE_"));
            }
            assert_eq!(verdict.label(), status.to_string());
        }
    }

    #[test]
    fn verdict_receiver_text_is_printable_and_bounded() {
        let text = |body: &[u8]| match of_status(400, "Bad Request", body, None) {
            Verdict::Failed(failure) => failure.detail,
            other => panic!("{other:?}"),
        };
        assert_eq!(text(b""), "the webhook answered 400 bad request");
        assert_eq!(
            text(b"{\n  \"no\":\x1b[31m \xff\xfe1\r\n}\n"),
            "the webhook answered 400 bad request: { \"no\": [31m 1 }"
        );
        assert!(text(&[b'x'; 5000]).len() < 250);
        // A character that the limit cuts in two is left out.
        assert!(text("ü".repeat(5000).as_bytes()).ends_with('ü'));
        assert!(text(format!("x{}", "ü".repeat(5000)).as_bytes()).ends_with('ü'));
    }
}
