//! The repository keeps its own rules: which way the arrows point, one TLS stack, pure vocabulary.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test may stop at once"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use audit_bridge_tests::{BRIDGES, root};

/// Our packages and what each depends on, beside dev-dependencies.
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

/// Lines of code (no comments, no tests) in which one of these words stands.
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

#[test]
fn arrows_point_from_the_core_to_the_tests() {
    let packages = packages();
    let ours = |name: &str| name.ends_with("-audit-bridge") || name.starts_with("audit-bridge-");
    let uses = |name: &str| -> Vec<String> {
        packages[name]
            .iter()
            .filter(|name| ours(name))
            .cloned()
            .collect()
    };
    assert_eq!(
        uses("audit-bridge-core"),
        Vec::<String>::new(),
        "the core knows nobody"
    );
    for bridge in BRIDGES {
        assert_eq!(
            uses(&format!("{bridge}-audit-bridge")),
            ["audit-bridge-core"]
        );
    }
    assert!(
        !packages["audit-bridge-tests"]
            .iter()
            .any(|name| name.ends_with("-audit-bridge"))
    );
    let known = [
        "audit-bridge-core",
        "audit-bridge-testkit",
        "audit-bridge-tests",
    ];
    for name in packages.keys() {
        let bridge = BRIDGES
            .iter()
            .any(|bridge| *name == format!("{bridge}-audit-bridge"));
        assert!(
            bridge || known.contains(&name.as_str()),
            "a package nobody planned: {name}"
        );
    }
}

#[test]
fn the_vocabulary_does_no_io_and_has_no_clock() {
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
fn http_and_cloud_sdks_stay_in_their_rooms() {
    let core = rust_files(&root().join("crates/core/src"));
    let elsewhere: Vec<_> = core
        .into_iter()
        .filter(|file| !file.to_string_lossy().contains("webhook"))
        .collect();
    assert_eq!(
        lines_with(&elsewhere, &["reqwest", "rustls"]),
        Vec::<String>::new()
    );
    for bridge in BRIDGES {
        let files: Vec<_> = rust_files(&root().join("bridges").join(bridge).join("src"))
            .into_iter()
            .filter(|file| {
                let name = file.to_string_lossy();
                !name.contains("client") && !name.ends_with("main.rs")
            })
            .collect();
        let sdks = ["aws_sdk", "aws_config", "google_cloud", "azure_", "reqwest"];
        assert_eq!(lines_with(&files, &sdks), Vec::<String>::new());
    }
    // GKE's client alone speaks HTTP itself: Google's own decodes a page of entries all or not at
    // all, and writes them anew.
    for bridge in BRIDGES.iter().filter(|bridge| **bridge != "gke") {
        let files = rust_files(&root().join("bridges").join(bridge).join("src"));
        assert_eq!(lines_with(&files, &["reqwest"]), Vec::<String>::new());
    }
}

#[test]
fn there_is_one_tls_stack() {
    // What is built here; the lock file also names options that nobody chose.
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

#[test]
fn no_file_outgrows_its_room() {
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
