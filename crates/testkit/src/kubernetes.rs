//! An API server that knows ConfigMaps and Leases, with the real rules for versions, and fails on
//! cue.
//!
//! It answers in process (its [`FakeKubernetes::service`] is what a `kube::Client` is made of, so
//! time may be paused) or on a loopback port ([`FakeKubernetes::serve`]).

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// etcd takes no larger request.
const BODY_BYTES_MAX: usize = 3 << 19;

/// What becomes of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is answered with this status and not carried out.
    Status(u16),
    /// It is never carried out and never answered.
    Silence,
    /// It is carried out, but never answered.
    NoAnswer,
    /// It is carried out and answered after this wait, whether anybody still waits or not.
    Late(Duration),
    /// It is carried out now and answered after this wait.
    SlowAnswer(Duration),
}

/// A request as it came in.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded {
    /// Which [`FakeKubernetes::service`] it came through; empty over the network.
    pub client: String,
    /// `GET`, `POST`, `PUT`, `PATCH` or `DELETE`.
    pub method: String,
    /// Without the query.
    pub path: String,
    /// `Null` when there was none, or no JSON.
    pub body: Value,
    /// The status of its answer; 0 as long as there is none.
    pub status: u16,
}

type Chooser = Box<dyn FnMut(&Recorded) -> Option<Fault> + Send>;

#[derive(Default)]
struct State {
    /// By namespace, plural and name.
    objects: BTreeMap<(String, String, String), Value>,
    version: u64,
    requests: Vec<Recorded>,
    next: VecDeque<Fault>,
    always: Option<Fault>,
    chooser: Option<Chooser>,
    token: Option<String>,
    /// By client, how many seconds its clock is ahead.
    clocks: BTreeMap<String, i64>,
}

/// The fake; clones share its state.
#[derive(Clone, Default)]
pub struct FakeKubernetes {
    state: Arc<Mutex<State>>,
}

impl fmt::Debug for FakeKubernetes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeKubernetes").finish_non_exhaustive()
    }
}

/// The fake on a port. It stops when this is dropped.
#[derive(Debug)]
pub struct Serving {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Serving {
    /// `http://127.0.0.1:port`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A kubeconfig for this server, with a token.
    pub fn kubeconfig(&self, namespace: &str, token: &str) -> String {
        json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "fake",
            "clusters": [{"name": "fake", "cluster": {"server": self.url()}}],
            "users": [{"name": "fake", "user": {"token": token}}],
            "contexts": [{
                "name": "fake",
                "context": {"cluster": "fake", "user": "fake", "namespace": namespace},
            }],
        })
        .to_string()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl FakeKubernetes {
    /// An empty cluster that lets everybody in.
    pub fn new() -> FakeKubernetes {
        FakeKubernetes::default()
    }

    /// Asks every request for this bearer token.
    pub fn require_token(&self, token: &str) {
        self.lock().token = Some(token.to_owned());
    }

    /// A way in without a network, for `kube::Client::new`. `client` shows up in the record.
    pub fn service(&self, client: &str) -> Router {
        let (fake, client) = (self.clone(), client.to_owned());
        Router::new().fallback(move |request: Request| {
            let (fake, client) = (fake.clone(), client.clone());
            async move { fake.answer(client, request).await }
        })
    }

    /// Listens on a port of the loopback interface.
    ///
    /// # Errors
    /// There is no port.
    pub async fn serve(&self) -> io::Result<Serving> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let service = self.service("");
        let task = tokio::spawn(async move {
            let _ = axum::serve(listener, service).await;
        });
        Ok(Serving { address, task })
    }

    /// Lets the next request without a fault of its own meet this one; more than one queue up.
    pub fn fail_next(&self, fault: Fault) {
        self.lock().next.push_back(fault);
    }

    /// Lets every request meet this fault, until it is `None`.
    pub fn fail_always(&self, fault: Option<Fault>) {
        self.lock().always = fault;
    }

    /// Asks `chooser` about every request that no other fault is meant for.
    pub fn fail_by(&self, chooser: impl FnMut(&Recorded) -> Option<Fault> + Send + 'static) {
        self.lock().chooser = Some(Box::new(chooser));
    }

