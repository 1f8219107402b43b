//! Floods: space is bounded, and one holder's flood does not displace another's records.

use std::ops::Range;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::super::*;
use super::{all_lines, bytes_on_disk, within};

const MIB: u64 = 1 << 20;

/// 258 kB, the size that anonymous requests can reach; it does not compress.
fn noise(seed: u64) -> String {
    let mut random = fastrand::Rng::with_seed(seed);
    let text: String = (0..258_000).map(|_| random.alphanumeric()).collect();
    format!("{{\"n\":{seed},\"x\":\"{text}\"}}")
}

fn from(stream: &str, id: u64) -> Origin {
    Origin::Stream {
        stream: stream.into(),
        id: id.to_string(),
    }
}

fn write(dead: &mut DeadLetter, reason: Reject, stream: &str, numbers: Range<u64>) {
    for number in numbers {
        let payload = noise(number);
        dead.write(reason, "e", &from(stream, number), payload.as_bytes())
            .unwrap();
        dead.sync().unwrap();
    }
}

fn is_whole(line: &Value, number: u64) -> bool {
    line["payload"] == serde_json::from_str::<Value>(&noise(number)).unwrap()
        && line.get("payload_bytes").is_none()
}

#[test]
fn dead_letter_flooded_keeps_its_limit_and_the_evidence_of_others() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dead.jsonl");
    let limits = within(8 * MIB, WhenFull::Drop);
    let stats = Arc::clone(&limits.stats);
    let mut dead = DeadLetter::open_within(&path, "eks", limits.clone()).unwrap();
    write(&mut dead, Reject::TRUNCATED, "a", 0..3);
    write(&mut dead, Reject::TOO_LARGE, "flood", 100..400);
    write(&mut dead, Reject::REFUSED, "flood", 0..3);
    // A restart forgets nothing.
    drop(dead);
    let mut dead = DeadLetter::open_within(&path, "eks", limits).unwrap();
    write(&mut dead, Reject::TOO_LARGE, "flood", 400..450);
    write(&mut dead, Reject::TOO_LARGE, "b", 0..2);

    assert!(bytes_on_disk(folder.path()) <= 8 * MIB);
    assert_eq!(stats.bytes(), bytes_on_disk(folder.path()));
    let lines = all_lines(&path);
    assert_eq!(lines.len(), 3 + 300 + 3 + 50 + 2, "each has its line");
    let of = |reason: &str, stream: &str| -> Vec<&Value> {
        let mine = |line: &&Value| line["reason"] == reason && line["source"]["stream"] == stream;
        lines.iter().filter(mine).collect()
    };
    for others in [
        of("truncated", "a"),
        of("refused", "flood"),
        of("too_large", "b"),
    ] {
        assert!(others.len() >= 2);
        for (number, line) in others.into_iter().enumerate() {
            assert!(is_whole(line, number as u64));
        }
    }
    let flood = of("too_large", "flood");
    let whole = (100..)
        .zip(&flood)
        .take_while(|(n, line)| is_whole(line, *n));
    let whole = whole.count();
    assert!(whole >= 10, "{whole}");
    assert_eq!(stats.payloads_dropped(), (flood.len() - whole) as u64);
    // The newest records lost their payloads; only the beginnings are left.
    for (number, line) in (100..).zip(&flood).skip(whole) {
        let (want, kept) = (noise(number), line["payload"].as_str().unwrap());
        assert!(want.starts_with(kept));
        assert!(kept.is_empty() || kept.len() == line::HEAD_BYTES);
        assert_eq!(line["payload_bytes"], want.len());
        let digest = Sha256::digest(want.as_bytes());
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(line["payload_sha256"], digest);
    }
    let heads = flood[whole..]
        .iter()
        .filter(|it| it["payload"] != "")
        .count();
    assert!(heads >= 50, "{heads}");
}

#[test]
fn dead_letter_of_text_that_compresses_keeps_more() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dead.jsonl");
    let limits = within(4 * MIB, WhenFull::Drop);
    let mut dead = DeadLetter::open_within(&path, "eks", limits).unwrap();
    let payload = format!("{{\"x\":\"{}\"}}", "A".repeat(258_000));
    for number in 0..200 {
        let origin = from("flood", number);
        dead.write(Reject::TOO_LARGE, "e", &origin, payload.as_bytes())
            .unwrap();
        dead.sync().unwrap();
    }
    let lines = all_lines(&path);
    assert_eq!(lines.len(), 200);
    assert!(lines.iter().all(|line| line.get("payload_bytes").is_none()));
    assert!(bytes_on_disk(folder.path()) <= MIB);
}

