//! The methods of `google.pubsub.v1.Subscriber`, mounted by hand, as the message crates have no
//! server code.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request as HttpRequest;
use axum::http::header::{AUTHORIZATION, USER_AGENT};
use axum::http::{HeaderMap, HeaderName};
use axum::middleware::{Next, from_fn};
use axum::response::Response as HttpResponse;
use axum::routing::post;
use futures_util::StreamExt as _;
use futures_util::stream::{BoxStream, unfold};
use googleapis_tonic_google_pubsub_v1::google::pubsub::v1::streaming_pull_response::SubscriptionProperties;
use googleapis_tonic_google_pubsub_v1::google::pubsub::v1::{
    AcknowledgeRequest, ModifyAckDeadlineRequest, PubsubMessage, ReceivedMessage,
    StreamingPullRequest, StreamingPullResponse,
};
use serde_json::{Value, json};
use tokio::time::sleep;
use tonic::metadata::MetadataMap;
use tonic::server::{Grpc, StreamingService, UnaryService};
use tonic::service::Routes;
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use super::{Holding, State, lock};

/// Interval at which streams look for messages.
const TURN: Duration = Duration::from_millis(10);

type Answering<T> = Pin<Box<dyn Future<Output = Result<Response<T>, Status>> + Send>>;
type Shared = Arc<Mutex<State>>;

pub(super) fn routes(state: &Shared) -> Routes {
    let method = |name: &str| format!("/google.pubsub.v1.Subscriber/{name}");
    let (pull, ack, put_off) = (Method::of(state), Method::of(state), Method::of(state));
    let (shared, watched) = (Arc::clone(state), Arc::clone(state));
    let router = Router::new()
        .route(
            &method("StreamingPull"),
            post(async move |request: HttpRequest| {
                let mut grpc = Grpc::new(ProstCodec::default());
                grpc.streaming(pull, request).await.map(Body::new)
            }),
        )
        .route(
            &method("Acknowledge"),
            post(async move |request: HttpRequest| {
                let mut grpc = Grpc::new(ProstCodec::<(), AcknowledgeRequest>::default());
                grpc.unary(ack, request).await.map(Body::new)
            }),
        )
        .route(
            &method("ModifyAckDeadline"),
            post(async move |request: HttpRequest| {
                let mut grpc = Grpc::new(ProstCodec::<(), ModifyAckDeadlineRequest>::default());
                grpc.unary(put_off, request).await.map(Body::new)
            }),
        )
        .fallback(async move |request: HttpRequest| rest(&shared, request).await)
        .layer(from_fn(move |request: HttpRequest, next: Next| {
            let agent = header(request.headers(), &USER_AGENT);
            lock(&watched).user_agents.insert(agent);
            next.run(request)
        }));
    Routes::from(router)
}

/// The context of every method.
#[derive(Clone)]
struct Method {
    state: Shared,
}

impl Method {
    fn of(state: &Shared) -> Method {
        Method {
            state: Arc::clone(state),
        }
    }
}

fn authorization(metadata: &MetadataMap) -> String {
    let value = metadata.get("authorization");
    let value = value.and_then(|value| value.to_str().ok());
    value.unwrap_or_default().to_owned()
}

impl UnaryService<AcknowledgeRequest> for Method {
    type Response = ();
    type Future = Answering<()>;

    fn call(&mut self, request: Request<AcknowledgeRequest>) -> Self::Future {
        let state = Arc::clone(&self.state);
        Box::pin(async move {
            answers(&state).await;
            let caller = authorization(request.metadata());
            let mut state = lock(&state);
            state.admit(&request.get_ref().subscription, &caller)?;
            state.acknowledge(&request.get_ref().ack_ids)?;
            Ok(Response::new(()))
        })
    }
}

impl UnaryService<ModifyAckDeadlineRequest> for Method {
    type Response = ();
    type Future = Answering<()>;

    fn call(&mut self, request: Request<ModifyAckDeadlineRequest>) -> Self::Future {
        let state = Arc::clone(&self.state);
        Box::pin(async move {
            answers(&state).await;
            let caller = authorization(request.metadata());
            let asked = request.get_ref();
            let mut state = lock(&state);
            state.admit(&asked.subscription, &caller)?;
            state.put_off(&asked.ack_ids, asked.ack_deadline_seconds)?;
            Ok(Response::new(()))
        })
    }
}

impl StreamingService<StreamingPullRequest> for Method {
    type Response = StreamingPullResponse;
    type ResponseStream = BoxStream<'static, Result<StreamingPullResponse, Status>>;
    type Future = Answering<Self::ResponseStream>;

