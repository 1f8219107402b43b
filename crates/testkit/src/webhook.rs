//! A webhook receiver that answers by script and records its requests.
//!
//! Implements HTTP/1.1 by hand, to do what server libraries do not allow: reset, send half an
//! answer, answer before the body has arrived.

mod answer;
mod falco;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use answer::AnswerKind;
pub use answer::WebhookAnswer;

#[derive(Debug, Clone)]
pub struct Received {
    /// Usually `POST`.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// In order, with names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body; empty if it was not read.
    pub body: Bytes,
    /// The `auditID` of every event in the body, in order.
    pub ids: Vec<String>,
    /// The number of its connection, from 0.
    pub connection: usize,
    /// The status of the answer; `None` if there was none.
    pub status: Option<u16>,
    /// Whether the receiver accepted the events.
    pub accepted: bool,
}

impl Received {
    /// The value of a header, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }
}

#[derive(Debug, Default)]
struct State {
    script: VecDeque<WebhookAnswer>,
    otherwise: Option<WebhookAnswer>,
    poison: HashMap<String, u16>,
    body_bytes_max: Option<usize>,
    like_falco: bool,
    received: Vec<Received>,
    at_once: usize,
    at_once_max: usize,
    connections: usize,
}

/// A receiver on its own port. Dropping it stops it.
#[derive(Debug)]
pub struct ScriptedWebhook {
    address: SocketAddr,
    scheme: &'static str,
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

impl Drop for ScriptedWebhook {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl ScriptedWebhook {
    /// Starts a receiver that accepts everything until told otherwise.
    pub async fn start() -> ScriptedWebhook {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        ScriptedWebhook::serve(listener, None)
    }

    /// The same over TLS; see [`crate::Pki::acceptor`].
    pub async fn start_tls(acceptor: TlsAcceptor) -> ScriptedWebhook {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        ScriptedWebhook::serve(listener, Some(acceptor))
    }

    /// The URL to POST to.
    pub fn url(&self) -> String {
        format!("{}://{}/k8s-audit", self.scheme, self.address)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sets the answers of the next requests, one each, in order. `poison` and the body limit take
    /// precedence, without using up an answer.
    pub fn script(&self, answers: impl IntoIterator<Item = WebhookAnswer>) {
        self.state.lock().unwrap().script.extend(answers);
    }

    /// Sets the answer for all requests that the script does not cover.
    pub fn set_answer(&self, answer: WebhookAnswer) {
        self.state.lock().unwrap().otherwise = Some(answer);
    }

    /// Accepts again all requests that the script does not cover.
    pub fn accept(&self) {
        self.state.lock().unwrap().otherwise = None;
    }

    /// Answers every body that contains this event with this status.
    pub fn poison(&self, id: &str, status: u16) {
        let mut state = self.state.lock().unwrap();
        state.poison.insert(id.to_owned(), status);
    }

    /// Stops refusing this event.
    pub fn accept_event(&self, id: &str) {
        self.state.lock().unwrap().poison.remove(id);
    }

    /// Answers every larger body with 413.
    pub fn refuse_bodies_above(&self, bytes: usize) {
        self.state.lock().unwrap().body_bytes_max = Some(bytes);
    }

    /// Answers like Falco unless told otherwise: 200 before it has looked at the body, whose events
    /// it may then lose. Tests find out from the recorded bodies what was lost.
    pub fn answer_like_falco(&self) {
        self.state.lock().unwrap().like_falco = true;
    }

    /// All requests, in the order in which their bodies were complete.
    pub fn received(&self) -> Vec<Received> {
        self.state.lock().unwrap().received.clone()
    }

    /// Drops the bodies of the requests so far, to save memory.
    pub fn forget_bodies(&self) {
        for request in &mut self.state.lock().unwrap().received {
            request.body = Bytes::new();
        }
    }

    pub fn requests(&self) -> usize {
        self.state.lock().unwrap().received.len()
    }

    /// The IDs of accepted events, in order, with repetitions.
    pub fn accepted_ids(&self) -> Vec<String> {
        let state = self.state.lock().unwrap();
        let accepted = state.received.iter().filter(|request| request.accepted);
        accepted.flat_map(|request| request.ids.clone()).collect()
    }

    /// The largest number of concurrent requests so far.
    pub fn at_once_max(&self) -> usize {
        self.state.lock().unwrap().at_once_max
    }

    /// The number of connections so far.
    pub fn connections(&self) -> usize {
        self.state.lock().unwrap().connections
    }

    fn serve(listener: TcpListener, tls: Option<TlsAcceptor>) -> ScriptedWebhook {
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let scheme = if tls.is_some() { "https" } else { "http" };
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            // Connections end with the receiver.
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    continue;
                };
                let (state, tls) = (Arc::clone(&shared), tls.clone());
                connections.spawn(async move {
                    let number = {
                        let mut state = state.lock().unwrap();
                        state.connections += 1;
                        state.connections - 1
                    };
                    let _ = connection(stream, tls, number, &state).await;
                });
                while connections.try_join_next().is_some() {}
            }
        });
        ScriptedWebhook {
            address,
            scheme,
            state,
            task,
        }
    }
}

