//! Cloud Logging's `entries.list` over REST, and the metadata server on the same port.
//!
//! It holds entries as texts and returns them byte for byte, so that they may be anything, also no
//! entries at all. It keeps Google's rules: ascending or descending by time and insert id, at most
//! 1000 a page, tokens that belong to one query, one of several entries with the same log, time and
//! insert id. It fails on cue.

mod filter;
mod metadata;

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::Response;
use futures_util::stream::iter;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use self::filter::Filter;
pub use self::metadata::Metadata;

/// The largest page that may be asked for.
const PAGE_SIZE_MAX: u64 = 1000;
/// The page that comes when none is asked for.
const PAGE_SIZE: u64 = 50;

/// What becomes of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// It is answered with this status, and Google's error object around this message.
    Status(u16, &'static str),
    /// It is answered with 429 and this `Retry-After`.
    RetryAfter(&'static str),
    /// It is never answered.
    Silence,
    /// It is answered after this wait.
    Slow(Duration),
    /// The connection breaks in the middle of the answer.
    Cut,
    /// The answer is 200 with this body.
    Body(&'static str),
}

/// A request for entries as it came, and what it came to.
#[derive(Debug, Clone)]
pub struct Listed {
    /// `resourceNames`
    pub resource_names: Vec<String>,
    /// `filter`
    pub filter: String,
    /// `orderBy`
    pub order_by: String,
    /// `pageSize`, as it was sent.
    pub page_size: Option<u64>,
    /// `pageToken`; empty for a first page.
    pub page_token: String,
    /// The header.
    pub authorization: Option<String>,
    /// When it came.
    pub at: Instant,
    /// The status of its answer; 0 as long as there is none.
    pub status: u16,
    /// How many entries the answer had.
    pub entries: usize,
}

#[derive(Debug)]
struct Stored {
    text: String,
    value: Value,
    time: Timestamp,
    /// Ties are broken by it, and it tells duplicates.
    insert_id: String,
    visible: Instant,
    /// It is in every answer about its time, whatever the filter asks.
    stray: bool,
}

/// Time, insert id and log: the order of entries, and what tells them from each other.
type Key = (Timestamp, String, String);

#[derive(Debug)]
struct State {
    entries: Vec<Stored>,
    requests: Vec<Listed>,
    next: VecDeque<Fault>,
    always: Option<Fault>,
    /// By token: the query it belongs to, and the last entry that was given.
    tokens: HashMap<String, (String, Key)>,
    tokens_issued: u64,
    page_max: u64,
    token_prefix: Option<String>,
    project: Option<String>,
    private_logs: bool,
    metadata: Metadata,
    metadata_tokens: u64,
    metadata_paths: Vec<String>,
}

/// The fake on a port of its own. It stops when it is dropped.
#[derive(Debug)]
pub struct CloudLogging {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

impl Drop for CloudLogging {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl CloudLogging {
    /// An empty log that lets everybody in.
    pub async fn start() -> CloudLogging {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State {
            entries: Vec::new(),
            requests: Vec::new(),
            next: VecDeque::new(),
            always: None,
            tokens: HashMap::new(),
            tokens_issued: 0,
            page_max: PAGE_SIZE_MAX,
            token_prefix: None,
            project: None,
            private_logs: true,
            metadata: Metadata::default(),
            metadata_tokens: 0,
            metadata_paths: Vec::new(),
        }));
        let shared = Arc::clone(&state);
        let service = Router::new().fallback(move |request: Request| {
            let state = Arc::clone(&shared);
            async move { answer(&state, request).await }
        });
        let task = tokio::spawn(async move {
            let _ = axum::serve(listener, service).await;
        });
        CloudLogging {
            address,
            state,
            task,
        }
    }

    /// `http://127.0.0.1:port`, for `--logging-endpoint`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// `127.0.0.1:port`, for `GCE_METADATA_HOST`.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// Files an entry under its own `timestamp`.
    ///
    /// # Panics
    /// When the text is no JSON with a time; see [`CloudLogging::put_stray`].
    pub fn put(&self, entry: impl Into<String>) {
        self.put_late(entry, Duration::ZERO);
    }

    /// Files an entry that shows only after this wait.
    ///
    /// # Panics
    /// As [`CloudLogging::put`].
    pub fn put_late(&self, entry: impl Into<String>, after: Duration) {
        let text = entry.into();
        let value: Value = serde_json::from_str(&text).expect("an entry");
        let time = value["timestamp"].as_str().expect("a timestamp");
        let insert_id = value["insertId"].as_str().unwrap_or_default().to_owned();
        let stored = Stored {
            time: time.parse().expect("a time"),
            insert_id,
            visible: Instant::now() + after,
            stray: false,
            value,
            text,
        };
        self.lock().entries.push(stored);
    }

    /// Files a text under a time of its own. It may be anything that can stand in an array, and is
    /// in every answer about that time.
    pub fn put_stray(&self, time: Timestamp, text: &str) {
        let mut state = self.lock();
        let insert_id = format!("stray-{}", state.entries.len());
        state.entries.push(Stored {
            text: text.to_owned(),
            value: Value::Null,
            time,
            insert_id,
            visible: Instant::now(),
            stray: true,
        });
    }

    /// Lets the next request meet this fault; more than one queue up.
    pub fn fail_next(&self, fault: Fault) {
        self.lock().next.push_back(fault);
    }

    /// Lets every request meet this fault, until it is `None`.
    pub fn fail_always(&self, fault: Option<Fault>) {
        self.lock().always = fault;
    }

    /// Answers with at most so many entries a page, whatever is asked.
    pub fn pages_of(&self, entries: u64) {
        self.lock().page_max = entries;
    }

    /// No page token that was given out is good any more.
    pub fn expire_tokens(&self) {
        self.lock().tokens.clear();
    }

    /// Asks every request for a bearer token that begins so.
    pub fn require_token(&self, prefix: &str) {
        self.lock().token_prefix = Some(prefix.to_owned());
    }

    /// Only this project's log may be listed.
    pub fn only_project(&self, project: &str) {
        self.lock().project = Some(project.to_owned());
    }

    /// Whether the caller may list Data Access logs.
    pub fn private_logs(&self, allowed: bool) {
        self.lock().private_logs = allowed;
    }

    /// What the metadata server says from now on.
    pub fn metadata(&self, metadata: Metadata) {
        self.lock().metadata = metadata;
    }

    /// What was asked of the metadata server so far, below `/computeMetadata/v1/`.
    pub fn metadata_paths(&self) -> Vec<String> {
        self.lock().metadata_paths.clone()
    }

    /// All requests for entries so far.
    pub fn requests(&self) -> Vec<Listed> {
        self.lock().requests.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn answer(state: &Mutex<State>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path();
    if let Some(path) = path.strip_prefix("/computeMetadata/v1/") {
        if parts
            .headers
            .get("metadata-flavor")
            .map(HeaderValue::as_bytes)
            != Some(b"Google")
        {
            return response(
                StatusCode::FORBIDDEN,
                "Missing Metadata-Flavor:Google header",
            );
        }
        let mut state = lock(state);
        state.metadata_paths.push(path.to_owned());
        let mut tokens = state.metadata_tokens;
        let (status, body) = state.metadata.answer(path, &mut tokens);
        state.metadata_tokens = tokens;
        return response(status, &body);
    }
    if parts.method != Method::POST || path != "/v2/entries:list" {
        return failure(404, "no such method");
    }
    let body = to_bytes(body, 1 << 20).await.unwrap_or_default();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let (number, fault) = {
        let mut state = lock(state);
        state.requests.push(listed(&parts.headers, &body));
        let fault = state.next.pop_front().or_else(|| state.always.clone());
        (state.requests.len() - 1, fault)
    };
    let carry_out = || lock(state).list(number);
    let response = match fault {
        None => carry_out(),
        Some(Fault::Status(status, message)) => failure(status, message),
        Some(Fault::RetryAfter(after)) => {
            let mut response = failure(429, "Quota exceeded for quota metric 'Read requests'");
            response
                .headers_mut()
                .insert("retry-after", after.parse().unwrap());
            response
        }
        Some(Fault::Silence) => std::future::pending().await,
        Some(Fault::Slow(wait)) => {
            sleep(wait).await;
            carry_out()
        }
        Some(Fault::Cut) => {
            let body = to_bytes(carry_out().into_body(), usize::MAX).await.unwrap();
            let half = body.slice(..body.len() / 2);
            let broken = std::io::Error::other("scripted");
            Response::new(Body::from_stream(iter([Ok(half), Err(broken)])))
        }
        Some(Fault::Body(body)) => response(StatusCode::OK, body),
    };
    lock(state).requests[number].status = response.status().as_u16();
    response
}

fn listed(headers: &HeaderMap, body: &Value) -> Listed {
    let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
    let names = body["resourceNames"].as_array().into_iter().flatten();
    Listed {
        resource_names: names
            .filter_map(|name| name.as_str())
            .map(str::to_owned)
            .collect(),
        filter: text("filter"),
        order_by: text("orderBy"),
        page_size: body["pageSize"].as_u64(),
        page_token: text("pageToken"),
        authorization: headers
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned),
        at: Instant::now(),
        status: 0,
        entries: 0,
    }
}

impl State {
    /// Whether the caller may list this.
    fn admits(&self, request: &Listed, filter: &Filter) -> Result<(), (u16, &'static str)> {
        if let Some(prefix) = &self.token_prefix {
            let bearer = request.authorization.as_deref().unwrap_or_default();
            let token = bearer.strip_prefix("Bearer ").unwrap_or_default();
            if !token.starts_with(prefix) {
                let message = "Request had invalid authentication credentials. Expected OAuth 2 \
                               access token";
                return Err((401, message));
            }
        }
        let foreign = |name: &String| {
            let project = self.project.as_deref();
            project.is_some_and(|project| *name != format!("projects/{project}"))
        };
        if request.resource_names.iter().any(foreign) {
            let message = "Permission 'logging.logEntries.list' denied on resource (or it may not \
                           exist).";
            return Err((403, message));
        }
        if !self.private_logs && filter.names("%2Fdata_access") {
            let message = "Permission 'logging.privateLogEntries.list' denied on resource.";
            return Err((403, message));
        }
        Ok(())
    }

    fn list(&mut self, number: usize) -> Response {
        let request = self.requests[number].clone();
        if request.resource_names.is_empty() {
            return failure(400, "resource_names must not be empty");
        }
        let filter = match Filter::parse(&request.filter) {
            Ok(filter) => filter,
            Err(error) => return failure(400, &format!("Unparseable filter: {error}")),
        };
        if let Err((status, message)) = self.admits(&request, &filter) {
            return failure(status, message);
        }
        let descending = match request.order_by.as_str() {
            "" | "timestamp asc" => false,
            "timestamp desc" => true,
            other => return failure(400, &format!("Unsupported order_by {other:?}")),
        };
        let size = request.page_size.unwrap_or(PAGE_SIZE);
        if size > PAGE_SIZE_MAX {
            return failure(400, "page_size must not exceed 1000");
        }
        let size = if size == 0 { PAGE_SIZE } else { size };
        // The page's size may change between two pages of a query, nothing else may.
        let query = json!([request.resource_names, request.filter, descending]).to_string();
        let after = match self.tokens.get(&request.page_token) {
            Some((of, after)) if *of == query => Some(after.clone()),
            Some(_) => return failure(400, "page_token doesn't match arguments from the request"),
            None if request.page_token.is_empty() => None,
            None => return failure(400, "The page_token is invalid or has expired"),
        };
        let now = Instant::now();
        let mut found: Vec<&Stored> = self
            .entries
            .iter()
            .filter(|entry| entry.visible <= now)
            .filter(|entry| {
                // A stray has no members: only the bounds of time speak of it.
                let time_only = |filter: &Filter| match filter {
                    Filter::Compare { path, .. } if *path != ["timestamp"] => true,
                    Filter::Any(_) | Filter::Not(_) => true,
                    other => other.matches(&Value::Null, entry.time),
                };
                match (&filter, entry.stray) {
                    (Filter::All(all), true) => all.iter().all(time_only),
                    (filter, _) => filter.matches(&entry.value, entry.time),
                }
            })
            .collect();
        found.sort_by(|a, b| {
            let order = a.key().cmp(&b.key());
            if descending { order.reverse() } else { order }
        });
        found.dedup_by(|a, b| !a.insert_id.is_empty() && a.key() == b.key());
        let mut rest = found.into_iter().skip_while(|entry| match &after {
            None => false,
            Some(after) if descending => entry.key() >= *after,
            Some(after) => entry.key() <= *after,
        });
        let size = usize::try_from(size.min(self.page_max)).unwrap();
        let page: Vec<&Stored> = rest.by_ref().take(size).collect();
        let more = rest.next().is_some();
        let last = page.last().map(|entry| entry.key());
        let texts: Vec<&str> = page.iter().map(|entry| entry.text.as_str()).collect();
        let mut body = match texts.is_empty() {
            true => "{".to_owned(),
            false => format!("{{\"entries\":[{}]", texts.join(",")),
        };
        let entries = texts.len();
        if let (true, Some(last)) = (more, last) {
            self.tokens_issued += 1;
            let token = format!("token-{}", self.tokens_issued);
            let comma = if entries == 0 { "" } else { "," };
            body.push_str(&format!("{comma}\"nextPageToken\":\"{token}\""));
            self.tokens.insert(token, (query, last));
        }
        body.push('}');
        self.requests[number].entries = entries;
        response(StatusCode::OK, &body)
    }
}

impl Stored {
    fn key(&self) -> Key {
        let log = self.value["logName"].as_str().unwrap_or_default();
        (self.time, self.insert_id.clone(), log.to_owned())
    }
}

/// Google's error object.
fn failure(code: u16, message: &str) -> Response {
    let status = match code {
        400 => "INVALID_ARGUMENT",
        401 => "UNAUTHENTICATED",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        429 => "RESOURCE_EXHAUSTED",
        503 => "UNAVAILABLE",
        504 => "DEADLINE_EXCEEDED",
        _ => "INTERNAL",
    };
    let body = json!({"error": {"code": code, "message": message, "status": status}});
    let code = StatusCode::from_u16(code).unwrap_or(StatusCode::IM_A_TEAPOT);
    response(code, &body.to_string())
}

fn response(status: StatusCode, body: &str) -> Response {
    let mut response = Response::new(Body::from(body.to_owned()));
    *response.status_mut() = status;
    let kind = "application/json; charset=UTF-8".parse().unwrap();
    response.headers_mut().insert(CONTENT_TYPE, kind);
    // GKE's metadata server signs all its answers so, and clients ask for it.
    let flavor = "Google".parse().unwrap();
    response.headers_mut().insert("metadata-flavor", flavor);
    response
}
