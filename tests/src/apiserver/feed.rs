//! Forwards the audit log of a running API server line by line, as a provider does: all of it,
//! nothing, or all except for exclusions.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Which events the provider forwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeedGate {
    /// All.
    Open,
    /// None: the audit log is switched off.
    Shut,
    /// All except those that contain this text, which are kept ([`AuditFeed::kept`]).
    Without(&'static str),
    /// Only those that contain this text.
    Only(&'static str),
}

/// A running feed. Dropping it stops it.
#[derive(Debug)]
pub struct AuditFeed {
    state: Arc<Mutex<FeedState>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct FeedState {
    gate: FeedGate,
    kept: Vec<String>,
    released: Vec<String>,
}

impl Drop for AuditFeed {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl AuditFeed {
    /// Passes every line of this log to `give`, from its start.
    pub fn start(log: PathBuf, mut give: impl FnMut(&str) + Send + 'static) -> AuditFeed {
        let state = Arc::new(Mutex::new(FeedState {
            gate: FeedGate::Open,
            kept: Vec::new(),
            released: Vec::new(),
        }));
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, shared) = (Arc::clone(&stop), Arc::clone(&state));
        let thread = std::thread::spawn(move || {
            let mut reader = None;
            let mut line = String::new();
            while !stopped.load(Ordering::Relaxed) {
                for line in std::mem::take(&mut lock(&shared).released) {
                    give(&line);
                }
                if reader.is_none() {
                    reader = std::fs::File::open(&log).ok().map(BufReader::new);
                }
                let read = reader.as_mut().map_or(Ok(0), |it| it.read_line(&mut line));
                // The end of what is written so far, possibly within a line.
                if !matches!(read, Ok(1..)) || !line.ends_with('\n') {
                    std::thread::sleep(Duration::from_millis(10));
                    continue;
                }
                let text = std::mem::take(&mut line);
                let mut state = lock(&shared);
                match state.gate {
                    FeedGate::Shut => {}
                    FeedGate::Only(part) if !text.contains(part) => {}
                    FeedGate::Without(part) if text.contains(part) => state.kept.push(text),
                    FeedGate::Open | FeedGate::Without(_) | FeedGate::Only(_) => {
                        drop(state);
                        give(text.trim_end());
                    }
                }
            }
        });
        AuditFeed {
            state,
            stop,
            thread: Some(thread),
        }
    }

    /// Sets what is forwarded from now on.
    pub fn set(&self, gate: FeedGate) {
        lock(&self.state).gate = gate;
    }

    /// The lines that were excluded by their text so far.
    pub fn kept(&self) -> Vec<String> {
        lock(&self.state).kept.clone()
    }

    /// Forwards the kept lines, as if the provider had only been late.
    pub fn release(&self) {
        let mut state = lock(&self.state);
        let kept = std::mem::take(&mut state.kept);
        state.released.extend(kept);
    }
}

fn lock(state: &Mutex<FeedState>) -> MutexGuard<'_, FeedState> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
