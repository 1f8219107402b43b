//! The audit log of a real API server as Google's log entries, made by an inverse of Google's
//! mapping: what is delivered differs from what the API server sent to its own webhook only where
//! an entry has less.

use std::collections::{BTreeMap, BTreeSet};

use audit_bridge_tests::apiserver::Release;
use audit_bridge_tests::apiserver::gke::{
    as_struct, decoded, entry, parameters, under_googles_policy,
};
use audit_bridge_tests::leaves::{Difference, Leaves};
use serde_json::Value;

use super::contracts::Account;
use super::native::replayed;
use super::recording;

/// What an entry lacks or has differently.
const CONTRACTS: [&str; 11] = [
    "kind and apiVersion are told",
    "the cluster is told",
    "uid, groups and extra of a user are in no entry",
    "of who is impersonated the name is known",
    "of the query only what the entry implies is known",
    "of the addresses the first is known",
    "labels of the entry are annotations",
    "uid and version of the object are in no entry",
    "when the request came is not known",
    "without a Status the answer follows from its code",
    "a code that Google has no number for is guessed",
];

/// An event before and after the conversions.
struct Case<'a> {
    native: &'a Leaves,
    ours: &'a Leaves,
    /// Whether the entry has the answer's Status.
    has_status: bool,
}

impl Case<'_> {
    fn contracts(&self) -> Result<Vec<&'static str>, String> {
        let mut found = BTreeSet::new();
        for difference in self.ours.differences(self.native) {
            let name = self.contract(&difference);
            let Difference { place, here, there } = difference;
            found.insert(name.ok_or_else(|| format!("{place}: {here:?} instead of {there:?}"))?);
        }
        Ok(found.into_iter().collect())
    }

    fn contract(&self, difference: &Difference<'_>) -> Option<&'static str> {
        let Difference { place, here, there } = *difference;
        let (told, hidden) = (there.is_none(), here.is_none());
        let below = |top: &str| place == top || place.starts_with(&format!("{top}/"));
        let (holds, name) = if ["/kind", "/apiVersion"].contains(&place) {
            (told, CONTRACTS[0])
        } else if ["cluster_name", "location", "project_id"]
            .map(|it| format!("/annotations/{it}"))
            .contains(&place.to_owned())
        {
            (told, CONTRACTS[1])
        } else if ["/user/uid", "/user/groups", "/user/extra"]
            .into_iter()
            .any(below)
        {
            (hidden, CONTRACTS[2])
        } else if below("/impersonatedUser") {
            (
                hidden && place != "/impersonatedUser/username",
                CONTRACTS[3],
            )
        } else if place == "/requestURI" {
            (self.is_same_path(here?, there?), CONTRACTS[4])
        } else if below("/sourceIPs") {
            (hidden && place != "/sourceIPs/0", CONTRACTS[5])
        } else if place.starts_with("/annotations/command.gke.io~1") {
            (told, CONTRACTS[6])
        } else if ["/objectRef/uid", "/objectRef/resourceVersion"].contains(&place) {
            (hidden, CONTRACTS[7])
        } else if place == "/requestReceivedTimestamp" {
            (true, CONTRACTS[8])
        } else if below("/responseStatus") && place != "/responseStatus/code" {
            (!self.has_status, CONTRACTS[9])
        } else if place == "/responseStatus/code" {
            (self.is_a_guess(here?, there?), CONTRACTS[10])
        } else {
            return None;
        };
        holds.then_some(name)
    }

    /// Google's status has one code for all successes, and one for most refusals.
    fn is_a_guess(&self, ours: &str, native: &str) -> bool {
        let is_silent = self.native.get("/responseStatus/message").is_none();
        let succeeded = ours == "200" && ["201", "202", "204"].contains(&native);
        let refused = ours == "405" && ["406", "410", "413", "415", "422"].contains(&native);
        !self.has_status && (succeeded || refused && is_silent)
    }

    /// Whether the path is the same, and no parameter is invented.
    fn is_same_path(&self, ours: &str, native: &str) -> bool {
        let path = |uri: &str| {
            decoded(
                uri.trim_start_matches('"')
                    .split('?')
                    .next()
                    .unwrap_or_default(),
            )
        };
        let known = parameters(native);
        let implied = |pair: &(String, String)| {
            known.contains(pair)
                || pair.0 == "watch" && self.native.get("/verb") == Some("watch")
                || pair.0 == "fieldSelector"
        };
        path(ours).trim_end_matches('/') == path(native).trim_end_matches('/')
            && parameters(ours).iter().all(implied)
    }
}

/// The entries that GKE would write, each with its event.
pub(crate) fn entries(natives: &[recording::Native]) -> Vec<(Value, Value)> {
    let events: Vec<Value> = natives
        .iter()
        // Events that no `Struct` can hold have no entry.
        .filter_map(|native| serde_json::from_str(&String::from_utf8_lossy(&native.line)).ok())
        .filter_map(|event| under_googles_policy(&event))
        .filter(|event| event.to_string().len() < 240 << 10)
        .collect();
    let mut stages = BTreeMap::<&str, usize>::new();
    for event in &events {
        *stages
            .entry(event["auditID"].as_str().unwrap())
            .or_default() += 1;
    }
    let alone: Vec<bool> = events
        .iter()
        .map(|event| stages[event["auditID"].as_str().unwrap()] == 1)
        .collect();
    let entries = events
        .iter()
        .zip(alone)
        .map(|(event, alone)| entry(event, alone));
    let entries: Vec<Value> = entries.collect();
    entries.into_iter().zip(events).collect()
}

/// The event as it was sent, with its objects as a `Struct` preserves them.
fn native(event: &Value) -> Leaves {
    let mut event = event.clone();
    for of_the_log in ["kind", "apiVersion"] {
        event.as_object_mut().unwrap().remove(of_the_log);
    }
    for name in ["requestObject", "responseObject"] {
        if let Some(object) = event.get_mut(name) {
            *object = as_struct(object);
        }
    }
    Leaves::of(event.to_string().as_bytes())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gke_entries_of_real_log_match_what_the_server_sent() {
    for release in Release::judged() {
        let Some(natives) = recording::tour(release).await else {
            return;
        };
        let entries = entries(&natives);
        assert!(entries.len() > 150, "{}", entries.len());
        let folder = tempfile::tempdir().unwrap();
        let dump = folder.path().join("entries.json");
        let lines: Vec<String> = entries.iter().map(|(entry, _)| entry.to_string()).collect();
        std::fs::write(&dump, lines.join("\n")).unwrap();
        let ours =
            tokio::task::block_in_place(|| replayed("gke", &["--include-data-access"], &dump));
        assert_eq!(ours.len(), entries.len(), "an event for each entry");
        let mut account = Account::default();
        for ((ours, _), (entry, event)) in ours.iter().zip(&entries) {
            let case = Case {
                native: &native(event),
                ours,
                has_status: entry["protoPayload"]["response"]["kind"] == "Status",
            };
            let (method, uri) = (&entry["protoPayload"]["methodName"], &event["requestURI"]);
            let (stage, code) = (&event["stage"], &event["responseStatus"]["code"]);
            account.add(
                &format!("{method} {uri:.100} {stage} {code}"),
                case.contracts(),
            );
        }
        let contracts = CONTRACTS.map(|name| (name, None));
        account.assert(&format!("{release:?}, entries"), &contracts);
    }
}
