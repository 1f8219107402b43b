//! The admin port: `/livez`, `/readyz`, `/metrics`.
//!
//! A client cannot block the process or its probes: a connection carries one request and lives for
//! a few seconds, and at most `CONNECTIONS_MAX` are open. One more closes the oldest. A real probe
//! is answered within milliseconds, so the oldest connection is a slow client's.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::fatal::Fatal;
use crate::telemetry::Telemetry;

/// Connections open at the same time.
const CONNECTIONS_MAX: usize = 128;

/// How long a client may take to send its request's headers.
const HEADERS_WAIT_MAX: Duration = Duration::from_secs(3);

/// How long a connection may live, including the answer's transmission.
const CONNECTION_WAIT_MAX: Duration = Duration::from_secs(10);

/// The size of one request's headers: the smallest that hyper allows.
const HEADERS_BYTES_MAX: usize = 8 << 10;

/// Header lines of one request.
const HEADERS_MAX: usize = 64;

/// The wait after a failed accept: descriptors may be short for a moment.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Listens on the admin port and answers until the process ends. Returns the address, since the
/// operating system chooses a port for port 0.
///
/// # Errors
/// The port cannot be used: which one, and what to do.
pub(crate) async fn serve(address: SocketAddr, telemetry: Telemetry) -> Result<SocketAddr, Fatal> {
    let advice = "choose another with --admin-address (AUDIT_BRIDGE_ADMIN_ADDRESS)";
    let listener = TcpListener::bind(address)
        .await
        .map_err(|error| format!("the admin port {address} cannot be opened: {error}; {advice}"))?;
    let address = listener
        .local_addr()
        .map_err(|error| format!("the admin port has no address: {error}; {advice}"))?;
    let router = Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(telemetry);
    tokio::spawn(accept_connections(listener, router));
    Ok(address)
}

/// Accepts connections; closes the oldest when there are too many.
async fn accept_connections(listener: TcpListener, router: Router) {
    let mut open: VecDeque<JoinHandle<()>> = VecDeque::new();
    let mut failing = false;
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                if !failing {
                    tracing::warn!(%error, "admin port accept failed; retrying");
                }
                failing = true;
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        failing = false;
        open.retain(|connection| !connection.is_finished());
        while open.len() >= CONNECTIONS_MAX {
            let Some(oldest) = open.pop_front() else {
                break;
            };
            oldest.abort();
        }
        open.push_back(tokio::spawn(answer_connection(stream, router.clone())));
    }
}

/// Answers the one request of a connection.
async fn answer_connection(stream: TcpStream, router: Router) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_WAIT_MAX)
        .max_buf_size(HEADERS_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    // The client closed the connection: nothing to report.
    let _ = timeout(CONNECTION_WAIT_MAX, connection).await;
}

async fn livez(State(telemetry): State<Telemetry>) -> Response {
    match telemetry.stuck_for() {
        None => (StatusCode::OK, "ok\n").into_response(),
        Some(silent) => {
            let why = format!("the loop has made no turn for {} s\n", silent.as_secs());
            (StatusCode::SERVICE_UNAVAILABLE, why).into_response()
        }
    }
}

async fn readyz(State(telemetry): State<Telemetry>) -> Response {
    let unready = telemetry.unready();
    let status = if unready.is_empty() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let mut body = serde_json::json!({"ready": unready.is_empty(), "not_ready": unready});
    if let Some(leader) = telemetry.leader() {
        body["standing_by_for"] = leader.into();
    }
    let silent = telemetry.silent();
    if !silent.is_empty() {
        body["silent"] = serde_json::json!(silent);
    }
    let gaps = telemetry.suspected_gaps();
    if !gaps.is_empty() {
        body["gaps_suspected"] = serde_json::json!(gaps);
    }
    let parked = telemetry.parked_events();
    if parked > 0 {
        body["parked_events"] = parked.into();
    }
    (
        status,
        [(header::CONTENT_TYPE, "application/json")],
        body.to_string(),
    )
        .into_response()
}

