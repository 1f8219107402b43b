//! What a replica says of the others, and of the logs that nobody reads.

use std::collections::BTreeSet;

use audit_bridge_core::readiness::Component;

use super::{Bridge, Log, Process, View};
use crate::balancer::RebalanceStep;

impl<B: Bridge> Process<'_, B> {
    /// Reports readiness, and logs a changed membership.
    pub(super) fn report_membership(&self, view: &mut View<Log<B>>, step: &RebalanceStep) {
        match step.failure.as_ref().or(view.slots_failure.as_ref()) {
            Some(unavailable) => self
                .telemetry
                .not_ready(Component::Checkpoint, unavailable.clone()),
            None => self.telemetry.ready(Component::Checkpoint),
        }
        self.report_unread(view, step);
        if let Some(membership) = step.membership
            && view.membership != Some(membership)
        {
            view.membership = Some(membership);
            let shared = |log: &&String| view.balancer.lease(log).is_some();
            let logs = view.logs.keys().filter(shared).count();
            let share = membership.share(logs);
            let replicas = membership.replicas;
            match membership.rank {
                Some(_) => {
                    self.telemetry.standby(None);
                    tracing::info!(
                        replicas,
                        logs,
                        share,
                        "membership changed: replicas share the logs"
                    );
                }
                None => {
                    self.telemetry
                        .standby(Some("other replicas; no member lease is free"));
                    tracing::warn!(
                        replicas,
                        "standing by: there are no more member leases; raise checkpoint.members of the \
                         chart, or run fewer replicas"
                    );
                }
            }
        }
    }

    /// Reports the logs that nobody reads as if this replica read them and they stood still.
    fn report_unread(&self, view: &mut View<Log<B>>, step: &RebalanceStep) {
        // Without it, nothing is known of the logs' holders.
        if step.membership.is_none() {
            return;
        }
        let unread: BTreeSet<String> = step.unread.keys().cloned().collect();
        for log in view.unread.difference(&unread) {
            self.telemetry.log(log).retired();
        }
        for (log, why) in &step.unread {
            let telemetry = self.telemetry.log(log);
            telemetry.ready(Component::Source);
            telemetry.not_ready(Component::Checkpoint, why.clone());
        }
        view.unread = unread;
    }
}
