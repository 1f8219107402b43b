//! The state after a crash or a full disk at each step of a write.

use std::collections::BTreeMap;

use serde_json::json;
use tempfile::TempDir;

use super::*;

const STEPS: [WriteStep; 5] = [
    WriteStep::Create,
    WriteStep::Write,
    WriteStep::SyncFile,
    WriteStep::Rename,
    WriteStep::SyncFolder,
];

fn owner() -> Owner {
    Owner {
        provider: "eks".to_owned(),
        source: "/aws/eks/a/cluster eu-west-1".to_owned(),
    }
}

fn checkpoint(n: u64) -> Checkpoint {
    Checkpoint::new(&owner(), BTreeMap::from([(0, json!({"at": n}))]))
}

fn bytes(n: u64) -> Vec<u8> {
    checkpoint(n).write().unwrap().into_bytes()
}

/// Stops a write before `step`, as a crash does: nothing is cleaned up.
fn crash(folder: &Path, step: WriteStep, error: ErrorKind) -> io::Result<()> {
    replace(folder, &bytes(2), &mut |at| match at == step {
        true => Err(error.into()),
        false => Ok(()),
    })
}

#[tokio::test]
async fn file_store_crash_at_any_step_leaves_old_or_new_document() {
    for step in STEPS {
        let folder = TempDir::new().unwrap();
        let mut store = FileStore::open(folder.path(), owner()).unwrap();
        store.save(&checkpoint(1)).await.unwrap();
        drop(store);
        crash(folder.path(), step, ErrorKind::Other).unwrap_err();
        let mut store = FileStore::open(folder.path(), owner()).unwrap();
        let found = store.load().await.unwrap().unwrap();
        let want = if step == WriteStep::SyncFolder { 2 } else { 1 };
        assert_eq!(found.position[&0], json!({"at": want}), "{step:?}");
        let mut names: Vec<_> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        assert_eq!(names, [DOCUMENT, LOCK], "{step:?}");
        store.save(&checkpoint(3)).await.unwrap();
        let found = store.load().await.unwrap().unwrap();
        assert_eq!(found.position[&0], json!({"at": 3}), "{step:?}");
    }
}

#[tokio::test]
async fn file_store_first_write_crash_leaves_nothing_or_all() {
    for step in STEPS {
        let folder = TempDir::new().unwrap();
        crash(folder.path(), step, ErrorKind::Other).unwrap_err();
        let mut store = FileStore::open(folder.path(), owner()).unwrap();
        let found = store.load().await.unwrap();
        assert_eq!(found.is_some(), step == WriteStep::SyncFolder, "{step:?}");
    }
}

#[test]
fn file_store_write_failed_at_any_step_is_repeated_whole() {
    for step in STEPS {
        let folder = TempDir::new().unwrap();
        replace(folder.path(), &bytes(1), &mut |_| Ok(())).unwrap();
        let mut steps = Vec::new();
        crash(folder.path(), step, ErrorKind::Other).unwrap_err();
        // A failed sync may have dropped what was written, and the next sync succeeds.
        if let Ok(file) = OpenOptions::new()
            .write(true)
            .open(folder.path().join(BESIDE))
        {
            file.set_len(0).unwrap();
        }
        let whole = bytes(3);
        replace(folder.path(), &whole, &mut |at| {
            steps.push(at);
            Ok(())
        })
        .unwrap();
        assert_eq!(steps, STEPS, "{step:?}");
        let found = fs::read(folder.path().join(DOCUMENT)).unwrap();
        assert_eq!(found, whole, "{step:?}");
    }
}

#[tokio::test]
async fn file_store_symbolic_link_is_refused() {
    use std::os::unix::fs::symlink;

    let (folder, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let target = other.path().join("target");
    symlink(&target, folder.path().join(LOCK)).unwrap();
    let refused = FileStore::open(folder.path(), owner())
        .unwrap_err()
        .to_string();
    assert!(refused.contains("symbolic link"), "{refused}");
    assert!(!target.exists());
    fs::remove_file(folder.path().join(LOCK)).unwrap();

    let untouched = bytes(1);
    fs::write(&target, &untouched).unwrap();
    symlink(&target, folder.path().join(DOCUMENT)).unwrap();
    let mut store = FileStore::open(folder.path(), owner()).unwrap();
    let refused = store.load().await.unwrap_err().to_string();
    assert!(refused.contains("symbolic link"), "{refused}");
    store.save(&checkpoint(2)).await.unwrap_err();

    // A link in place of the temporary file does not lead out of the folder.
    fs::remove_file(folder.path().join(DOCUMENT)).unwrap();
    symlink(&target, folder.path().join(BESIDE)).unwrap();
    store.probe().await.unwrap();
    assert_eq!(fs::read(&target).unwrap(), untouched);
}

#[test]
fn file_store_half_temporary_file_does_not_stop_next_write() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join(BESIDE), b"{\"version\":1,\"pro").unwrap();
    let whole = bytes(1);
    replace(folder.path(), &whole, &mut |_| Ok(())).unwrap();
    let found = fs::read(folder.path().join(DOCUMENT)).unwrap();
    assert_eq!(found, whole);
}

#[test]
fn file_store_io_error_has_a_remedy() {
    for (kind, part) in [
        (ErrorKind::StorageFull, "make room"),
        (ErrorKind::QuotaExceeded, "make room"),
        (ErrorKind::ReadOnlyFilesystem, "writable volume"),
        (ErrorKind::PermissionDenied, "fsGroup"),
        (ErrorKind::NotFound, "make the folder"),
        (ErrorKind::NotADirectory, "a folder of its own"),
        (ErrorKind::Other, "tried again"),
    ] {
        let folder = TempDir::new().unwrap();
        let error = crash(folder.path(), WriteStep::Write, kind).unwrap_err();
        let error = unavailable(folder.path(), "cannot be written", error);
        assert!(error.is_unavailable());
        assert!(error.to_string().contains(part), "{error}");
    }
    // The kernel's codes for a full disk, a quota and a read-only file system.
    for (number, kind) in [
        (28, ErrorKind::StorageFull),
        (122, ErrorKind::QuotaExceeded),
        (30, ErrorKind::ReadOnlyFilesystem),
    ] {
        assert_eq!(io::Error::from_raw_os_error(number).kind(), kind);
    }
}

#[test]
fn file_store_abandoned_write_does_not_undo_newer_one() {
    let folder = TempDir::new().unwrap();
    let store = FileStore::open(folder.path(), owner()).unwrap();
    store.files.save(2, &bytes(2), &owner()).unwrap();
    store.files.save(1, &bytes(1), &owner()).unwrap();
    let found = store.files.load(&owner()).unwrap().unwrap();
    assert_eq!(found.position[&0], json!({"at": 2}));
}