#[test]
fn dead_letter_without_room_goes_on_and_counts() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dead.jsonl");
    let limits = within(64 << 10, WhenFull::Drop);
    let stats = Arc::clone(&limits.stats);
    let mut dead = DeadLetter::open_within(&path, "eks", limits).unwrap();
    let payload = noise(1);
    for number in 0..5000 {
        let origin = from("flood", number);
        dead.write(Reject::TOO_LARGE, "e", &origin, payload.as_bytes())
            .unwrap();
        dead.sync().unwrap();
    }
    assert!(bytes_on_disk(folder.path()) <= 64 << 10);
    assert_eq!(stats.payloads_dropped(), 5000);
    // There is still room for another holder.
    let origin = from("other", 1);
    dead.write(Reject::REFUSED, "e", &origin, b"{\"a\":1}")
        .unwrap();
    dead.sync().unwrap();
    assert_eq!(all_lines(&path).last().unwrap()["payload"]["a"], 1);
}

#[test]
fn dead_letter_on_hold_refuses_until_files_are_removed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dead.jsonl");
    let limits = within(2 * MIB, WhenFull::Hold);
    let mut dead = DeadLetter::open_within(&path, "eks", limits).unwrap();
    let mut kept = 0;
    let refused = loop {
        let payload = noise(kept);
        let origin = from("flood", kept);
        let written = dead.write(Reject::TOO_LARGE, "e", &origin, payload.as_bytes());
        match written.and_then(|()| dead.sync()) {
            Ok(()) => kept += 1,
            Err(error) => break error.to_string(),
        }
    };
    assert!(refused.contains("--dead-letter-bytes-max"), "{refused}");
    assert!(bytes_on_disk(folder.path()) <= 2 * MIB);
    let lines = all_lines(&path);
    assert!(
        (0..kept)
            .zip(&lines)
            .all(|(number, line)| is_whole(line, number))
    );
    dead.sync().unwrap_err();
    fs::remove_file(dead.lines().files.segment(1, true)).unwrap();
    dead.lines().looked = None;
    dead.sync().unwrap();
    assert!(is_whole(all_lines(&path).last().unwrap(), kept));
}

#[test]
fn burst_above_limit_holds_until_files_are_removed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dead.jsonl");
    let limits = within(MIB, WhenFull::Hold);
    let mut dead = DeadLetter::open_within(&path, "eks", limits).unwrap();
    for number in 0..16 {
        let payload = noise(number);
        // A line that cannot be written now is kept in memory.
        let _ = dead.write(
            Reject::TOO_LARGE,
            "e",
            &from("burst", number),
            payload.as_bytes(),
        );
    }
    let error = dead.sync().unwrap_err().to_string();
    assert!(error.contains("--dead-letter-bytes-max"), "{error}");
    let mut lines = all_lines(&path);
    let segments: Vec<u64> = dead.lines().segments.keys().copied().collect();
    for number in segments {
        fs::remove_file(dead.lines().files.segment(number, true)).unwrap();
    }
    assert!(
        dead.lines().buffer.len() as u64 > MIB,
        "what waits fits in no empty dead letter"
    );
    dead.lines().looked = None;
    dead.sync().unwrap();
    lines.extend(all_lines(&path));
    assert_eq!(lines.len(), 16);
    assert!(
        (0..16)
            .zip(&lines)
            .all(|(number, line)| is_whole(line, number))
    );
}

#[test]
fn dead_letter_payload_above_record_limit_is_cut() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dead.jsonl");
    let mut dead = DeadLetter::open(&path, "eks").unwrap();
    let text = "ö".repeat(PAYLOAD_BYTES_MAX);
    let mut bytes = text.clone().into_bytes();
    dead.write(Reject::TOO_LARGE, "e", &from("s", 1), text.as_bytes())
        .unwrap();
    bytes[0] = 0xff;
    dead.write(Reject::TOO_LARGE, "e", &from("s", 2), &bytes)
        .unwrap();
    dead.sync().unwrap();
    let lines = all_lines(&path);
    assert_eq!(
        lines[0]["payload"].as_str().unwrap().len(),
        line::HEAD_BYTES
    );
    assert_eq!(lines[0]["payload_bytes"], text.len());
    assert!(lines[1]["payload_base64"].is_string());
}

#[test]
fn dead_letter_line_counts_for_its_holder_whatever_it_holds() {
    for (error, file) in [
        ("e", "plain"),
        (
            ",\"reason\":\"refused\",\"source\":{\"file\":\"x\"",
            "a\"b\\",
        ),
        ("\u{1b}]0;x\u{7}", "\\\"\\\\"),
    ] {
        let mut line = Vec::new();
        let origin = Origin::File {
            file: file.into(),
            record: 1,
        };
        let about = LineMetadata {
            time: "t",
            provider: "eks",
            reason: Reject::TRUNCATED,
            error,
            origin: &origin,
        };
        line::write(&mut line, &about, b"{\"reason\":\"x\"}", Keep::Whole);
        let (reason, place) = line::holder(&line);
        assert_eq!(reason, "truncated");
        let place: String = serde_json::from_str(&format!("\"{place}\"")).unwrap();
        assert_eq!(place, file);
    }
    assert_eq!(line::holder(b"{\"torn"), Default::default());
}
