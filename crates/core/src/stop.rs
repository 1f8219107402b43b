//! Says to the pipeline when to stop reading.

use tokio::sync::watch;

/// Says when to stop. Clones see the same moment.
#[derive(Debug, Clone)]
pub struct Stop {
    asked: watch::Receiver<bool>,
}

impl Stop {
    /// Never stops by itself, and the handle that makes it stop.
    pub fn by_hand() -> (watch::Sender<bool>, Stop) {
        let (ask, asked) = watch::channel(false);
        (ask, Stop { asked })
    }

    /// Returns once it is time to stop.
    pub async fn asked(&mut self) {
        if self.asked.wait_for(|asked| *asked).await.is_err() {
            // Every sender is gone.
            std::future::pending::<()>().await;
        }
    }
}
