//! Handles signals: the first one requests a stop, the second one exits at once.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// How long batches in flight may still be delivered after the first signal.
pub(crate) const GRACE: Duration = Duration::from_secs(25);

/// Listens for SIGTERM and SIGINT. A second signal ends the process with the status that a shell
/// reports for it.
///
/// # Errors
/// The operating system does not let this process listen.
pub(crate) fn on_signal() -> std::io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = CancellationToken::new();
    let asked = stop.clone();
    tokio::spawn(async move {
        loop {
            let status = tokio::select! {
                _ = terminate.recv() => 143,
                _ = interrupt.recv() => 130,
            };
            if asked.is_cancelled() {
                std::process::exit(status);
            }
            tracing::info!(
                "stopping: delivering what is in flight; a second signal ends the process at once"
            );
            asked.cancel();
        }
    });
    Ok(stop)
}
