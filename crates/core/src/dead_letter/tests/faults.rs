//! The state after a crash, a full disk or a lost sync at each step.

use std::collections::BTreeSet;

use super::super::*;
use super::{all_lines, within};

const STEPS: [FileStep; 8] = [
    FileStep::Write,
    FileStep::Sync,
    FileStep::Rename,
    FileStep::Create,
    FileStep::SyncFolder,
    FileStep::Pack,
    FileStep::RenamePacked,
    FileStep::RemovePlain,
];

fn write(dead: &mut DeadLetter, number: u64) {
    let origin = Origin::File {
        file: "f".into(),
        record: number,
    };
    let payload = format!("{{\"x\":\"{}\"}}", "A".repeat(4000));
    // A line that cannot be written now is kept in memory.
    let _ = dead.write(Reject::TRUNCATED, "e", &origin, payload.as_bytes());
}

/// The records that can be read, and the number of their lines.
fn found(path: &Path) -> (BTreeSet<u64>, usize) {
    let lines = all_lines(path);
    let numbers = lines
        .iter()
        .map(|line| line["source"]["record"].as_u64().unwrap());
    (numbers.collect(), lines.len())
}

/// Fails a step from some time on, `failures` times.
fn fail(dead: &DeadLetter, at: FileStep, mut failures: u32) {
    dead.lines().faults = Faults(Some(Box::new(move |step| {
        match step == at && failures > 0 {
            true => {
                failures -= 1;
                Err(io::Error::other("on cue"))
            }
            false => Ok(()),
        }
    })));
}

#[test]
fn dead_letter_crash_at_any_step_leaves_synced_lines_readable() {
    for step in STEPS {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dead.jsonl");
        let mut synced = BTreeSet::new();
        let mut number = 0;
        for life in 0..4 {
            let limits = within(1 << 20, WhenFull::Hold);
            let mut dead = DeadLetter::open_within(&path, "eks", limits).unwrap();
            if life > 0 {
                fail(&dead, step, u32::MAX);
            }
            // A segment is full after 32 of them.
            for _ in 0..50 {
                number += 1;
                write(&mut dead, number);
                if dead.sync().is_ok() {
                    synced.insert(number);
                }
            }
            // A crash: nothing is cleaned up.
            drop(dead);
            let (found, _) = found(&path);
            assert!(found.is_superset(&synced), "{step:?}");
        }
        let limits = within(1 << 20, WhenFull::Hold);
        let mut dead = DeadLetter::open_within(&path, "eks", limits.clone()).unwrap();
        write(&mut dead, 1000);
        dead.sync().unwrap();
        synced.insert(1000);
        let (found, _) = found(&path);
        assert!(found.is_superset(&synced), "{step:?}");
        assert_eq!(limits.stats.bytes(), super::bytes_on_disk(folder.path()));
    }
}

#[test]
fn dead_letter_fault_that_passes_loses_and_repeats_nothing() {
    for step in STEPS {
        for failures in 1..4 {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("dead.jsonl");
            let limits = within(1 << 20, WhenFull::Hold);
            let mut dead = DeadLetter::open_within(&path, "eks", limits).unwrap();
            fail(&dead, step, failures);
            for number in 0..100 {
                write(&mut dead, number);
                let _ = dead.sync();
            }
            for _ in 0..5 {
                let _ = dead.sync();
            }
            assert_eq!(found(&path), ((0..100).collect(), 100), "{step:?}");
        }
    }
}

#[test]
fn dead_letter_sync_failed_lines_go_to_another_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dead.jsonl");
    let mut dead = DeadLetter::open(&path, "eks").unwrap();
    write(&mut dead, 1);
    dead.sync().unwrap();
    let safe = fs::metadata(&path).unwrap().len();
    for number in [2, 3] {
        write(&mut dead, number);
        let lost = path.clone();
        let mut failed = false;
        dead.lines().faults = Faults(Some(Box::new(move |step| {
            if step != FileStep::Sync || failed {
                return Ok(());
            }
            failed = true;
            // The kernel drops what it could not write, and no longer reports the error.
            let file = fs::OpenOptions::new().write(true).open(&lost)?;
            file.set_len(if number == 2 { safe } else { 0 })?;
            Err(io::Error::other("input/output error"))
        })));
        dead.sync().unwrap_err();
        dead.sync().unwrap();
        dead.lines().faults = Faults::default();
        let (found, _) = found(&path);
        assert!(found.contains(&number), "{number}");
    }
    write(&mut dead, 4);
    dead.sync().unwrap();
    let (found, _) = found(&path);
    assert!(found.is_superset(&BTreeSet::from([1, 3, 4])), "{found:?}");
}

#[test]
fn packed_file_damaged_beside_plain_one_loses_no_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dead.jsonl");
    let limits = || within(1 << 20, WhenFull::Hold);
    let mut dead = DeadLetter::open_within(&path, "eks", limits()).unwrap();
    fail(&dead, FileStep::RemovePlain, u32::MAX);
    for number in 0..40 {
        write(&mut dead, number);
        dead.sync().unwrap();
    }
    let packed = dead.lines().files.segment(1, true);
    drop(dead);
    let whole = fs::read(&packed).unwrap();
    // The counts by holder, which readers skip, are a frame of their own.
    let account = 8 + u32::from_le_bytes(whole[4..8].try_into().unwrap()) as usize;
    for left in [0, 5, account, account + 100, whole.len() - 1, whole.len()] {
        fs::write(&packed, &whole[..left]).unwrap();
        let plain = dead_plain(&path);
        let before = fs::read(&plain).unwrap();
        drop(DeadLetter::open_within(&path, "eks", limits()).unwrap());
        assert_eq!(found(&path), ((0..40).collect(), 40), "{left}");
        fs::write(&plain, before).unwrap();
    }
}

fn dead_plain(path: &Path) -> PathBuf {
    DeadLetterFiles::new(path).segment(1, false)
}

/// A file that was copied out may be removed, or moved away, while the process holds it open.
#[test]
fn dead_letter_file_taken_away_takes_no_later_line_with_it() {
    for another in [None, Some("{\"torn\":")] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dead.jsonl");
        let limits = within(1 << 20, WhenFull::Hold);
        let stats = Arc::clone(&limits.stats);
        let mut dead = DeadLetter::open_within(&path, "eks", limits).unwrap();
        write(&mut dead, 1);
        dead.sync().unwrap();
        // This one is in the file, and not safe yet.
        write(&mut dead, 2);
        dead.lines().flush().unwrap();
        fs::rename(&path, folder.path().join("copied")).unwrap();
        if let Some(another) = another {
            fs::write(&path, another).unwrap();
        }
        write(&mut dead, 3);
        dead.sync().unwrap();
        write(&mut dead, 4);
        dead.sync().unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let numbers: Vec<_> = text
            .lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
            .map(|line| line["source"]["record"].as_u64().unwrap())
            .collect();
        assert_eq!(numbers, [2, 3, 4], "{another:?}");
        assert_eq!(stats.bytes(), text.len() as u64, "{another:?}");
        drop(dead);
        DeadLetter::open(&path, "eks").unwrap();
    }
}
