//! A canary of `check` whose event running replicas receive: one of them has to record its arrival.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{Instant, sleep};

use super::records::{CHECKER, CanaryRecord, DataChange};
use super::sender::{CanarySender, ReadyCanary, SendFailure};

/// The time between two reads of the records.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Sends this canary and waits until a replica has proven that the webhook accepted its event
/// (`true`) or that it went to the dead letter (`false`). `None`: no replica has, within
/// `wait_max`. `tell` is called with the time waited so far.
///
/// # Errors
/// The API server did not accept the canary, so no replica can know of it.
pub(crate) async fn ask_replicas(
    sender: &CanarySender,
    canary: &ReadyCanary,
    wait_max: Duration,
    mut tell: impl FnMut(Duration),
) -> Result<Option<bool>, SendFailure> {
    let by = format!("{CHECKER}{:016x}", fastrand::u64(..));
    let (digest, sent) = (canary.mark.digest(), Instant::now());
    let record = CanaryRecord::new(Timestamp::now(), &by).to_text();
    let change: DataChange = [(digest.to_string(), Some(record))].into();
    sender.send(canary, &change).await?;
    let mut proof = None;
    while proof.is_none() && sent.elapsed() < wait_max {
        tell(sent.elapsed());
        sleep(LOOK_INTERVAL).await;
        // The API server may answer next time.
        if let Ok(records) = sender.look().await {
            proof = records.proof(digest);
        }
    }
    // If this fails, a sending replica removes the record later.
    let _ = sender.forget(digest).await;
    Ok(proof)
}
