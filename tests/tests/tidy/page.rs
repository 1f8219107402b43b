//! The section *Where to change what* of the architecture page names files that exist.

use std::path::{Path, PathBuf};

use audit_bridge_tests::{BRIDGES, root};

const ENDINGS: [&str; 6] = [".rs", ".py", ".yaml", ".json", ".txt", ".tpl"];

/// The texts between backticks that look like files, not like HTTP routes or Rust paths.
fn paths_of(entry: &str) -> Vec<&str> {
    let quoted = entry.split('`').skip(1).step_by(2);
    quoted
        .filter(|text| !text.starts_with('/') && !text.contains([' ', ':', '(']))
        .filter(|text| text.contains('/') || ENDINGS.iter().any(|end| text.ends_with(end)))
        .collect()
}

/// Expands `a/{b,c}` and `bridges/*/a`.
fn spelled_out(path: &str) -> Vec<String> {
    if let Some((before, rest)) = path.split_once('{') {
        let (inside, after) = rest.split_once('}').unwrap();
        return inside
            .split(',')
            .flat_map(|part| spelled_out(&format!("{before}{part}{after}")))
            .collect();
    }
    if path.contains('*') {
        return BRIDGES
            .iter()
            .map(|bridge| path.replace('*', bridge))
            .collect();
    }
    vec![path.to_owned()]
}

/// The paths of an entry that do not exist. A path starts at the repository's root, in `crates`, or
/// in a folder above an earlier path of the entry.
fn missing(entry: &str, top: &Path) -> Vec<String> {
    let mut folders = vec![top.to_owned(), top.join("crates")];
    let mut missing = Vec::new();
    for path in paths_of(entry).into_iter().flat_map(spelled_out) {
        let found: Vec<PathBuf> = folders
            .iter()
            .map(|folder| folder.join(&path))
            .filter(|path| path.exists())
            .collect();
        if found.is_empty() {
            missing.push(path);
        }
        for path in &found {
            let inside = path.ancestors().skip(1).take_while(|folder| *folder != top);
            folders.extend(inside.map(Path::to_owned));
        }
    }
    missing
}

#[test]
fn files_in_entries_of_changes_exist() {
    let page = std::fs::read_to_string(root().join("crates/README.md")).unwrap();
    let (_, section) = page.split_once("## Where to change what").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let entries: Vec<&str> = section.split("\n- **").skip(1).collect();
    assert!(entries.len() > 20, "{}", entries.len());
    let missing: Vec<String> = entries
        .iter()
        .flat_map(|entry| missing(entry, &root()))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn file_that_does_not_exist_is_named() {
    let entry =
        "- **a**: `core/src/{ack,nothing}.rs`, `batch.rs`, `gone.rs`, `/readyz`, `run::guard`";
    assert_eq!(missing(entry, &root()), ["core/src/nothing.rs", "gone.rs"]);
}
