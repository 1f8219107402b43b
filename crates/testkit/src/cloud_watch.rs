//! CloudWatch Logs as far as a reader sees it, and the part of STS that IRSA needs, on one loopback
//! port, failing on cue.
//!
//! What it does follows the CloudWatch Logs API Reference (`FilterLogEvents`): both bounds of the
//! time range are included, events of all streams are interleaved by time, a page holds up to 10,000
//! events or 1 MB, may be empty and still name a next one, and tokens are opaque. It asserts nothing
//! itself: requests are recorded.

mod log;
mod server;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub(crate) use self::server::{cut, error, reply};

/// What becomes of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CloudWatchFault {
    /// An error of the service: status, code, message.
    Error(u16, &'static str, &'static str),
    /// Something that is no JSON, with status 200.
    Garbage,
    /// Half an answer, and the end of the connection.
    Cut,
    /// The answer comes after so long.
    Slow(Duration),
}

impl CloudWatchFault {
    /// Too many requests.
    pub fn throttled() -> CloudWatchFault {
        CloudWatchFault::Error(400, "ThrottlingException", "Rate exceeded")
    }

    /// The role may not read the group.
    pub fn denied() -> CloudWatchFault {
        CloudWatchFault::Error(
            400,
            "AccessDeniedException",
            "User: arn:aws:sts::123456789012:assumed-role/reader/x is not authorized to perform: \
             logs:FilterLogEvents on resource: arn:aws:logs:eu-central-1:123456789012:log-group:g",
        )
    }
}

/// A request as it came.
#[derive(Debug, Clone, PartialEq)]
pub struct CloudWatchRequest {
    /// The action, with its service: `logs:FilterLogEvents`, `sts:AssumeRoleWithWebIdentity`.
    pub action: String,
    /// Its parameters.
    pub body: Value,
    /// The access key that signed it, if it is signed.
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
    /// How long credentials of STS are good; a key that is older is refused.
    credentials_last: Duration,
    issued: HashMap<String, Instant>,
    web_identity: Option<String>,
    external_id: Option<String>,
    infrequent_access: HashSet<String>,
    sensitive: Option<String>,
}

/// The stand-in. It stops when it is dropped.
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
    /// Starts without any group.
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
            credentials_last: Duration::from_secs(3600),
            issued: HashMap::new(),
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

    /// What `AWS_ENDPOINT_URL` has to say.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Makes a group.
    pub fn group(&self, group: &str) {
        self.lock().groups.entry(group.to_owned()).or_default();
    }

    /// Makes a group of the class Infrequent Access.
    pub fn infrequent_access(&self, group: &str) {
        self.group(group);
        self.lock().infrequent_access.insert(group.to_owned());
    }

    /// A data protection policy finds this text sensitive: asterisks stand for it, unless a request
    /// asks to unmask.
    pub fn sensitive(&self, text: &str) {
        self.lock().sensitive = Some(text.to_owned());
    }

    /// Puts an event that is visible at once. Returns its id.
    pub fn put(&self, group: &str, stream: &str, timestamp_ms: i64, message: &str) -> String {
        self.put_late(group, stream, timestamp_ms, message, Duration::ZERO)
    }

    /// Puts an event that becomes visible after a while.
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
        // As long as the real ones, and like them made of the time.
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

    /// Forgets events that were filed before this time, as retention does.
    pub fn trim(&self, before_ms: i64) {
        for events in self.lock().groups.values_mut() {
            events.retain(|event| event.timestamp >= before_ms);
        }
    }

    /// Pages hold no more events than this.
    pub fn page_events_max(&self, events: usize) {
        self.lock().page_events_max = events;
    }

    /// So many empty pages come before each one that is not.
    pub fn empty_pages(&self, pages: usize) {
        self.lock().empty_pages = pages;
    }

    /// What becomes of the next requests to the logs, one each.
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

    /// No more faults.
    pub fn clear_faults(&self) {
        let mut state = self.lock();
        state.chooser = None;
        state.script.clear();
    }

    /// From now on only this web identity token is exchanged, for credentials that last so long,
    /// and only such credentials are accepted.
    pub fn web_identity(&self, token: &str, last: Duration) {
        let mut state = self.lock();
        state.web_identity = Some(token.to_owned());
        state.credentials_last = last;
    }

    /// Roles are assumed only with this external ID.
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
