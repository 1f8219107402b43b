//! Scripted outages of GKE: see [`audit_bridge_tests::outage`].

mod logging;
mod pubsub;
