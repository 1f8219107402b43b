//! The shared core of the audit bridges.
//!
//! One way for all data: a *source* yields records (the provider's bytes with their place), a
//! *converter* makes audit events of them, a *batcher* groups those, *delivery* brings them to the
//! webhook, and the *ack tracker* moves a position only over what was settled.

pub mod ack;
pub mod admin;
pub mod batch;
pub mod chain;
pub mod checkpoint;
pub mod cli;
pub mod config;
pub mod convert;
pub mod dead_letter;
pub mod deliver;
pub mod event;
pub mod frontier;
pub mod kubernetes;
pub mod lease;
pub mod live;
pub mod output;
pub mod record;
pub mod replay;
pub mod retry;
pub mod run;
pub mod share;
pub mod shutdown;
pub mod sink;
pub mod source;
pub mod tail;
pub mod tally;
pub mod telemetry;
pub mod webhook;
