//! The repository follows its own rules: dependencies between crates, one TLS stack, pure
//! vocabulary.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test may stop at once"
)]

mod modules;
mod names;
mod observers;
mod page;
mod repeats;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use audit_bridge_tests::{BRIDGES, root};

/// Our packages, and what each depends on, except for dev-dependencies.
fn packages() -> BTreeMap<String, Vec<String>> {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--locked",
            "--offline",
        ])
        .current_dir(root())
        .output()
        .unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let names = |package: &serde_json::Value| {
        package["dependencies"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|dependency| dependency["kind"] != "dev")
            .map(|dependency| dependency["name"].as_str().unwrap().to_owned())
            .collect()
    };
    packages
        .iter()
        .map(|package| (package["name"].as_str().unwrap().to_owned(), names(package)))
        .collect()
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// Lines of code (without comments and tests) that contain one of these words.
fn lines_with(files: &[PathBuf], words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for file in files {
        if file.to_string_lossy().contains("tests") {
            continue;
        }
        let text = std::fs::read_to_string(file).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        for line in code
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
        {
            if words.iter().any(|word| line.contains(word)) {
                found.push(format!("{}: {}", file.display(), line.trim()));
            }
        }
    }
    found
}

/// The packages of ours that each may depend on, except for tests.
const ARROWS: [(&str, &[&str]); 9] = [
    ("audit-bridge-core", &[]),
    ("audit-bridge-replay", &[CORE]),
    ("audit-bridge-tail", &[CORE]),
    ("audit-bridge-app", &[CORE, REPLAY, TAIL]),
    ("aks-audit-bridge", &[CORE, REPLAY, TAIL, APP]),
    ("eks-audit-bridge", &[CORE, REPLAY, TAIL, APP]),
    ("gke-audit-bridge", &[CORE, REPLAY, TAIL, APP]),
    ("audit-bridge-testkit", &[CORE]),
    ("audit-bridge-tests", &["audit-bridge-testkit"]),
];
const CORE: &str = "audit-bridge-core";
const REPLAY: &str = "audit-bridge-replay";
const TAIL: &str = "audit-bridge-tail";
const APP: &str = "audit-bridge-app";

/// Libraries that only some of our packages may use. Cargo keeps them out of the others unless
/// someone adds them there.
const LIBRARIES: [(&str, &[&str]); 13] = [
    ("kube", &[APP]),
    ("mimalloc", &[APP]),
    ("k8s-openapi", &[APP]),
    ("prometheus-client", &[APP]),
    ("tracing-subscriber", &[APP]),
    ("indicatif", &[APP]),
    ("axum", &[APP, "audit-bridge-testkit"]),
    ("hyper", &[APP]),
    (
        "clap",
        &[
            APP,
            "aks-audit-bridge",
            "eks-audit-bridge",
            "gke-audit-bridge",
        ],
    ),
    ("rustls", &[CORE]),
    // Google's own client decodes a page of entries completely or not at all, and re-encodes them.
    ("reqwest", &[CORE, "gke-audit-bridge"]),
    (
        "flate2",
        &[REPLAY, "eks-audit-bridge", "audit-bridge-testkit"],
    ),
    ("csv-core", &["eks-audit-bridge"]),
];

#[test]
fn dependencies_point_from_the_core_to_the_tests() {
    let packages = packages();
    let arrows = BTreeMap::from(ARROWS);
    for (name, uses) in &packages {
        let Some(may) = arrows.get(name.as_str()) else {
            panic!("a package nobody planned: {name}");
        };
        let ours = |name: &&String| arrows.contains_key(name.as_str());
        for used in uses.iter().filter(ours) {
            assert!(may.contains(&used.as_str()), "{name} must not use {used}");
        }
        for (library, may) in LIBRARIES {
            assert!(
                may.contains(&name.as_str()) || !uses.iter().any(|used| used == library),
                "{name} must not use {library}"
            );
        }
    }
    for (library, may) in LIBRARIES {
        for name in may {
            let uses = &packages[*name];
            assert!(uses.iter().any(|used| used == library), "{name}: {library}");
        }
    }
}

#[test]
fn modules_never_use_each_other_in_a_circle() {
    let mut crates = 0;
    let mut circles = Vec::new();
    for folder in ["crates", "bridges"] {
        for entry in std::fs::read_dir(root().join(folder)).unwrap() {
            let src = entry.unwrap().path().join("src");
            if !src.is_dir() {
                continue;
            }
            crates += 1;
            let found = modules::Modules::read(&src).circles();
            circles.extend(found.iter().map(|it| format!("{}: {it}", src.display())));
        }
    }
    assert!(crates >= 8, "{crates}");
    assert!(circles.is_empty(), "{circles:#?}");
}

