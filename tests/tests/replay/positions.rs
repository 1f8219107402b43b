//! A replay with a state folder: each input has its own position, whatever happens to the others.

use audit_bridge_testkit::repeat::{number, times};
use audit_bridge_tests::live::wait;

use super::*;

/// Replays these inputs with a state folder until the webhook has accepted this many batches of
/// ten; then the webhook fails until the replay gives up.
async fn interrupted(
    webhook: &ScriptedWebhook,
    state: &str,
    inputs: &[&str],
    batches: usize,
) -> Ran {
    webhook.script(vec![WebhookAnswer::status(200); batches]);
    webhook.set_answer(WebhookAnswer::status(503));
    let ran = replayed(webhook, state, inputs).await;
    assert_eq!(ran.status, 1, "{}", ran.stderr);
    assert!(
        ran.stderr.contains("resume with the same command"),
        "{}",
        ran.stderr
    );
    assert!(!ran.stderr.contains("--skip-records"), "{}", ran.stderr);
    webhook.accept();
    ran
}

async fn replayed(webhook: &ScriptedWebhook, state: &str, inputs: &[&str]) -> Ran {
    let mut args: Vec<String> = ["replay"].map(str::to_owned).to_vec();
    args.extend(inputs.iter().map(|&input| input.to_owned()));
    let url = webhook.url();
    args.extend(["--webhook-url", &url, "--state-dir", state].map(str::to_owned));
    args.extend(
        [
            "--give-up-after=1s",
            "--in-flight-batches-max=1",
            "--batch-events-max=50",
            // So that the order of records before the interruption is known.
            "--parallel=1",
        ]
        .map(str::to_owned),
    );
    tokio::task::spawn_blocking(move || {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        run("eks", &args)
    })
    .await
    .unwrap()
}

fn sorted(webhook: &ScriptedWebhook) -> Vec<String> {
    let mut accepted = webhook.accepted_ids();
    accepted.sort();
    accepted
}

#[tokio::test(flavor = "multi_thread")]
async fn inputs_changed_between_two_runs_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state").display().to_string();
    let a = write(folder.path(), "a.jsonl", lines(0..100));
    let b = write(folder.path(), "b.jsonl", lines(100..200));
    let webhook = ScriptedWebhook::start().await;
    interrupted(&webhook, &state, &[&a, &b], 3).await;
    assert_eq!(sorted(&webhook), all_ids(0..150));
    // A new file is now the first, the former first is removed, and the second has grown.
    let new = write(folder.path(), "0.jsonl", lines(300..353));
    write(folder.path(), "b.jsonl", lines(100..220));
    let ran = replayed(&webhook, &state, &[&new, &b]).await;
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    let mut want = all_ids(0..220);
    want.extend(all_ids(300..353));
    assert_eq!(sorted(&webhook), want, "each once: {}", ran.stderr);
    // The removed file is still known, even in another order.
    let ran = replayed(&webhook, &state, &[&b, &a, &new]).await;
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert_eq!(sorted(&webhook), want, "nothing is sent again");
    assert!(
        ran.stderr.contains("behind 273 records") && ran.stderr.contains("was: 3"),
        "{}",
        ran.stderr
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn input_with_changed_settled_part_is_replayed_whole_and_reported() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state").display().to_string();
    let a = write(folder.path(), "a.jsonl", lines(0..100));
    let webhook = ScriptedWebhook::start().await;
    interrupted(&webhook, &state, &[&a], 1).await;
    // Ten records are inserted before the others: a plain count would skip them.
    write(folder.path(), "a.jsonl", lines(500..510) + &lines(0..100));
    let ran = replayed(&webhook, &state, &[&a]).await;
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert!(ran.stderr.contains("changed since"), "{}", ran.stderr);
    let accepted: BTreeSet<_> = webhook.accepted_ids().into_iter().collect();
    let want: BTreeSet<_> = all_ids(0..100)
        .into_iter()
        .chain(all_ids(500..510))
        .collect();
    assert_eq!(accepted, want);
    // Changes after the settled part do not count as changes of it.
    let b = write(folder.path(), "b.jsonl", lines(1000..1100));
    interrupted(&webhook, &state, &[&b], 1).await;
    write(
        folder.path(),
        "b.jsonl",
        lines(1000..1050) + &lines(2000..2020),
    );
    let before = webhook.accepted_ids().len();
    let ran = replayed(&webhook, &state, &[&b]).await;
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert!(!ran.stderr.contains("changed since"), "{}", ran.stderr);
    assert_eq!(webhook.accepted_ids()[before..], all_ids(2000..2020));
}

