//! The binary. All code is in the libraries.

use std::process::ExitCode;

use audit_bridge_app::cli;
use gke_audit_bridge::config::Gke;

fn main() -> ExitCode {
    cli::main::<Gke>()
}