/// Code that two bridges would share belongs below them.
#[test]
fn bridges_share_no_run_of_more_than_eight_lines() {
    let texts = |bridge: &str| -> Vec<repeats::Text> {
        let files = rust_files(&root().join("bridges").join(bridge).join("src"));
        let code = files
            .iter()
            .filter(|file| !file.to_string_lossy().contains("tests"));
        code.map(|file| {
            let name = file.strip_prefix(root()).unwrap().to_string_lossy();
            repeats::Text::new(&name, &std::fs::read_to_string(file).unwrap())
        })
        .collect()
    };
    let mut found = Vec::new();
    for (at, here) in BRIDGES.iter().enumerate() {
        for there in &BRIDGES[at + 1..] {
            let (here, there) = (texts(here), texts(there));
            assert!(here.len() > 8 && there.len() > 8);
            let repeats = repeats::repeats(&here, &there, 8);
            found.extend(repeats.iter().map(ToString::to_string));
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn event_module_does_no_io_and_has_no_clock() {
    let core = root().join("crates/core/src");
    let mut files = rust_files(&core.join("event"));
    files.push(core.join("event.rs"));
    assert!(files.len() > 4);
    let io = [
        "std::fs", "std::io", "std::net", "std::env", "tokio", "reqwest", "tracing", "::now(",
        "crate::",
    ];
    let found: Vec<_> = lines_with(&files, &io)
        .into_iter()
        .filter(|line| !line.contains("crate::event"))
        .collect();
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn http_and_cloud_sdks_stay_in_their_modules() {
    let outside = |folder: PathBuf, room: &str| -> Vec<PathBuf> {
        let files = rust_files(&folder).into_iter();
        files
            .filter(|file| {
                let name = file.to_string_lossy();
                !name.contains(room) && !name.ends_with("main.rs")
            })
            .collect()
    };
    let core = outside(root().join("crates/core/src"), "webhook");
    assert_eq!(
        lines_with(&core, &["reqwest", "rustls"]),
        Vec::<String>::new()
    );
    for bridge in BRIDGES {
        let files = outside(root().join("bridges").join(bridge).join("src"), "client");
        assert!(files.len() > 4);
        let sdks = ["aws_sdk", "aws_config", "google_cloud", "azure_", "reqwest"];
        assert_eq!(lines_with(&files, &sdks), Vec::<String>::new());
    }
}

/// All bridges have the same modules, so that newcomers find their way.
#[test]
fn bridges_have_the_same_modules() {
    for bridge in BRIDGES {
        let src = root().join("bridges").join(bridge).join("src");
        let mut rooms: Vec<String> = std::fs::read_dir(&src)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.is_file())
            .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
            .filter(|room| room != "source")
            .collect();
        rooms.sort();
        assert_eq!(
            rooms,
            [
                "client", "config", "convert", "dump", "lib", "main", "provider", "wire"
            ],
            "{bridge}"
        );
    }
}

#[test]
fn dependencies_have_one_tls_stack() {
    // The dependencies that are built; the lock file also has unused optional ones.
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--workspace", "--prefix", "none", "--locked"])
        .args([
            "--offline",
            "--edges",
            "normal,build,dev",
            "--format",
            "{p}",
        ])
        .current_dir(root())
        .output()
        .unwrap();
    let tree = String::from_utf8(output.stdout).unwrap();
    let built: std::collections::BTreeSet<_> = tree
        .lines()
        .map(|line| line.trim_end_matches(" (*)"))
        .collect();
    assert!(built.len() > 50, "{tree}");
    for name in ["openssl-sys", "native-tls", "ring"] {
        let found: Vec<_> = built
            .iter()
            .filter(|line| line.starts_with(&format!("{name} v")))
            .collect();
        assert!(found.is_empty(), "{found:?} is in the tree");
    }
    let rustls = built
        .iter()
        .filter(|line| line.starts_with("rustls v"))
        .count();
    assert_eq!(rustls, 1, "one rustls");
}

/// Every module starts with a comment on its purpose.
#[test]
fn modules_begin_with_what_they_are_for() {
    let mut without = Vec::new();
    for folder in ["crates", "bridges", "tests"] {
        for file in rust_files(&root().join(folder)) {
            let built = file.components().any(|part| part.as_os_str() == "target");
            if built || file.ends_with("tests.rs") {
                continue;
            }
            if !std::fs::read_to_string(&file).unwrap().starts_with("//!") {
                without.push(file.display().to_string());
            }
        }
    }
    assert!(without.is_empty(), "without a line of //!: {without:#?}");
}

#[test]
fn files_stay_below_their_limit() {
    let mut large = Vec::new();
    for folder in ["crates", "bridges"] {
        for file in rust_files(&root().join(folder)) {
            if file.ends_with("tests.rs") {
                continue;
            }
            let lines = std::fs::read_to_string(&file).unwrap().lines().count();
            if lines > 700 {
                large.push(format!("{}: {lines} lines", file.display()));
            }
        }
    }
    assert!(large.is_empty(), "{large:#?}");
}
