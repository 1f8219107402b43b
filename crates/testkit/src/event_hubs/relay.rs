//! The network in front of the stand-in: slow, cut or closed on cue.
//!
//! Each connection is relayed byte for byte between the client's socket and an in-process pipe,
//! with a delay of at least a millisecond: with no latency at all, the client library sometimes
//! closes its own connection while it authorises a link.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex, split};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use super::network::{CHUNK, NetworkConditions};
use super::web_socket;

/// The mark of a text that arrives as bytes that are none.
pub(super) const SPOILED: &str = "(to be spoiled)";

/// The transport of AMQP.
#[derive(Clone)]
pub(super) enum AmqpCarrier {
    Tcp,
    Tls(TlsAcceptor),
    WebSockets(TlsAcceptor),
}

impl AmqpCarrier {
    pub(super) fn scheme(&self) -> &'static str {
        match self {
            AmqpCarrier::Tcp => "amqp",
            AmqpCarrier::Tls(_) => "amqps",
            AmqpCarrier::WebSockets(_) => "wss",
        }
    }
}

/// Accepts connections on a port, and passes the pipe's other end to `serve`.
pub(super) struct Relay {
    pub(super) address: SocketAddr,
    pub(super) weather: Arc<NetworkConditions>,
    carrier: AmqpCarrier,
    serve: Arc<dyn Fn(DuplexStream) + Send + Sync>,
    connections: Arc<Mutex<JoinSet<()>>>,
    listening: Mutex<Option<JoinHandle<()>>>,
}

impl Relay {
    pub(super) async fn start(
        carrier: AmqpCarrier,
        serve: Arc<dyn Fn(DuplexStream) + Send + Sync>,
    ) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let relay = Relay {
            address: listener.local_addr().unwrap(),
            weather: Arc::new(NetworkConditions::new()),
            carrier,
            serve,
            connections: Arc::default(),
            listening: Mutex::default(),
        };
        relay.listen(listener);
        relay
    }

    fn listen(&self, listener: TcpListener) {
        let connections = Arc::clone(&self.connections);
        let (weather, carrier) = (Arc::clone(&self.weather), self.carrier.clone());
        let serve = Arc::clone(&self.serve);
        let task = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    continue;
                };
                weather.connections.fetch_add(1, Ordering::Relaxed);
                let (weather, serve) = (Arc::clone(&weather), serve.clone());
                let carrier = carrier.clone();
                let mut connections = connections.lock().unwrap();
                connections.spawn(async move {
                    // How a connection ends does not matter here.
                    let _ = relay(stream, carrier, &weather, &*serve).await;
                });
                while connections.try_join_next().is_some() {}
            }
        });
        *self.listening.lock().unwrap() = Some(task);
    }

    /// The number of open connections.
    pub(super) fn alive(&self) -> usize {
        let mut connections = self.connections.lock().unwrap();
        while connections.try_join_next().is_some() {}
        connections.len()
    }

    /// Ends every connection at once, with a reset.
    pub(super) fn cut(&self) {
        self.connections.lock().unwrap().abort_all();
    }

    /// Stops listening, so that connections are refused. Existing ones stay open.
    pub(super) async fn close(&self) {
        let task = self.listening.lock().unwrap().take();
        if let Some(task) = task {
            task.abort();
            // The socket closes once the task has ended.
            let _ = task.await;
        }
    }

    /// Listens again on the same port.
    pub(super) async fn open(&self) {
        // A connection that was just refused may still hold the port.
        for _ in 0..500 {
            if let Ok(listener) = TcpListener::bind(self.address).await {
                return self.listen(listener);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the port {} stays taken", self.address);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(task) = self.listening.lock().unwrap().take() {
            task.abort();
        }
        self.cut();
    }
}

async fn relay(
    stream: TcpStream,
    carrier: AmqpCarrier,
    weather: &NetworkConditions,
    serve: &(dyn Fn(DuplexStream) + Send + Sync),
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    // A cut is a reset, and leaves the port free.
    stream.set_zero_linger()?;
    let (here, there) = duplex(CHUNK);
    match carrier {
        AmqpCarrier::Tcp => {
            serve(there);
            both(stream, here, weather).await
        }
        AmqpCarrier::Tls(tls) => {
            let stream = tls.accept(stream).await?;
            serve(there);
            both(stream, here, weather).await
        }
        AmqpCarrier::WebSockets(tls) => {
            let stream = tls.accept(stream).await?;
            serve(there);
            web_socket::relay(stream, here, weather).await
        }
    }
}

async fn both(
    client: impl AsyncRead + AsyncWrite,
    here: DuplexStream,
    weather: &NetworkConditions,
) -> std::io::Result<()> {
    let (from_client, to_client) = split(client);
    let (from_server, to_server) = split(here);
    tokio::try_join!(
        copy(from_client, to_server, weather, None),
        copy(from_server, to_client, weather, Some(&weather.bytes_out)),
    )?;
    Ok(())
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    weather: &NetworkConditions,
    count: Option<&AtomicU64>,
) -> std::io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let bytes = from.read(&mut buffer).await?;
        if bytes == 0 {
            return to.shutdown().await;
        }
        tokio::time::sleep(weather.wait(bytes)).await;
        if count.is_some() {
            spoil(&mut buffer[..bytes]);
        }
        to.write_all(&buffer[..bytes]).await?;
        to.flush().await?;
        if let Some(count) = count {
            count.fetch_add(bytes as u64, Ordering::Relaxed);
        }
    }
}

/// Makes texts that are marked so no UTF-8, which no client can decode.
fn spoil(bytes: &mut [u8]) {
    let marked = bytes
        .windows(SPOILED.len())
        .position(|text| text == SPOILED.as_bytes());
    if let Some(at) = marked {
        bytes[at] = 0xff;
        spoil(&mut bytes[at + 1..]);
    }
}
