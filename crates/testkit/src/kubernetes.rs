//! An API server for ConfigMaps and Leases, with the real rules for versions. It fails on cue.
//! `tests/tests/apiserver` checks that it answers like the real one.
//!
//! It answers in process ([`FakeKubernetes::service`] serves a `kube::Client`, so time may be
//! paused) or on a loopback port ([`FakeKubernetes::serve`]).

mod answers;
mod objects;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::to_bytes;
use axum::extract::Request;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::response::Response;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use self::answers::{failure, refusal};
use self::objects::{Objects, key, metadata};

/// The API server's limit of a request.
const BODY_BYTES_MAX: usize = 3 << 20;

/// What happens to one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KubernetesFault {
    /// Answered with this status, and not carried out.
    Status(u16),
    /// Neither carried out nor answered.
    Silence,
    /// Carried out, but not answered.
    NoAnswer,
    /// Carried out and answered after this wait, even if the client no longer waits.
    Late(Duration),
    /// Carried out now, and answered after this wait.
    SlowAnswer(Duration),
}

#[derive(Debug, Clone, PartialEq)]
pub struct KubernetesRequest {
    /// The client that [`FakeKubernetes::service`] was made for; empty over the network.
    pub client: String,
    /// `GET`, `POST`, `PUT`, `PATCH` or `DELETE`.
    pub method: String,
    /// Without the query.
    pub path: String,
    /// `Null` if there was none, or no JSON.
    pub body: Value,
    /// The status of the answer; 0 until there is one.
    pub status: u16,
}

type Chooser = Box<dyn FnMut(&KubernetesRequest) -> Option<KubernetesFault> + Send>;

#[derive(Default)]
struct State {
    objects: Objects,
    requests: Vec<KubernetesRequest>,
    next: VecDeque<KubernetesFault>,
    always: Option<KubernetesFault>,
    chooser: Option<Chooser>,
    token: Option<String>,
    /// By client, how many seconds its clock is ahead.
    clocks: BTreeMap<String, i64>,
}

/// The stand-in; clones share its state.
#[derive(Clone, Default)]
pub struct FakeKubernetes {
    state: Arc<Mutex<State>>,
}

impl fmt::Debug for FakeKubernetes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeKubernetes").finish_non_exhaustive()
    }
}

/// The stand-in on a port. Dropping it stops it.
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
    /// An empty cluster that accepts every caller.
    pub fn new() -> FakeKubernetes {
        FakeKubernetes::default()
    }

    /// Requires this bearer token.
    pub fn require_token(&self, token: &str) {
        self.lock().token = Some(token.to_owned());
    }

    /// Makes this namespace missing; by default every namespace exists.
    pub fn lack_namespace(&self, name: &str) {
        self.lock().objects.missing.insert(name.to_owned());
    }

    /// A service for `kube::Client::new`, without a network. Recorded requests name `client`.
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
    /// No port is available.
    pub async fn serve(&self) -> io::Result<KubernetesServer> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let service = self.service("");
        let task = tokio::spawn(async move {
            let _ = axum::serve(listener, service).await;
        });
        Ok(KubernetesServer { address, task })
    }

    /// Applies this fault to the next request that has none; several queue up.
    pub fn fail_next(&self, fault: KubernetesFault) {
        self.lock().next.push_back(fault);
    }

    /// Applies this fault to every request, until set to `None`.
    pub fn fail_always(&self, fault: Option<KubernetesFault>) {
        self.lock().always = fault;
    }

    /// Lets `chooser` decide about every request that no other fault applies to.
    pub fn fail_by(
        &self,
        chooser: impl FnMut(&KubernetesRequest) -> Option<KubernetesFault> + Send + 'static,
    ) {
        self.lock().chooser = Some(Box::new(chooser));
    }

    /// Sets this client's clock ahead by this many seconds, in the times that it writes to Leases.
    pub fn skew_clock(&self, client: &str, seconds: i64) {
        self.lock().clocks.insert(client.to_owned(), seconds);
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<KubernetesRequest> {
        self.lock().requests.clone()
    }

    /// The current state of an object; `plural` is `configmaps` or `leases`.
    pub fn object(&self, plural: &str, namespace: &str, name: &str) -> Option<Value> {
        let key = key(namespace, plural, name);
        self.lock().objects.all.get(&key).cloned()
    }

    /// The names of all objects of a kind; `plural` is `configmaps` or `leases`.
    pub fn names(&self, plural: &str, namespace: &str) -> Vec<String> {
        let state = self.lock();
        let all = state.objects.all.keys();
        all.filter(|(of, kind, _)| of == namespace && kind == plural)
            .map(|(_, _, name)| name.clone())
            .collect()
    }

    /// Stores an object without a request, with a new version.
    pub fn put(&self, plural: &str, namespace: &str, name: &str, mut object: Value) {
        let mut state = self.lock();
        let metadata = metadata(&mut object);
        metadata.insert("name".to_owned(), name.into());
        metadata.insert("namespace".to_owned(), namespace.into());
        state.objects.store(key(namespace, plural, name), object);
    }

    /// Removes an object. Returns whether there was one.
    pub fn remove(&self, plural: &str, namespace: &str, name: &str) -> bool {
        let key = key(namespace, plural, name);
        self.lock().objects.all.remove(&key).is_some()
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
            let before = dry.then(|| state.objects.all.clone());
            let response = state.objects.carry_out(&parts.method, &recorded, &patch);
            if let Some(before) = before {
                state.objects.all = before;
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
            // In its own task, so that it is carried out even if the client no longer waits.
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

/// Shifts the times of a Lease.
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
