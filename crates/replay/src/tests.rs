//! Tests of content in memory and of replayed files.

use std::collections::BTreeMap;

use audit_bridge_core::convert::{Outcome, Output, RecordId, Skip};

use super::dump::{PieceContext, Role, Splitter};
use super::*;
use crate::dump::RecordError;

/// Records are objects with an `id`.
struct Plain;

impl Dump for Plain {
    fn shapes(&self) -> &'static [Shape] {
        &[Shape {
            name: "plain",
            about: "objects with an id",
            json: true,
        }]
    }

    fn role(&self, key: &str) -> Role {
        match key {
            "id" => Role::Record,
            "records" => Role::Records,
            "panic" => unreachable!("a member that cannot be"),
            _ => Role::Neutral,
        }
    }

    fn record<'a>(&self, piece: Raw<'a>, _: &PieceContext) -> Result<Cow<'a, str>, RecordError> {
        Ok(piece.text().into())
    }

    fn recognises(&self, _: Raw<'_>) -> bool {
        false
    }

    fn text_split(&self, _: Option<&str>, _: &str) -> Option<Box<dyn Splitter>> {
        None
    }
}

fn read(content: &str) -> DumpContent {
    let dump: Arc<dyn Dump> = Arc::new(Plain);
    read_bytes(&dump, "message", content.into())
}

