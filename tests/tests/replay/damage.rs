//! Damaged input.

use super::*;

#[test]
fn input_damaged_is_named_and_costs_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let good = event(1, 600);
    let half_gzip = gzip(lines(0..2000).as_bytes());
    let nested = good.replace(
        "\"requestObject\":{",
        &format!(
            "\"requestObject\":{{\"deep\":{}{},",
            "[".repeat(200),
            "]".repeat(200)
        ),
    );
    let hollow = good.replace(
        "\"requestObject\":{",
        &format!("\"requestObject\":{{\"deep\":{}", "[".repeat(100_000)),
    );
    // (name, content, exit status, events that still come, text on standard error)
    let unknown = "no shape that this bridge knows";
    type Case = (&'static str, Vec<u8>, i32, Option<usize>, &'static str);
    let cases: Vec<Case> = vec![
        ("empty", vec![], 0, Some(0), "holds no records"),
        ("blank", b" \n\n".to_vec(), 0, Some(0), "holds no records"),
        (
            "binary",
            (0u8..=255).cycle().take(100_000).collect(),
            1,
            Some(0),
            unknown,
        ),
        (
            "png",
            b"\x89PNG\r\n\x1a\n\0\0\0".to_vec(),
            1,
            Some(0),
            "89 50 4e 47",
        ),
        (
            "foreign.json",
            br#"{"users":[{"name":"x"}]}"#.to_vec(),
            1,
            Some(0),
            "\"users\"",
        ),
        (
            "number-kind.json",
            br#"{"kind":0}"#.to_vec(),
            1,
            Some(0),
            unknown,
        ),
        ("text", b"dear diary".to_vec(), 1, Some(0), "dear diary"),
        (
            "half.gz",
            half_gzip[..half_gzip.len() / 2].to_vec(),
            1,
            None,
            "cut",
        ),
        (
            "not.gz",
            [&[0x1f, 0x8b][..], &[7; 50]].concat(),
            1,
            Some(0),
            "damaged",
        ),
        (
            "deep.jsonl",
            format!("{nested}\n{good}\n").into_bytes(),
            0,
            Some(2),
            "records",
        ),
        (
            "bottomless.jsonl",
            format!("{hollow}\n{good}\n").into_bytes(),
            3,
            None,
            "record 1",
        ),
        (
            "garbage-between.jsonl",
            format!("{good}\n\u{1}\u{2}garbage\n{good}\n").into_bytes(),
            3,
            Some(2),
            "record 2: unparsable",
        ),
        (
            "invalid-utf8.jsonl",
            [
                good.as_bytes(),
                b"\n{\"auditID\":\"\xff\xfe\"}\n",
                good.as_bytes(),
            ]
            .concat(),
            3,
            Some(2),
            "record 2: unparsable: no stage",
        ),
        (
            "surrogate.jsonl",
            good.replace("c1", "\\ud800").into_bytes(),
            0,
            Some(1),
            "records",
        ),
        (
            "twice.jsonl",
            good.replacen("\"verb\"", "\"verb\":\"x\",\"verb\"", 1)
                .into_bytes(),
            0,
            Some(1),
            "records",
        ),
        (
            "huge-number.jsonl",
            good.replace("201", "90071992547409931234567890")
                .into_bytes(),
            3,
            Some(0),
            "responseStatus.code is a number, not an integer in range",
        ),
        (
            "no-time.jsonl",
            format!(
                "{}\n{good}",
                good.replace("2026-11-21T10:00:00.000002Z", "NaN")
                    .replace("2026-11-21T10:00:00.000001Z", "-Inf")
            )
            .into_bytes(),
            3,
            Some(1),
            "record 1: unparsable",
        ),
        (
            "cut-array.json",
            format!("[{good},{good}").into_bytes(),
            1,
            Some(2),
            "inside an array",
        ),
        (
            "list-of-numbers.json",
            b"[1,2,3]".to_vec(),
            1,
            Some(0),
            unknown,
        ),
    ];
    for provider in BRIDGES {
        for (name, content, status, want, says) in &cases {
            let path = write(at, name, content);
            let ran = run(provider, &["replay", &path]);
            let context = format!("{provider} {name}: {}", ran.stderr);
            assert_eq!(ran.status, *status, "{context}");
            if let Some(want) = want {
                assert_eq!(count(&ran), *want, "{context}");
            } else {
                assert!(count(&ran) > 0, "{context}");
            }
            assert!(ran.stderr.contains(says), "{context}");
            assert!(!ran.stderr.contains("panicked"), "{context}");
            // A good file in the same replay is still converted.
            let neighbour = write(at, "neighbour/good.jsonl", &good);
            let both = run(provider, &["replay", &path, &neighbour]);
            assert_eq!(count(&both), count(&ran) + 1, "{context}");
            assert_eq!(both.status, *status, "{context}");
        }
        let missing = at.join("missing.json").to_str().unwrap().to_owned();
        let ran = run(provider, &["replay", &missing]);
        assert_eq!(ran.status, 1);
        assert!(ran.stderr.contains("missing.json"), "{}", ran.stderr);
        std::fs::create_dir_all(at.join("nothing")).unwrap();
        let ran = run(provider, &["replay", at.join("nothing").to_str().unwrap()]);
        assert_eq!(ran.status, 0);
        assert!(ran.stderr.contains("holds no files"), "{}", ran.stderr);
    }
}

/// Number of events in the output; they may be nested deeper than serde_json allows.
fn count(ran: &Ran) -> usize {
    ran.stdout.matches("\"auditID\":").count()
}

/// What a dead letter keeps, in packed files and the one that is written, is replayed like any dump.
#[test]
fn dead_letter_packed_is_replayed_whole() {
    const BROKEN: usize = 4000;
    let folder = tempfile::tempdir().unwrap();
    let broken = |n: usize| event(n, 1200).replacen("\"verb\":", "\"verb\" ", 1) + "\n";
    let text: String = (0..BROKEN).map(broken).collect();
    let dump = write(folder.path(), "dump.jsonl", lines(0..1) + &text);
    let kept = folder.path().join("kept");
    let dead = write(folder.path(), "kept/dead.jsonl", "");
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let first = path("first.json");
    let args = ["replay", &dump, "--output", "/dev/null", "--report", &first];
    let limits = ["--dead-letter", &dead, "--dead-letter-bytes-max", "4MiB"];
    let ran = run("eks", &[&args[..], &limits[..]].concat());
    assert_eq!(ran.status, 3, "{}", ran.stderr);
    assert_eq!(report(&first)["rejected"]["unparsable"], BROKEN);
    let packed = std::fs::read_dir(&kept).unwrap().flatten();
    let packed = packed.filter(|file| file.path().extension().is_some_and(|end| end == "zst"));
    assert!(packed.count() > 0, "nothing was packed");
    let (again, kept) = (path("again.json"), kept.to_str().unwrap());
    let ran = run(
        "eks",
        &["replay", kept, "--output", "/dev/null", "--report", &again],
    );
    assert_eq!(ran.status, 3, "{}", ran.stderr);
    assert_eq!(report(&again)["records"], BROKEN);
}
