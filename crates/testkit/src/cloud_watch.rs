//! The part of CloudWatch Logs that a reader uses, and the part of STS that IRSA needs, on one
//! loopback port. It fails on cue.
//!
//! It follows the CloudWatch Logs API Reference (`FilterLogEvents`): both ends of the time range
//! are inclusive, events of all streams are interleaved by time, a page holds up to 10,000 events
//! or 1 MB and may be empty although there is a next one, and tokens are opaque. It asserts
//! nothing, but records requests.

mod log;
mod server;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::SignedDuration;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub(crate) use self::server::{cut, error, reply};

/// What happens to one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CloudWatchFault {
    /// The service's error: status, code, message.
    Error(u16, &'static str, &'static str),
    /// Status 200 with a body that is no JSON.
    Garbage,
    /// Half of an answer, then the connection ends.
    Cut,
    /// The answer comes after this wait.
    Slow(Duration),
}

impl CloudWatchFault {
    /// The error for too many requests.
    pub fn throttled() -> CloudWatchFault {
        CloudWatchFault::Error(400, "ThrottlingException", "Rate exceeded")
    }

    /// The error for a role that may not read the group.
    pub fn denied() -> CloudWatchFault {
        CloudWatchFault::Error(
            400,
            "AccessDeniedException",
            "User: arn:aws:sts::123456789012:assumed-role/reader/x is not authorized to perform: \
             logs:FilterLogEvents on resource: arn:aws:logs:eu-central-1:123456789012:log-group:g",
        )
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct CloudWatchRequest {
    /// Service and action: `logs:FilterLogEvents`, `sts:AssumeRoleWithWebIdentity`.
    pub action: String,
    pub body: Value,
    /// The access key of the signature, if the request is signed.
    pub access_key: Option<String>,
}

/// One event of a group.
#[derive(Debug, Clone)]
struct LogEvent {
    stream: String,
    timestamp: i64,
    ingestion: i64,
    message: String,
    id: String,
    visible: Instant,
}

type Chooser = Box<dyn FnMut(&CloudWatchRequest) -> Option<CloudWatchFault> + Send>;

struct State {
    groups: HashMap<String, Vec<LogEvent>>,
    next_id: u64,
    page_events_max: usize,
    empty_pages: usize,
    tokens: BTreeMap<String, log::PagePosition>,
    script: VecDeque<CloudWatchFault>,
    chooser: Option<Chooser>,
    recorded: Vec<CloudWatchRequest>,
    clock_ahead: SignedDuration,
    /// Validity of STS credentials; requests with an older key are refused.
    credentials_last: Duration,
    issued: HashMap<String, Instant>,
    before_credentials: String,
    web_identity: Option<String>,
    external_id: Option<String>,
    infrequent_access: HashSet<String>,
    sensitive: Option<String>,
}

/// The stand-in. Dropping it stops it.
pub struct CloudWatch {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

impl std::fmt::Debug for CloudWatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CloudWatch")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Drop for CloudWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl CloudWatch {
    /// Starts without groups.
    pub async fn start() -> CloudWatch {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State {
            groups: HashMap::new(),
            next_id: 0,
            page_events_max: 10_000,
            empty_pages: 0,
            tokens: BTreeMap::new(),
            script: VecDeque::new(),
            chooser: None,
            recorded: Vec::new(),
            clock_ahead: SignedDuration::ZERO,
            credentials_last: Duration::from_secs(3600),
            issued: HashMap::new(),
            before_credentials: String::new(),
            web_identity: None,
            external_id: None,
            infrequent_access: HashSet::new(),
            sensitive: None,
        }));
        let router = server::router(Arc::clone(&state));
        let task = tokio::spawn(async move {
            axum::serve(listener, router).await.unwrap();
        });
        CloudWatch {
            address,
            state,
            task,
        }
    }

    /// The value for `AWS_ENDPOINT_URL`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Creates a group.
    pub fn group(&self, group: &str) {
        self.lock().groups.entry(group.to_owned()).or_default();
    }

    /// Creates a group of the class Infrequent Access.
    pub fn infrequent_access(&self, group: &str) {
        self.group(group);
        self.lock().infrequent_access.insert(group.to_owned());
    }

    /// A data protection policy masks this text with asterisks, unless a request unmasks it.
    pub fn sensitive(&self, text: &str) {
        self.lock().sensitive = Some(text.to_owned());
    }

    /// Adds an event that is visible at once. Returns its ID.
    pub fn put(&self, group: &str, stream: &str, timestamp_ms: i64, message: &str) -> String {
        self.put_late(group, stream, timestamp_ms, message, Duration::ZERO)
    }

    /// Adds an event that becomes visible after this wait.
    pub fn put_late(
        &self,
        group: &str,
        stream: &str,
        timestamp_ms: i64,
        message: &str,
        after: Duration,
    ) -> String {
        let mut state = self.lock();
        state.next_id += 1;
        // As long as real IDs, and composed of the time like them.
        let id = format!("{timestamp_ms:020}{:036}", state.next_id);
        let late = i64::try_from(after.as_millis()).unwrap_or(0);
        let event = LogEvent {
            stream: stream.to_owned(),
            timestamp: timestamp_ms,
            ingestion: timestamp_ms + late,
            message: message.to_owned(),
            id: id.clone(),
            visible: Instant::now() + after,
        };
        state
            .groups
            .entry(group.to_owned())
            .or_default()
            .push(event);
        id
    }

    /// Removes events older than this, as retention does.
    pub fn trim(&self, before_ms: i64) {
        for events in self.lock().groups.values_mut() {
            events.retain(|event| event.timestamp >= before_ms);
        }
    }

    /// Limits pages to this many events.
    pub fn page_events_max(&self, events: usize) {
        self.lock().page_events_max = events;
    }

    /// Sets how far its clock is ahead of this machine's.
    pub fn set_clock_ahead(&self, by: SignedDuration) {
        self.lock().clock_ahead = by;
    }

    /// Sends this many empty pages before each page with events.
    pub fn empty_pages(&self, pages: usize) {
        self.lock().empty_pages = pages;
    }

    /// Faults of the next requests to the logs, one each.
    pub fn script(&self, faults: impl IntoIterator<Item = CloudWatchFault>) {
        self.lock().script.extend(faults);
    }

    /// Decides about every request to the logs that the script does not cover.
    pub fn choose(
        &self,
        chooser: impl FnMut(&CloudWatchRequest) -> Option<CloudWatchFault> + Send + 'static,
    ) {
        self.lock().chooser = Some(Box::new(chooser));
    }

    /// Removes all faults.
    pub fn clear_faults(&self) {
        let mut state = self.lock();
        state.chooser = None;
        state.script.clear();
    }

    /// Accepts only this web identity token, for credentials of this validity, and from then on
    /// only such credentials.
    pub fn web_identity(&self, token: &str, last: Duration) {
        let mut state = self.lock();
        state.web_identity = Some(token.to_owned());
        state.credentials_last = last;
    }

    /// Refuses all credentials that were issued so far.
    pub fn revoke_credentials(&self) {
        self.lock().issued.clear();
    }

    /// The identity service's answers with credentials begin with this text.
    pub fn say_before_credentials(&self, text: &str) {
        text.clone_into(&mut self.lock().before_credentials);
    }

    /// Allows assuming roles only with this external ID.
    pub fn external_id(&self, id: &str) {
        self.lock().external_id = Some(id.to_owned());
    }

    /// All requests so far.
    pub fn recorded(&self) -> Vec<CloudWatchRequest> {
        self.lock().recorded.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
