//! The objects that the chart creates for logs in slots.

use audit_bridge_testkit::kubernetes::FakeKubernetes;
use serde_json::json;

pub(crate) const NAMESPACE: &str = "audit";
pub(crate) const NAME: &str = "bridge";
pub(crate) const SLOTS: usize = 5;
pub(crate) const MEMBERS: usize = 3;

/// Creates the table with its numbers, and the objects of slots and members, all empty.
pub(crate) fn make(fake: &FakeKubernetes) {
    let annotations = json!({
        "audit-bridge/slots": SLOTS.to_string(),
        "audit-bridge/members": MEMBERS.to_string(),
    });
    let table = json!({"metadata": {"annotations": annotations}});
    fake.put("configmaps", NAMESPACE, &format!("{NAME}-slots"), table);
    for slot in 0..SLOTS {
        let name = format!("{NAME}-slot-{slot}");
        fake.put("configmaps", NAMESPACE, &name, json!({}));
        fake.put("leases", NAMESPACE, &name, json!({}));
    }
    for member in 0..MEMBERS {
        let name = format!("{NAME}-member-{member}");
        fake.put("leases", NAMESPACE, &name, json!({}));
    }
}
