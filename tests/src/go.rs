//! Builds the Go programs of `tests/conformance` once, each in a folder of `target/judges` named by
//! a hash of its sources.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::root;

/// Why a program could not be built.
#[derive(Debug)]
pub enum Missing {
    /// There is no `go` on the path.
    Go,
    /// The modules are not available, or need a newer Go; the output of `go`.
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

impl Missing {
    /// Reports on standard error, bypassing the test harness, that the running test is skipped.
    pub fn say(&self) {
        let thread = std::thread::current();
        let test = thread.name().unwrap_or("a test");
        say(&format!("skipped: {test}: {self}"));
    }
}

/// A program of `tests/conformance`.
#[derive(Debug, Clone, Copy)]
pub struct GoProgram {
    /// Its folder in `tests/conformance`.
    pub folder: &'static str,
    /// The file with its modules.
    pub modules: &'static str,
    /// Flags for the linker.
    pub linker_flags: &'static str,
}

impl GoProgram {
    /// Returns the program, built now if needed. Test processes that need it at the same time wait
    /// for the one that builds it.
    ///
    /// # Errors
    /// There is no Go, or (outside CI) no access to the modules.
    ///
    /// # Panics
    /// It does not build; in CI also without access to the modules.
    pub fn build(&self) -> Result<PathBuf, Missing> {
        let sources = root().join("tests/conformance").join(self.folder);
        let version = Command::new("go").arg("version").output();
        let version = version.map_err(|_| Missing::Go)?.stdout;
        let judges = root().join("target/judges");
        must(std::fs::create_dir_all(&judges), &judges);
        let kind = format!("{}-{}", self.folder, self.modules.trim_end_matches(".mod"));
        let lock = judges.join(format!("{kind}.lock"));
        let lock = must(std::fs::File::create(&lock), &lock);
        must(lock.lock(), &judges);
        let name = format!("{kind}-{}", self.hash(&sources, &version));
        let program = judges.join(&name).join(self.folder);
        if program.exists() {
            return Ok(program);
        }
        // First test only the access to modules: any later failure is our own mistake.
        let listed = self.go(&sources, &["list", "-deps"]);
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
        say(&format!(
            "building tests/conformance/{} with {}, once",
            self.folder, self.modules
        ));
        remove_older(&judges, &format!("{kind}-"));
        must(std::fs::create_dir_all(judges.join(&name)), &judges);
        let unfinished = program.with_extension("unfinished");
        let output = unfinished.to_string_lossy();
        let arguments = ["build", "-ldflags", self.linker_flags, "-o", &*output];
        let built = self.go(&sources, &arguments);
        let said = String::from_utf8_lossy(&built.stderr);
        assert!(built.status.success(), "{name} does not build: {said}");
        must(std::fs::rename(&unfinished, &program), &program);
        Ok(program)
    }

    fn go(&self, sources: &Path, arguments: &[&str]) -> Output {
        let ran = Command::new("go")
            .args(arguments)
            .args(["-mod=readonly", "-trimpath", "-modfile", self.modules, "."])
            .current_dir(sources)
            // Use what the repository pins, and neither the machine's workspace nor another Go.
            .env("GOWORK", "off")
            .env("GOTOOLCHAIN", "local")
            .env("CGO_ENABLED", "0")
            .output();
        must(ran, sources)
    }

    /// A hash of the sources and the compiler's version.
    fn hash(&self, sources: &Path, version: &[u8]) -> String {
        let mut files: Vec<PathBuf> = must(std::fs::read_dir(sources), sources)
            .map(|entry| must(entry, sources).path())
            .filter(|path| {
                let of_other_modules = path.extension().is_none_or(|it| it != "go");
                !of_other_modules || path.file_stem() == Path::new(self.modules).file_stem()
            })
            .collect();
        files.sort();
        let mut hasher = DefaultHasher::new();
        (version, self.linker_flags).hash(&mut hasher);
        for file in &files {
            file.file_name().hash(&mut hasher);
            must(std::fs::read(file), file).hash(&mut hasher);
        }
        format!("{:016x}", hasher.finish())
    }
}

/// Removes programs of earlier sources, as some are large.
fn remove_older(judges: &Path, prefix: &str) {
    for entry in must(std::fs::read_dir(judges), judges) {
        let path = must(entry, judges).path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() && name.starts_with(prefix) {
            must(std::fs::remove_dir_all(&path), &path);
        }
    }
}

/// Writes a line to standard error, bypassing the test harness.
pub(crate) fn say(line: &str) {
    let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
}

fn must<T>(result: std::io::Result<T>, what: &Path) -> T {
    match result {
        Ok(value) => value,
        Err(error) => unreachable!("{}: {error}", what.display()),
    }
}
