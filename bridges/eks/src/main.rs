//! The binary. All code is in the libraries.

use std::process::ExitCode;

use audit_bridge_app::cli;
use eks_audit_bridge::config::Eks;

fn main() -> ExitCode {
    cli::main::<Eks>()
}