#[tokio::test(flavor = "multi_thread")]
async fn input_cut_then_whole_gives_its_last_record() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state").display().to_string();
    let whole = gzip(lines(0..100).as_bytes());
    let text = lines(0..100);
    let webhook = ScriptedWebhook::start().await;
    for (name, cut, all) in [
        (
            "packed.jsonl.gz",
            whole[..whole.len() / 2].to_vec(),
            whole.clone(),
        ),
        (
            "plain.jsonl",
            text.as_bytes()[..text.len() - 300].to_vec(),
            text.clone().into_bytes(),
        ),
    ] {
        let path = write(folder.path(), name, cut);
        replayed(&webhook, &state, &[&path]).await;
        write(folder.path(), name, all);
        let ran = replayed(&webhook, &state, &[&path]).await;
        assert_eq!(ran.status, 0, "{}", ran.stderr);
        // The truncated event was delivered too, with a part of its audit ID.
        let accepted: BTreeSet<_> = webhook.accepted_ids().into_iter().collect();
        let missing = all_ids(0..100);
        let missing: Vec<_> = missing
            .iter()
            .filter(|id| !accepted.contains(*id))
            .collect();
        assert!(missing.is_empty(), "{name}: {missing:?}");
    }
}

#[test]
fn state_folder_with_unsupported_options_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state").display().to_string();
    let dump = write(folder.path(), "a.jsonl", lines(0..10));
    let ran = run("eks", &["replay", "-", "--state-dir", &state]);
    assert_eq!(ran.status, 2);
    assert!(ran.stderr.contains("standard input"), "{}", ran.stderr);
    let ran = run(
        "eks",
        &["replay", &dump, "--state-dir", &state, "--skip-records=3"],
    );
    assert_eq!(ran.status, 2);
    assert!(ran.stderr.contains("--skip-records"), "{}", ran.stderr);
    // An earlier release kept one count for all files.
    let old = format!(
        "{{\"version\":1,\"provider\":\"eks\",\"source\":\"replay of {dump}\",\
         \"position\":{{\"0\":7}},\"written\":\"2026-11-21T10:00:00.000000Z\"}}"
    );
    let path = write(folder.path(), "state/checkpoint.json", &old);
    let ran = run("eks", &["replay", &dump, "--state-dir", &state]);
    assert_eq!(ran.status, 1);
    assert!(ran.stderr.contains("--skip-records 7"), "{}", ran.stderr);
    assert_eq!(
        std::fs::read_to_string(path).unwrap(),
        old,
        "it is not overwritten"
    );
    assert_eq!(ran.events().len(), 0);
    // A damaged one: the way out is one that a replay has.
    write(folder.path(), "state/checkpoint.json", "{\"version\":");
    let ran = run("eks", &["replay", &dump, "--state-dir", &state]);
    assert_eq!(ran.status, 1);
    assert!(
        ran.stderr.contains("move it away to replay every file"),
        "{}",
        ran.stderr
    );
    assert!(!ran.stderr.contains("--start"), "{}", ran.stderr);
    assert_eq!(ran.events().len(), 0);
}

