//! The checkpoint in a state folder: its content, what is refused, and its lock.
#![allow(clippy::unwrap_used, reason = "tests, with their helpers")]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use audit_bridge_core::checkpoint::file::StateDir;
use audit_bridge_core::checkpoint::{Checkpoint, FileStore, Owner, Store, StoreError};
use serde_json::{Value, json};
use tempfile::TempDir;

fn owner(provider: &str, source: &str) -> Owner {
    Owner {
        provider: provider.to_owned(),
        source: source.to_owned(),
    }
}

fn ours() -> Owner {
    owner("eks", "/aws/eks/a/cluster eu-west-1")
}

fn positions(n: u64) -> BTreeMap<u32, Value> {
    BTreeMap::from([
        (0, json!({"edge": n, "token": "a\"b"})),
        (7, json!(u64::MAX)),
    ])
}

#[tokio::test]
async fn file_store_saved_checkpoint_is_loaded_by_next_process() {
    let parent = TempDir::new().unwrap();
    let folder = parent.path().join("state");
    let mut store = FileStore::open(&folder, ours()).unwrap();
    assert_eq!(store.load().await.unwrap(), None);
    let first = Checkpoint::new(&ours(), positions(1));
    store.save(&first).await.unwrap();
    store
        .save(&Checkpoint::new(&ours(), positions(2)))
        .await
        .unwrap();
    drop(store);
    let mut store = FileStore::open(&folder, ours()).unwrap();
    let loaded = store.load().await.unwrap().unwrap();
    assert_eq!(loaded.position, positions(2));

    let file = folder.join("checkpoint.json");
    let document: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    assert_eq!(document["version"], 1);
    assert_eq!(document["provider"], "eks");
    assert_eq!(document["source"], "/aws/eks/a/cluster eu-west-1");
    assert_eq!(document["position"]["7"], json!(u64::MAX));
    let written = document["written"].as_str().unwrap();
    assert_eq!(written.len(), "2026-01-02T03:04:05.000000Z".len());
    assert!(written.ends_with('Z'));
    for (path, mode) in [(file, 0o600), (folder.join("lock"), 0o600), (folder, 0o700)] {
        let found = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(found, mode, "{}", path.display());
    }
}

/// Checks that a document is refused, and what the message says.
async fn check_refused(document: &str, parts: &[&str]) {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("checkpoint.json");
    fs::write(&file, document).unwrap();
    let mut store = FileStore::open(folder.path(), ours()).unwrap();
    let refused = store.load().await.unwrap_err();
    let again = store.save(&Checkpoint::new(&ours(), positions(1))).await;
    for error in [refused, again.unwrap_err()] {
        assert!(matches!(error, StoreError::Refused { .. }), "{error:?}");
        let text = error.to_string();
        let file = file.display().to_string();
        for part in parts.iter().chain([&file.as_str(), &"move it away"]) {
            assert!(text.contains(part), "{part} is not in: {text}");
        }
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), document);
    // After it is moved away, saving works.
    fs::rename(&file, folder.path().join("old")).unwrap();
    let checkpoint = Checkpoint::new(&ours(), positions(1));
    store.save(&checkpoint).await.unwrap();
    let found = store.load().await.unwrap().unwrap();
    assert_eq!(found.position, checkpoint.position);
}

