//! One Pub/Sub subscription: StreamingPull, Acknowledge and ModifyAckDeadline over gRPC, and
//! `testIamPermissions`, `pull` and `modifyAckDeadline` over REST, on one port.
//!
//! It follows the service's rules. A message is leased to one stream until its deadline, which may
//! be extended; it is sent again when the deadline passes or the message is returned. A stream gets
//! no more than it can hold by its own account. An acknowledgment counts only during the lease. It
//! fails on cue.

mod service;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Status};

/// The state of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Waits for a stream.
    Ready,
    /// Leased to a stream, with this lease number.
    Leased(u64),
    /// Acknowledged.
    Acked,
}

#[derive(Debug)]
struct Stored {
    data: Vec<u8>,
    standing: Standing,
    deliveries: i32,
}

#[derive(Debug)]
struct Lease {
    message: usize,
    stream: u64,
    until: Instant,
}

/// A stream's limits, and what it holds.
#[derive(Debug, Clone, Copy)]
struct Holding {
    messages: i64,
    bytes: i64,
    messages_max: i64,
    bytes_max: i64,
}

#[derive(Debug, Default)]
struct State {
    subscription: String,
    messages: Vec<Stored>,
    /// Indices of the messages that wait for a stream.
    ready: BTreeSet<usize>,
    /// By lease number, which is part of the ack ID.
    leases: HashMap<u64, Lease>,
    leases_given: u64,
    /// No lease ends earlier.
    first_end: Option<Instant>,
    streams: HashMap<u64, Holding>,
    streams_opened: u64,
    /// Streams below this number are ended.
    cut_below: u64,
    refusals: VecDeque<Code>,
    refuse_always: Option<Code>,
    /// Nothing is answered.
    hangs: bool,
    /// Streams below this number send nothing more, and do not end.
    dead_below: u64,
    acks_fail: bool,
    permitted: bool,
    token_prefix: Option<String>,
    exactly_once: bool,
    muted: bool,
    lease_max: Option<Duration>,
    nacks: usize,
    extensions: usize,
    held_bytes_max: i64,
    user_agents: BTreeSet<String>,
}

/// The stream number for pulled messages, which no stream has.
const PULLS: u64 = 0;

/// Lease of a pulled message: a subscription's default.
const PULL_LEASE_SECONDS: i32 = 10;

