//! A canary of `check`, whose event replicas that run are given: one of them has to say that it came.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{Instant, sleep};

use super::records::{CHECKER, CanaryRecord, DataChange};
use super::sender::{CanarySender, ReadyCanary, SendFailure};

/// From one look at the records to the next.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Sends this canary, and waits until a replica has proven that its event was accepted by the webhook
/// (`true`) or went to the dead letter (`false`); `None`: none has by then. `tell` hears how long it takes.
///
/// # Errors
/// The API server has not taken it, so that no replica can know of it.
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
        // The API server may answer the next time.
        if let Ok(records) = sender.look().await {
            proof = records.proof(digest);
        }
    }
    // Whoever runs would take it away later.
    let _ = sender.forget(digest).await;
    Ok(proof)
}