#[tokio::test]
async fn file_store_foreign_document_is_refused_and_kept() {
    let document = |change: &dyn Fn(&mut Value)| {
        let mut value = json!({
            "version": 1,
            "provider": "eks",
            "source": "/aws/eks/a/cluster eu-west-1",
            "position": {"0": {"edge": 1}},
            "written": "2026-01-02T03:04:05.000000Z",
        });
        change(&mut value);
        value.to_string()
    };
    let foreign = document(&|it| it["provider"] = "gke".into());
    check_refused(&foreign, &["provider gke", "provider eks", "--state-dir"]).await;
    let foreign = document(&|it| it["source"] = "/aws/eks/b/cluster".into());
    check_refused(&foreign, &["/aws/eks/b/cluster", "/aws/eks/a/cluster"]).await;
    let newer = document(&|it| {
        it["version"] = 2.into();
        it["position"] = "in another way".into();
    });
    check_refused(&newer, &["version 2", "newer release", "version 1"]).await;
    let whole = document(&|_| {});
    check_refused(&whole[..whole.len() / 2], &["not whole JSON"]).await;
    check_refused("", &["is empty"]).await;
    check_refused("\n", &["is empty"]).await;
    check_refused("null", &["has no version"]).await;
    check_refused("[1]", &["has no version"]).await;
    check_refused(&document(&|it| it["version"] = "1".into()), &["version"]).await;
    check_refused(&document(&|it| it["version"] = 0.into()), &["version"]).await;
    let wrong = document(&|it| it["position"] = json!([1]));
    check_refused(&wrong, &["wrong kind"]).await;
    let wrong = document(&|it| it["position"] = json!({"edge": 1}));
    check_refused(&wrong, &["wrong kind"]).await;
    let wrong = document(&|it| it["written"] = "yesterday".into());
    check_refused(&wrong, &["wrong kind", "written"]).await;
    let wrong = document(&|it| it["provider"] = Value::Null);
    check_refused(&wrong, &["wrong kind"]).await;
}

#[tokio::test]
async fn file_store_unknown_members_are_accepted() {
    let folder = TempDir::new().unwrap();
    let mut document = serde_json::to_value(Checkpoint::new(&ours(), positions(1))).unwrap();
    document["more"] = json!({"of": "it"});
    fs::write(folder.path().join("checkpoint.json"), document.to_string()).unwrap();
    let mut store = FileStore::open(folder.path(), ours()).unwrap();
    let found = store.load().await.unwrap().unwrap();
    assert_eq!(found.position, positions(1));
}

#[tokio::test]
async fn file_store_other_owner_is_refused() {
    let folder = TempDir::new().unwrap();
    let mut store = FileStore::open(folder.path(), ours()).unwrap();
    let other = Checkpoint::new(&owner("gke", "p/c"), positions(1));
    let error = store.save(&other).await.unwrap_err();
    assert!(matches!(error, StoreError::Refused { .. }), "{error:?}");
    assert_eq!(store.load().await.unwrap(), None);
}

