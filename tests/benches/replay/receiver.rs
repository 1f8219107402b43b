//! A webhook that reads bodies and says yes, as fast as it can.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use crate::cores;

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
const BUFFER_BYTES: usize = 1 << 20;

/// The receiver; it serves as long as the process lives.
pub(crate) struct Receiver {
    address: SocketAddr,
    /// When the first request came.
    first: Arc<Mutex<Option<Instant>>>,
}

impl Receiver {
    /// Starts on a free port, with a thread for each connection.
    pub(crate) fn start() -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let first = Arc::new(Mutex::new(None));
        let shared = Arc::clone(&first);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, first) = (stream.unwrap(), Arc::clone(&shared));
                std::thread::spawn(move || serve(stream, &first));
            }
        });
        Receiver { address, first }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// When the first request came since [`Receiver::forget`].
    pub(crate) fn first(&self) -> Option<Instant> {
        *self.first.lock().unwrap()
    }

    /// The next request is the first one.
    pub(crate) fn forget(&self) {
        *self.first.lock().unwrap() = None;
    }
}

/// Serves a connection to its end.
fn serve(mut stream: TcpStream, first: &Mutex<Option<Instant>>) {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut filled = 0;
    loop {
        let head = loop {
            if let Some(at) = buffer[..filled]
                .windows(4)
                .position(|four| four == b"\r\n\r\n")
            {
                break at + 4;
            }
            match stream.read(&mut buffer[filled..]) {
                Ok(bytes) if bytes > 0 => filled += bytes,
                _ => return,
            }
        };
        first.lock().unwrap().get_or_insert_with(Instant::now);
        let text = String::from_utf8_lossy(&buffer[..head]).to_ascii_lowercase();
        let length = text
            .lines()
            .find_map(|line| line.strip_prefix("content-length:"))
            .map_or(0, |length| length.trim().parse().unwrap());
        // A client that waits for its answer sends nothing behind the body.
        let mut left: usize = length - (filled - head);
        filled = 0;
        while left > 0 {
            match stream.read(&mut buffer) {
                Ok(bytes) if bytes > 0 => left -= bytes,
                _ => return,
            }
        }
        if stream.write_all(ANSWER).is_err() {
            return;
        }
    }
}

/// How many bytes a second the bridge's core can bring to the receiver with nothing else to do.
pub(crate) fn floor(address: SocketAddr) -> f64 {
    const BODIES: usize = 300;
    let sender = std::thread::spawn(move || {
        cores::keep_this_thread_on(cores::BRIDGE);
        let mut stream = TcpStream::connect(address).unwrap();
        let body = vec![b' '; 1 << 20];
        let head = format!("POST / HTTP/1.1\r\ncontent-length: {}\r\n\r\n", body.len());
        let mut answer = [0; ANSWER.len()];
        let began = Instant::now();
        for _ in 0..BODIES {
            stream.write_all(head.as_bytes()).unwrap();
            stream.write_all(&body).unwrap();
            stream.read_exact(&mut answer).unwrap();
        }
        (BODIES * body.len()) as f64 / began.elapsed().as_secs_f64()
    });
    sender.join().unwrap()
}
