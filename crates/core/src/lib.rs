//! The shared core of the audit bridges.
//!
//! One way for all data: a *source* yields records (the provider's bytes with their place), a
//! *converter* makes audit events of them, a *batcher* groups those, *delivery* brings them to the
//! webhook, and the *ack tracker* moves a position only over what was settled.
//!
//! Nothing here knows of flags, of the Kubernetes API, of metrics or of a port: what happens is told
//! to an *observer*.

mod ack;
pub mod any_sink;
pub mod batch;
pub mod chain;
pub mod checkpoint;
pub mod convert;
pub mod dead_letter;
pub mod deliver;
pub mod event;
pub mod frontier;
pub mod json_lines;
pub mod lease_hold;
pub mod observer;
pub mod read_budget;
pub mod readiness;
pub mod record;
pub mod retry;
pub mod run;
pub mod run_stats;
pub mod sink;
pub mod source;
pub mod webhook;