#[test]
fn shards_of_a_folder_give_every_file_once() {
    let folder = tempfile::tempdir().unwrap();
    for n in 0..7 {
        write(
            folder.path(),
            &format!("dumps/{n}.jsonl"),
            lines(n * 10..n * 10 + 10),
        );
    }
    let dumps = folder.path().join("dumps").display().to_string();
    let (mut all, mut names) = (Vec::new(), BTreeSet::new());
    let report_path = folder.path().join("report.json").display().to_string();
    for index in 0..3 {
        let part = format!("{index}/3");
        let options = ["--shard", &part, "--report", &report_path];
        let explicit = run("eks", &[&["replay", &dumps], &options[..]].concat());
        assert_eq!(explicit.status, 0, "{}", explicit.stderr);
        let shard = &report(&report_path)["shard"];
        assert_eq!(
            (&shard["files"], &shard["here"]),
            (&7.into(), &[3, 2, 2][index].into())
        );
        let digest = shard["names_sha256"].as_str().unwrap().to_owned();
        assert!(explicit.stderr.contains(&digest), "{}", explicit.stderr);
        names.insert(digest);
        let mut job = command("eks", &["replay", &dumps, "--shard", "3"]);
        let output = job
            .env("JOB_COMPLETION_INDEX", index.to_string())
            .output()
            .unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), explicit.stdout);
        all.extend(ids(&explicit));
    }
    all.sort();
    assert_eq!(all, all_ids(0..70));
    assert_eq!(names.len(), 1, "all parts see the same files");
    let ran = run("eks", &["replay", &dumps, "--shard", "3/3"]);
    assert_eq!(ran.status, 2);
    assert!(ran.stderr.contains("--shard"), "{}", ran.stderr);
}

/// The number of settled records by file, as in the checkpoint.
fn kept(state: &str) -> BTreeMap<String, u64> {
    let text = std::fs::read(Path::new(state).join("checkpoint.json")).unwrap_or_default();
    let document: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
    let positions = document["position"].as_object().into_iter().flatten();
    positions
        .map(|(_, position)| {
            let input = position["input"].as_str().unwrap().to_owned();
            (input, position["records"].as_u64().unwrap())
        })
        .collect()
}

