//! npm packages, for tests that need a judge that exists only there.

use std::path::PathBuf;
use std::process::Command;

use crate::go::say;
use crate::root;

/// The folder of a package without dependencies, fetched on first use into a folder of `target/npm`
/// named by its version. `None` if there is no npm or no access to its packages; that is reported
/// on standard error.
///
/// # Panics
/// With `CI=true`, if there is an npm and the package cannot be fetched.
pub fn package(name: &str, version: &str) -> Option<PathBuf> {
    let folder = root().join("target/npm").join(format!("{name}-{version}"));
    let found = folder.join("node_modules").join(name);
    if found.join("package.json").exists() {
        return Some(found);
    }
    let fetched = Command::new("npm")
        .args(["install", "--no-save", "--no-audit", "--no-fund"])
        .args(["--ignore-scripts", "--prefix"])
        .arg(&folder)
        .arg(format!("{name}@{version}"))
        .output();
    let why = match fetched {
        Ok(output) if output.status.success() => return Some(found),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            let ci = std::env::var_os("CI").is_some_and(|ci| ci == "true");
            assert!(!ci, "{name} {version} cannot be had: {said}");
            said
        }
        Err(error) => error.to_string(),
    };
    say(&format!(
        "skipped: {name} {version} of npm cannot be had: {why}"
    ));
    None
}
