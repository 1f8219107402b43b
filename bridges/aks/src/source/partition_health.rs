//! What is said of a partition that cannot be read.

use audit_bridge_app::provider::partitions::PartitionHealth;

use crate::client::{HubError, HubErrorKind};

/// An attempt at a partition failed, so many in a row.
pub(crate) fn failed(health: &PartitionHealth, partition: &str, failures: u32, fault: HubError) {
    let telemetry = health.telemetry();
    telemetry.source_request(fault.status());
    if fault.kind == HubErrorKind::Busy {
        telemetry.source_throttled();
    }
    // A link ends now and then, also by a token that ran out: one that worked is opened again
    // before there is anything to say.
    if failures == 1 && health.is_reading(partition) {
        tracing::info!(partition, why = fault.what, "link ended: reopening it");
        return;
    }
    tracing::warn!(
        partition,
        failures,
        why = fault.what,
        "partition read failed; retrying"
    );
    health.failed(partition, fault.into());
}
