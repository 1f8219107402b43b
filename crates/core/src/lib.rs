//! The shared core of the audit bridges.
//!
//! All data flows one way: a *source* reads records (the provider's bytes and where they came
//! from), a *converter* turns them into audit events, a *batcher* groups the events, *delivery*
//! sends them to the webhook, and the *ack tracker* advances a position only over settled records.
//!
//! This crate knows no flags, Kubernetes API, metrics or ports: it reports what happens to an
//! *observer*.

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
