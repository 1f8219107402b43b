//! What a bridge's binary needs around the pipeline: the commands and their flags, the state of
//! each log, one reader among replicas, metrics and readiness.
//!
//! A bridge implements [`cli::Bridge`] and [`provider::Provider`]; its `main` calls [`cli::main`].

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

/// A replay's reader thread allocates what the loop's thread frees. With the system's allocator the
/// threads wait for each other: two inputs at a time took a third longer.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
