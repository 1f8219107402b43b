//! Selected logs that show no entries: the identity may not read them, they are not written, or
//! they are elsewhere.

use audit_bridge_testkit::PodEntry;
use audit_bridge_testkit::cloud_logging::{LogPermissions, Metadata};

use crate::identity::check;
use crate::{Scene, ago, until};

const READS: [&str; 5] = [
    "--project-id",
    "p",
    "--cluster-name",
    "c",
    "--include-data-access",
];
const WARNING: &str = "log shows no entries";

impl Scene {
    /// Writes an entry of the Data Access log, `seconds` seconds old.
    fn put_read(&self, number: usize, seconds: u64) {
        let entry = PodEntry {
            log: "data_access".to_owned(),
            ..PodEntry::new(number, ago(seconds))
        };
        self.logging.put(entry.text());
    }

    /// Writes one of another service.
    fn put_read_of_storage(&self) {
        let entry = PodEntry {
            log: "data_access".to_owned(),
            ..PodEntry::new(1000, ago(30))
        };
        let text = entry
            .text()
            .replace("\"k8s.io\"", "\"storage.googleapis.com\"");
        self.logging.put(text.replace("k8s_cluster", "gcs_bucket"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn data_access_not_permitted_is_named_and_changes_arrive() {
    let scene = Scene::new().await;
    scene.logging.metadata(Metadata::of("p", "c", "l"));
    scene.logging.private_logs(false);
    scene.put(0..3, ago(30));
    scene.put_read(3, 30);
    scene.put_read_of_storage();
    let host = scene.logging.host();
    let envs = [("GCE_METADATA_HOST", host.as_str())];
    let role = "roles/logging.privateLogViewer on project p for \
                bridge@example.iam.gserviceaccount.com";
    let checked = check(&scene, &READS, &envs);
    assert_eq!(checked.status, 1, "{}", checked.stdout);
    for part in [
        "data access",
        "FAILED",
        role,
        "Data Read is off",
        "sinks describe _Default",
    ] {
        assert!(checked.stdout.contains(part), "{part}: {}", checked.stdout);
    }
    let flags = [&READS[..], &["--start", "-1m"]].concat();
    let mut bridge = scene.run_with(&flags, &envs);
    scene.until_accepted(0..3);
    until("the warning", || bridge.log().contains(WARNING));
    bridge.until_ready();
    let log = bridge.log();
    assert!(log.contains(role), "{log}");
    // Once it is permitted, it is read without further messages.
    scene.logging.private_logs(true);
    scene.put_read(4, 0);
    until("what is permitted", || {
        scene.accepted().contains(&PodEntry::audit_id(4))
    });
    let checked = check(&scene, &READS, &envs);
    assert_eq!(checked.status, 0, "{}", checked.stdout);
    assert_eq!(bridge.log().matches(WARNING).count(), 1, "{}", bridge.log());
    assert_eq!(bridge.terminate(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn data_access_not_written_is_told_from_not_permitted() {
    let scene = Scene::new().await;
    scene.put(0..3, ago(30));
    scene.put_read_of_storage();
    let checked = check(&scene, &READS, &[]);
    assert_eq!(checked.status, 1, "{}", checked.stdout);
    assert!(
        checked.stdout.contains("Data Read is off"),
        "{}",
        checked.stdout
    );
    assert!(
        !checked.stdout.contains("privateLogViewer"),
        "{}",
        checked.stdout
    );
    // Users who do not select it get no report about it.
    let checked = check(&scene, &READS[..4], &[]);
    assert_eq!(checked.status, 0, "{}", checked.stdout);
    assert!(
        !checked.stdout.contains("data access"),
        "{}",
        checked.stdout
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn changes_not_permitted_beside_reads_are_named() {
    let scene = Scene::new().await;
    scene.logging.permit(LogPermissions {
        entries: false,
        ..LogPermissions::default()
    });
    scene.put(0..3, ago(30));
    scene.put_read(3, 30);
    let checked = check(&scene, &READS, &[]);
    assert_eq!(checked.status, 1, "{}", checked.stdout);
    let role = "roles/logging.viewer on project p";
    assert!(checked.stdout.contains(role), "{}", checked.stdout);
    let flags = [&READS[..], &["--start", "-1m"]].concat();
    let bridge = scene.run_with(&flags, &[]);
    until("the warning", || bridge.log().contains(WARNING));
    assert!(bridge.log().contains(role), "{}", bridge.log());
    scene.until_accepted(3..4);
    assert_eq!(bridge.terminate(), 0);
}
