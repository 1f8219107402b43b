//! The simulated network: its speed, and counters of its traffic.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// The shortest delay of a chunk.
pub(super) const LATENCY_MIN: Duration = Duration::from_millis(1);

/// Most bytes that are relayed at once.
pub(super) const CHUNK: usize = 64 << 10;

#[derive(Debug)]
pub(super) struct NetworkConditions {
    /// Delay of each chunk in microseconds.
    latency: AtomicU64,
    /// Bytes per second and direction of each connection; 0: no limit.
    rate: AtomicU64,
    pub(super) connections: AtomicUsize,
    /// Bytes sent to clients.
    pub(super) bytes_out: AtomicU64,
}

impl NetworkConditions {
    pub(super) fn new() -> NetworkConditions {
        NetworkConditions {
            latency: AtomicU64::new(u64::try_from(LATENCY_MIN.as_micros()).unwrap()),
            rate: AtomicU64::new(0),
            connections: AtomicUsize::new(0),
            bytes_out: AtomicU64::new(0),
        }
    }

    pub(super) fn latency(&self, latency: Duration) {
        let latency = latency.max(LATENCY_MIN).as_micros();
        self.latency
            .store(u64::try_from(latency).unwrap(), Ordering::Relaxed);
    }

    pub(super) fn rate(&self, bytes_per_second: u64) {
        self.rate.store(bytes_per_second, Ordering::Relaxed);
    }

    pub(super) fn went_out(&self, bytes: usize) {
        self.bytes_out.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn wait(&self, bytes: usize) -> Duration {
        let latency = Duration::from_micros(self.latency.load(Ordering::Relaxed));
        match self.rate.load(Ordering::Relaxed) {
            0 => latency,
            rate => latency + Duration::from_secs_f64(bytes as f64 / rate as f64),
        }
    }
}