    fn call(&mut self, request: Request<Streaming<StreamingPullRequest>>) -> Self::Future {
        let state = Arc::clone(&self.state);
        Box::pin(async move {
            answers(&state).await;
            let caller = authorization(request.metadata());
            let mut requests = request.into_inner();
            let first = requests.message().await?.unwrap_or_default();
            let number = {
                let mut state = lock(&state);
                state.streams_opened += 1;
                if let Some(code) = state.refusals.pop_front().or(state.refuse_always) {
                    return Err(Status::new(code, "scripted"));
                }
                state.admit(&first.subscription, &caller)?;
                let number = state.streams_opened;
                let holding = Holding {
                    messages: 0,
                    bytes: 0,
                    messages_max: first.max_outstanding_messages,
                    bytes_max: first.max_outstanding_bytes,
                };
                state.streams.insert(number, holding);
                number
            };
            let open = Open {
                state,
                number,
                seconds: first.stream_ack_deadline_seconds,
                // The client sends only keepalives; dropping its stream would end the call.
                _requests: requests,
            };
            let messages = unfold(open, |open| async move {
                let next = open.next().await?;
                Some((next, open))
            });
            Ok(Response::new(messages.boxed()))
        })
    }
}

/// An open stream. Its leases stay until they expire, even if it ends.
struct Open {
    state: Shared,
    number: u64,
    seconds: i32,
    _requests: Streaming<StreamingPullRequest>,
}

impl Open {
    async fn next(&self) -> Option<Result<StreamingPullResponse, Status>> {
        loop {
            {
                let mut state = lock(&self.state);
                if self.number < state.cut_below {
                    // It has ended by the second call.
                    state.streams.remove(&self.number)?;
                    return Some(Err(Status::unavailable("the server has closed the stream")));
                }
                let response = self.response(&mut state);
                if !response.received_messages.is_empty() {
                    return Some(Ok(response));
                }
            }
            sleep(TURN).await;
        }
    }

    fn response(&self, state: &mut State) -> StreamingPullResponse {
        let leased = state.lease_to_stream(self.number, self.seconds);
        let received = leased.into_iter().map(|(lease, index)| {
            let stored = &state.messages[index];
            ReceivedMessage {
                ack_id: format!("ack-{lease}"),
                message: Some(PubsubMessage {
                    data: stored.data.clone(),
                    message_id: index.to_string(),
                    ..PubsubMessage::default()
                }),
                // Only set if there is a dead-letter topic.
                delivery_attempt: 0,
            }
        });
        StreamingPullResponse {
            received_messages: received.collect(),
            subscription_properties: Some(SubscriptionProperties {
                exactly_once_delivery_enabled: state.exactly_once,
                message_ordering_enabled: false,
            }),
            ..StreamingPullResponse::default()
        }
    }
}

/// Returns, or never if everything hangs.
async fn answers(state: &Shared) {
    let hangs = lock(state).hangs;
    if hangs {
        std::future::pending::<()>().await;
    }
}

/// The methods of `projects.subscriptions` over REST.
async fn rest(state: &Shared, request: HttpRequest) -> HttpResponse {
    answers(state).await;
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20)
        .await
        .unwrap_or_default();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let path = parts.uri.path().strip_prefix("/v1/").unwrap_or_default();
    let (name, method) = path.rsplit_once(':').unwrap_or_default();
    let mut state = lock(state);
    let admitted = state.admit(name, &header(&parts.headers, &AUTHORIZATION));
    let done = match (method, admitted) {
        // Returns the caller's permissions, whoever it is; for a missing subscription none, as
        // documented.
        ("testIamPermissions", Ok(())) => Ok(json!({"permissions": body["permissions"]})),
        ("testIamPermissions", Err(status)) if status.code() != Code::Unauthenticated => {
            Ok(json!({}))
        }
        ("pull", Ok(())) => Ok(pull(&mut state)),
        ("modifyAckDeadline", Ok(())) => put_off(&mut state, &body).map(|()| json!({})),
        ("testIamPermissions" | "pull" | "modifyAckDeadline", Err(status)) => Err(status),
        _ => Err(Status::not_found("no such method")),
    };
    match done {
        Ok(body) => answer(200, &body),
        Err(status) => {
            let code = match status.code() {
                Code::Unauthenticated => 401,
                Code::PermissionDenied => 403,
                Code::NotFound => 404,
                _ => 400,
            };
            let error = json!({"code": code, "message": status.message()});
            answer(code, &json!({"error": error}))
        }
    }
}

/// As with `returnImmediately`: at most one message that is available now.
fn pull(state: &mut State) -> Value {
    let pulled = state.pull().map(|(lease, index)| {
        json!([{
            "ackId": format!("ack-{lease}"),
            "message": {"messageId": index.to_string()},
        }])
    });
    pulled.map_or_else(|| json!({}), |pulled| json!({"receivedMessages": pulled}))
}

fn put_off(state: &mut State, asked: &Value) -> Result<(), Status> {
    let ids = asked["ackIds"].as_array().into_iter().flatten();
    let ids: Vec<String> = ids
        .filter_map(|id| id.as_str().map(str::to_owned))
        .collect();
    let seconds = asked["ackDeadlineSeconds"].as_i64().unwrap_or_default();
    state.put_off(&ids, i32::try_from(seconds).unwrap_or_default())
}

fn header(headers: &HeaderMap, name: &HeaderName) -> String {
    let value = headers.get(name);
    let value = value.and_then(|value| value.to_str().ok());
    value.unwrap_or_default().to_owned()
}

fn answer(status: u16, body: &Value) -> HttpResponse {
    let mut response = HttpResponse::new(Body::from(body.to_string()));
    *response.status_mut() = axum::http::StatusCode::from_u16(status).unwrap();
    response
}
