//! When to stop: the first signal asks for it, the second one leaves at once.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// How long what is in flight may still be delivered after the first signal.
pub const GRACE: Duration = Duration::from_secs(25);

/// Says when to stop. Clones see the same moment.
#[derive(Debug, Clone)]
pub struct Stop {
    asked: watch::Receiver<bool>,
}

impl Stop {
    /// Listens for SIGTERM and SIGINT. A second one ends the process with the status that a shell
    /// gives for the signal.
    ///
    /// # Errors
    /// When the operating system does not let this process listen.
    pub fn on_signal() -> std::io::Result<Stop> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let (ask, asked) = watch::channel(false);
        tokio::spawn(async move {
            loop {
                let status = tokio::select! {
                    _ = terminate.recv() => 143,
                    _ = interrupt.recv() => 130,
                };
                if *ask.borrow() {
                    std::process::exit(status);
                }
                tracing::info!(
                    "stopping: what is in flight is delivered first, a second signal leaves at once"
                );
                ask.send_replace(true);
            }
        });
        Ok(Stop { asked })
    }

    /// Never stops by itself, and the handle that makes it stop.
    pub fn by_hand() -> (watch::Sender<bool>, Stop) {
        let (ask, asked) = watch::channel(false);
        (ask, Stop { asked })
    }

    /// Returns once it is time to stop.
    pub async fn asked(&mut self) {
        if self.asked.wait_for(|asked| *asked).await.is_err() {
            // Nobody is left to ask.
            std::future::pending::<()>().await;
        }
    }
}