async fn connection(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    number: usize,
    state: &Mutex<State>,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    match tls {
        None => {
            let mut stream = stream;
            if requests(&mut stream, number, state).await? {
                // Without time to linger, closing sends a reset.
                stream.set_zero_linger()?;
            }
        }
        Some(tls) => {
            let mut stream = tls.accept(stream).await?;
            if requests(&mut stream, number, state).await? {
                stream.get_ref().0.set_zero_linger()?;
            }
        }
    }
    Ok(())
}

/// Serves one connection; returns whether it ends with a reset.
async fn requests<S>(stream: &mut S, number: usize, state: &Mutex<State>) -> io::Result<bool>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut buffer = Vec::new();
    loop {
        let Some(mut request) = head(stream, &mut buffer).await? else {
            return Ok(false);
        };
        request.connection = number;
        // Answers that do not wait for the body cannot depend on it.
        let early = {
            let mut state = state.lock().unwrap();
            let next = state.script.front().or(state.otherwise.as_ref());
            let kind = next.map(|answer| answer.kind);
            match kind {
                Some(kind @ (AnswerKind::ResetBeforeReading | AnswerKind::EarlyStatus(_))) => {
                    state.script.pop_front();
                    Some(kind)
                }
                _ => None,
            }
        };
        match early {
            Some(AnswerKind::EarlyStatus(status)) => {
                request.status = Some(status);
                state.lock().unwrap().received.push(request);
                stream
                    .write_all(&response(&WebhookAnswer::status(status)))
                    .await?;
                stream.flush().await?;
                tokio::time::sleep(Duration::from_millis(50)).await;
                return Ok(true);
            }
            Some(_) => {
                state.lock().unwrap().received.push(request);
                return Ok(true);
            }
            None => {}
        }
        let at_once = InFlightGuard::enter(state);
        body(stream, &mut buffer, &mut request).await?;
        let answer = decide(request, state);
        tokio::time::sleep(answer.delay).await;
        drop(at_once);
        match answer.kind {
            AnswerKind::Status(_) | AnswerKind::EarlyStatus(_) => {
                stream.write_all(&response(&answer)).await?;
                stream.flush().await?;
            }
            AnswerKind::ResetBeforeReading | AnswerKind::ResetAfterReading => return Ok(true),
            AnswerKind::Half => {
                stream.write_all(b"HTTP/1.1 20").await?;
                stream.flush().await?;
                return Ok(false);
            }
            AnswerKind::HalfBody(status) => {
                let head = format!("HTTP/1.1 {status} x\r\ncontent-length: 1000\r\n\r\nhalf");
                stream.write_all(head.as_bytes()).await?;
                stream.flush().await?;
                return Ok(false);
            }
            AnswerKind::Never => std::future::pending::<()>().await,
        }
    }
}

