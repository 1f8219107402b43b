//! An API server that knows ConfigMaps and Leases, with the real rules for versions, and fails on
//! cue. That it answers as the real one is asked of both (`tests/tests/apiserver`).
//!
//! It answers in process (its [`FakeKubernetes::service`] is what a `kube::Client` is made of, so
//! time may be paused) or on a loopback port ([`FakeKubernetes::serve`]).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
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

/// The API server reads no larger request.
const BODY_BYTES_MAX: usize = 3 << 20;
/// All data of a ConfigMap.
const DATA_BYTES_MAX: usize = 1 << 20;

/// What becomes of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KubernetesFault {
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
pub struct KubernetesRequest {
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

type Chooser = Box<dyn FnMut(&KubernetesRequest) -> Option<KubernetesFault> + Send>;

#[derive(Default)]
struct State {
    /// By namespace, plural and name.
    objects: BTreeMap<Key, Value>,
    version: u64,
    requests: Vec<KubernetesRequest>,
    next: VecDeque<KubernetesFault>,
    always: Option<KubernetesFault>,
    chooser: Option<Chooser>,
    token: Option<String>,
    /// By client, how many seconds its clock is ahead.
    clocks: BTreeMap<String, i64>,
    /// Namespaces that are not there; all others are.
    missing: BTreeSet<String>,
}

/// Namespace, plural and name.
type Key = (String, String, String);

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
pub struct KubernetesServer {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl KubernetesServer {
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

impl Drop for KubernetesServer {
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

    /// Has no such namespace; without this, every namespace is there.
    pub fn lack_namespace(&self, name: &str) {
        self.lock().missing.insert(name.to_owned());
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
    pub async fn serve(&self) -> io::Result<KubernetesServer> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let service = self.service("");
        let task = tokio::spawn(async move {
            let _ = axum::serve(listener, service).await;
        });
        Ok(KubernetesServer { address, task })
    }

    /// Lets the next request without a fault of its own meet this one; more than one queue up.
    pub fn fail_next(&self, fault: KubernetesFault) {
        self.lock().next.push_back(fault);
    }

    /// Lets every request meet this fault, until it is `None`.
    pub fn fail_always(&self, fault: Option<KubernetesFault>) {
        self.lock().always = fault;
    }

    /// Asks `chooser` about every request that no other fault is meant for.
    pub fn fail_by(
        &self,
        chooser: impl FnMut(&KubernetesRequest) -> Option<KubernetesFault> + Send + 'static,
    ) {
        self.lock().chooser = Some(Box::new(chooser));
    }

