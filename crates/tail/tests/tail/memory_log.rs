//! A log in memory: every record becomes visible at its own time, and any request may fail.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use audit_bridge_core::record::{Origin, Record};
use audit_bridge_tail::{
    Clock, Identity, LogPage, PageEntry, QueryError, ServerClock, TimeLog, Window,
};
use jiff::Timestamp;
use tokio::time::{Instant, sleep};

use crate::at;

/// The bridge's clock: the paused one, plus an error.
#[derive(Clone)]
pub(crate) struct TestClock {
    origin: Instant,
    wrong_by_ms: Arc<AtomicI64>,
}

impl TestClock {
    pub(crate) fn set_wrong_by(&self, millis: i64) {
        self.wrong_by_ms.store(millis, Ordering::Relaxed);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        let millis = self.origin.elapsed().as_millis() as i64;
        at(millis + self.wrong_by_ms.load(Ordering::Relaxed))
    }
}

/// What happens to one request.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// Nothing unusual.
    None,
    /// No entries, but a token for the next page.
    Empty,
    /// This error.
    Error(QueryError),
    /// No answer at all.
    Silence,
    /// The client panics.
    Panic,
}

#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) id: u64,
    pub(crate) time: Timestamp,
    pub(crate) visible: Timestamp,
}

/// A request that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) window: Window,
    pub(crate) token: Option<String>,
}

#[derive(Clone)]
pub(crate) struct MemoryLog {
    clock: TestClock,
    resolution: Duration,
    state: Arc<Mutex<State>>,
    server_clock: Arc<ServerClock>,
}

struct State {
    records: Vec<Stored>,
    page_max: usize,
    latency_ms_max: u64,
    script: VecDeque<Fault>,
    /// One in this many requests fails at random; 0 means none.
    fault_in: u32,
    random: fastrand::Rng,
    requests: Vec<Request>,
    tells_time: bool,
}

impl MemoryLog {
    pub(crate) fn new(resolution: Duration) -> MemoryLog {
        MemoryLog {
            clock: TestClock {
                origin: Instant::now(),
                wrong_by_ms: Arc::default(),
            },
            resolution,
            state: Arc::new(Mutex::new(State {
                records: Vec::new(),
                page_max: 100,
                latency_ms_max: 0,
                script: VecDeque::new(),
                fault_in: 0,
                random: fastrand::Rng::with_seed(1),
                requests: Vec::new(),
                tells_time: false,
            })),
            server_clock: Arc::default(),
        }
    }

    pub(crate) fn millis() -> MemoryLog {
        MemoryLog::new(Duration::from_millis(1))
    }

    pub(crate) fn clock(&self) -> TestClock {
        self.clock.clone()
    }

    /// The same log to another process, which no answer has told the time yet.
    pub(crate) fn to_new_process(&self) -> MemoryLog {
        MemoryLog {
            server_clock: Arc::default(),
            ..self.clone()
        }
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.state.lock().expect("no panic holds it"))
    }

    /// Lets its answers tell the time, in whole seconds.
    pub(crate) fn tell_time(&self) {
        self.with(|state| state.tells_time = true);
    }

    /// Stores a record under `time` that is visible from `visible` on. Returns its number.
    pub(crate) fn put(&self, time: Timestamp, visible: Timestamp) -> u64 {
        self.with(|state| {
            let id = state.records.len() as u64;
            state.records.push(Stored { id, time, visible });
            id
        })
    }

    /// The same, in milliseconds from the start.
    pub(crate) fn put_ms(&self, time: i64, visible: i64) -> u64 {
        self.put(at(time), at(visible))
    }

    pub(crate) fn records(&self) -> Vec<Stored> {
        self.with(|state| state.records.clone())
    }

    pub(crate) fn pages_of(&self, page_max: usize) {
        self.with(|state| state.page_max = page_max);
    }

    pub(crate) fn slow(&self, latency_ms_max: u64) {
        self.with(|state| state.latency_ms_max = latency_ms_max);
    }

    pub(crate) fn faulty(&self, fault_in: u32, seed: u64) {
        self.with(|state| {
            state.fault_in = fault_in;
            state.random = fastrand::Rng::with_seed(seed);
        });
    }

    /// Sets the faults of the next requests.
    pub(crate) fn script(&self, faults: impl IntoIterator<Item = Fault>) {
        self.with(|state| state.script.extend(faults));
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.with(|state| state.requests.clone())
    }
}

