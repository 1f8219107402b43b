//! The sink that was chosen: the webhook, or an output for people.

use crate::event::Event;
use crate::output::Output;
use crate::sink::{Answer, Sink, Verdict};
use crate::webhook::Webhook;

/// Either of the two ways out.
#[derive(Debug)]
pub enum Target {
    /// POST to a webhook.
    Webhook(Webhook),
    /// Standard output or a file.
    Output(Output),
}

impl Target {
    /// The same for a run with a checkpoint: what is accepted survives a crash.
    #[must_use]
    pub fn durable(self) -> Target {
        match self {
            Target::Output(output) => Target::Output(output.durable()),
            webhook @ Target::Webhook(_) => webhook,
        }
    }

    /// Asks the receiver whether it would take events, with an empty list.
    pub async fn ask(&self) -> Answer {
        match self {
            Target::Webhook(webhook) => webhook.ask().await,
            Target::Output(_) => Answer {
                verdict: Verdict::Accepted { status: 200 },
                server_time: None,
            },
        }
    }
}

impl Sink for Target {
    async fn send(&self, events: &[Event]) -> Verdict {
        match self {
            Target::Webhook(webhook) => webhook.send(events).await,
            Target::Output(output) => output.send(events).await,
        }
    }

    fn in_flight_max(&self) -> usize {
        match self {
            Target::Webhook(webhook) => webhook.in_flight_max(),
            Target::Output(output) => output.in_flight_max(),
        }
    }
}
