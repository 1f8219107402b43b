//! Answers like Falco's k8saudit plugin, before any parsing.

use super::{Received, WebhookAnswer};

/// The default of its `webhookMaxBatchSize`.
const BODY_BYTES_MAX: usize = 12 << 20;

/// The answer to a request for the endpoint that Falco's documentation uses.
pub(super) fn answer(request: &Received) -> WebhookAnswer {
    let json = request
        .header("content-type")
        .is_some_and(|kind| kind.contains("application/json"));
    WebhookAnswer::status(match request {
        _ if request.target != "/k8s-audit" => 404,
        _ if request.method != "POST" => 405,
        _ if !json || request.body.len() > BODY_BYTES_MAX => 400,
        _ => 200,
    })
}
