//! A hand-written HTTP/1.1 client, so that tests can send what no real client would. For an API
//! server's plain port and the stand-in alike.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Time limit of an answer.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(30);

/// A client of an API server.
#[derive(Debug, Clone)]
pub struct ApiClient {
    address: SocketAddr,
    token: Option<String>,
}

/// A request with arbitrary content.
#[derive(Debug, Clone, Default)]
pub struct ApiRequest {
    /// `GET`, `POST`, …
    pub method: String,
    /// Path and query, sent unchanged.
    pub target: Vec<u8>,
    /// Additional to `Host`, `Authorization`, `Content-Length` and `Connection`.
    pub headers: Vec<(String, Vec<u8>)>,
    pub body: Option<Vec<u8>>,
    /// How long to read an answer that may not end; `None`: to its end.
    pub listen: Option<Duration>,
}

impl ApiRequest {
    /// A request without a body.
    pub fn new(method: &str, target: impl Into<Vec<u8>>) -> ApiRequest {
        ApiRequest {
            method: method.to_owned(),
            target: target.into(),
            ..ApiRequest::default()
        }
    }

    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<Vec<u8>>) -> ApiRequest {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// Adds a body of this media type.
    #[must_use]
    pub fn body(mut self, media_type: &str, body: impl Into<Vec<u8>>) -> ApiRequest {
        self.body = Some(body.into());
        self.header("Content-Type", media_type)
    }

    /// Adds a JSON body.
    #[must_use]
    pub fn json(self, body: &Value) -> ApiRequest {
        self.body("application/json", body.to_string())
    }

    /// Limits how long the answer is read.
    #[must_use]
    pub fn listen(mut self, wait: Duration) -> ApiRequest {
        self.listen = Some(wait);
        self
    }
}

#[derive(Debug, Clone, Default)]
pub struct ApiAnswer {
    /// 0 if there was no answer.
    pub status: u16,
    /// Status line and headers as received.
    pub head: String,
    /// Without the transfer encoding.
    pub body: Vec<u8>,
}

impl ApiAnswer {
    /// The body as JSON; `Null` if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The `message` of a `Status`.
    pub fn message(&self) -> String {
        self.json()["message"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }
}

impl ApiClient {
    /// A client for a plain port, with a bearer token or anonymous.
    pub fn new(address: SocketAddr, token: Option<&str>) -> ApiClient {
        ApiClient {
            address,
            token: token.map(str::to_owned),
        }
    }

    pub fn get(&self, target: &str) -> ApiAnswer {
        self.send(&ApiRequest::new("GET", target))
    }

    /// POST of an object.
    pub fn post(&self, target: &str, object: &Value) -> ApiAnswer {
        self.send(&ApiRequest::new("POST", target).json(object))
    }

    /// PUT of an object.
    pub fn put(&self, target: &str, object: &Value) -> ApiAnswer {
        self.send(&ApiRequest::new("PUT", target).json(object))
    }

    pub fn delete(&self, target: &str) -> ApiAnswer {
        self.send(&ApiRequest::new("DELETE", target))
    }

    /// A merge patch.
    pub fn merge(&self, target: &str, patch: &Value) -> ApiAnswer {
        let patch = patch.to_string();
        let request = ApiRequest::new("PATCH", target).body("application/merge-patch+json", patch);
        self.send(&request)
    }

    /// Sends a request on a new connection.
    pub fn send(&self, request: &ApiRequest) -> ApiAnswer {
        let mut text = request.method.clone().into_bytes();
        text.push(b' ');
        text.extend_from_slice(&request.target);
        text.extend_from_slice(b" HTTP/1.1\r\nHost: localhost\r\n");
        let mut header = |name: &str, value: &[u8]| {
            text.extend_from_slice(name.as_bytes());
            text.extend_from_slice(b": ");
            text.extend_from_slice(value);
            text.extend_from_slice(b"\r\n");
        };
        for (name, value) in &request.headers {
            header(name, value);
        }
        if let Some(token) = &self.token {
            header("Authorization", format!("Bearer {token}").as_bytes());
        }
        if !request.headers.iter().any(|(name, _)| name == "Connection") {
            header("Connection", b"close");
        }
        let body = request.body.as_deref();
        if let Some(body) = body {
            header("Content-Length", body.len().to_string().as_bytes());
        }
        text.extend_from_slice(b"\r\n");
        text.extend_from_slice(body.unwrap_or_default());
        let wait = request.listen.unwrap_or(ANSWER_WAIT_MAX);
        parse(&self.exchange(&text, wait))
    }

    /// Everything received until the connection ended, or `wait` was over.
    fn exchange(&self, text: &[u8], wait: Duration) -> Vec<u8> {
        let mut all = Vec::new();
        let Ok(mut stream) = TcpStream::connect(self.address) else {
            return all;
        };
        // A server that refuses early does not read everything; its answer is still read.
        let _ = stream.write_all(text);
        let deadline = Instant::now() + wait;
        let mut buffer = vec![0; 64 << 10];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || stream.set_read_timeout(Some(left)).is_err() {
                return all;
            }
            match stream.read(&mut buffer) {
                Ok(0) | Err(_) => return all,
                Ok(read) => all.extend_from_slice(&buffer[..read]),
            }
        }
    }
}

fn parse(bytes: &[u8]) -> ApiAnswer {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
    let Some(end) = end else {
        return ApiAnswer::default();
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let status = head.split(' ').nth(1).and_then(|it| it.parse().ok());
    let body = &bytes[end + 4..];
    let chunked = head
        .to_ascii_lowercase()
        .contains("transfer-encoding: chunked");
    ApiAnswer {
        status: status.unwrap_or_default(),
        body: if chunked { joined(body) } else { body.to_vec() },
        head,
    }
}

/// The content of the complete chunks.
fn joined(mut chunks: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(end) = chunks.windows(2).position(|two| two == b"\r\n") {
        let size = std::str::from_utf8(&chunks[..end]).unwrap_or_default();
        let Ok(size) = usize::from_str_radix(size.trim(), 16) else {
            break;
        };
        let rest = &chunks[end + 2..];
        all.extend_from_slice(&rest[..size.min(rest.len())]);
        if size == 0 || rest.len() < size + 2 {
            break;
        }
        chunks = &rest[size + 2..];
    }
    all
}