/// `kill -9` while several files are read at once; `KILLS=n` for longer.
#[tokio::test(flavor = "multi_thread")]
async fn killed_at_random_loses_nothing_and_repeats_nothing_settled() {
    const RECORDS: usize = 1500;
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state").display().to_string();
    let kills = times("KILLS", 25);
    let seed = number("SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("SEED={seed} KILLS={kills}");
    let mut random = fastrand::Rng::with_seed(seed);
    let webhook = ScriptedWebhook::start().await;
    webhook.set_answer(WebhookAnswer::status(200).after(Duration::from_millis(4)));
    // Record numbers by file.
    let mut files = BTreeMap::<String, Vec<usize>>::new();
    let mut next = 0;
    let mut one_more = |files: &mut BTreeMap<String, Vec<usize>>, random: &mut fastrand::Rng| {
        let name = format!("dumps/{:02}{}", random.u32(0..100), next);
        let numbers: Vec<usize> = (next..next + RECORDS).collect();
        let text = lines(next..next + RECORDS);
        next += RECORDS;
        let path = match random.bool() {
            true => write(folder.path(), &name, gzip(text.as_bytes())),
            false => write(folder.path(), &name, text),
        };
        files.insert(path, numbers);
    };
    for _ in 0..4 {
        one_more(&mut files, &mut random);
    }
    let dumps = folder.path().join("dumps").display().to_string();
    let url = webhook.url();
    let mut args = vec![
        "replay",
        &dumps,
        "--webhook-url",
        &url,
        "--state-dir",
        &state,
    ];
    args.extend(["--parallel=3", "--batch-events-max=25"]);
    let (mut settled, mut before) = (BTreeMap::new(), 0);
    let check =
        |settled: &BTreeMap<String, u64>, before: usize, files: &BTreeMap<_, Vec<usize>>| {
            let accepted = webhook.accepted_ids();
            let kept: BTreeSet<String> = settled
                .iter()
                .flat_map(|(file, &records)| &files[file][..usize::try_from(records).unwrap()])
                .map(|&number| audit_id(number))
                .collect();
            let again = accepted[before..].iter().find(|id| kept.contains(*id));
            assert_eq!(again, None, "SEED={seed}: it was settled before");
            accepted.len()
        };
    for kill in 0..kills {
        let mut child = command("eks", &args)
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        tokio::time::sleep(Duration::from_millis(random.u64(20..1500))).await;
        child.kill().unwrap();
        child.wait().unwrap();
        before = check(&settled, before, &files);
        settled = kept(&state);
        if kill % 4 == 3 {
            one_more(&mut files, &mut random);
        }
    }
    webhook.accept();
    let ran = tokio::task::spawn_blocking({
        let args: Vec<String> = args.iter().map(|&it| it.to_owned()).collect();
        move || {
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            run("eks", &args)
        }
    });
    let ran = ran.await.unwrap();
    assert_eq!(ran.status, 0, "SEED={seed}: {}", ran.stderr);
    let accepted = check(&settled, before, &files);
    let came: BTreeSet<_> = webhook.accepted_ids().into_iter().collect();
    let missing = files
        .values()
        .flatten()
        .find(|&&n| !came.contains(&audit_id(n)));
    assert_eq!(missing, None, "SEED={seed}: lost");
    println!("{} events, {accepted} accepted", came.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn positions_that_cannot_be_kept_end_in_a_failure_that_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let dump = write(folder.path(), "a.jsonl", lines(0..10));
    let webhook = ScriptedWebhook::start().await;
    webhook.set_answer(WebhookAnswer::status(503));
    let state_dir = format!("--state-dir={}", state.display());
    let url = format!("--webhook-url={}", webhook.url());
    let replay =
        tokio::task::spawn_blocking(move || run("eks", &["replay", &dump, &state_dir, &url]));
    let begun = || (!webhook.received().is_empty()).then_some(());
    assert!(tokio::task::block_in_place(|| wait(begun)).is_some());
    // Blocks the path of the next checkpoint.
    std::fs::create_dir_all(state.join("checkpoint.json.tmp/in the way")).unwrap();
    webhook.accept();
    let ran = replay.await.unwrap();
    assert_eq!(webhook.accepted_ids().len(), 10);
    assert_eq!(ran.status, 1, "{}", ran.stderr);
    for said in ["all is delivered", "checkpoint.json", "--state-dir"] {
        assert!(ran.stderr.contains(said), "{said}: {}", ran.stderr);
    }
}

/// A Job's pod that ends with status 3 may be started again.
#[tokio::test(flavor = "multi_thread")]
async fn rejects_of_an_earlier_run_are_told_by_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (state, dead, report_path) = (path("state"), path("dead.jsonl"), path("report.json"));
    let broken = event(7, 1200).replacen("\"verb\":", "\"verb\" ", 1) + "\n";
    let a = write(folder.path(), "a.jsonl", lines(0..1) + &broken);
    let b = write(folder.path(), "b.jsonl", lines(10..12));
    let rerun = |inputs: &[&str]| {
        let options = ["--state-dir", &state, "--dead-letter", &dead];
        let output = ["--output", "/dev/null", "--report", &report_path];
        run("eks", &[&["replay"], inputs, &options, &output].concat())
    };
    let rejected_before = || report(&report_path)["rejected_before"].clone();

    let ran = rerun(&[&a, &b]);
    assert_eq!(ran.status, 3, "{}", ran.stderr);
    assert!(rejected_before().is_null());
    for _ in 0..2 {
        let ran = rerun(&[&a, &b]);
        assert_eq!(ran.status, 3, "{}", ran.stderr);
        assert!(
            ran.stderr.contains("rejected by an earlier run"),
            "{}",
            ran.stderr
        );
        assert_eq!(report(&report_path)["records"], 0);
        assert_eq!(rejected_before(), true);
    }
    // Not of the other file, nor of what took the file's place.
    assert_eq!(rerun(&[&b]).status, 0);
    write(folder.path(), "a.jsonl", lines(20..25));
    for _ in 0..2 {
        let ran = rerun(&[&a, &b]);
        assert_eq!(ran.status, 0, "{}", ran.stderr);
    }
}