#[test]
fn message_gives_its_records() {
    let content = read(r#"{"records":[{"id":1},{"id":2}, oops]}"#);
    let got: Vec<_> = content
        .records
        .iter()
        .map(|record| {
            let payload = String::from_utf8_lossy(&record.payload).into_owned();
            (record.origin.to_string(), payload, record.damaged)
        })
        .collect();
    let want = [
        (1, r#"{"id":1}"#, false),
        (2, r#"{"id":2}"#, false),
        (3, "oops", true),
    ];
    let want = want
        .map(|(n, payload, damaged)| (format!("message: record {n}"), payload.to_owned(), damaged));
    assert_eq!(got, want);
    assert_eq!(content.problem, None);
}

#[test]
fn message_of_unknown_shape_is_a_problem() {
    let foreign = read("hello");
    assert_eq!(foreign.records, []);
    let Problem { place, error } = foreign.problem.unwrap();
    assert_eq!(place, "message");
    assert!(
        error.contains("\"hello\"") && error.contains("objects with an id"),
        "{error}"
    );
    let cut = read(r#"{"records":[{"id":1},"#);
    assert_eq!(cut.records.len(), 1);
    let Problem { error, .. } = cut.problem.unwrap();
    assert!(
        error.contains("ends inside an array of records, so it was cut"),
        "{error}"
    );
    assert!(!error.contains("no shape"), "{error}");
    let empty = read(" \n");
    assert_eq!((empty.records.len(), empty.problem.is_some()), (0, false));
}

#[tokio::test]
async fn replay_dead_letter_reads_its_packed_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dead.jsonl");
    let limits = audit_bridge_core::dead_letter::DeadLetterLimits {
        bytes_max: Some(1 << 20),
        ..Default::default()
    };
    let mut dead =
        audit_bridge_core::dead_letter::DeadLetter::open_within(&path, "eks", limits).unwrap();
    for id in 0..100 {
        let payload = format!("{{\"id\":{id},\"x\":\"{}\"}}", "A".repeat(5000));
        let origin = Origin::File {
            file: "f".into(),
            record: id,
        };
        dead.write(
            audit_bridge_core::convert::Reject::REFUSED,
            "e",
            &origin,
            payload.as_bytes(),
        )
        .unwrap();
        dead.sync().unwrap();
    }
    assert!(folder.path().join("dead.jsonl.000001.zst").is_file());
    let mut replay = Replay::start(&settings(vec![folder.path().to_owned()]), || None).unwrap();
    let mut ids = Vec::new();
    while let Some(page) = replay.read().await {
        assert!(page.problems.is_empty(), "{:?}", page.problems);
        for record in page.records {
            let payload: serde_json::Value = serde_json::from_slice(&record.payload).unwrap();
            ids.push(payload["id"].as_u64().unwrap());
        }
    }
    ids.sort_unstable();
    assert_eq!(ids, (0..100).collect::<Vec<_>>());
}

fn settings(paths: Vec<PathBuf>) -> ReplaySettings {
    ReplaySettings {
        paths,
        dump: Arc::new(Plain),
        shape: None,
        skip_records: 0,
        resume: None,
        shard: None,
        parallel: NonZeroUsize::MIN,
    }
}

/// A file that went moves those behind it to other shards, whose pods may have ended.
#[tokio::test]
async fn replay_shard_reads_on_what_it_has_begun() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    for name in ["a", "b", "c"] {
        std::fs::write(file(name), "{\"id\":1}\n{\"id\":2}\n").unwrap();
    }
    for (finished, want) in [(false, 3), (true, 2)] {
        let begun = InputPosition {
            input: file("b").to_string_lossy().into_owned(),
            records: 0,
            offset: 0,
            sha256: String::new(),
            uncertain: 0,
            finished,
            rejects: false,
        };
        let begun = serde_json::to_value(begun).unwrap();
        let settings = ReplaySettings {
            resume: Some([(0, begun)].into()),
            shard: Some(Shard::read("0/2", None).unwrap()),
            ..settings(vec![folder.path().to_owned()])
        };
        let replay = Replay::start(&settings, || None).unwrap();
        assert_eq!(replay.inputs(), want, "{finished}");
    }
}

/// All records of these paths, and the problems.
async fn replayed(paths: Vec<PathBuf>) -> (Vec<String>, Vec<String>) {
    let mut replay = Replay::start(&settings(paths), || None).unwrap();
    let (mut records, mut problems) = (Vec::new(), Vec::new());
    while let Some(page) = replay.read().await {
        let payloads = page.records.iter().map(|record| &record.payload[..]);
        records.extend(payloads.map(|it| String::from_utf8_lossy(it).into_owned()));
        problems.extend(page.problems.into_iter().map(|it| it.error));
    }
    (records, problems)
}

#[tokio::test]
async fn folder_with_pipes_and_links_gives_regular_files_only() {
    use std::os::unix::fs::symlink;

    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let at = |name: &str| folder.path().join(name);
    let secret = other.path().join("secret.json");
    std::fs::write(&secret, "{\"id\":\"secret\"}").unwrap();
    std::fs::write(at("a.json"), "{\"id\":1}").unwrap();
    std::fs::write(at("z\u{1b}]0;x\u{7}.json"), "{\"id\":2}").unwrap();
    symlink(&secret, at("b.json")).unwrap();
    symlink(other.path(), at("c")).unwrap();
    symlink("/dev/zero", at("d")).unwrap();
    let made = std::process::Command::new("mkfifo").arg(at("e")).status();
    assert!(made.unwrap().success());
    let _socket = std::os::unix::net::UnixListener::bind(at("f")).unwrap();

    let (records, problems) = replayed(vec![folder.path().to_owned()]).await;
    assert_eq!(records, ["{\"id\":1}", "{\"id\":2}"]);
    assert_eq!(problems, Vec::<String>::new());
    // A link that is named explicitly is followed.
    let (records, _) = replayed(vec![at("b.json")]).await;
    assert_eq!(records, ["{\"id\":\"secret\"}"]);
}

#[tokio::test]
async fn zstd_window_above_limit_is_refused_with_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let pack = |name: &str, window_log| {
        let path = folder.path().join(name);
        let file = std::fs::File::create(&path).unwrap();
        let mut encoder = zstd::Encoder::new(file, 1).unwrap();
        encoder.window_log(window_log).unwrap();
        std::io::Write::write_all(&mut encoder, b"{\"id\":1}").unwrap();
        encoder.finish().unwrap();
        path
    };
    let (records, problems) = replayed(vec![pack("8M", 23)]).await;
    assert_eq!((records.len(), problems.len()), (1, 0));
    let (records, problems) = replayed(vec![pack("128M", 27)]).await;
    assert_eq!((records.len(), problems.len()), (0, 1));
    assert!(
        problems[0].contains("8 MiB") && problems[0].contains("zstd -d"),
        "{problems:?}"
    );
}

#[test]
fn origin_with_control_characters_is_escaped() {
    let origin = Origin::File {
        file: "a\u{1b}[2Jb".into(),
        record: 1,
    };
    assert_eq!(origin.to_string(), "a\\u{1b}[2Jb: record 1");
}

/// Files with these numbers of records, which contain their file's and their own number.
fn write_inputs(folder: &std::path::Path, sizes: &[u64]) -> Vec<PathBuf> {
    let inputs = (0..).zip(sizes).map(|(file, &size)| {
        let path = folder.join(format!("{file:03}"));
        let lines: String = (0..size)
            .map(|record| format!("{{\"id\":[{file},{record}]}}\n"))
            .collect();
        std::fs::write(&path, lines).unwrap();
        path
    });
    inputs.collect()
}

/// The numbers of a replay's records by partition, in the order in which they came.
async fn read_all(
    settings: &ReplaySettings,
) -> (BTreeMap<u32, Vec<u64>>, Vec<Problem>, Arc<ReplayProgress>) {
    let mut replay = Replay::start(settings, || None).unwrap();
    let (mut read, mut problems) = (BTreeMap::<u32, Vec<u64>>::new(), Vec::new());
    while let Some(page) = replay.read().await {
        for record in page.records {
            let value: serde_json::Value = serde_json::from_slice(&record.payload).unwrap();
            assert_eq!(value["id"][0], page.partition);
            let numbers = read.entry(page.partition).or_default();
            numbers.push(value["id"][1].as_u64().unwrap());
        }
        problems.extend(page.problems);
    }
    (read, problems, replay.progress())
}

#[tokio::test]
async fn inputs_read_in_parallel_keep_order_and_skip_records() {
    let mut random = fastrand::Rng::with_seed(7);
    for round in 0..60 {
        let folder = tempfile::tempdir().unwrap();
        let sizes: Vec<u64> = (0..random.u64(1..7)).map(|_| random.u64(0..900)).collect();
        let all: u64 = sizes.iter().sum();
        let skip = match round % 3 {
            0 => 0,
            _ => random.u64(0..=all + 5),
        };
        let (read, problems, progress) = read_all(&ReplaySettings {
            skip_records: skip,
            parallel: NonZeroUsize::new(random.usize(1..5)).unwrap(),
            ..settings(write_inputs(folder.path(), &sizes))
        })
        .await;
        assert_eq!(problems, []);
        let mut left = skip;
        let mut want = BTreeMap::new();
        for (partition, &size) in (0..).zip(&sizes) {
            let first = left.min(size);
            left -= first;
            if first < size {
                want.insert(partition, (first..size).collect::<Vec<_>>());
            }
        }
        assert_eq!(read, want, "{sizes:?}, of which {skip}");
        // Whatever is settled: a later run that skips this many records skips only settled ones.
        let settled: BTreeMap<u32, u64> = read
            .iter()
            .map(|(&partition, numbers)| match random.bool() {
                true => (partition, numbers.len() as u64),
                false => (partition, random.u64(0..=numbers.len() as u64)),
            })
            .collect();
        let next = progress.settled_in_order(|partition| *settled.get(&partition).unwrap_or(&0));
        let unsettled = (0..).zip(&sizes).scan(0, |before, (partition, &size)| {
            let first = *before;
            *before += size;
            let left_out = skip.saturating_sub(first).min(size);
            let done = left_out + settled.get(&partition).unwrap_or(&0);
            Some((done < size).then_some(first + done))
        });
        let want = unsettled.flatten().next().unwrap_or(all);
        assert_eq!(next, want, "{sizes:?}, of which {skip}, then {settled:?}");
    }
}

#[tokio::test]
async fn input_failing_leaves_others_and_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let paths = write_inputs(folder.path(), &[700, 3, 700, 5, 700]);
    std::fs::remove_file(&paths[1]).unwrap();
    let panics = "{\"id\":[3,0]}\n{\"panic\":1,\"id\":[3,1]}\n{\"id\":[3,2]}\n";
    std::fs::write(&paths[3], panics).unwrap();
    for parallel in [1, 2, 5] {
        let (read, problems, progress) = read_all(&ReplaySettings {
            parallel: NonZeroUsize::new(parallel).unwrap(),
            ..settings(paths.clone())
        })
        .await;
        for partition in [0, 2, 4] {
            assert_eq!(read[&partition], (0..700).collect::<Vec<_>>());
        }
        let mut errors: Vec<_> = problems.iter().map(|it| it.error.as_str()).collect();
        errors.sort_unstable();
        assert_eq!(errors.len(), 2, "{errors:?}");
        assert!(errors[0].contains("check the path"), "{errors:?}");
        assert!(errors[1].contains("a member that cannot be"), "{errors:?}");
        let all = |partition| read.get(&partition).map_or(0, |it| it.len() as u64);
        assert_eq!(progress.settled_in_order(all), 700);
    }
}

