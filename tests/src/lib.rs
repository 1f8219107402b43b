//! Shared parts of the end-to-end tests, which run the real binaries as users do.

pub mod apiserver;
pub mod attacks;
pub mod go;
pub mod judges;
pub mod leaves;
pub mod live;
pub mod load;
pub mod npm;
pub mod outage;
pub mod python;
pub mod replicas;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

pub const BRIDGES: [&str; 3] = ["eks", "gke", "aks"];

/// The top of the repository.
pub fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests).to_owned()
}

/// A bridge's binary: from the folder in `BRIDGES_FOLDER`, or built in the tests' own profile.
///
/// # Panics
/// It does not build.
pub fn binary(provider: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        if let Some(built) = std::env::var_os("BRIDGES_FOLDER") {
            return built.into();
        }
        // target/<profile>/deps/<test>
        let test = std::env::current_exe().unwrap_or_default();
        let folder = test
            .ancestors()
            .nth(2)
            .map(Path::to_owned)
            .unwrap_or_default();
        let mut build = Command::new(env!("CARGO"));
        // With a test among the targets, dependencies have the same features as in the test suite,
        // so nothing is compiled twice.
        build
            .args(["build", "--quiet", "--locked", "--workspace"])
            .args(["--bins", "--test", "tidy", "--example", "demo"])
            .args(["--example", "toy-audit-bridge"])
            .current_dir(root());
        if folder.ends_with("release") {
            build.arg("--release");
        }
        let built = build.status().is_ok_and(|status| status.success());
        assert!(built, "the bridges do not build");
        folder
    });
    let name = format!("{provider}-audit-bridge");
    match BRIDGES.contains(&provider) {
        true => folder.join(name),
        // A bridge that only the tests have.
        false => folder.join("examples").join(name),
    }
}

/// The result of a command.
#[derive(Debug)]
pub struct Ran {
    /// The exit status; -1 if a signal ended it.
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    /// The events in the `EventList`s on standard output.
    ///
    /// # Panics
    /// Standard output has something else.
    pub fn events(&self) -> Vec<serde_json::Value> {
        events(&self.stdout)
    }
}

/// The events of `EventList`s, one list per line.
///
/// # Panics
/// A line is no such list.
pub fn events(lines: &str) -> Vec<serde_json::Value> {
    let mut all = Vec::new();
    for line in lines.lines() {
        let mut list: serde_json::Value = match serde_json::from_str(line) {
            Ok(list) => list,
            Err(error) => unreachable!("{error}: {line}"),
        };
        assert_eq!(list["kind"], "EventList");
        assert_eq!(list["apiVersion"], "audit.k8s.io/v1");
        match list["items"].take() {
            serde_json::Value::Array(items) => all.extend(items),
            other => unreachable!("items is {other}"),
        }
    }
    all
}

/// The command for a bridge, without the environment's settings.
pub fn command(provider: &str, args: &[&str]) -> Command {
    let mut command = Command::new(binary(provider));
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let ours = ["AUDIT_BRIDGE_", "AWS_", "AZURE_", "GOOGLE_", "KUBE"];
        if ours.iter().any(|prefix| text.starts_with(prefix))
            || text.to_ascii_lowercase().ends_with("_proxy")
        {
            command.env_remove(&name);
        }
    }
    command
        .args(args)
        .env_remove("RUST_LOG")
        .env("AWS_EC2_METADATA_DISABLED", "true");
    command
}

/// Runs a bridge until it ends, with this standard input.
///
/// # Panics
/// It cannot be started.
pub fn run_with(provider: &str, args: &[&str], stdin: &[u8]) -> Ran {
    let child = command(provider, args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) => unreachable!("{provider}: {error}"),
    };
    let mut pipe = child.stdin.take();
    let output = std::thread::scope(|scope| {
        scope.spawn(move || {
            if let Some(pipe) = &mut pipe {
                let _ = pipe.write_all(stdin);
            }
            drop(pipe);
        });
        child.wait_with_output()
    });
    match output {
        Ok(Output {
            status,
            stdout,
            stderr,
        }) => Ran {
            status: status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&stdout).into_owned(),
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
        },
        Err(error) => unreachable!("{provider}: {error}"),
    }
}

/// Runs a bridge until it ends.
pub fn run(provider: &str, args: &[&str]) -> Ran {
    run_with(provider, args, b"")
}

/// A realistic event of about `bytes` bytes or a little more; `n` determines its `auditID`.
pub fn event(n: usize, bytes: usize) -> String {
    let id = format!("{n:08x}-0000-4000-8000-000000000000");
    let head = format!(
        "{{\"kind\":\"Event\",\"apiVersion\":\"audit.k8s.io/v1\",\"level\":\"RequestResponse\",\
         \"auditID\":\"{id}\",\"stage\":\"ResponseComplete\",\
         \"requestURI\":\"/api/v1/namespaces/default/configmaps?limit=500\\u0026watch=1\",\
         \"verb\":\"create\",\"user\":{{\"username\":\"kubernetes-admin\",\
         \"groups\":[\"system:masters\",\"system:authenticated\"]}},\"sourceIPs\":[\"10.0.0.7\"],\
         \"userAgent\":\"kubectl/v1.33\",\"objectRef\":{{\"resource\":\"configmaps\",\
         \"namespace\":\"default\",\"name\":\"c{n}\",\"apiVersion\":\"v1\"}},\
         \"responseStatus\":{{\"metadata\":{{}},\"code\":201}},\"requestObject\":{{\"data\":{{"
    );
    let tail = "}},\"requestReceivedTimestamp\":\"2026-11-21T10:00:00.000001Z\",\
                \"stageTimestamp\":\"2026-11-21T10:00:00.000002Z\",\
                \"annotations\":{\"authorization.k8s.io/decision\":\"allow\"}}";
    let mut text = head;
    let mut index = 0;
    while text.len() + tail.len() < bytes || index == 0 {
        let comma = if index > 0 { "," } else { "" };
        text.push_str(&format!("{comma}\"key-{index}\":\"value \\\"{index}\\\"\""));
        index += 1;
    }
    text + tail
}

/// The `auditID` of the `n`th [`event`].
pub fn audit_id(n: usize) -> String {
    format!("{n:08x}-0000-4000-8000-000000000000")
}

/// The samples below a folder, sorted, without the files of expected output beside them.
///
/// # Panics
/// The folder cannot be read.
#[expect(clippy::unwrap_used, reason = "it serves tests")]
pub fn sample_files(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(sample_files(&path));
        } else if !path.to_string_lossy().ends_with(".expected.json") {
            all.push(path);
        }
    }
    all.sort();
    all
}