impl State {
    fn fault(&mut self) -> Fault {
        if let Some(fault) = self.script.pop_front() {
            return fault;
        }
        if self.fault_in == 0 || self.random.u32(0..self.fault_in) != 0 {
            return Fault::None;
        }
        let detail = "weather".to_owned();
        match self.random.u32(0..7) {
            0 | 1 => Fault::Empty,
            2 => Fault::Error(QueryError::Throttled { after: None }),
            3 => Fault::Error(QueryError::TokenExpired),
            4 => Fault::Error(denied()),
            5 => Fault::Silence,
            _ => Fault::Error(QueryError::Transient { detail }),
        }
    }

    fn page(&self, window: &Window, token: Option<&str>, now: Timestamp, empty: bool) -> Page {
        // A token continues with what was visible when its first page was requested.
        let (offset, shown) = match token.and_then(|token| token.split_once('@')) {
            Some((offset, shown)) => (
                offset.parse().expect("an offset"),
                shown.parse().expect("a time"),
            ),
            None => (0, now),
        };
        let mut found: Vec<&Stored> = self
            .records
            .iter()
            .filter(|stored| window.contains(stored.time) && stored.visible <= shown)
            .collect();
        found.sort_by_key(|stored| (stored.time, stored.id));
        let take = if empty { 0 } else { self.page_max };
        let end = found.len().min(offset + take);
        let entries = found[offset.min(end)..end].iter().map(|stored| PageEntry {
            time: stored.time,
            identity: Identity::of(&[&stored.id.to_le_bytes()]),
            raw: (stored.id, stored.time),
        });
        LogPage {
            entries: entries.collect(),
            next: (empty || end < found.len()).then(|| format!("{end}@{shown}")),
        }
    }
}

pub(crate) fn denied() -> QueryError {
    QueryError::Denied {
        detail: "not authorised to read the log".to_owned(),
        remedy: "allow logs:FilterLogEvents".to_owned(),
    }
}

type Page = LogPage<(u64, Timestamp)>;

impl TimeLog for MemoryLog {
    type Raw = (u64, Timestamp);

    fn name(&self) -> &str {
        "memory"
    }

    fn resolution(&self) -> Duration {
        self.resolution
    }

    fn server_time(&self) -> Option<Timestamp> {
        self.server_clock.now()
    }

    fn server_time_at_least(&self) -> Option<Timestamp> {
        self.server_clock.at_least()
    }

    async fn query(&self, window: &Window, token: Option<&str>) -> Result<Page, QueryError> {
        assert!(window.start < window.end, "an empty window: {window:?}");
        let unit = self.resolution.as_nanos() as i128;
        for edge in [window.start, window.end] {
            assert_eq!(edge.as_nanosecond() % unit, 0, "{window:?}");
        }
        let (fault, latency) = self.with(|state| {
            state.requests.push(Request {
                window: *window,
                token: token.map(str::to_owned),
            });
            (state.fault(), state.random.u64(0..=state.latency_ms_max))
        });
        // The log's own clock is never wrong.
        let now = at(self.clock.origin.elapsed().as_millis() as i64);
        sleep(Duration::from_millis(latency)).await;
        if self.with(|state| state.tells_time) && matches!(fault, Fault::None | Fault::Empty) {
            let seconds = now.as_second();
            self.server_clock
                .told(Timestamp::from_second(seconds).expect("a time"));
        }
        match fault {
            Fault::None => Ok(self.with(|state| state.page(window, token, now, false))),
            Fault::Empty => Ok(self.with(|state| state.page(window, token, now, true))),
            Fault::Error(error) => Err(error),
            Fault::Silence => std::future::pending().await,
            Fault::Panic => panic!("scripted"),
        }
    }

    fn record(&self, (id, time): (u64, Timestamp)) -> Record {
        Record {
            payload: id.to_string().into(),
            origin: Origin::Stream {
                stream: "memory".into(),
                id: id.to_string(),
            },
            time: Some(time),
            damaged: false,
            oversized: false,
        }
    }
}
