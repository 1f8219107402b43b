//! The admin port: `/livez`, `/readyz`, `/metrics`.

use std::net::SocketAddr;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;

use crate::telemetry::Telemetry;

/// Listens on the admin port and answers until the process ends. Returns the address, as port 0
/// lets the operating system choose.
///
/// # Errors
/// When the port cannot be had: which, and what to do.
pub async fn serve(address: SocketAddr, telemetry: Telemetry) -> Result<SocketAddr, String> {
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
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "the admin port closed");
        }
    });
    Ok(address)
}

async fn livez(State(telemetry): State<Telemetry>) -> Response {
    match telemetry.stuck() {
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
    use crate::telemetry::Part;

    async fn get(address: SocketAddr, path: &str) -> (u16, String) {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, body.to_owned())
    }

    #[tokio::test]
    async fn the_port_says_what_is_wrong() {
        let telemetry = Telemetry::new("b", "1");
        let any = "127.0.0.1:0".parse().unwrap();
        let address = serve(any, telemetry.clone()).await.unwrap();
        assert_eq!(get(address, "/livez").await, (200, "ok\n".to_owned()));
        let (status, body) = get(address, "/readyz").await;
        assert_eq!(status, 503);
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["ready"], false);
        assert_eq!(body["not_ready"]["source"], "not tried yet");
        for part in Part::ALL {
            telemetry.ready(part);
        }
        assert_eq!(get(address, "/readyz").await.0, 200);
        let (status, body) = get(address, "/metrics").await;
        assert_eq!(status, 200);
        assert!(body.contains("audit_bridge_build_info"), "{body}");
        assert_eq!(get(address, "/").await.0, 404);

        let taken = serve(address, telemetry).await.unwrap_err();
        assert!(taken.contains("--admin-address"), "{taken}");
    }
}
