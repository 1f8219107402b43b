//! The API server's answers: objects and refusals.

use axum::body::Body;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::Response;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

/// Limit of a ConfigMap's data.
const DATA_BYTES_MAX: usize = 1 << 20;

/// The resource with its group, as in messages.
pub(super) fn full_name(plural: &str) -> String {
    match plural {
        "leases" => "leases.coordination.k8s.io".to_owned(),
        plural => plural.to_owned(),
    }
}

/// The refusal of a body that cannot be decoded: a Lease's times have exactly six fractional
/// digits.
pub(super) fn malformed(plural: &str, object: &Value) -> Option<Response> {
    let times = ["renewTime", "acquireTime"].map(|name| object["spec"][name].as_str());
    let is_good = |time: &str| {
        let fraction = time.split_once('.').map(|(_, rest)| rest);
        fraction.is_some_and(|rest| rest.bytes().take_while(u8::is_ascii_digit).count() == 6)
    };
    let bad = times.into_iter().flatten().find(|time| !is_good(time));
    let time = bad.filter(|_| plural == "leases")?;
    let message = format!(
        "Lease in version \"v1\" cannot be handled as a Lease: parsing time \"{time}\" as \
         \"2006-01-02T15:04:05.000000Z07:00\": cannot parse"
    );
    Some(failure(400, "BadRequest", &message))
}

/// The refusal of an invalid object.
pub(super) fn invalid(plural: &str, object: &Value) -> Option<Response> {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let what = match plural {
        "leases" => {
            let seconds = object["spec"]["leaseDurationSeconds"].as_i64();
            let seconds = seconds.filter(|seconds| *seconds <= 0)?;
            format!("spec.leaseDurationSeconds: Invalid value: {seconds}: must be greater than 0")
        }
        _ => {
            let values = |member: &str| {
                let all = object[member].as_object().into_iter().flatten();
                all.filter_map(|(_, value)| value.as_str())
            };
            let text: usize = values("data").map(str::len).sum();
            let binary = values("binaryData").filter_map(|it| BASE64_STANDARD.decode(it).ok());
            let bytes = text + binary.map(|it| it.len()).sum::<usize>();
            if bytes <= DATA_BYTES_MAX {
                return None;
            }
            format!("[]: Too long: may not be more than {DATA_BYTES_MAX} bytes")
        }
    };
    let kind = if plural == "leases" {
        "Lease.coordination.k8s.io"
    } else {
        "ConfigMap"
    };
    Some(failure(
        422,
        "Invalid",
        &format!("{kind} \"{name}\" is invalid: {what}"),
    ))
}

pub(super) fn refusal(status: u16) -> Response {
    let (reason, message) = match status {
        401 => ("Unauthorized", "Unauthorized"),
        403 => (
            "Forbidden",
            "the object is forbidden: User \"system:serviceaccount:audit:bridge\" cannot do that",
        ),
        404 => ("NotFound", "namespaces \"missing\" not found"),
        409 => ("Conflict", "the object has been modified"),
        429 => ("TooManyRequests", "too many requests"),
        503 => ("ServiceUnavailable", "etcd is not ready"),
        504 => ("Timeout", "the request did not complete in time"),
        _ => ("InternalError", "etcd leader changed"),
    };
    failure(status, reason, message)
}

pub(super) fn failure(code: u16, reason: &str, message: &str) -> Response {
    let mut status = json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code,
    });
    if reason.is_empty() {
        status["reason"].take();
    }
    answer(code, &status)
}

pub(super) fn answer(status: u16, body: &Value) -> Response {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::IM_A_TEAPOT);
    let json = axum::http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}