fn check_locked(folder: &Path, holder: &str) {
    let error = FileStore::open(folder, ours()).unwrap_err();
    assert!(matches!(error, StoreError::Locked { .. }), "{error:?}");
    let text = error.to_string();
    for part in [folder.to_str().unwrap(), holder, "--state-dir"] {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
}

#[tokio::test]
async fn state_folder_in_use_is_refused() {
    let folder = TempDir::new().unwrap();
    let store = FileStore::open(folder.path(), ours()).unwrap();
    let pid = format!("pid {} on host", std::process::id());
    check_locked(folder.path(), &pid);
    drop(store);
    let state = StateDir::lock(folder.path()).unwrap();
    assert_eq!(state.path(), folder.path());
    check_locked(folder.path(), &pid);
    drop(state);
    FileStore::open(folder.path(), ours()).unwrap();
}

#[test]
fn state_folder_lock_ends_with_its_process() {
    let folder = TempDir::new().unwrap();
    let lock = folder.path().join("lock");
    fs::write(&lock, "pid 4711 on host other\n").unwrap();
    // A leftover file is no lock.
    drop(StateDir::lock(folder.path()).unwrap());
    fs::write(&lock, "pid 4711 on host other\n").unwrap();
    let mut child = Command::new("flock")
        .arg("--no-fork")
        .arg(&lock)
        .args(["sh", "-c", "echo locked; exec sleep 600"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = [0; 7];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut line).unwrap();
    check_locked(folder.path(), "pid 4711 on host other");
    child.kill().unwrap();
    child.wait().unwrap();
    FileStore::open(folder.path(), ours()).unwrap();
}

/// Checks that a folder cannot be used, and what the message says.
fn check_unavailable(folder: &Path, parts: &[&str]) {
    let error = FileStore::open(folder, ours()).unwrap_err();
    assert!(error.is_unavailable(), "{error:?}");
    let text = error.to_string();
    for part in parts {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
}

#[test]
fn state_folder_unusable_is_named_with_remedy() {
    let parent = TempDir::new().unwrap();
    let deep = parent.path().join("not/there");
    check_unavailable(&deep, &["not/there", "make the folder"]);
    let file = parent.path().join("file");
    fs::write(&file, "").unwrap();
    check_unavailable(&file, &["file/lock", "a folder of its own"]);
    // Even root cannot create files there.
    #[cfg(target_os = "linux")]
    check_unavailable(Path::new("/sys/kernel"), &["/sys/kernel/lock", "fsGroup"]);
}

#[tokio::test]
async fn file_store_write_failed_is_reported_and_recovers() {
    let folder = TempDir::new().unwrap();
    let mut store = FileStore::open(folder.path(), ours()).unwrap();
    let checkpoint = Checkpoint::new(&ours(), positions(1));
    store.save(&checkpoint).await.unwrap();
    // A non-empty folder blocks the path of the temporary document.
    let beside = folder.path().join("checkpoint.json.tmp");
    fs::create_dir(&beside).unwrap();
    fs::write(beside.join("x"), "").unwrap();
    let next = Checkpoint::new(&ours(), positions(2));
    let error = store.save(&next).await.unwrap_err();
    assert!(error.is_unavailable(), "{error:?}");
    assert_eq!(store.load().await.unwrap(), Some(checkpoint));
    fs::remove_dir_all(&beside).unwrap();
    store.save(&next).await.unwrap();
    assert_eq!(store.load().await.unwrap(), Some(next));
}

/// Set in the child run of the test below, which may mount.
const MAY_MOUNT: &str = "MAY_MOUNT";

/// Runs itself again in a new namespace, in which a user may mount.
#[test]
fn file_store_full_or_read_only_disk_is_reported_and_recovers() {
    if std::env::var_os(MAY_MOUNT).is_some() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        return runtime.block_on(on_a_disk_of_its_own());
    }
    let namespace = ["--map-root-user", "--mount"];
    let may = Command::new("unshare").args(namespace).arg("true").status();
    if !may.is_ok_and(|status| status.success()) {
        // Bypasses the test harness, which would capture it.
        let said = b"skipped: no user namespaces here, so no full disk was tried\n";
        std::io::stderr().write_all(said).unwrap();
        return;
    }
    let output = Command::new("unshare")
        .args(namespace)
        .arg(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "file_store_full_or_read_only_disk_is_reported_and_recovers",
        ])
        .env(MAY_MOUNT, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}"
    );
}

async fn on_a_disk_of_its_own() {
    let folder = TempDir::new().unwrap();
    let mount = |options: &str| {
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(folder.path())
            .status();
        assert!(status.unwrap().success());
    };
    mount("size=64k");
    let mut store = FileStore::open(folder.path(), ours()).unwrap();
    let checkpoint = Checkpoint::new(&ours(), positions(1));
    store.save(&checkpoint).await.unwrap();
    let filler = folder.path().join("filler");
    fs::write(&filler, vec![0; 1 << 20]).unwrap_err();
    let next = Checkpoint::new(&ours(), positions(2));
    let error = store.save(&next).await.unwrap_err();
    assert!(error.to_string().contains("make room"), "{error}");
    assert_eq!(store.load().await.unwrap(), Some(checkpoint));
    fs::remove_file(&filler).unwrap();
    store.save(&next).await.unwrap();
    drop(store);
    mount_again(folder.path(), "remount,ro");
    let error = FileStore::open(folder.path(), ours()).unwrap_err();
    assert!(error.to_string().contains("writable volume"), "{error}");
    mount_again(folder.path(), "remount,rw");
    let mut store = FileStore::open(folder.path(), ours()).unwrap();
    assert_eq!(store.load().await.unwrap(), Some(next));
    drop(store);
    let status = Command::new("umount").arg(folder.path()).status();
    assert!(status.unwrap().success());
}

fn mount_again(folder: &Path, options: &str) {
    let status = Command::new("mount")
        .args(["-o", options])
        .arg(folder)
        .status();
    assert!(status.unwrap().success());
}
