//! Sends a canary now and then, and counts those that are lost, beside the pipelines and never in their
//! way.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use super::CanaryWatch;
use super::sender::{CanarySender, SendFailure};
use crate::telemetry::Telemetry;

/// From one look at those that are overdue to the next.
const COUNT_INTERVAL: Duration = Duration::from_millis(500);

/// The task that sends canaries. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct CanaryTask(JoinHandle<()>);

impl Drop for CanaryTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Begins to send canaries, one at once. Those of an earlier task are forgotten.
pub(crate) fn spawn(
    watch: Arc<CanaryWatch>,
    sender: CanarySender,
    every: Duration,
    telemetry: Telemetry,
) -> CanaryTask {
    watch.forget();
    let sending = Sending {
        watch: Arc::clone(&watch),
        sender,
        telemetry,
        trouble: None,
    };
    CanaryTask(tokio::spawn(async move {
        tokio::join!(sending.run(every), count(&watch));
    }))
}

async fn count(watch: &CanaryWatch) {
    let mut tick = interval(COUNT_INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        watch.count_lost();
    }
}

struct Sending {
    watch: Arc<CanaryWatch>,
    sender: CanarySender,
    telemetry: Telemetry,
    /// Why the last one could not be sent, or was refused.
    trouble: Option<String>,
}

impl Sending {
    async fn run(mut self, every: Duration) {
        let mut tick = interval(every);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let sent = self.send().await;
            self.tell(sent);
        }
    }

    /// Sends one; `Ok(false)` where too many are under way.
    async fn send(&mut self) -> Result<bool, SendFailure> {
        let canary = self.sender.prepare().await?;
        // Known before it is sent: its event may be read before the answer is.
        let (mark, expected) = (canary.mark.clone(), canary.expected.clone());
        let Some(number) = self.watch.begin(mark, expected) else {
            return Ok(false);
        };
        let sent = self.sender.send(&canary).await;
        if sent.as_ref().is_err_and(|failure| !failure.is_audited) {
            self.watch.withdraw(number);
        }
        sent.map(|()| true)
    }

    /// Counts, and logs a trouble once.
    fn tell(&mut self, sent: Result<bool, SendFailure>) {
        match sent {
            Ok(false) => {}
            Ok(true) => {
                self.telemetry.canary_requested("ok");
                if self.trouble.take().is_some() {
                    tracing::info!("canaries are sent to the API server again");
                }
            }
            Err(SendFailure {
                status,
                why,
                remedy,
                ..
            }) => {
                self.telemetry.canary_requested(status);
                if self.trouble.as_ref() != Some(&why) {
                    tracing::warn!(
                        why,
                        remedy,
                        "canary refused by the API server, or not sent to it"
                    );
                    self.trouble = Some(why);
                }
            }
        }
    }
}