    /// The clock of this client is so many seconds ahead, by the times that it writes into Leases.
    pub fn skew_clock(&self, client: &str, seconds: i64) {
        self.lock().clocks.insert(client.to_owned(), seconds);
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<Recorded> {
        self.lock().requests.clone()
    }

    /// An object as it is now; `plural` is `configmaps` or `leases`.
    pub fn object(&self, plural: &str, namespace: &str, name: &str) -> Option<Value> {
        let key = key(namespace, plural, name);
        self.lock().objects.get(&key).cloned()
    }

    /// The names of all objects of a kind; `plural` is `configmaps` or `leases`.
    pub fn names(&self, plural: &str, namespace: &str) -> Vec<String> {
        let state = self.lock();
        let all = state.objects.keys();
        all.filter(|(of, kind, _)| of == namespace && kind == plural)
            .map(|(_, _, name)| name.clone())
            .collect()
    }

    /// Puts an object there behind everybody's back, with a new version.
    pub fn put(&self, plural: &str, namespace: &str, name: &str, mut object: Value) {
        let mut state = self.lock();
        let metadata = metadata(&mut object);
        metadata.insert("name".to_owned(), name.into());
        metadata.insert("namespace".to_owned(), namespace.into());
        state.store(key(namespace, plural, name), object);
    }

    /// Removes an object; whether there was one.
    pub fn remove(&self, plural: &str, namespace: &str, name: &str) -> bool {
        let key = key(namespace, plural, name);
        self.lock().objects.remove(&key).is_some()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn answer(&self, client: String, request: Request) -> Response {
        let (parts, body) = request.into_parts();
        let Ok(body) = to_bytes(body, BODY_BYTES_MAX).await else {
            return failure(413, "RequestEntityTooLarge", "the request is too large");
        };
        let header = |name| {
            let value = parts.headers.get(name);
            value.and_then(|value| value.to_str().ok()).unwrap_or("")
        };
        let mut recorded = Recorded {
            client,
            method: parts.method.to_string(),
            path: parts.uri.path().to_owned(),
            body: serde_json::from_slice(&body).unwrap_or_default(),
            status: 0,
        };
        let patch = header(CONTENT_TYPE).to_owned();
        let (number, fault, admitted) = {
            let mut state = self.lock();
            if let Some(&seconds) = state.clocks.get(&recorded.client) {
                skew(&mut recorded.body, seconds);
            }
            let token = state.token.as_ref();
            let admitted =
                token.is_none_or(|token| header(AUTHORIZATION) == format!("Bearer {token}"));
            let fault = match (state.next.pop_front(), state.always) {
                (Some(fault), _) | (None, Some(fault)) => Some(fault),
                (None, None) => state
                    .chooser
                    .as_mut()
                    .and_then(|chooser| chooser(&recorded)),
            };
            state.requests.push(recorded.clone());
            (state.requests.len() - 1, fault, admitted)
        };
        let fake = self.clone();
        let carry_out = move || {
            if !admitted {
                return failure(401, "Unauthorized", "Unauthorized");
            }
            let mut state = fake.lock();
            let dry = parts
                .uri
                .query()
                .is_some_and(|it| it.contains("dryRun=All"));
            let before = dry.then(|| state.objects.clone());
            let response = state.carry_out(&parts.method, &recorded, &patch);
            if let Some(before) = before {
                state.objects = before;
            }
            response
        };
        let response = match fault {
            None => carry_out(),
            Some(Fault::Status(status)) => refusal(status),
            Some(Fault::Silence) => pending().await,
            Some(Fault::NoAnswer) => {
                carry_out();
                pending().await
            }
            // In a task of its own: it is carried out even when nobody waits any more.
            Some(Fault::Late(wait)) => {
                let late = tokio::spawn(async move {
                    sleep(wait).await;
                    carry_out()
                });
                match late.await {
                    Ok(response) => response,
                    Err(_) => refusal(500),
                }
            }
            Some(Fault::SlowAnswer(wait)) => {
                let response = carry_out();
                sleep(wait).await;
                response
            }
        };
        self.lock().requests[number].status = response.status().as_u16();
        response
    }
}

impl State {
    fn carry_out(&mut self, method: &Method, request: &Recorded, patch: &str) -> Response {
        let Some((namespace, plural, name)) = place(&request.path) else {
            return failure(404, "NotFound", "the server could not find the resource");
        };
        let name = match (method, name) {
            (&Method::POST, None) => match request.body["metadata"]["name"].as_str() {
                Some(name) => name,
                None => return failure(422, "Invalid", "metadata.name: Required value"),
            },
            (_, Some(name)) => name,
            (_, None) => return failure(405, "MethodNotAllowed", "not supported by the fake"),
        };
        let key = key(namespace, plural, name);
        let there = self.objects.get(&key).cloned();
        let Some(there) = there else {
            if *method != Method::POST {
                let message = format!("{plural} \"{name}\" not found");
                return failure(404, "NotFound", &message);
            }
            if request.body["metadata"]["resourceVersion"].is_string() {
                let message = "resourceVersion should not be set on objects to be created";
                return failure(400, "BadRequest", message);
            }
            let mut object = request.body.clone();
            metadata(&mut object).insert("namespace".to_owned(), namespace.into());
            return answer(201, &self.store(key, object));
        };
        match *method {
            Method::GET => answer(200, &there),
            Method::POST => {
                let message = format!("{plural} \"{name}\" already exists");
                failure(409, "AlreadyExists", &message)
            }
            Method::DELETE => {
                self.objects.remove(&key);
                answer(200, &json!({"kind": "Status", "status": "Success"}))
            }
            Method::PUT | Method::PATCH => {
                let mut object = there.clone();
                match *method {
                    Method::PUT => object = request.body.clone(),
                    _ if patch == "application/merge-patch+json" => {
                        merge(&mut object, &request.body);
                    }
                    _ => return failure(415, "UnsupportedMediaType", "merge patches only"),
                }
                // An update without a version is unconditional, as for the real one.
                let wanted = &request.body["metadata"]["resourceVersion"];
                if !wanted.is_null() && *wanted != there["metadata"]["resourceVersion"] {
                    let message = format!(
                        "Operation cannot be fulfilled on {plural} \"{name}\": the object has \
                         been modified; please apply your changes to the latest version and try \
                         again"
                    );
                    return failure(409, "Conflict", &message);
                }
                if there["immutable"] == json!(true) && object["data"] != there["data"] {
                    return failure(422, "Invalid", "data: Forbidden: field is immutable");
                }
                for kept in ["uid", "creationTimestamp"] {
                    let value = there["metadata"][kept].clone();
                    metadata(&mut object).insert(kept.to_owned(), value);
                }
                metadata(&mut object).insert("namespace".to_owned(), namespace.into());
                answer(200, &self.store(key, object))
            }
            _ => failure(405, "MethodNotAllowed", "not supported by the fake"),
        }
    }

    /// Stores an object with the next version.
    fn store(&mut self, key: (String, String, String), mut object: Value) -> Value {
        self.version += 1;
        let version = self.version;
        let (api, kind) = match key.1.as_str() {
            "leases" => ("coordination.k8s.io/v1", "Lease"),
            _ => ("v1", "ConfigMap"),
        };
        let metadata = metadata(&mut object);
        metadata.insert("resourceVersion".to_owned(), version.to_string().into());
        let uid = metadata.entry("uid").or_insert(Value::Null);
        if uid.is_null() {
            *uid = format!("00000000-0000-4000-8000-{version:012}").into();
        }
        let created = metadata.entry("creationTimestamp").or_insert(Value::Null);
        if created.is_null() {
            *created = "2026-01-02T03:04:05Z".into();
        }
        object["apiVersion"] = api.into();
        object["kind"] = kind.into();
        self.objects.insert(key, object.clone());
        object
    }
}

/// Namespace, plural and name of a path.
fn place(path: &str) -> Option<(&str, &str, Option<&str>)> {
    let (rest, plural) = match path.strip_prefix("/api/v1/namespaces/") {
        Some(rest) => (rest, "configmaps"),
        None => {
            let prefix = "/apis/coordination.k8s.io/v1/namespaces/";
            (path.strip_prefix(prefix)?, "leases")
        }
    };
    let mut parts = rest.split('/');
    let namespace = parts.next()?;
    let found = parts.next()?;
    let name = parts.next();
    (found == plural && parts.next().is_none()).then_some((namespace, plural, name))
}

fn key(namespace: &str, plural: &str, name: &str) -> (String, String, String) {
    (namespace.to_owned(), plural.to_owned(), name.to_owned())
}

/// The object's metadata, made where there is none.
fn metadata(object: &mut Value) -> &mut Map<String, Value> {
    if !object.is_object() {
        *object = json!({});
    }
    if !object["metadata"].is_object() {
        object["metadata"] = json!({});
    }
    match &mut object["metadata"] {
        Value::Object(metadata) => metadata,
        _ => unreachable!("it was just made one"),
    }
}

/// Moves the times of a Lease.
fn skew(object: &mut Value, seconds: i64) {
    for name in ["acquireTime", "renewTime"] {
        let Some(time) = object["spec"][name].as_str() else {
            continue;
        };
        let moved = time
            .parse::<Timestamp>()
            .and_then(|time| time.checked_add(SignedDuration::from_secs(seconds)));
        if let Ok(moved) = moved {
            object["spec"][name] = format!("{moved:.6}").into();
        }
    }
}

/// RFC 7396.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (name, value) in patch {
        match (value, &mut *target) {
            (Value::Null, Value::Object(target)) => {
                target.remove(name);
            }
            (value, target) => merge(&mut target[name], value),
        }
    }
}

fn refusal(status: u16) -> Response {
    let (reason, message) = match status {
        401 => ("Unauthorized", "Unauthorized"),
        403 => ("Forbidden", "the service account cannot do that"),
        404 => ("NotFound", "namespaces \"missing\" not found"),
        409 => ("Conflict", "the object has been modified"),
        429 => ("TooManyRequests", "too many requests"),
        503 => ("ServiceUnavailable", "etcd is not ready"),
        504 => ("Timeout", "the request did not complete in time"),
        _ => ("InternalError", "etcd leader changed"),
    };
    failure(status, reason, message)
}

fn failure(code: u16, reason: &str, message: &str) -> Response {
    let status = json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code,
    });
    answer(code, &status)
}

fn answer(status: u16, body: &Value) -> Response {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::IM_A_TEAPOT);
    let json = axum::http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}
