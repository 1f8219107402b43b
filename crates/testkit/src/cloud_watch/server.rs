//! The two protocols: JSON 1.1 of CloudWatch Logs, form and XML of STS.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State as Extract;
use axum::http::header::DATE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::stream;
use serde_json::{Value, json};

use super::{CloudWatchFault, CloudWatchRequest, State, log};
use crate::http_date::http_date;

type Shared = Arc<Mutex<State>>;

pub(super) fn router(state: Shared) -> Router {
    Router::new()
        .route("/v1/credentials", get(pod_identity))
        .fallback(answer)
        .with_state(state)
}

/// The EKS Pod Identity agent (Amazon EKS User Guide): exchanges the pod's token for credentials as
/// JSON.
async fn pod_identity(Extract(state): Extract<Shared>, headers: HeaderMap) -> Response {
    let token = headers.get("authorization");
    let token = token.and_then(|value| value.to_str().ok());
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    if token.is_none() || token != state.web_identity.as_deref() {
        return (StatusCode::UNAUTHORIZED, "the token is not the pod's").into_response();
    }
    let last = state.credentials_last;
    let key = issue(&mut state);
    let credentials = json!({
        "AccessKeyId": key,
        "SecretAccessKey": "secret",
        "Token": "session",
        "AccountId": "123456789012",
        "Expiration": rfc3339(SystemTime::now() + last),
    });
    let kind = ("content-type", "application/json");
    ([kind], credentials.to_string()).into_response()
}

/// Issues an access key of limited validity.
fn issue(state: &mut State) -> String {
    let key = format!("ASIA{:016}", state.issued.len());
    let until = Instant::now() + state.credentials_last;
    state.issued.insert(key.clone(), until);
    key
}

async fn answer(Extract(state): Extract<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    let mut response = carry_out(&state, &headers, body).await;
    let state = state.lock().unwrap_or_else(PoisonError::into_inner);
    let date = http_date(state.clock_ahead);
    response.headers_mut().insert(DATE, date);
    response
}

async fn carry_out(state: &Shared, headers: &HeaderMap, body: Bytes) -> Response {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let access_key = header("authorization")
        .and_then(|value| value.split("Credential=").nth(1))
        .and_then(|value| value.split('/').next())
        .map(str::to_owned);
    let Some(target) = header("x-amz-target") else {
        return answer_sts(state, access_key.as_deref(), &body);
    };
    let action = target.rsplit('.').next().unwrap_or_default();
    let recorded = CloudWatchRequest {
        action: format!("logs:{action}"),
        body: serde_json::from_slice(&body).unwrap_or_default(),
        access_key,
    };
    let (result, fault) = {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        state.recorded.push(recorded.clone());
        let scripted = state.script.pop_front();
        let fault =
            scripted.or_else(|| state.chooser.as_mut().and_then(|choose| choose(&recorded)));
        let result = match expired(&state, recorded.access_key.as_deref()) {
            true => Err((
                "ExpiredTokenException",
                "The security token included in the request is expired",
            )),
            false if action != "FilterLogEvents" => {
                Err(("UnknownOperationException", "not known here"))
            }
            false => log::filter(&mut state, &recorded.body),
        };
        (result, fault)
    };
    let (status, body) = match result {
        Ok(body) => (200, body),
        Err((code, message)) => (400, error(code, message)),
    };
    match fault {
        None => reply(status, body.to_string()),
        Some(CloudWatchFault::Error(status, code, message)) => {
            reply(status, error(code, message).to_string())
        }
        Some(CloudWatchFault::Garbage) => reply(200, "<html>".to_owned()),
        Some(CloudWatchFault::Cut) => cut(&body.to_string()),
        Some(CloudWatchFault::Slow(wait)) => {
            tokio::time::sleep(wait).await;
            reply(status, body.to_string())
        }
    }
}

fn expired(state: &State, access_key: Option<&str>) -> bool {
    state.web_identity.is_some()
        && access_key
            .and_then(|key| state.issued.get(key))
            .is_none_or(|until| *until < Instant::now())
}

pub(crate) fn error(code: &str, message: &str) -> Value {
    json!({"__type": code, "message": message})
}

pub(crate) fn reply(status: u16, body: String) -> Response {
    let status = StatusCode::from_u16(status).unwrap();
    let kind = ("content-type", "application/x-amz-json-1.1");
    (status, [kind], body).into_response()
}

/// An answer that breaks off, with the end of the connection.
pub(crate) fn cut(body: &str) -> Response {
    let half = Bytes::from(body[..body.len() / 2].to_owned());
    let broken = std::io::Error::other("cut");
    let parts = stream::iter([Ok(half), Err(broken)]);
    Response::builder()
        .header("content-type", "application/x-amz-json-1.1")
        .header("content-length", body.len())
        .body(Body::from_stream(parts))
        .unwrap()
}

/// `AssumeRoleWithWebIdentity` (AWS STS API Reference), the only action without a signature, and
/// `AssumeRole`.
fn answer_sts(state: &Shared, access_key: Option<&str>, body: &[u8]) -> Response {
    let form: Value = String::from_utf8_lossy(body)
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), Value::from(value)))
        .collect::<serde_json::Map<_, _>>()
        .into();
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    let action = form["Action"].as_str().unwrap_or_default().to_owned();
    state.recorded.push(CloudWatchRequest {
        action: format!("sts:{action}"),
        body: form.clone(),
        access_key: access_key.map(str::to_owned),
    });
    let xml = |status: u16, text: String| {
        let status = StatusCode::from_u16(status).unwrap();
        (status, [("content-type", "text/xml")], text).into_response()
    };
    let refused = match action.as_str() {
        "AssumeRole" => {
            let asked = form["ExternalId"].as_str();
            let denied = access_key.is_none() || asked != state.external_id.as_deref();
            denied.then_some(("AccessDenied", "not authorized to perform: sts:AssumeRole"))
        }
        _ => {
            let wanted = state.web_identity.as_deref();
            let denied = form["WebIdentityToken"].as_str() != wanted;
            denied.then_some(("InvalidIdentityToken", "the token is not the cluster's"))
        }
    };
    if let Some((code, message)) = refused {
        return xml(
            if code == "AccessDenied" { 403 } else { 400 },
            format!(
                "<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code>\
                 <Message>{message}</Message></Error></ErrorResponse>"
            ),
        );
    }
    let last = state.credentials_last;
    let key = issue(&mut state);
    xml(
        200,
        format!(
            "{}<{action}Response xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
             <{action}Result><Credentials><AccessKeyId>{key}</AccessKeyId>\
             <SecretAccessKey>secret</SecretAccessKey><SessionToken>session</SessionToken>\
             <Expiration>{}</Expiration></Credentials>\
             <AssumedRoleUser><Arn>arn:aws:sts::123456789012:assumed-role/reader/x</Arn>\
             <AssumedRoleId>AROA:x</AssumedRoleId></AssumedRoleUser>\
             </{action}Result></{action}Response>",
            state.before_credentials,
            rfc3339(SystemTime::now() + last)
        ),
    )
}

fn rfc3339(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let second = i64::try_from(since.as_secs()).unwrap();
    jiff::Timestamp::from_second(second).unwrap().to_string()
}