/// Skips all records, except those that have to wait and those on which it fails.
struct Fork;

impl Convert for Fork {
    fn convert(&mut self, id: RecordId, record: &Record, out: &mut Output) {
        let value: serde_json::Value = serde_json::from_slice(&record.payload).unwrap();
        match value["id"][1].as_u64().unwrap() % 10 {
            3 => {}
            7 => {
                out.skip(id, Skip::NOT_AUDIT);
                unreachable!("at the seventh");
            }
            _ => out.skip(id, Skip::NOT_AUDIT),
        }
    }
}

#[tokio::test]
async fn records_converted_by_readers_leave_the_rest_to_the_pipeline() {
    let folder = tempfile::tempdir().unwrap();
    let settings = ReplaySettings {
        parallel: NonZeroUsize::new(2).unwrap(),
        ..settings(write_inputs(folder.path(), &[700, 40]))
    };
    let mut replay = Replay::start(&settings, || Some(Box::new(Fork))).unwrap();
    let mut left = 0;
    while let Some(mut page) = replay.read().await {
        for (number, record) in page.records.iter().enumerate() {
            let (id, mut out) = (RecordId(1_000_000), Output::default());
            let is_decided = page.early.take_record(number, id, &mut out);
            let outcomes: Vec<_> = out.drain().collect();
            let value: serde_json::Value = serde_json::from_slice(&record.payload).unwrap();
            let is_left = matches!(value["id"][1].as_u64().unwrap() % 10, 3 | 7);
            assert_eq!(is_decided, !is_left, "{value}");
            let skip = Outcome::Skip {
                record: id,
                reason: Skip::NOT_AUDIT,
            };
            assert_eq!(outcomes, if is_left { vec![] } else { vec![skip] });
            left += u32::from(is_left);
        }
    }
    assert_eq!(left, 148);
}