/// The stand-in, on its own port. Dropping it stops it.
#[derive(Debug)]
pub struct PubSub {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

impl Drop for PubSub {
    fn drop(&mut self) {
        self.task.abort();
        self.cut_streams();
    }
}

impl PubSub {
    /// An empty subscription with this full name that accepts every caller.
    pub async fn start(subscription: &str) -> PubSub {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State {
            subscription: subscription.to_owned(),
            permitted: true,
            ..State::default()
        }));
        let routes = service::routes(&state);
        let task = tokio::spawn(async move {
            let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
            let server = Server::builder().accept_http1(true).add_routes(routes);
            let _ = server.serve_with_incoming(incoming).await;
        });
        PubSub {
            address,
            state,
            task,
        }
    }

    /// `http://127.0.0.1:port`, for `--pubsub-endpoint`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// `127.0.0.1:port`, for `PUBSUB_EMULATOR_HOST`.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    pub fn publish(&self, data: impl Into<Vec<u8>>) {
        let mut state = self.lock();
        let index = state.messages.len();
        state.ready.insert(index);
        state.messages.push(Stored {
            data: data.into(),
            standing: Standing::Ready,
            deliveries: 0,
        });
    }

    /// Refuses the next stream with this code; several queue up.
    pub fn refuse_next(&self, code: Code) {
        self.lock().refusals.push_back(code);
    }

    /// Refuses every stream with this code, until set to `None`. Other requests are answered.
    pub fn refuse_always(&self, code: Option<Code>) {
        self.lock().refuse_always = code;
    }

    /// Sets whether the network swallows everything silently. Streams that are open when this
    /// begins stay dead.
    pub fn hang(&self, hangs: bool) {
        let mut state = self.lock();
        state.hangs = hangs;
        if hangs {
            state.dead_below = state.streams_opened + 1;
        }
    }

    /// Makes all open streams silent without ending them, as if a middlebox had forgotten their
    /// connections. All else works.
    pub fn forget_streams(&self) {
        let mut state = self.lock();
        state.dead_below = state.streams_opened + 1;
    }

    /// Ends all open streams, as the real service does now and then.
    pub fn cut_streams(&self) {
        let mut state = self.lock();
        state.cut_below = state.streams_opened + 1;
    }

    /// Sets whether streams stay open and silent.
    pub fn set_silent(&self, muted: bool) {
        self.lock().muted = muted;
    }

    /// Sets whether acknowledgments fail.
    pub fn fail_acks(&self, fail: bool) {
        self.lock().acks_fail = fail;
    }

    /// Sets whether the caller may consume the subscription.
    pub fn permit(&self, permitted: bool) {
        self.lock().permitted = permitted;
    }

    /// Requires a bearer token with this prefix.
    pub fn require_token(&self, prefix: &str) {
        self.lock().token_prefix = Some(prefix.to_owned());
    }

    /// Switches to exactly-once delivery.
    pub fn exactly_once(&self) {
        self.lock().exactly_once = true;
    }

    /// Limits leases to this duration, so that messages are redelivered soon.
    pub fn lease_at_most(&self, lease: Duration) {
        self.lock().lease_max = Some(lease);
    }

    /// The number of acknowledged messages.
    pub fn acked(&self) -> usize {
        let state = self.lock();
        let acked = state.messages.iter();
        acked.filter(|it| it.standing == Standing::Acked).count()
    }

    /// How many messages streams have sent, redeliveries included.
    pub fn deliveries(&self) -> usize {
        let state = self.lock();
        let sent = state.messages.iter().map(|it| it.deliveries as usize);
        sent.sum()
    }

    /// How many messages streams have returned.
    pub fn nacks(&self) -> usize {
        self.lock().nacks
    }

    /// How often leases were extended.
    pub fn extensions(&self) -> usize {
        self.lock().extensions
    }

    /// How many streams were opened or attempted.
    pub fn streams_opened(&self) -> u64 {
        self.lock().streams_opened
    }

    /// The `User-Agent`s of all requests.
    pub fn user_agents(&self) -> BTreeSet<String> {
        self.lock().user_agents.clone()
    }

    /// The most bytes that a stream ever held.
    pub fn held_bytes_max(&self) -> i64 {
        self.lock().held_bytes_max
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    /// Whether a caller with this authorization may use the subscription of this name.
    fn admit(&self, subscription: &str, authorization: &str) -> Result<(), Status> {
        let token = authorization.strip_prefix("Bearer ").unwrap_or_default();
        let prefix = self.token_prefix.as_deref();
        if prefix.is_some_and(|prefix| !token.starts_with(prefix)) {
            return Err(Status::unauthenticated(
                "Request had invalid authentication credentials.",
            ));
        }
        if !self.permitted {
            return Err(Status::permission_denied(
                "User not authorized to perform this action.",
            ));
        }
        if subscription != self.subscription {
            let message = format!("Resource not found (resource={subscription}).");
            return Err(Status::not_found(message));
        }
        Ok(())
    }

    /// Leases to a stream the messages that it may get now.
    fn lease_to_stream(&mut self, stream: u64, seconds: i32) -> Vec<(u64, usize)> {
        match self.muted || stream < self.dead_below {
            true => Vec::new(),
            false => self.lease(stream, seconds),
        }
    }

    /// Leases one message to a single pull.
    fn pull(&mut self) -> Option<(u64, usize)> {
        let holding = Holding {
            messages: 0,
            bytes: 0,
            messages_max: 1,
            bytes_max: 0,
        };
        self.streams.insert(PULLS, holding);
        let pulled = self.lease(PULLS, PULL_LEASE_SECONDS).pop();
        self.streams.remove(&PULLS);
        if let Some((_, index)) = pulled {
            self.messages[index].deliveries -= 1;
        }
        pulled
    }

    /// Ends leases that have expired.
    fn expire(&mut self, now: Instant) {
        if self.first_end.is_none_or(|first| now < first) {
            return;
        }
        let over: Vec<u64> = self
            .leases
            .iter()
            .filter(|(_, lease)| lease.until <= now)
            .map(|(&number, _)| number)
            .collect();
        for number in over {
            self.end(number, Standing::Ready);
        }
        self.first_end = self.leases.values().map(|lease| lease.until).min();
    }

    /// Ends a lease; false if it had ended before.
    fn end(&mut self, number: u64, standing: Standing) -> bool {
        let Some(lease) = self.leases.remove(&number) else {
            return false;
        };
        let message = &mut self.messages[lease.message];
        message.standing = standing;
        if standing == Standing::Ready {
            self.ready.insert(lease.message);
        }
        if let Some(holding) = self.streams.get_mut(&lease.stream) {
            holding.messages -= 1;
            holding.bytes -= i64::try_from(message.data.len()).unwrap();
        }
        true
    }

    /// Leases messages to a stream, up to its limits and a limit per call. Returns lease numbers
    /// and message indices.
    fn lease(&mut self, stream: u64, seconds: i32) -> Vec<(u64, usize)> {
        let now = Instant::now();
        self.expire(now);
        let until = now + self.length(seconds);
        let mut leased = Vec::new();
        let Some(mut holding) = self.streams.get(&stream).copied() else {
            return leased;
        };
        while leased.len() < 100 {
            let room = (holding.messages_max <= 0 || holding.messages < holding.messages_max)
                && (holding.bytes_max <= 0 || holding.bytes < holding.bytes_max);
            let next = if room { self.ready.pop_first() } else { None };
            let Some(index) = next else { break };
            let message = &mut self.messages[index];
            self.leases_given += 1;
            message.standing = Standing::Leased(self.leases_given);
            message.deliveries += 1;
            holding.messages += 1;
            holding.bytes += i64::try_from(message.data.len()).unwrap();
            let lease = Lease {
                message: index,
                stream,
                until,
            };
            self.leases.insert(self.leases_given, lease);
            self.first_end = Some(self.first_end.map_or(until, |first| first.min(until)));
            leased.push((self.leases_given, index));
        }
        self.held_bytes_max = self.held_bytes_max.max(holding.bytes);
        self.streams.insert(stream, holding);
        leased
    }

    fn length(&self, seconds: i32) -> Duration {
        let asked = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
        asked.min(self.lease_max.unwrap_or(asked))
    }

    fn acknowledge(&mut self, ids: &[String]) -> Result<(), Status> {
        if self.acks_fail {
            return Err(Status::internal("scripted"));
        }
        self.expire(Instant::now());
        for id in ids {
            // An expired ID is no error: the message is redelivered.
            self.end(number(id)?, Standing::Acked);
        }
        Ok(())
    }

    fn put_off(&mut self, ids: &[String], seconds: i32) -> Result<(), Status> {
        self.expire(Instant::now());
        let until = Instant::now() + self.length(seconds);
        for id in ids {
            let number = number(id)?;
            if seconds == 0 {
                let pulled = self
                    .leases
                    .get(&number)
                    .is_some_and(|it| it.stream == PULLS);
                self.nacks += usize::from(self.end(number, Standing::Ready) && !pulled);
            } else if let Some(lease) = self.leases.get_mut(&number) {
                lease.until = until;
                self.first_end = Some(self.first_end.map_or(until, |first| first.min(until)));
                self.extensions += 1;
            }
        }
        Ok(())
    }
}

/// The lease number in an ack ID.
fn number(id: &str) -> Result<u64, Status> {
    let number = id
        .strip_prefix("ack-")
        .and_then(|number| number.parse().ok());
    number.ok_or_else(|| Status::invalid_argument("Some acknowledgement ids were invalid"))
}