async fn metrics(State(telemetry): State<Telemetry>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], telemetry.render()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use audit_bridge_core::readiness::Component;

    async fn get(address: SocketAddr, path: &str) -> (u16, String) {
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        exchange(address, request.as_bytes()).await
    }

    async fn exchange(address: SocketAddr, request: &[u8]) -> (u16, String) {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, body.to_owned())
    }

    #[tokio::test]
    async fn admin_port_failure_is_named() {
        let telemetry = Telemetry::new("b", "1");
        let any = "127.0.0.1:0".parse().unwrap();
        let address = serve(any, telemetry.clone()).await.unwrap();
        assert_eq!(get(address, "/livez").await, (200, "ok\n".to_owned()));
        let (status, body) = get(address, "/readyz").await;
        assert_eq!(status, 503);
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["ready"], false);
        assert_eq!(body["not_ready"]["source"], "not tried yet");
        for component in Component::ALL {
            telemetry.ready(component);
        }
        assert_eq!(get(address, "/readyz").await.0, 200);
        let (status, body) = get(address, "/metrics").await;
        assert_eq!(status, 200);
        assert!(body.contains("audit_bridge_build_info"), "{body}");
        assert_eq!(get(address, "/").await.0, 404);

        let taken = serve(address, telemetry).await.unwrap_err();
        assert!(taken.to_string().contains("--admin-address"), "{taken}");
    }

    /// How long to wait to see whether a connection is open.
    const MOMENT: Duration = Duration::from_millis(10);

    /// Opens this many connections, sends `bytes` on each, and keeps them open.
    async fn hold(address: SocketAddr, connections: usize, bytes: &[u8]) -> Vec<TcpStream> {
        use tokio::io::AsyncWriteExt as _;

        let mut held = Vec::new();
        for _ in 0..connections {
            let mut stream = TcpStream::connect(address).await.unwrap();
            // The other side may close while we write.
            let _ = timeout(Duration::from_millis(5), stream.write_all(bytes)).await;
            held.push(stream);
        }
        held
    }

    /// How many of them the port has not closed.
    async fn still_open(held: &mut [TcpStream], wait: Duration) -> usize {
        use tokio::io::AsyncReadExt as _;

        let mut open = 0;
        for stream in held {
            let mut rest = Vec::new();
            let read = timeout(wait, stream.read_to_end(&mut rest)).await;
            open += usize::from(read.is_err());
        }
        open
    }

    async fn probes_are_answered(address: SocketAddr) {
        assert_eq!(get(address, "/livez").await.0, 200);
        assert_eq!(get(address, "/readyz").await.0, 503);
        assert_eq!(get(address, "/metrics").await.0, 200);
    }

    #[tokio::test]
    async fn admin_slow_connections_above_cap_are_closed_and_probes_answered() {
        let any = "127.0.0.1:0".parse().unwrap();
        let address = serve(any, Telemetry::new("b", "1")).await.unwrap();
        let mut held = hold(address, 1100, b"GET /livez HTTP/1.1\r\nx: ").await;
        probes_are_answered(address).await;
        let open = still_open(&mut held, MOMENT).await;
        assert!(open <= CONNECTIONS_MAX, "{open}");
        // The newest connections stay, so a probe is never closed before an older slow client.
        let mut newest = hold(address, CONNECTIONS_MAX / 2, b"GET").await;
        assert_eq!(still_open(&mut newest, MOMENT).await, CONNECTIONS_MAX / 2);
        probes_are_answered(address).await;
    }

    #[tokio::test]
    async fn admin_large_headers_are_refused_and_probes_answered() {
        let any = "127.0.0.1:0".parse().unwrap();
        let address = serve(any, Telemetry::new("b", "1")).await.unwrap();
        let mut head = b"GET /livez HTTP/1.1\r\nx: ".to_vec();
        head.resize(400 << 10, b'a');
        let mut held = hold(address, 700, &head).await;
        probes_are_answered(address).await;
        // The port closed them without a wait: each exceeded the header limits.
        assert_eq!(still_open(&mut held, Duration::from_secs(10)).await, 0);
        let many = format!(
            "GET /livez HTTP/1.1\r\n{}\r\n",
            "x: y\r\n".repeat(HEADERS_MAX + 1)
        );
        assert_eq!(exchange(address, many.as_bytes()).await.0, 431);
    }

    #[tokio::test]
    async fn admin_connection_carries_one_request() {
        let any = "127.0.0.1:0".parse().unwrap();
        let address = serve(any, Telemetry::new("b", "1")).await.unwrap();
        // The connection ends after the answer, although the request does not ask for that.
        let request = b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n";
        assert_eq!(exchange(address, request).await, (200, "ok\n".to_owned()));
    }

    #[tokio::test(start_paused = true)]
    async fn admin_silent_client_is_closed_in_time() {
        let any = "127.0.0.1:0".parse().unwrap();
        let address = serve(any, Telemetry::new("b", "1")).await.unwrap();
        let mut held = hold(address, 1, b"").await;
        sleep(CONNECTION_WAIT_MAX * 2).await;
        assert_eq!(still_open(&mut held, Duration::from_secs(10)).await, 0);
    }
}
