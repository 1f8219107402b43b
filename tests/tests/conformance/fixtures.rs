//! Judges every event that the bridges emit for the repository's fixtures, and for the real samples
//! if they are beside the repository.

use std::path::{Path, PathBuf};

use audit_bridge_tests::judges::{Account, Judges};
use audit_bridge_tests::{BRIDGES, root, run, sample_files};

use crate::event_list;

/// The number of a file's events, and the judges' complaints about them.
fn judge(judges: Judges, bridge: &str, file: &Path) -> (usize, Vec<String>) {
    let output = tempfile::NamedTempFile::new().unwrap();
    let mut args = vec!["replay", file.to_str().unwrap()];
    args.extend(["--output", output.path().to_str().unwrap()]);
    if bridge == "gke" {
        args.push("--include-data-access");
    }
    let ran = run(bridge, &args);
    assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
    // Each line is the body of one POST.
    let written = std::fs::read(output.path()).unwrap();
    let bodies: Vec<&[u8]> = written
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .collect();
    let account = Account::of_bodies(judges, bodies.iter().copied());
    let name = file
        .strip_prefix(root())
        .unwrap_or(file)
        .display()
        .to_string();
    let complaints = account.complaints().into_iter();
    let complaints = complaints.map(|what| format!("{bridge}, {name}: {what}"));
    let complaints: Vec<String> = complaints.collect();
    if !complaints.is_empty() {
        // Find the events one by one.
        return (
            account.falco_ids.len(),
            one_by_one(judges, &bodies, bridge, &name),
        );
    }
    (account.falco_ids.len(), complaints)
}

fn one_by_one(judges: Judges, bodies: &[&[u8]], bridge: &str, name: &str) -> Vec<String> {
    #[derive(serde::Deserialize)]
    struct List<'a> {
        #[serde(borrow)]
        items: Vec<&'a serde_json::value::RawValue>,
    }
    let mut found = Vec::new();
    for body in bodies {
        let list: List<'_> = serde_json::from_slice(body).unwrap();
        for item in list.items {
            let single = event_list(&[item.get()]);
            let complaints = Account::of_bodies(judges, [&*single]).complaints();
            let start: String = item.get().chars().take(150).collect();
            found.extend(
                complaints
                    .into_iter()
                    .map(|what| format!("{bridge}, {name}: {what} in {start}")),
            );
        }
    }
    found
}

fn check(judges: Judges, files: impl IntoIterator<Item = (&'static str, PathBuf)>) -> usize {
    let mut events = 0;
    let mut complaints = Vec::new();
    for (bridge, file) in files {
        let (found, against) = judge(judges, bridge, &file);
        events += found;
        complaints.extend(against);
    }
    let many = complaints.len();
    assert!(
        complaints.is_empty(),
        "{many} complaints:\n{}",
        complaints.join("\n")
    );
    events
}

#[test]
fn fixtures_give_events_that_receivers_accept() {
    let Some(judges) = Judges::start() else {
        return;
    };
    let all = BRIDGES.into_iter().flat_map(|bridge| {
        let folder = root().join("bridges").join(bridge).join("fixtures");
        sample_files(&folder)
            .into_iter()
            .map(move |file| (bridge, file))
    });
    let events = check(judges, all);
    assert!(events > 50, "{events} events");
}

#[test]
fn samples_give_events_that_receivers_accept() {
    let Some(judges) = Judges::start() else {
        return;
    };
    let corpus = root().join("../shared/corpus");
    if !corpus.is_dir() {
        // Bypasses the test harness, which would capture it.
        let line = b"skipped: there are no samples beside this repository\n";
        let _ = std::io::Write::write_all(&mut std::io::stderr(), line);
        return;
    }
    let native = BRIDGES.map(|bridge| (bridge, "native"));
    // The audit log of a real API server, recorded during a tour of its API.
    let tour = corpus.join("../judges/native-tour-1.37.jsonl");
    let tour = BRIDGES.map(|bridge| (bridge, tour.clone()));
    let tour = tour.into_iter().filter(|(_, file)| file.is_file());
    let folders = BRIDGES
        .map(|bridge| (bridge, bridge))
        .into_iter()
        .chain(native);
    let all = folders.flat_map(|(bridge, folder)| {
        let files = sample_files(&corpus.join(folder)).into_iter();
        files.map(move |file| (bridge, file))
    });
    let events = check(judges, all.chain(tour));
    assert!(events > 300, "{events} events");
}

/// Google's entries have neither `objectRef` nor URI: both are derived, and must match.
#[test]
fn object_ref_of_gke_matches_api_server_parse_of_uri() {
    let Some(judges) = Judges::start() else {
        return;
    };
    let mut all = sample_files(&root().join("bridges/gke/fixtures"));
    let corpus = root().join("../shared/corpus/gke");
    if corpus.is_dir() {
        all.extend(sample_files(&corpus));
    }
    let mut complaints = Vec::new();
    for file in &all {
        let ran = run(
            "gke",
            &["replay", file.to_str().unwrap(), "--include-data-access"],
        );
        for event in ran.events() {
            let (uri, verb) = (event["requestURI"].as_str(), event["verb"].as_str());
            let info = judges.request_info(uri.unwrap_or_default(), verb.unwrap_or_default());
            let mut derived = event["objectRef"].clone();
            let mut wanted = info.object_ref();
            if let Some(members) = derived.as_object_mut() {
                // These come from the object, and on a create also the name.
                members.remove("uid");
                members.remove("resourceVersion");
                if let (Some(name), None) = (members.get("name"), wanted.get("name")) {
                    wanted["name"] = name.clone();
                }
            }
            if derived != wanted || info.error.is_some() {
                let name = file.display();
                complaints.push(format!(
                    "{name}: {uri:?}, {verb:?}: {derived}, not {wanted}"
                ));
            }
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}
