//! `check --canary` where running replicas receive the events: one of them has to record the
//! canary's.

use std::time::Duration;

use audit_bridge_core::readiness::{Component, Unavailable};
use tokio::time::Instant;

use super::super::super::Bridge;
use super::super::super::run_args::Checked;
use super::{ProgressLine, TOLD_EVERY, unsent};
use crate::canary::sender::CanarySender;
use crate::canary::{Leg, ask_replicas};
use crate::provider::{Provider as _, ProviderLog};

pub(super) async fn run<B: Bridge>(checked: &Checked<B>) -> Result<String, Unavailable> {
    let logs = checked.provider.connect().await?;
    let source = logs.first().map(ProviderLog::silence_remedy);
    let sender = CanarySender::new(B::NAME, &checked.state.name);
    let canary = sender.prepare().await.map_err(unsent)?;
    let wait_max = checked.canary.wait_max;
    let (sent, mut line) = (Instant::now(), ProgressLine::default());
    let mut next = Duration::ZERO;
    let asked = ask_replicas(&sender, &canary, wait_max, |waited| {
        if waited >= next {
            next = waited + TOLD_EVERY;
            line.tell(waited, None);
        }
    });
    let proof = asked.await;
    line.end();
    let seconds = sent.elapsed().as_secs_f64();
    let (component, reason, remedy) = match proof.map_err(unsent)? {
        Some(true) => {
            return Ok(format!(
                "a replica has brought its audit event to the webhook, after {seconds:.0} s"
            ));
        }
        Some(false) => (
            Component::Webhook,
            "the webhook has refused its audit event, which is in a replica's dead letter"
                .to_owned(),
            Leg::Webhook.remedy(""),
        ),
        None => (
            Component::Source,
            format!(
                "no replica has said within {seconds:.0} s that its audit event came: none runs, or the \
                 source gives none of it"
            ),
            Leg::SourceWithoutIt.remedy(source.as_deref().unwrap_or_default()),
        ),
    };
    Err(Unavailable {
        component,
        reason,
        remedy,
    })
}
