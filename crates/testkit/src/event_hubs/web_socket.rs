//! AMQP in a WebSocket, as on Event Hubs' port 443: the path `/$servicebus/websocket/`, the
//! subprotocol `amqp`, binary messages.

use std::io;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, split};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::{HeaderValue, StatusCode};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async};

use super::network::{CHUNK, NetworkConditions};

const PATH: &str = "/$servicebus/websocket/";
const PROTOCOL: &str = "sec-websocket-protocol";

/// Serves a client's WebSocket until it ends; `here` is the other end of the AMQP connection.
pub(super) async fn relay<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    here: DuplexStream,
    weather: &NetworkConditions,
) -> io::Result<()> {
    let socket = accept_hdr_async(stream, upgrade).await;
    both(socket.map_err(io::Error::other)?, here, weather).await
}

#[expect(clippy::result_large_err, reason = "the library's own type")]
fn upgrade(request: &Request, mut response: Response) -> Result<Response, ErrorResponse> {
    let asked = request.headers().get(PROTOCOL);
    if request.uri().path() != PATH || asked.is_none_or(|protocol| protocol != "amqp") {
        let mut refused = ErrorResponse::new(None);
        *refused.status_mut() = StatusCode::NOT_FOUND;
        return Err(refused);
    }
    let headers = response.headers_mut();
    headers.insert(PROTOCOL, HeaderValue::from_static("amqp"));
    Ok(response)
}

async fn both<S: AsyncRead + AsyncWrite + Unpin>(
    socket: WebSocketStream<S>,
    here: DuplexStream,
    weather: &NetworkConditions,
) -> io::Result<()> {
    let (mut to_client, mut from_client) = socket.split();
    let (mut from_server, mut to_server) = split(here);
    let up = async {
        while let Some(message) = from_client.next().await {
            if let Message::Binary(bytes) = message.map_err(io::Error::other)? {
                tokio::time::sleep(weather.wait(bytes.len())).await;
                to_server.write_all(&bytes).await?;
                to_server.flush().await?;
            }
        }
        to_server.shutdown().await
    };
    let down = async {
        let mut buffer = vec![0; CHUNK];
        loop {
            let count = from_server.read(&mut buffer).await?;
            if count == 0 {
                return to_client.close().await.map_err(io::Error::other);
            }
            tokio::time::sleep(weather.wait(count)).await;
            let bytes = Bytes::copy_from_slice(&buffer[..count]);
            let sent = to_client.send(Message::Binary(bytes)).await;
            sent.map_err(io::Error::other)?;
            weather.went_out(count);
        }
    };
    tokio::try_join!(up, down)?;
    Ok(())
}
