//! `responseStatus`: the API server's answer.
//!
//! A `Status` in the response is copied. Otherwise there is only Google's `google.rpc.Status`,
//! whose code was mapped from the HTTP status by Google's standard table. For a few codes the
//! reverse is ambiguous, and the message decides. The code of a success follows from the API
//! server's rules: 201 for a create, 101 for an upgraded connection, …

mod details;

use std::borrow::Cow;

use audit_bridge_core::event::json::{Raw, ValueKind, integral, push_string};

use crate::convert::method::{Connect, Request, RequestTarget};
use crate::wire::object::Object;

/// Every `metav1.StatusReason`: old entries give one of them as their message.
const REASONS: [(&str, i32); 19] = [
    ("Unauthorized", 401),
    ("Forbidden", 403),
    ("NotFound", 404),
    ("MethodNotAllowed", 405),
    ("NotAcceptable", 406),
    ("AlreadyExists", 409),
    ("Conflict", 409),
    ("Gone", 410),
    ("Expired", 410),
    ("RequestEntityTooLarge", 413),
    ("UnsupportedMediaType", 415),
    ("Invalid", 422),
    ("TooManyRequests", 429),
    ("BadRequest", 400),
    ("InternalError", 500),
    ("ServiceUnavailable", 503),
    ("Timeout", 504),
    ("ServerTimeout", 500),
    ("StoreReadError", 500),
];

/// What audit events take of a `metav1.Status`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct ResponseStatus<'a> {
    pub(crate) status: Option<Cow<'a, str>>,
    pub(crate) message: Option<Cow<'a, str>>,
    pub(crate) reason: Option<Cow<'a, str>>,
    pub(crate) details: Option<Raw<'a>>,
    pub(crate) code: Option<i32>,
}

/// `google.rpc.Status`.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Rpc<'a> {
    pub(crate) code: i64,
    pub(crate) message: Option<&'a str>,
}

impl<'a> ResponseStatus<'a> {
    /// The status of the answer to this request.
    pub(crate) fn of(
        request: &Request<'_>,
        rpc: Rpc<'a>,
        body: Option<&Object<'_>>,
        response: Option<&Object<'a>>,
    ) -> ResponseStatus<'a> {
        let success = || Some(success_code(request, body, response));
        match response.filter(|response| response.is_status()) {
            Some(response) => {
                let mut status = copied(response);
                if status.code.is_none() {
                    let failed = match status.status.as_deref() {
                        Some(word) => word == "Failure",
                        None => rpc.code != 0,
                    };
                    status.code = if failed {
                        of_rpc(request, rpc).code.filter(|&code| code >= 400)
                    } else {
                        success()
                    };
                }
                status
            }
            None if rpc.code != 0 => of_rpc(request, rpc),
            None => ResponseStatus {
                code: success(),
                ..ResponseStatus::default()
            },
        }
    }

    /// Writes it as the API server does: with empty metadata, and `omitempty` for the rest.
    pub(crate) fn write(&self, out: &mut String) {
        out.push_str("{\"metadata\":{}");
        for (key, value) in [
            (",\"status\":", &self.status),
            (",\"message\":", &self.message),
            (",\"reason\":", &self.reason),
        ] {
            if let Some(value) = value {
                out.push_str(key);
                push_string(out, value);
            }
        }
        if let Some(details) = self.details {
            out.push_str(",\"details\":");
            details::write(out, details);
        }
        if let Some(code) = self.code {
            out.push_str(",\"code\":");
            push_code(out, code);
        }
        out.push('}');
    }
}

/// Appends the number; codes have three digits.
fn push_code(out: &mut String, code: i32) {
    match u8::try_from(code / 100) {
        Ok(hundreds @ 1..=9) => {
            let rest = (code % 100) as u8;
            for digit in [hundreds, rest / 10, rest % 10] {
                out.push(char::from(b'0' + digit));
            }
        }
        _ => out.push_str(&code.to_string()),
    }
}

/// The five members that the API server copies. One of a wrong type is dropped, as typed receivers
/// could not decode the event with it.
fn copied<'a>(response: &Object<'a>) -> ResponseStatus<'a> {
    let text = |raw: Option<Raw<'a>>| raw?.as_str().filter(|text| !text.is_empty());
    let details = response
        .details
        .filter(|raw| raw.kind() == ValueKind::Object);
    ResponseStatus {
        status: text(response.status),
        message: text(response.message),
        reason: text(response.reason),
        details,
        code: response.code.and_then(int32).filter(|&code| code != 0),
    }
}

/// The number, when Kubernetes' types could hold it.
fn int32(raw: Raw<'_>) -> Option<i32> {
    let number = Some(raw).filter(|raw| raw.kind() == ValueKind::Number)?;
    integral(number.text()).parse().ok()
}

