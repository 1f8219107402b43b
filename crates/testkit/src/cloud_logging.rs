//! Cloud Logging's `entries.list` over REST, and the metadata server on the same port.
//!
//! It stores entries as text and returns them byte for byte, so they may be anything, even no
//! entries. It follows Google's rules: ascending or descending order by time and insert ID, at most
//! 1000 entries a page, tokens that belong to one query, one entry per log, time and insert ID.
//! Entries that the caller may not read are left out without an error, as long as it may read
//! something. It fails on cue.

mod filter;
mod log;
mod metadata;
mod permissions;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::header::{CONTENT_TYPE, DATE};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::Response;
use futures_util::stream::iter;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;

pub use self::log::Listed;
use self::log::{CloudLoggingState, PAGE_SIZE_MAX, StoredEntry};
pub use self::metadata::Metadata;
pub use self::permissions::LogPermissions;
use crate::http_date::http_date;
use crate::tls::TlsPort;

/// What happens to one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CloudLoggingFault {
    /// Answered with this status, and Google's error object with this message.
    Status(u16, &'static str),
    /// Answered with 429 and this `Retry-After`.
    RetryAfter(&'static str),
    /// Never answered.
    Silence,
    /// Answered after this wait.
    Slow(Duration),
    /// The connection breaks within the answer.
    Cut,
    /// Answered with 200 and this body.
    Body(&'static str),
}

/// The stand-in, on its own port. Dropping it stops it.
#[derive(Debug)]
pub struct CloudLogging {
    address: SocketAddr,
    scheme: &'static str,
    state: Arc<Mutex<CloudLoggingState>>,
    task: JoinHandle<()>,
}

impl Drop for CloudLogging {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl CloudLogging {
    /// An empty log that accepts every caller.
    pub async fn start() -> CloudLogging {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        CloudLogging::serve(listener, None)
    }

    /// The same over TLS, with a token endpoint (`/v1/token`) like that of Google's Security Token
    /// Service.
    pub async fn start_tls(acceptor: TlsAcceptor) -> CloudLogging {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        CloudLogging::serve(listener, Some(acceptor))
    }

    fn serve(listener: TcpListener, tls: Option<TlsAcceptor>) -> CloudLogging {
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(CloudLoggingState {
            page_max: PAGE_SIZE_MAX,
            ..CloudLoggingState::default()
        }));
        let shared = Arc::clone(&state);
        let service = Router::new().fallback(move |request: Request| {
            let state = Arc::clone(&shared);
            async move { answer(&state, request).await }
        });
        let scheme = if tls.is_some() { "https" } else { "http" };
        let task = tokio::spawn(async move {
            let _ = match tls {
                None => axum::serve(listener, service).await,
                Some(acceptor) => axum::serve(TlsPort { listener, acceptor }, service).await,
            };
        });
        CloudLogging {
            address,
            scheme,
            state,
            task,
        }
    }

    /// `http://127.0.0.1:port`, for `--logging-endpoint`.
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// `127.0.0.1:port`, for `GCE_METADATA_HOST`.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// Stores an entry under its own `timestamp`.
    ///
    /// # Panics
    /// The text is no JSON with a time; see [`CloudLogging::put_stray`].
    pub fn put(&self, entry: impl Into<String>) {
        self.put_late(entry, Duration::ZERO);
    }

    /// Stores an entry that becomes visible after this wait.
    ///
    /// # Panics
    /// As [`CloudLogging::put`].
    pub fn put_late(&self, entry: impl Into<String>, after: Duration) {
        let text = entry.into();
        let value: Value = serde_json::from_str(&text).expect("an entry");
        let time = value["timestamp"].as_str().expect("a timestamp");
        let insert_id = value["insertId"].as_str().unwrap_or_default().to_owned();
        let stored = StoredEntry {
            time: time.parse().expect("a time"),
            insert_id,
            visible: Instant::now() + after,
            stray: false,
            value,
            text,
        };
        self.lock().entries.push(stored);
    }

    /// Stores a text under this time. It may be any text that fits into an array, and is in every
    /// answer that covers the time.
    pub fn put_stray(&self, time: Timestamp, text: &str) {
        let mut state = self.lock();
        let insert_id = format!("stray-{}", state.entries.len());
        state.entries.push(StoredEntry {
            text: text.to_owned(),
            value: Value::Null,
            time,
            insert_id,
            visible: Instant::now(),
            stray: true,
        });
    }

    /// Applies this fault to the next request; several queue up. Requests for one entry, which only
    /// test whether there is any, are exempt.
    pub fn fail_next(&self, fault: CloudLoggingFault) {
        self.lock().next.push_back(fault);
    }

    /// Applies this fault to every request, until set to `None`.
    pub fn fail_always(&self, fault: Option<CloudLoggingFault>) {
        self.lock().always = fault;
    }

    /// Limits pages to this many entries, whatever the request says.
    pub fn pages_of(&self, entries: u64) {
        self.lock().page_max = entries;
    }

    /// Answers the first page of each query with a token and no entries, as the service does when
    /// it has not searched all of it yet.
    pub fn begin_with_empty_pages(&self) {
        self.lock().first_pages_empty = true;
    }

    /// Invalidates all page tokens.
    pub fn expire_tokens(&self) {
        self.lock().tokens.clear();
    }

    /// Requires a bearer token with this prefix.
    pub fn require_token(&self, prefix: &str) {
        self.lock().token_prefix = Some(prefix.to_owned());
    }

    /// Sets the caller's permissions.
    pub fn permit(&self, permissions: LogPermissions) {
        self.lock().permissions = permissions;
    }

    /// Allows listing only this project's log.
    pub fn only_project(&self, project: &str) {
        self.lock().permissions.resources = Some(vec![format!("projects/{project}")]);
    }

    /// Sets whether the caller may list Data Access logs.
    pub fn private_logs(&self, allowed: bool) {
        self.lock().permissions.private_entries = allowed;
    }

    /// Adds all entries of these logs, by log ID, to this view, as a sink does.
    pub fn route(&self, view: &str, log_ids: &[&str]) {
        let log_ids = log_ids.iter().map(|&id| id.to_owned()).collect();
        self.lock().routes.push((view.to_owned(), log_ids));
    }

    /// Sets how far its clock is ahead of this machine's.
    pub fn set_clock_ahead(&self, by: SignedDuration) {
        self.lock().clock_ahead = by;
    }

    /// Sets the metadata server's answers.
    pub fn metadata(&self, metadata: Metadata) {
        self.lock().metadata = metadata;
    }

    /// The paths requested from the metadata server, below `/computeMetadata/v1/`.
    pub fn metadata_paths(&self) -> Vec<String> {
        self.lock().metadata_paths.clone()
    }

    /// All requests for entries so far.
    pub fn requests(&self) -> Vec<Listed> {
        self.lock().requests.clone()
    }

    fn lock(&self) -> MutexGuard<'_, CloudLoggingState> {
        lock(&self.state)
    }
}

fn lock(state: &Mutex<CloudLoggingState>) -> MutexGuard<'_, CloudLoggingState> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn answer(state: &Mutex<CloudLoggingState>, request: Request) -> Response {
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
        let hangs = {
            let mut state = lock(state);
            state.metadata_paths.push(path.to_owned());
            state.metadata.hangs && path.ends_with("/token")
        };
        if hangs {
            std::future::pending::<()>().await;
        }
        let mut state = lock(state);
        let number = state.issued.len() + 1;
        let (status, body) = state.metadata.answer(path, number);
        state.issue(&body);
        return response(status, &body);
    }
    if path == "/v1/token" {
        let mut state = lock(state);
        let body = json!({
            "access_token": format!("exchanged-{}", state.issued.len() + 1),
            "expires_in": 3600,
            "token_type": "Bearer",
            "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
        });
        let body = body.to_string();
        state.issue(&body);
        return response(StatusCode::OK, &body);
    }
    if parts.method != Method::POST || path != "/v2/entries:list" {
        return failure(404, "no such method");
    }
    let body = to_bytes(body, 1 << 20).await.unwrap_or_default();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let (number, fault) = {
        let mut state = lock(state);
        let listed = Listed::of(&parts.headers, &body);
        let scripted = match listed.page_size {
            Some(1) => None,
            _ => state.next.pop_front(),
        };
        state.requests.push(listed);
        let fault = scripted.or_else(|| state.always.clone());
        (state.requests.len() - 1, fault)
    };
    let carry_out = || lock(state).list(number);
    let response = match fault {
        None => carry_out(),
        Some(CloudLoggingFault::Status(status, message)) => failure(status, message),
        Some(CloudLoggingFault::RetryAfter(after)) => {
            let mut response = failure(429, "Quota exceeded for quota metric 'Read requests'");
            response
                .headers_mut()
                .insert("retry-after", after.parse().unwrap());
            response
        }
        Some(CloudLoggingFault::Silence) => std::future::pending().await,
        Some(CloudLoggingFault::Slow(wait)) => {
            sleep(wait).await;
            carry_out()
        }
        Some(CloudLoggingFault::Cut) => {
            let body = to_bytes(carry_out().into_body(), usize::MAX).await.unwrap();
            let half = body.slice(..body.len() / 2);
            let broken = std::io::Error::other("scripted");
            Response::new(Body::from_stream(iter([Ok(half), Err(broken)])))
        }
        Some(CloudLoggingFault::Body(body)) => response(StatusCode::OK, body),
    };
    let mut response = response;
    let mut state = lock(state);
    state.requests[number].status = response.status().as_u16();
    let date = http_date(state.clock_ahead);
    response.headers_mut().insert(DATE, date);
    response
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
    // GKE's metadata server adds this header to all answers, and clients require it.
    let flavor = "Google".parse().unwrap();
    response.headers_mut().insert("metadata-flavor", flavor);
    response
}
