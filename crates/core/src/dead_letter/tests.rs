mod faults;
mod full;

use std::fs::OpenOptions;

use rustix::fs::{CWD, Mode, mkfifoat};
use serde_json::{Value, json};

use super::*;

fn origin() -> Origin {
    Origin::File {
        file: "a \"b\".json".into(),
        record: 7,
    }
}

fn lines(path: &Path) -> Vec<Value> {
    fs::read_to_string(path)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// The lines of all files of a dead letter, as `replay` would read them, oldest first.
fn all_lines(path: &Path) -> Vec<Value> {
    let name = path.file_name().unwrap().to_str().unwrap();
    let mut files: Vec<_> = fs::read_dir(path.parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|it| it.file_name().unwrap().to_str().unwrap().starts_with(name))
        .collect();
    // The current file comes last.
    files.sort_by_key(|it| (it == path, it.clone()));
    let mut lines = Vec::new();
    for file in files {
        let mut text = fs::read(&file).unwrap();
        if file.extension().is_some_and(|it| it == "zst") {
            text = zstd::decode_all(&text[..]).unwrap();
        }
        let text = String::from_utf8(text).unwrap();
        lines.extend(
            text.lines()
                .filter_map(|line| serde_json::from_str(line).ok()),
        );
    }
    lines
}

/// Bytes of all files.
fn bytes_on_disk(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).unwrap();
    let sizes = entries.map(|entry| entry.unwrap().metadata().unwrap().len());
    sizes.sum()
}

fn within(bytes_max: u64, when_full: WhenFull) -> DeadLetterLimits {
    DeadLetterLimits {
        bytes_max: Some(bytes_max),
        when_full,
        ..DeadLetterLimits::default()
    }
}

#[test]
fn dead_letter_any_payload_is_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dead.jsonl");
    let mut dead = DeadLetter::open(&path, "eks").unwrap();
    let payloads: [(&[u8], &str, Value); 6] = [
        (b"{\"n\":1.10,\"n\":2}", "payload", json!({"n": 2})),
        (
            b"{\r\n  \"a\": \"x\\ny\"\n}\n",
            "payload",
            json!({"a": "x\ny"}),
        ),
        (b"{\"cut\": [1,\n", "payload", json!("{\"cut\": [1,\n")),
        (b"\"text\"", "payload", json!("\"text\"")),
        (b"", "payload", json!("")),
        (b"\xff\x00", "payload_base64", json!("/wA=")),
    ];
    for (payload, _, _) in &payloads {
        dead.write(Reject::TRUNCATED, "cut\nshort", &origin(), payload)
            .unwrap();
    }
    let stream = Origin::Stream {
        stream: "kube-apiserver-audit-1".into(),
        id: "37".to_owned(),
    };
    dead.write(Reject::REFUSED, "no", &stream, b"1").unwrap();
    dead.sync().unwrap();

    let lines = lines(&path);
    assert_eq!(lines.len(), payloads.len() + 1);
    for (line, (_, field, want)) in lines.iter().zip(&payloads) {
        let keys: Vec<&String> = line.as_object().unwrap().keys().collect();
        let mut fields = vec!["time", "provider", "reason", "error", "source", field];
        fields.sort_unstable();
        assert_eq!(keys, fields);
        assert_eq!(line[field], *want);
        assert_eq!(line["provider"], "eks");
        assert_eq!(line["reason"], "truncated");
        assert_eq!(line["error"], "cut\nshort");
        assert_eq!(line["source"], serde_json::to_value(origin()).unwrap());
        let time = line["time"].as_str().unwrap();
        assert_eq!(time.len(), "2026-11-21T00:00:00.000000Z".len());
        assert!(time::parse(time).is_some());
    }
    assert_eq!(lines[6]["source"], serde_json::to_value(stream).unwrap());
    // Numbers and duplicate keys stay as they were.
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains("\"payload\":{\"n\":1.10,\"n\":2}}"));
}

#[test]
fn dead_letter_reopened_ends_half_line_and_appends() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dead.jsonl");
    for _ in 0..2 {
        let mut dead = DeadLetter::open(&path, "gke").unwrap();
        dead.write(Reject::UNPARSABLE, "e", &origin(), b"{}")
            .unwrap();
        dead.sync().unwrap();
    }
    OpenOptions::new()
        .append(true)
        .open(&path)
        .unwrap()
        .write_all(b"{\"time\":\"20")
        .unwrap();
    let mut dead = DeadLetter::open(&path, "gke").unwrap();
    dead.write(Reject::UNPARSABLE, "e", &origin(), b"{}")
        .unwrap();
    dead.sync().unwrap();
    let text = fs::read_to_string(&path).unwrap();
    let good = text
        .lines()
        .filter(|line| serde_json::from_str::<Value>(line).is_ok());
    assert_eq!((good.count(), text.lines().count()), (3, 4));
}

#[cfg(unix)]
#[test]
fn dead_letter_file_is_readable_by_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dead.jsonl");
    DeadLetter::open(&path, "aks").unwrap();
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn dead_letter_missing_folder_is_named() {
    let error = DeadLetter::open(Path::new("/nowhere/at/all.jsonl"), "aks").unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("/nowhere/at/all.jsonl") && text.contains("folder"),
        "{text}"
    );
}

#[cfg(target_os = "linux")]
#[test]
fn dead_letter_full_disk_is_named_and_keeps_the_record() {
    let mut dead = DeadLetter::open(Path::new("/dev/full"), "aks").unwrap();
    dead.write(Reject::REFUSED, "e", &origin(), b"{}").unwrap();
    for _ in 0..2 {
        let text = dead.sync().unwrap_err().to_string();
        assert!(text.contains("the disk is full"), "{text}");
    }
}

#[test]
fn dead_letter_link_or_locked_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (path, link) = (folder.path().join("dead.jsonl"), folder.path().join("link"));
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let refused = DeadLetter::open(&link, "eks").unwrap_err().to_string();
    assert!(refused.contains("symbolic link"), "{refused}");
    assert!(!path.exists(), "nothing was made behind the link");

    let first = DeadLetter::open(&path, "eks").unwrap();
    let refused = DeadLetter::open(&path, "eks").unwrap_err().to_string();
    assert!(refused.contains("another process"), "{refused}");
    drop(first);
    DeadLetter::open(&path, "eks").unwrap();
}

#[test]
fn dead_letter_pipe_without_reader_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    mkfifoat(CWD, &pipe, Mode::RWXU).unwrap();
    let refused = DeadLetter::open(&pipe, "eks").unwrap_err().to_string();
    assert!(refused.contains("a pipe that nobody reads"), "{refused}");
    // Open both ends: opening one alone would wait for the other.
    let mut reader = OpenOptions::new();
    let _reader = reader.read(true).write(true).open(&pipe).unwrap();
    DeadLetter::open(&pipe, "eks").unwrap();
}
