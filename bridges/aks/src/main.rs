//! The binary: everything is in the libraries.

use std::process::ExitCode;

use audit_bridge_core::cli;
use aks_audit_bridge::config::Aks;

fn main() -> ExitCode {
    cli::main::<Aks>()
}
