//! What a bridge's binary has around the pipeline: the commands and their flags, the state of each
//! log, one reader among replicas, metrics and readiness.
//!
//! A bridge hands a [`cli::Bridge`] to [`cli::main`], and supplies a [`provider::Provider`].

mod admin;
pub mod balancer;
mod canary;
pub mod cli;
pub mod config;
mod fatal;
mod invalid_value;
pub mod kubernetes;
pub mod lease;
pub mod provider;
mod shutdown;
pub mod slots;
pub mod state;
pub mod telemetry;

/// What one thread allocates (a reader of an input, which converts it) another one frees (the loop). The
/// system's allocator makes them wait for each other: two inputs at a time took a third longer.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
