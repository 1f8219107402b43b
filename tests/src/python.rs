//! Python, for tests that need tools or third-party clients that exist only there.

use std::path::PathBuf;
use std::process::Command;

use crate::root;

/// The Python of a virtual environment with exactly these requirements (a file of the repository),
/// created on first use.
///
/// # Panics
/// It cannot be created; the failure is on standard error.
pub fn python(requirements: &str) -> PathBuf {
    let made = Command::new("python3")
        .args(["tests/venv.py", requirements])
        .current_dir(root())
        .output();
    let output = match made {
        Ok(output) => output,
        Err(error) => unreachable!("python3 cannot be started: {error}"),
    };
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "tests/venv.py failed: {said}");
    PathBuf::from(String::from_utf8_lossy(&output.stdout).trim())
}