/// Counts a request as in flight until it is dropped.
struct InFlightGuard<'a>(&'a Mutex<State>);

impl InFlightGuard<'_> {
    fn enter(state: &Mutex<State>) -> InFlightGuard<'_> {
        let mut locked = state.lock().unwrap();
        locked.at_once += 1;
        locked.at_once_max = locked.at_once_max.max(locked.at_once);
        InFlightGuard(state)
    }
}

impl Drop for InFlightGuard<'_> {
    fn drop(&mut self) {
        self.0.lock().unwrap().at_once -= 1;
    }
}

/// Chooses the answer and records the request.
fn decide(mut request: Received, state: &Mutex<State>) -> WebhookAnswer {
    let mut state = state.lock().unwrap();
    let poison = request.ids.iter().find_map(|id| state.poison.get(id));
    let too_large = state
        .body_bytes_max
        .is_some_and(|max| request.body.len() > max);
    let answer = if too_large {
        WebhookAnswer::status(413)
    } else if let Some(status) = poison {
        WebhookAnswer::status(*status).body("poison")
    } else {
        let scripted = state.script.pop_front();
        scripted
            .or_else(|| state.otherwise.clone())
            .or_else(|| state.like_falco.then(|| falco::answer(&request)))
            .unwrap_or_else(|| WebhookAnswer::status(200))
    };
    (request.status, request.accepted) = match answer.kind {
        AnswerKind::Status(status)
        | AnswerKind::EarlyStatus(status)
        | AnswerKind::HalfBody(status) => (Some(status), (200..300).contains(&status)),
        AnswerKind::ResetAfterReading | AnswerKind::Half | AnswerKind::Never => (None, true),
        AnswerKind::ResetBeforeReading => (None, false),
    };
    state.received.push(request);
    answer
}

fn response(answer: &WebhookAnswer) -> Vec<u8> {
    let AnswerKind::Status(status) = answer.kind else {
        panic!("only a status has a response");
    };
    let mut out = format!("HTTP/1.1 {status} x\r\n").into_bytes();
    for (name, value) in &answer.headers {
        out.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    let bodiless = matches!(status, 100..=199 | 204 | 304);
    if !bodiless {
        out.extend_from_slice(format!("content-length: {}\r\n", answer.body.len()).as_bytes());
    }
    out.extend_from_slice(b"\r\n");
    if !bodiless {
        out.extend_from_slice(&answer.body);
    }
    out
}

/// Reads a request's head; `None` at the end of the connection.
async fn head<S: AsyncRead + Unpin>(
    stream: &mut S,
    buffer: &mut Vec<u8>,
) -> io::Result<Option<Received>> {
    let end = loop {
        if let Some(at) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            break at;
        }
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    };
    let text = String::from_utf8_lossy(&buffer[..end]).into_owned();
    buffer.drain(..end + 4);
    let mut lines = text.split("\r\n");
    let mut first = lines.next().unwrap_or_default().split(' ');
    let mut word = || first.next().unwrap_or_default().to_owned();
    Ok(Some(Received {
        method: word(),
        target: word(),
        headers: lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect(),
        body: Bytes::new(),
        ids: Vec::new(),
        connection: 0,
        status: None,
        accepted: false,
    }))
}

async fn body<S: AsyncRead + Unpin>(
    stream: &mut S,
    buffer: &mut Vec<u8>,
    request: &mut Received,
) -> io::Result<()> {
    let length: usize = request
        .header("content-length")
        .map_or(0, |text| text.parse().expect("a length"));
    while buffer.len() < length {
        if stream.read_buf(buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    let rest = buffer.split_off(length);
    request.body = std::mem::replace(buffer, rest).into();
    let list: Value = serde_json::from_slice(&request.body).unwrap_or_default();
    request.ids = list["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|event| event["auditID"].as_str())
        .map(str::to_owned)
        .collect();
    Ok(())
}
