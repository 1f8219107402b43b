//! Keeps a stream of messages open, for ever, and says how that goes.
//!
//! Google's client mends what is broken on the way, but in silence: while the service cannot be
//! reached it just waits, and so it does on a subscription that is quiet. So the service is asked
//! now and then whether we may consume the subscription, which needs no right of its own. That it
//! answers does not mean that its stream works: a proxy may let one pass and not the other, streams
//! have a quota of their own. So a quiet stream is believed only when the service, asked for one
//! message, has none ([`SubscriptionConnection::holds_more`]); and a stream that brings nothing while there is
//! more, or on which nothing came for long, is replaced by a new one.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use audit_bridge_app::telemetry::Telemetry;
use audit_bridge_core::readiness::Unavailable;
use audit_bridge_core::retry::Backoff;
use google_cloud_pubsub::subscriber::{MessageStream, ShutdownToken};
use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::connection::{SubscriptionConnection, ready};
use super::proof::{Proof, Watched, prove};
use super::{Delivery, Incoming};

/// A stream that lasted so long had no trouble beginning.
const STEADY: Duration = Duration::from_secs(60);

/// Reads until the source is gone.
pub(super) async fn read_for_ever(
    connection: SubscriptionConnection,
    outgoing: mpsc::Sender<Incoming>,
    open: watch::Receiver<usize>,
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

/// Forwards the messages of a stream. Returns why it ended; `None` when it is only to be replaced.
async fn forward_stream(
    connection: &SubscriptionConnection,
    mut stream: MessageStream,
    outgoing: &mpsc::Sender<Incoming>,
    open: &watch::Receiver<usize>,
    telemetry: &Telemetry,
    watched: &mut Watched,
) -> Option<Unavailable> {
    let watch = connection.watch;
    let mut probe = interval(watch.probe_interval);
    probe.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        // Not dropped half-way: the client would begin its connecting anew.
        let mut next = std::pin::pin!(stream.next());
        let next = loop {
            tokio::select! {
                biased;
                next = &mut next => break next,
                _ = probe.tick() => {
                    let silent = watched.heard.elapsed();
                    let is_open = *open.borrow() > 0;
                    if silent > watch.silence_max && !is_open {
                        return None;
                    }
                    // Messages are a better proof.
                    if watched.well && silent < watch.probe_interval {
                        continue;
                    }
                    let proof = prove(connection, watched, is_open).await;
                    match &proof {
                        Ok(Proof::Old) => return None,
                        Ok(Proof::Broken(_)) => {}
                        Ok(_) => telemetry.source_request("ok"),
                        Err(_) => telemetry.source_request("error"),
                    }
                    match proof {
                        Ok(Proof::NothingMore(time)) => {
                            ready(telemetry);
                            // Where there is no room, messages wait that say more.
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
                let delivery = Delivery {
                    id: message.message_id,
                    published: published.unwrap_or_else(Timestamp::now),
                    data: message.data,
                    handler,
                };
                // Waits while nobody reads: that is what holds the service back.
                if outgoing.send(Incoming::Message(delivery)).await.is_err() {
                    return None;
                }
            }
            Some(Err(error)) => return Some(connection.ended(&error)),
            None => return Some(connection.unreachable("the stream ended")),
        }
    }
}
