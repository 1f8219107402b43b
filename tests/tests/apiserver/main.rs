//! A real API server as the judge: we deliver what it logs, what we store in it survives, and it
//! admits what we ship.
//!
//! Skipped with a message if there is no Go. `APISERVER_RELEASES=all` tests 1.31 too.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, and tells what it counted"
)]

mod admission;
mod canary;
mod contracts;
mod gke;
mod install;
mod live;
mod native;
mod recording;
mod stand_in;
mod state;
