//! The section *Where to change what* of the architecture page names files that exist, and items that
//! stand in them.

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

/// The texts between backticks that look like Rust items: `ShardTiming`, `job_failed`,
/// `Job::failed`. Names of metrics are those of the product, not of the code.
fn items_of(entry: &str) -> Vec<&str> {
    let quoted = entry.split('`').skip(1).step_by(2);
    let is_item = |text: &&str| {
        let mut letters = text.chars();
        let is_word = letters.all(|letter| letter.is_ascii_alphabetic() || "_:".contains(letter));
        let is_plain = text.chars().all(|letter| letter.is_ascii_lowercase());
        is_word && !is_plain && !text.starts_with("audit_bridge_")
    };
    quoted.filter(is_item).collect()
}

/// Whether the text has this word.
fn has_word(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| {
        let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
        !text[..at].ends_with(is_part) && !text[at + word.len()..].starts_with(is_part)
    })
}

/// What of an entry does not exist: paths, and items that stand in none of its files. A path starts
/// at the repository's root, in `crates`, or in a folder above an earlier path of the entry.
fn missing(entry: &str, top: &Path) -> Vec<String> {
    let mut folders = vec![top.to_owned(), top.join("crates")];
    let mut missing = Vec::new();
    let mut text = String::new();
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
            text += &std::fs::read_to_string(path).unwrap_or_default();
            let inside = path.ancestors().skip(1).take_while(|folder| *folder != top);
            folders.extend(inside.map(Path::to_owned));
        }
    }
    let items = items_of(entry).into_iter();
    let absent = items.filter(|item| {
        let name = item.rsplit("::").next().unwrap_or(item);
        !has_word(&text, name)
    });
    missing.extend(absent.map(str::to_owned));
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
fn file_or_item_that_does_not_exist_is_named() {
    let entry = "- **a**: `core/src/{ack,nothing}.rs` (`AckTracker`, `AckTrack`), `batch.rs`, \
                 `gone.rs`, `/readyz`, `Batcher::push`, `Batcher::pushed`";
    assert_eq!(
        missing(entry, &root()),
        [
            "core/src/nothing.rs",
            "gone.rs",
            "AckTrack",
            "Batcher::pushed"
        ]
    );
}
