//! The part of Kinesis Data Streams that a reader and a writer use, on a loopback port or in
//! process. It fails on cue.
//!
//! It follows the Kinesis Data Streams API Reference and Developer Guide; where these say nothing,
//! a comment names who observed the behaviour. [`Kinesis::start`] listens and speaks JSON 1.1
//! (signatures are not verified); [`Kinesis::in_process`] only answers [`Kinesis::call`]. It uses
//! tokio's clock, which stands still in tests with paused time; [`Kinesis::advance`] moves it. It
//! asserts nothing, but records requests, written records and served records.
//!
//! Not modelled: enhanced fan-out, consumers, tags, mode changes, `UpdateShardCount` (use
//! [`Kinesis::split`] and [`Kinesis::merge`]), the time that creating a stream takes.

mod account;
mod controls;
mod entries;
mod error;
mod filter;
mod members;
mod operations;
mod quota;
mod read;
mod sequence;
mod server;
mod stream;
pub mod subscription;
mod token;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

pub use self::account::shard_of_iterator;
pub use self::controls::ShardStatus;
pub use self::entries::{OrderBreach, ReadCall, WrittenRecord};
pub use self::error::{
    ServiceError, access_denied, internal_failure, iterator_expired, kms_faults,
    throughput_exceeded,
};
pub use self::filter::SubscriptionFilter;
pub use crate::cloud_watch::{CloudWatchFault, CloudWatchRequest};

/// The account of all streams.
pub const ACCOUNT: &str = "123456789012";
/// The region of all streams.
pub const REGION: &str = "eu-central-1";

/// Why a call in process failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallError {
    /// The service refused it.
    Service(ServiceError),
    /// The answer was incomplete ([`CloudWatchFault::Cut`], [`CloudWatchFault::Garbage`]). The
    /// operation was carried out.
    Broken,
}

type Chooser = Box<dyn FnMut(&CloudWatchRequest) -> Option<CloudWatchFault> + Send>;

/// The clock of the service.
struct Clock {
    start: Instant,
    start_ms: i64,
    moved_ms: i64,
}

impl Clock {
    fn new(start_ms: i64) -> Clock {
        Clock {
            start: Instant::now(),
            start_ms,
            moved_ms: 0,
        }
    }

    fn now_ms(&self) -> i64 {
        let passed = i64::try_from(self.start.elapsed().as_millis()).unwrap();
        self.start_ms + passed + self.moved_ms
    }
}

#[derive(Debug, Clone)]
struct Settings {
    answer_records_max: usize,
    answer_bytes_max: usize,
    empty_answers: usize,
    end_apart: bool,
    iterators_last_ms: i64,
    list_shards_max: usize,
    read_quotas: bool,
    resharding_takes_ms: i64,
    trimmed_stuck: bool,
    write_quotas: bool,
}

struct State {
    clock: Clock,
    settings: Settings,
    streams: BTreeMap<String, stream::Stream>,
    /// Iterators of earlier generations have expired.
    generation: u64,
    summaries: quota::Meter,
    /// Whether the current answer will arrive complete.
    intact: bool,
    scripts: HashMap<String, VecDeque<CloudWatchFault>>,
    refused: HashMap<String, CloudWatchFault>,
    chooser: Option<Chooser>,
    held: watch::Sender<Vec<String>>,
    recorded: Vec<CloudWatchRequest>,
}

impl State {
    fn new(start_ms: i64) -> State {
        State {
            clock: Clock::new(start_ms),
            settings: Settings {
                answer_records_max: read::ANSWER_RECORDS_MAX,
                answer_bytes_max: read::ANSWER_BYTES_MAX,
                empty_answers: 0,
                end_apart: false,
                iterators_last_ms: 300_000,
                list_shards_max: 1000,
                read_quotas: false,
                resharding_takes_ms: 0,
                trimmed_stuck: false,
                write_quotas: false,
            },
            streams: BTreeMap::new(),
            generation: 0,
            summaries: quota::Meter::new(quota::Quota::SUMMARIES),
            intact: true,
            scripts: HashMap::new(),
            refused: HashMap::new(),
            chooser: None,
            held: watch::Sender::new(Vec::new()),
            recorded: Vec::new(),
        }
    }
}

/// The stand-in. Dropping it stops it.
pub struct Kinesis {
    state: Arc<Mutex<State>>,
    listening: Option<(SocketAddr, JoinHandle<()>)>,
}

impl std::fmt::Debug for Kinesis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let address = self.listening.as_ref().map(|(address, _)| address);
        f.debug_struct("Kinesis")
            .field("address", &address)
            .finish_non_exhaustive()
    }
}

impl Drop for Kinesis {
    fn drop(&mut self) {
        if let Some((_, task)) = &self.listening {
            task.abort();
        }
    }
}

impl Kinesis {
    /// Listens, without streams. Its clock starts at the machine's time.
    pub async fn start() -> Kinesis {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let start_ms = i64::try_from(since.as_millis()).unwrap();
        let state = Arc::new(Mutex::new(State::new(start_ms)));
        let router = server::router(Arc::clone(&state));
        let task = tokio::spawn(async move {
            axum::serve(listener, router).await.unwrap();
        });
        Kinesis {
            state,
            listening: Some((address, task)),
        }
    }

    /// Only answers [`Kinesis::call`], without streams. Its clock starts at this time, so that a
    /// run with paused time can be repeated; create it in the runtime whose time is paused.
    pub fn in_process(start_ms: i64) -> Kinesis {
        Kinesis {
            state: Arc::new(Mutex::new(State::new(start_ms))),
            listening: None,
        }
    }

    /// The value for `AWS_ENDPOINT_URL_KINESIS`.
    pub fn url(&self) -> String {
        let (address, _) = self.listening.as_ref().expect("it listens");
        format!("http://{address}")
    }

    /// Calls an operation (`GetRecords`) as over the network, including faults and holds.
    ///
    /// # Errors
    /// The service refuses the call, or a fault breaks the answer.
    pub async fn call(&self, operation: &str, body: &Value) -> Result<Value, CallError> {
        server::call(&self.state, operation, body).await
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
