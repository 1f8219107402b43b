//! A real API server as the judge: what it logs is what we deliver, what we keep in it survives, and
//! what we ship is admitted by it.
//!
//! Skipped, visibly, where there is no Go. `APISERVER_RELEASES=all` judges 1.31 besides the newest.
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
