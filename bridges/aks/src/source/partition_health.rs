//! Reports that a partition cannot be read.

use audit_bridge_app::provider::partitions::PartitionHealth;

use crate::client::{HubError, HubErrorKind};

/// Reports an attempt that failed, the `failures`th in a row.
pub(crate) fn failed(health: &PartitionHealth, partition: &str, failures: u32, fault: HubError) {
    let telemetry = health.telemetry();
    telemetry.source_request(fault.status());
    if fault.kind == HubErrorKind::Busy {
        telemetry.source_throttled();
    }
    // Links end now and then, for example when a token expires. One that worked is reopened before
    // this counts as a failure.
    let may_pass = fault.kind != HubErrorKind::Undecodable;
    if may_pass && failures == 1 && health.is_reading(partition) {
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
