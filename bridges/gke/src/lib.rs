//! The gke bridge.
