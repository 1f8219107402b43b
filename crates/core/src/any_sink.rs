//! The configured sink: the webhook, or lines of JSON for people.

use crate::event::Event;
use crate::json_lines::JsonLinesOutput;
use crate::sink::{ReceiverAnswer, Sink, Verdict};
use crate::webhook::Webhook;

#[derive(Debug)]
pub enum AnySink {
    /// POST to a webhook.
    Webhook(Webhook),
    /// Writes to standard output or a file.
    Output(JsonLinesOutput),
}

impl AnySink {
    /// The same sink for a run with a checkpoint: accepted events survive a crash.
    #[must_use]
    pub fn durable(self) -> AnySink {
        match self {
            AnySink::Output(output) => AnySink::Output(output.durable()),
            webhook @ AnySink::Webhook(_) => webhook,
        }
    }

    /// Sends an empty list, to see whether the receiver would accept events.
    pub async fn ask(&self) -> ReceiverAnswer {
        match self {
            AnySink::Webhook(webhook) => webhook.ask().await,
            AnySink::Output(_) => ReceiverAnswer {
                verdict: Verdict::Accepted { status: 200 },
                server_time: None,
            },
        }
    }
}

impl Sink for AnySink {
    async fn send(&self, events: &[Event]) -> Verdict {
        match self {
            AnySink::Webhook(webhook) => webhook.send(events).await,
            AnySink::Output(output) => output.send(events).await,
        }
    }

    fn in_flight_max(&self) -> usize {
        match self {
            AnySink::Webhook(webhook) => webhook.in_flight_max(),
            AnySink::Output(output) => output.in_flight_max(),
        }
    }
}
