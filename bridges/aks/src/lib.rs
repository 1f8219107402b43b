//! The aks bridge.
