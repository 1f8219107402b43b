//! Central logging: entries of many projects' clusters, in one place or several.

use std::collections::BTreeMap;

use audit_bridge_testkit::PodEntry;
use audit_bridge_testkit::cloud_logging::LogPermissions;
use audit_bridge_tests::command;
use serde_json::Value;

use crate::identity::check;
use crate::{Scene, ago};

const VIEW: &str = "folders/42/locations/europe-west3/buckets/audit/views/gke";
const REQUIRED: &str = "projects/p/locations/global/buckets/_Required/views/_AllLogs";
const ACTIVITY: &str = "cloudaudit.googleapis.com/activity";

fn put_of(scene: &Scene, number: usize, project: &str, cluster: &str) {
    let entry = PodEntry {
        project: project.to_owned(),
        cluster: cluster.to_owned(),
        ..PodEntry::new(number, ago(30))
    };
    scene.logging.put(entry.text());
}

/// The cluster annotation of each event, by its ID.
fn annotated(scene: &Scene) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for request in scene.webhook.received() {
        let list: Value = serde_json::from_slice(&request.body).unwrap();
        for event in list["items"].as_array().unwrap() {
            let cluster = &event["annotations"]["audit-bridge/cluster"];
            let cluster = cluster.as_str().unwrap_or_default().to_owned();
            found.insert(event["auditID"].as_str().unwrap().to_owned(), cluster);
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn clusters_of_many_projects_are_read_from_one_view_and_annotated() {
    let scene = Scene::new().await;
    scene.logging.permit(LogPermissions {
        resources: Some(vec![VIEW.to_owned()]),
        ..LogPermissions::default()
    });
    for (number, project) in ["p", "q", "r"].into_iter().enumerate() {
        put_of(&scene, number, project, "c");
    }
    // The view is empty until a sink fills it.
    let checked = check(&scene, &["--resource-name", VIEW], &[]);
    assert_eq!(checked.status, 1, "{}", checked.stdout);
    assert!(
        checked.stdout.contains("sinks list --folder 42"),
        "{}",
        checked.stdout
    );
    scene.logging.route(VIEW, &[ACTIVITY]);
    let flags = [
        "--resource-name",
        VIEW,
        "--annotate-cluster",
        "--start",
        "-1m",
    ];
    // The variable of Google's own tools names the bridge's project, not that of the log.
    let bridge = scene.run_with(&flags, &[("GOOGLE_CLOUD_PROJECT", "p")]);
    scene.until_accepted(0..3);
    let clusters: Vec<String> = annotated(&scene).into_values().collect();
    let full = |project| format!("projects/{project}/locations/l/clusters/c");
    assert_eq!(clusters, ["p", "q", "r"].map(full));
    assert_eq!(bridge.terminate(), 0);
    let checked = check(&scene, &["--resource-name", VIEW], &[]);
    assert_eq!(checked.status, 0, "{}{}", checked.stdout, checked.stderr);
    assert!(checked.stdout.contains(VIEW), "{}", checked.stdout);
    // One project of the view, and one cluster of it.
    let one = [
        "--resource-name",
        VIEW,
        "--project-id",
        "q",
        "--cluster-name",
        "d",
    ];
    let checked = check(&scene, &one, &[]);
    assert_eq!(checked.status, 1);
    for cluster in ["c in l,", "c in l of project r"] {
        assert!(
            checked.stdout.contains(cluster),
            "{cluster}: {}",
            checked.stdout
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn resource_names_several_are_one_request() {
    let scene = Scene::new().await;
    for (number, project) in ["p", "q", "r"].into_iter().enumerate() {
        put_of(&scene, number, project, "c");
    }
    let flags = [
        "--resource-name",
        "projects/p",
        "--resource-name",
        "projects/q,projects/p",
    ];
    let bridge = scene.run_with(&[&flags[..], &["--start", "-1m"]].concat(), &[]);
    scene.until_accepted(0..2);
    assert_eq!(bridge.terminate(), 0);
    for request in scene.logging.requests() {
        assert_eq!(request.resource_names, ["projects/p", "projects/q"]);
        assert!(request.filter.contains("log_id("), "{}", request.filter);
    }
    // Another place is added: the position is kept.
    let flags = [&flags[..], &["--resource-name", "projects/r"]].concat();
    let bridge = scene.run_with(&flags, &[]);
    put_of(&scene, 3, "r", "c");
    scene.until_accepted(0..2);
    drop(bridge);
}

/// A narrow permission for one view, which is read in place of the project.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn checkpoint_of_the_project_goes_on_in_its_view() {
    let scene = Scene::new().await;
    scene.put(0..20, ago(30));
    let before = ["--project-id", "p", "--cluster-name", "c"];
    let bridge = scene.run_with(&[&before[..], &["--start", "-1m"]].concat(), &[]);
    scene.until_accepted(0..20);
    assert_eq!(bridge.terminate(), 0);
    scene.logging.permit(LogPermissions {
        resources: Some(vec![REQUIRED.to_owned()]),
        entries: false,
        private_entries: false,
    });
    let mut bridge = scene.run_with(&before, &[]);
    let why = bridge.until_not_ready("source", "roles/logging.viewer on project p");
    assert!(why.contains("403"), "{why}");
    assert_eq!(bridge.terminate(), 0);
    scene.put(20..30, ago(0));
    let now = [&before[..], &["--resource-name", REQUIRED]].concat();
    let mut bridge = scene.run_with(&now, &[]);
    scene.until_accepted(0..30);
    bridge.until_ready();
    assert_eq!(bridge.terminate(), 0);
    assert_eq!(scene.webhook.accepted_ids().len(), 30, "each just once");
    // Logs that the bucket never has are not expected.
    let checked = check(
        &scene,
        &[&now[..], &["--include-data-access"]].concat(),
        &[],
    );
    assert_eq!(checked.status, 1);
    assert!(
        checked.stdout.contains("_Default/views/_AllLogs"),
        "{}",
        checked.stdout
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn view_not_permitted_is_held_with_its_role() {
    let scene = Scene::new().await;
    scene.logging.only_project("p");
    let mut bridge = scene.run_with(&["--resource-name", VIEW], &[]);
    let role = format!("roles/logging.viewAccessor on log view {VIEW}");
    bridge.until_not_ready("source", &role);
    let checked = check(&scene, &["--resource-name", VIEW], &[]);
    assert!(checked.stdout.contains(&role), "{}", checked.stdout);
    assert_eq!(bridge.terminate(), 0);
}

#[test]
fn resource_names_wrong_are_named_without_their_values() {
    let output = command(
        "gke",
        &["run", "--webhook-url", "http://127.0.0.1:9/k8s-audit"],
    )
    .args([
        "--resource-name",
        "projects/p,secret-token",
        "--resource-name",
        "folders/x",
    ])
    .args(["--resource-name", "projects/p/locations/l/buckets/b"])
    .args(["--subscription", "projects/p/subscriptions/s"])
    .output()
    .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    for part in [
        "--resource-name (AUDIT_BRIDGE_RESOURCE_NAME): name 2: must begin with projects/ID",
        "name 3: must have the number of the folder",
        "name 4: is a bucket",
        "a subscription is read instead",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!said.contains("secret-token"), "{said}");
}
