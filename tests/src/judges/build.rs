//! Builds the judge once, into a folder that is named by its sources.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::root;

/// Why there is no judge.
#[derive(Debug)]
pub(super) enum Missing {
    /// No `go` on the path.
    Go,
    /// The modules cannot be had, or this Go is too old for them; what `go` said.
    Modules(String),
}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Missing::Go => f.write_str("Go is not installed, so the judges cannot be built"),
            Missing::Modules(said) => {
                write!(f, "the judges' Go modules cannot be had: {said}")
            }
        }
    }
}

/// The judge, built now if it was not yet. Test processes that want it at the same time wait for
/// the one that builds it.
pub(super) fn program() -> Result<PathBuf, Missing> {
    let sources = root().join("tests/conformance/judge");
    let version = Command::new("go").arg("version").output();
    let version = version.map_err(|_| Missing::Go)?.stdout;
    let judges = root().join("target/judges");
    let folder = judges.join(name_of(&sources, &version));
    let program = folder.join("judge");
    must(std::fs::create_dir_all(&folder), &folder);
    let lock = judges.join("lock");
    let lock = must(std::fs::File::create(&lock), &lock);
    must(lock.lock(), &judges);
    if program.exists() {
        return Ok(program);
    }
    // First only what needs the modules: whatever fails after that is our own mistake.
    let listed = go(&sources, &["list", "-mod=readonly", "-deps", "."]);
    if !listed.status.success() {
        let said = String::from_utf8_lossy(&listed.stderr).trim().to_owned();
        assert!(
            std::env::var_os("CI").is_none_or(|ci| ci != "true"),
            "the judges' Go modules cannot be had: {said}"
        );
        let mut lines = said.lines();
        let why = lines.find(|line| !line.starts_with("go: downloading "));
        return Err(Missing::Modules(why.unwrap_or(&said).to_owned()));
    }
    let unfinished = folder.join("unfinished");
    let output = unfinished.to_string_lossy();
    let arguments = ["build", "-mod=readonly", "-trimpath", "-o", &*output, "."];
    let built = go(&sources, &arguments);
    let said = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success(), "the judge does not build: {said}");
    must(std::fs::rename(&unfinished, &program), &program);
    Ok(program)
}

fn go(folder: &Path, arguments: &[&str]) -> Output {
    let ran = Command::new("go")
        .args(arguments)
        .current_dir(folder)
        // What the repository pins, nothing of the machine's, and no other Go than this one.
        .env("GOWORK", "off")
        .env("GOTOOLCHAIN", "local")
        .env("CGO_ENABLED", "0")
        .output();
    must(ran, folder)
}

/// A name for the sources' content and the compiler.
fn name_of(sources: &Path, version: &[u8]) -> String {
    let mut files: Vec<PathBuf> = must(std::fs::read_dir(sources), sources)
        .map(|entry| must(entry, sources).path())
        .collect();
    files.sort();
    let mut hasher = DefaultHasher::new();
    version.hash(&mut hasher);
    for file in &files {
        file.file_name().hash(&mut hasher);
        must(std::fs::read(file), file).hash(&mut hasher);
    }
    format!("{:016x}", hasher.finish())
}

fn must<T>(result: std::io::Result<T>, what: &Path) -> T {
    match result {
        Ok(value) => value,
        Err(error) => unreachable!("{}: {error}", what.display()),
    }
}