    /// The clock of this client is so many seconds ahead, by the times that it writes into Leases.
    pub fn skew_clock(&self, client: &str, seconds: i64) {
        self.lock().clocks.insert(client.to_owned(), seconds);
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<KubernetesRequest> {
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
            let message = "Request entity too large: limit is 3145728";
            return failure(413, "RequestEntityTooLarge", message);
        };
        let header = |name| {
            let value = parts.headers.get(name);
            value.and_then(|value| value.to_str().ok()).unwrap_or("")
        };
        let mut recorded = KubernetesRequest {
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
            Some(KubernetesFault::Status(status)) => refusal(status),
            Some(KubernetesFault::Silence) => pending().await,
            Some(KubernetesFault::NoAnswer) => {
                carry_out();
                pending().await
            }
            // In a task of its own: it is carried out even when nobody waits any more.
            Some(KubernetesFault::Late(wait)) => {
                let late = tokio::spawn(async move {
                    sleep(wait).await;
                    carry_out()
                });
                match late.await {
                    Ok(response) => response,
                    Err(_) => refusal(500),
                }
            }
            Some(KubernetesFault::SlowAnswer(wait)) => {
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
    fn carry_out(&mut self, method: &Method, request: &KubernetesRequest, patch: &str) -> Response {
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
        match (method.as_str(), there) {
            ("GET", Some(there)) => answer(200, &there),
            ("DELETE", Some(_)) => {
                self.objects.remove(&key);
                answer(200, &json!({"kind": "Status", "status": "Success"}))
            }
            ("POST", there) => self.create(key, &request.body, there.is_some()),
            ("PUT", Some(there)) => self.update(key, &there, request.body.clone()),
            ("PUT", None) if plural == "leases" => self.create_by_update(key, &request.body),
            ("PATCH", Some(there)) if patch == "application/merge-patch+json" => {
                let mut object = there.clone();
                merge(&mut object, &request.body);
                self.update(key, &there, object)
            }
            ("PATCH", Some(_)) => failure(415, "UnsupportedMediaType", "merge patches only"),
            ("GET" | "DELETE" | "PUT" | "PATCH", None) => {
                let message = format!("{} \"{name}\" not found", full_name(plural));
                failure(404, "NotFound", &message)
            }
            _ => failure(405, "MethodNotAllowed", "not supported by the fake"),
        }
    }

    fn create(&mut self, key: Key, object: &Value, is_there: bool) -> Response {
        let (namespace, plural, name) = &key;
        if let Some(refused) = malformed(plural, object) {
            return refused;
        }
        if self.missing.contains(namespace) {
            let message = format!("namespaces \"{namespace}\" not found");
            return failure(404, "NotFound", &message);
        }
        if object["metadata"]["resourceVersion"].is_string() {
            let message = "resourceVersion should not be set on objects to be created";
            return failure(500, "", message);
        }
        if let Some(refused) = invalid(plural, object) {
            return refused;
        }
        if is_there {
            let message = format!("{} \"{name}\" already exists", full_name(plural));
            return failure(409, "AlreadyExists", &message);
        }
        let mut object = object.clone();
        metadata(&mut object).insert("namespace".to_owned(), namespace.clone().into());
        answer(201, &self.store(key, object))
    }

    /// A Lease may be created by an update, but for one that was meant to be there.
    fn create_by_update(&mut self, key: Key, object: &Value) -> Response {
        let uid = object["metadata"]["uid"].as_str().unwrap_or_default();
        if !uid.is_empty() {
            let message = format!(
                "Operation cannot be fulfilled on {} \"{}\": StorageError: invalid object, Code: 4, \
                 Key: /registry/{}/{}/{}, ResourceVersion: 0, AdditionalErrorMsg: Precondition \
                 failed: UID in precondition: {uid}, UID in object meta: ",
                full_name(&key.1),
                key.2,
                key.1,
                key.0,
                key.2
            );
            return failure(409, "Conflict", &message);
        }
        let mut object = object.clone();
        metadata(&mut object).remove("resourceVersion");
        self.create(key, &object, false)
    }

    fn update(&mut self, key: Key, there: &Value, mut object: Value) -> Response {
        let (namespace, plural, name) = &key;
        if let Some(refused) = malformed(plural, &object) {
            return refused;
        }
        let wanted = &object["metadata"]["resourceVersion"];
        let unversioned = wanted.as_str().is_none_or(str::is_empty);
        // An update of a ConfigMap without a version is unconditional.
        if unversioned && plural == "leases" {
            let message = format!(
                "{} \"{name}\" is invalid: metadata.resourceVersion: Invalid value: 0: must be \
                 specified for an update",
                full_name(plural)
            );
            return failure(422, "Invalid", &message);
        }
        if !unversioned && *wanted != there["metadata"]["resourceVersion"] {
            let message = format!(
                "Operation cannot be fulfilled on {} \"{name}\": the object has been modified; \
                 please apply your changes to the latest version and try again",
                full_name(plural)
            );
            return failure(409, "Conflict", &message);
        }
        if let Some(refused) = invalid(plural, &object) {
            return refused;
        }
        if there["immutable"] == json!(true) && object["data"] != there["data"] {
            return failure(
                422,
                "Invalid",
                "data: Forbidden: field is immutable when `immutable` is set",
            );
        }
        for kept in ["uid", "creationTimestamp", "resourceVersion"] {
            let value = there["metadata"][kept].clone();
            metadata(&mut object).insert(kept.to_owned(), value);
        }
        metadata(&mut object).insert("namespace".to_owned(), namespace.clone().into());
        for kept in ["apiVersion", "kind"] {
            object[kept] = there[kept].clone();
        }
        // Nothing changed: nothing is written.
        if object == *there {
            return answer(200, there);
        }
        answer(200, &self.store(key, object))
    }

    /// Stores an object with the next version.
    fn store(&mut self, key: Key, mut object: Value) -> Value {
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

fn key(namespace: &str, plural: &str, name: &str) -> Key {
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

/// A resource with its group, as messages have it.
fn full_name(plural: &str) -> String {
    match plural {
        "leases" => "leases.coordination.k8s.io".to_owned(),
        plural => plural.to_owned(),
    }
}

/// Why a body cannot be read, if it cannot: a time of a Lease has exactly six digits.
fn malformed(plural: &str, object: &Value) -> Option<Response> {
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

/// Why an object is refused, if it is.
fn invalid(plural: &str, object: &Value) -> Option<Response> {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let what = match plural {
        "leases" => {
            let seconds = object["spec"]["leaseDurationSeconds"].as_i64();
            let seconds = seconds.filter(|seconds| *seconds <= 0)?;
            format!("spec.leaseDurationSeconds: Invalid value: {seconds}: must be greater than 0")
        }
        _ => {
            let data = object["data"].as_object().into_iter().flatten();
            let bytes: usize = data
                .filter_map(|(_, value)| value.as_str())
                .map(str::len)
                .sum();
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

fn failure(code: u16, reason: &str, message: &str) -> Response {
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

fn answer(status: u16, body: &Value) -> Response {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::IM_A_TEAPOT);
    let json = axum::http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}
