//! The JSON 1.1 protocol of Kinesis, and the same calls in process.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State as Extract;
use axum::http::HeaderMap;
use axum::response::Response;
use serde_json::Value;

use super::error::ServiceError;
use super::{CallError, CloudWatchFault, CloudWatchRequest, State, operations};
use crate::cloud_watch::{cut, error, reply};

type Shared = Arc<Mutex<State>>;

/// What is sent.
enum Outcome {
    Answer(Value),
    Refused(ServiceError),
    Garbage,
    Cut(Value),
}

pub(super) fn router(state: Shared) -> Router {
    Router::new().fallback(answer).with_state(state)
}

async fn answer(Extract(state): Extract<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let access_key = header("authorization")
        .and_then(|value| value.split("Credential=").nth(1))
        .and_then(|value| value.split('/').next())
        .map(str::to_owned);
    let target = header("x-amz-target").unwrap_or_default();
    let operation = target.strip_prefix("Kinesis_20131202.").unwrap_or_default();
    let recorded = CloudWatchRequest {
        action: format!("kinesis:{operation}"),
        body: serde_json::from_slice(&body).unwrap_or_default(),
        access_key,
    };
    match perform(&state, operation, recorded).await {
        Outcome::Answer(answer) => reply(200, text(&answer)),
        Outcome::Refused(it) => reply(it.status, error(&it.code, &it.message).to_string()),
        Outcome::Garbage => reply(200, "<html>".to_owned()),
        Outcome::Cut(answer) => cut(&text(&answer)),
    }
}

/// An operation without an output has an empty body.
fn text(answer: &Value) -> String {
    if answer.is_null() {
        return String::new();
    }
    answer.to_string()
}

pub(super) async fn call(
    state: &Shared,
    operation: &str,
    body: &Value,
) -> Result<Value, CallError> {
    let recorded = CloudWatchRequest {
        action: format!("kinesis:{operation}"),
        body: body.clone(),
        access_key: None,
    };
    match perform(state, operation, recorded).await {
        Outcome::Answer(answer) => Ok(answer),
        Outcome::Refused(error) => Err(CallError::Service(error)),
        Outcome::Garbage | Outcome::Cut(_) => Err(CallError::Broken),
    }
}

/// Carries out a call, and waits while its answer is held back.
async fn perform(state: &Shared, operation: &str, recorded: CloudWatchRequest) -> Outcome {
    let (outcome, slow, mut held) = {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        let fault = fault(&mut state, operation, &recorded);
        let outcome = execute(&mut state, operation, &recorded.body, fault.as_ref());
        state.recorded.push(recorded);
        let slow = match fault {
            Some(CloudWatchFault::Slow(wait)) => Some(wait),
            _ => None,
        };
        (outcome, slow, state.held.subscribe())
    };
    if let Some(wait) = slow {
        tokio::time::sleep(wait).await;
    }
    let free = |held: &Vec<String>| !held.iter().any(|it| it == operation);
    // The stand-in may have been dropped by then.
    let _ = held.wait_for(free).await;
    outcome
}

fn fault(
    state: &mut State,
    operation: &str,
    recorded: &CloudWatchRequest,
) -> Option<CloudWatchFault> {
    let script = state.scripts.get_mut(operation);
    script
        .and_then(VecDeque::pop_front)
        .or_else(|| state.refused.get(operation).cloned())
        .or_else(|| state.chooser.as_mut().and_then(|choose| choose(recorded)))
}

/// Carries out a call, unless a fault prevents it.
fn execute(
    state: &mut State,
    operation: &str,
    body: &Value,
    fault: Option<&CloudWatchFault>,
) -> Outcome {
    if let Some(CloudWatchFault::Error(status, code, message)) = fault {
        let mut error = ServiceError::new(code, *message);
        error.status = *status;
        return Outcome::Refused(error);
    }
    state.intact = !matches!(fault, Some(CloudWatchFault::Cut | CloudWatchFault::Garbage));
    match (operations::answer(state, operation, body), fault) {
        (Err(error), _) => Outcome::Refused(error),
        (Ok(_), Some(CloudWatchFault::Garbage)) => Outcome::Garbage,
        (Ok(answer), Some(CloudWatchFault::Cut)) => Outcome::Cut(answer),
        (Ok(answer), _) => Outcome::Answer(answer),
    }
}
