//! Keeps a stream of messages open indefinitely, and reports its health.
//!
//! Google's client repairs a broken connection, but silently: it just waits, both while the service
//! cannot be reached and on a quiet subscription. So the reader regularly asks the service whether
//! we may consume the subscription, which needs no permission. An answer does not prove that the
//! stream works: a proxy may pass only one of them, and streams have their own quota. So a quiet
//! stream is trusted only if the service has no message for a pull
//! ([`SubscriptionConnection::holds_more`]). A stream that brings nothing while there is more, or
//! was silent for long, is replaced.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use audit_bridge_app::telemetry::Telemetry;
use audit_bridge_core::readiness::Unavailable;
use audit_bridge_core::retry::Backoff;
use google_cloud_pubsub::subscriber::{MessageStream, ShutdownToken};
use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::ack_ledger::OpenMessages;
use super::connection::{SubscriptionConnection, ready};
use super::proof::{Proof, Watched, prove};
use super::{Delivery, Incoming};

/// A stream that lasted this long resets the backoff.
const STEADY: Duration = Duration::from_secs(60);

/// Reads until the source is dropped.
pub(super) async fn read_for_ever(
    connection: SubscriptionConnection,
    outgoing: mpsc::Sender<Incoming>,
    open: watch::Receiver<OpenMessages>,
    token: Arc<Mutex<Option<ShutdownToken>>>,
    telemetry: Telemetry,
) {
    let mut backoff = Backoff::seeded(fastrand::u64(..));
    let mut failures = 0;
    let mut watched = Watched::default();
    while !outgoing.is_closed() {
        let begun = Instant::now();
        let ended = match connection.stream().await {
            Ok(stream) => {
                *token.lock().unwrap_or_else(PoisonError::into_inner) =
                    Some(stream.shutdown_token());
                watched.begin();
                forward_stream(
                    &connection,
                    stream,
                    &outgoing,
                    &open,
                    &telemetry,
                    &mut watched,
                )
                .await
            }
            Err(unavailable) => Some(unavailable),
        };
        if begun.elapsed() > STEADY {
            failures = 0;
        }
        let Some(unavailable) = ended else { continue };
        telemetry.source_request("error");
        telemetry.not_ready(unavailable.component, unavailable.to_string());
        failures += 1;
        sleep(backoff.wait(failures)).await;
    }
}

/// Forwards a stream's messages. Returns why it ended; `None` if it is only to be replaced.
async fn forward_stream(
    connection: &SubscriptionConnection,
    mut stream: MessageStream,
    outgoing: &mpsc::Sender<Incoming>,
    open: &watch::Receiver<OpenMessages>,
    telemetry: &Telemetry,
    watched: &mut Watched,
) -> Option<Unavailable> {
    let watch = connection.watch;
    let mut probe = interval(watch.probe_interval);
    probe.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        // Kept over probes: dropping it would make the client connect anew.
        let mut next = std::pin::pin!(stream.next());
        let next = loop {
            tokio::select! {
                biased;
                next = &mut next => break next,
                _ = probe.tick() => {
                    let silent = watched.heard.elapsed();
                    let opened = *open.borrow();
                    if silent > watch.silence_max && opened.count == 0 {
                        return None;
                    }
                    // Recent messages prove more than a probe.
                    if watched.well && silent < watch.probe_interval {
                        continue;
                    }
                    let proof = prove(connection, watched, opened).await;
                    match &proof {
                        Ok(Proof::Old) => return None,
                        Ok(Proof::Broken(_)) => {}
                        Ok(_) => telemetry.source_request("ok"),
                        Err(_) => telemetry.source_request("error"),
                    }
                    match proof {
                        Ok(Proof::NothingMore(time)) => {
                            ready(telemetry);
                            // If the channel is full, its messages tell more.
                            let _ = outgoing.try_send(Incoming::NothingMore(time));
                        }
                        Ok(Proof::Unknown) if watched.waiting => {}
                        Ok(Proof::Unknown | Proof::Old) => ready(telemetry),
                        Ok(Proof::Broken(unavailable)) => return Some(unavailable),
                        Err(unavailable) => {
                            watched.well = false;
                            watched.failed = true;
                            telemetry.not_ready(unavailable.component, unavailable.to_string());
                        }
                    }
                }
            }
        };
        match next {
            Some(Ok((message, handler))) => {
                watched.heard(telemetry);
                let published = message
                    .publish_time
                    .and_then(|time| Timestamp::new(time.seconds(), time.nanos()).ok());
                let attributes = message.attributes.iter();
                let attributes = attributes.map(|(key, value)| key.len() + value.len());
                let delivery = Delivery {
                    bytes: message.data.len() + attributes.sum::<usize>(),
                    id: message.message_id,
                    published: published.unwrap_or_else(Timestamp::now),
                    data: message.data,
                    handler,
                };
                // Waits while the pipeline reads nothing: this is the backpressure on the service.
                if outgoing.send(Incoming::Message(delivery)).await.is_err() {
                    return None;
                }
            }
            Some(Err(error)) => return Some(connection.ended(&error)),
            None => return Some(connection.unreachable("the stream ended")),
        }
    }
}