/// Maps Google's code back.
fn of_rpc<'a>(request: &Request<'_>, rpc: Rpc<'a>) -> ResponseStatus<'a> {
    if rpc.code == 2
        && let Some(code) = unmapped(request)
    {
        return ResponseStatus {
            code: Some(code),
            ..ResponseStatus::default()
        };
    }
    let word = rpc
        .message
        .and_then(|message| REASONS.into_iter().find(|(reason, _)| *reason == message));
    // Entries of 2020 have the code's name as their message, which adds nothing.
    let message = rpc.message.filter(|message| {
        let is_name = message.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
        !message.is_empty() && !is_name && word.is_none()
    });
    let (code, reason) = match (word, http(request, rpc.code, message.unwrap_or(""))) {
        // Code 9 stands for many HTTP codes; there the reason is more exact.
        (Some((word, code)), _) if rpc.code == 9 => (Some(code), Some(word)),
        (Some((word, _)), (code, _)) => (code, Some(word)),
        (None, found) => found,
    };
    ResponseStatus {
        status: Some("Failure".into()),
        message: message.map(Cow::Borrowed),
        reason: reason.map(Cow::Borrowed),
        details: None,
        code,
    }
}

/// The HTTP code of "no mapping" (rpc code 2, from HTTP 1xx and 3xx) for requests that can be
/// answered so.
fn unmapped(request: &Request<'_>) -> Option<i32> {
    match request.target {
        RequestTarget::Path(_) => Some(304),
        RequestTarget::Resource(_) => request.connect().map(|_| 101),
    }
}

/// Google's table of HTTP and canonical codes, read backwards.
fn http(request: &Request<'_>, rpc: i64, message: &str) -> (Option<i32>, Option<&'static str>) {
    let (code, reason) = match rpc {
        1 => (499, None),
        // A webhook refuses with a reason of its own.
        3 if message.contains("admission webhook") => (400, None),
        3 => (400, Some("BadRequest")),
        4 => (504, Some("Timeout")),
        5 => (404, Some("NotFound")),
        6 => (409, Some("AlreadyExists")),
        7 => (403, Some("Forbidden")),
        8 => (429, Some("TooManyRequests")),
        9 => failed_precondition(request, message),
        10 => (409, Some(aborted(request, message))),
        11 => (416, None),
        12 => (501, None),
        13 | 15 => (500, Some("InternalError")),
        14 => (503, Some("ServiceUnavailable")),
        16 => (401, Some("Unauthorized")),
        _ => return (None, None),
    };
    (Some(code), reason)
}

/// Decides between the 4xx codes that share rpc code 9. The beginning of the message is the API
/// server's own text; the rest may quote the client.
fn failed_precondition(request: &Request<'_>, message: &str) -> (i32, Option<&'static str>) {
    let opens = |words: &str| message.starts_with(words);
    let says = |words: &str| message.contains(words);
    // `k8s.io/apiserver/pkg/endpoints/handlers/negotiation/errors.go`, and its web framework's.
    let (code, reason) = if opens("only the following media types are accepted") {
        (406, "NotAcceptable")
    } else if opens("the body of the request was in an unknown format") || opens("415: ") {
        (415, "UnsupportedMediaType")
    } else if opens("the server does not allow this method") {
        (405, "MethodNotAllowed")
    } else if says("is invalid") {
        (422, "Invalid")
    } else if says("too old") || says("expired") {
        (410, "Expired")
    } else if says("not allowed") || says("not supported") {
        (405, "MethodNotAllowed")
    } else if says("media type") {
        (415, "UnsupportedMediaType")
    } else if says("too large") {
        (413, "RequestEntityTooLarge")
    } else if matches!(request.verb, "list" | "watch") {
        (410, "Expired")
    } else if matches!(request.verb, "create" | "update" | "patch") {
        (422, "Invalid")
    } else {
        (405, "MethodNotAllowed")
    };
    (code, Some(reason))
}

/// Both of Kubernetes' reasons for 409.
fn aborted(request: &Request<'_>, message: &str) -> &'static str {
    let new_object = request.verb == "create"
        && request
            .resource()
            .is_none_or(|resource| resource.subresource.is_empty());
    if message.contains("already exists") {
        "AlreadyExists"
    } else if message.contains("cannot be fulfilled") || message.contains("has been modified") {
        "Conflict"
    } else if new_object {
        "AlreadyExists"
    } else {
        "Conflict"
    }
}

fn success_code(
    request: &Request<'_>,
    body: Option<&Object<'_>>,
    response: Option<&Object<'_>>,
) -> i32 {
    match (request.connect(), request.verb) {
        (Some(Connect::Upgrade), _) => 101,
        (Some(Connect::Proxy), _) => 200,
        (None, "create") if request.resource().is_some() => 201,
        // `k8s.io/apiserver/pkg/endpoints/handlers/delete.go`: the object stays until its
        // dependents are deleted, as the client requested in the old way.
        (None, "delete")
            if body
                .and_then(|body| body.orphan_dependents)
                .is_some_and(|raw| raw.text() == "false")
                && !response.is_some_and(Object::is_status) =>
        {
            202
        }
        _ => 200,
    }
}

#[cfg(test)]
mod tests;
