//! The binary. All code is in the libraries.

use std::process::ExitCode;

use aks_audit_bridge::config::Aks;
use audit_bridge_app::cli;

fn main() -> ExitCode {
    cli::main::<Aks>()
}
