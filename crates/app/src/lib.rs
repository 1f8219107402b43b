//! What a bridge's binary has around the pipeline: the commands and their flags, the state of each
//! log, one reader among replicas, metrics and readiness.
//!
//! A bridge hands a [`cli::Bridge`] to [`cli::main`], and supplies a [`provider::Provider`].

mod admin;
pub mod cli;
pub mod config;
pub mod kubernetes;
pub mod lease;
pub mod provider;
pub mod share;
mod shutdown;
pub mod state;
pub mod telemetry;
