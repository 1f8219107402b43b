//! Checks that public types have unique names, from the sources.

use std::collections::BTreeMap;

use audit_bridge_tests::root;

use crate::rust_files;

/// Names that are common to many things: `json::Error`, `std::io::Error`.
const ALLOWED: [&str; 1] = ["Error"];

/// The type that a line declares for other modules: neither a private type nor a member of a trait.
fn declared(line: &str) -> Option<&str> {
    let line = line.strip_prefix("pub")?;
    let line = match line.strip_prefix('(') {
        Some(scope) => scope.split_once(") ")?.1,
        None => line.strip_prefix(' ')?,
    };
    let (kind, rest) = line.split_once(' ')?;
    if !["struct", "enum", "trait", "type", "union"].contains(&kind) {
        return None;
    }
    let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
    Some(&rest[..end.unwrap_or(rest.len())])
}

#[test]
fn types_that_others_see_never_share_a_name() {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut sources = vec![root().join("tests/src")];
    for folder in ["crates", "bridges"] {
        for entry in std::fs::read_dir(root().join(folder)).unwrap() {
            sources.push(entry.unwrap().path().join("src"));
        }
    }
    for file in sources.iter().flat_map(|folder| rust_files(folder)) {
        let text = std::fs::read_to_string(&file).unwrap();
        for name in text.lines().map(str::trim_start).filter_map(declared) {
            let place = file.strip_prefix(root()).unwrap().display().to_string();
            places.entry(name.to_owned()).or_default().push(place);
        }
    }
    assert!(places.len() > 300, "{}", places.len());
    places.retain(|name, places| places.len() > 1 && !ALLOWED.contains(&name.as_str()));
    assert!(
        places.is_empty(),
        "one name, several types; say in the name what each is: {places:#?}"
    );
}

#[test]
fn declared_type_is_found_whatever_its_visibility() {
    for (line, name) in [
        ("pub struct Page {", Some("Page")),
        ("pub(super) type Cue = Option<Faults>;", Some("Cue")),
        ("pub(in crate::run) enum Ended<T> {", Some("Ended")),
        ("struct Page {", None),
        ("type Item = Page;", None),
        ("pub fn page() -> Page {", None),
        ("public struct Page;", None),
    ] {
        assert_eq!(declared(line), name, "{line}");
    }
}
