//! Answers of the webhook, and how a stopped replay continues.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn webhook_failing_at_times_gets_everything() {
    let folder = tempfile::tempdir().unwrap();
    let dump = write(folder.path(), "dump.jsonl", lines(0..2000));
    let webhook = ScriptedWebhook::start().await;
    webhook.script([
        WebhookAnswer::status(503).header("retry-after", "0"),
        WebhookAnswer::status(429),
        WebhookAnswer::reset_before_reading(),
        WebhookAnswer::reset_after_reading(),
        WebhookAnswer::status(401),
        WebhookAnswer::half(),
    ]);
    webhook.poison(&audit_id(777), 400);
    webhook.refuse_bodies_above(300 << 10);
    let dead = folder.path().join("dead.jsonl");
    let (url, dead_letter) = (webhook.url(), dead.to_str().unwrap().to_owned());
    let ran = tokio::task::spawn_blocking(move || {
        run(
            "aks",
            &[
                "replay",
                &dump,
                "--webhook-url",
                &url,
                "--dead-letter",
                &dead_letter,
            ],
        )
    })
    .await
    .unwrap();
    assert_eq!(ran.status, 3, "{}", ran.stderr);
    let accepted: BTreeSet<_> = webhook.accepted_ids().into_iter().collect();
    let want: BTreeSet<_> = all_ids(0..2000)
        .into_iter()
        .filter(|id| *id != audit_id(777))
        .collect();
    assert_eq!(accepted, want);
    let kept = std::fs::read_to_string(dead).unwrap();
    assert_eq!(kept.lines().count(), 1);
    assert!(
        kept.contains("\"reason\":\"refused\"") && kept.contains(&audit_id(777)),
        "{kept}"
    );
    for request in webhook.received() {
        assert_eq!(request.header("content-type"), Some("application/json"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn state_folder_given_resumes_also_after_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let dump = write(folder.path(), "dump.jsonl", lines(0..1000));
    let state = folder.path().join("state").display().to_string();
    let webhook = ScriptedWebhook::start().await;
    // The second of ten batches is never answered.
    webhook.script([WebhookAnswer::status(200), WebhookAnswer::never()]);
    let url = webhook.url();
    let mut args = vec![
        "replay",
        &dump,
        "--webhook-url",
        &url,
        "--state-dir",
        &state,
    ];
    args.extend(["--in-flight-batches-max=1", "--batch-events-max=100"]);
    let mut child = command("eks", &args).spawn().unwrap();
    let checkpoint = folder.path().join("state/checkpoint.json");
    let written = audit_bridge_tests::live::wait(|| {
        let text = std::fs::read_to_string(&checkpoint).ok()?;
        (webhook.requests() >= 2 && text.contains("\"records\":100,")).then_some(text)
    });
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(
        written.unwrap().contains("replay of"),
        "a checkpoint as any other"
    );
    let ran = run("eks", &args);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert!(ran.stderr.contains("going on behind"), "{}", ran.stderr);
    let accepted = webhook.accepted_ids();
    let mut all = accepted.clone();
    all.sort();
    all.dedup();
    assert_eq!(all, all_ids(0..1000));
    assert_eq!(
        accepted.len(),
        1100,
        "only the batch without an answer came twice"
    );
    let ran = run("eks", &args);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert_eq!(webhook.accepted_ids().len(), 1100, "all of it is settled");
}

#[tokio::test(flavor = "multi_thread")]
async fn replay_given_up_says_how_to_resume_and_resumes() {
    let folder = tempfile::tempdir().unwrap();
    let dump = write(folder.path(), "dump.jsonl", lines(0..1000));
    let webhook = ScriptedWebhook::start().await;
    webhook.script([WebhookAnswer::status(200)]);
    webhook.set_answer(WebhookAnswer::status(503));
    let replay = |more: Vec<String>| {
        let (url, dump) = (webhook.url(), dump.clone());
        tokio::task::spawn_blocking(move || {
            let mut args = vec![
                "replay",
                &dump,
                "--webhook-url",
                &url,
                "--give-up-after",
                "1s",
            ];
            args.extend(["--in-flight-batches-max", "1"]);
            args.extend(more.iter().map(String::as_str));
            run("eks", &args)
        })
    };
    let ran = replay(Vec::new()).await.unwrap();
    assert_eq!(ran.status, 1, "{}", ran.stderr);
    let (_, settled) = ran
        .stderr
        .rsplit_once("--skip-records ")
        .expect("how to resume");
    let settled: usize = settled.trim().parse().unwrap();
    let before = webhook.accepted_ids();
    assert_eq!(
        before,
        all_ids(0..settled),
        "exactly what was accepted is skipped"
    );
    webhook.accept();
    let ran = replay(vec!["--skip-records".to_owned(), settled.to_string()])
        .await
        .unwrap();
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert_eq!(
        webhook.accepted_ids(),
        all_ids(0..1000),
        "in order, each once"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn signal_delivers_in_flight_and_says_how_to_resume() {
    let folder = tempfile::tempdir().unwrap();
    let dump = write(folder.path(), "dump.jsonl", lines(0..5000));
    let webhook = ScriptedWebhook::start().await;
    webhook.set_answer(WebhookAnswer::status(200).after(Duration::from_millis(150)));
    let url = webhook.url();
    let child = command(
        "eks",
        &[
            "replay",
            &dump,
            "--webhook-url",
            &url,
            "--batch-events-max",
            "50",
        ],
    )
    .stderr(std::process::Stdio::piped())
    .spawn()
    .unwrap();
    while webhook.requests() < 6 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let id = child.id().to_string();
    assert!(
        std::process::Command::new("kill")
            .args(["-TERM", &id])
            .status()
            .unwrap()
            .success()
    );
    let output = tokio::task::spawn_blocking(move || child.wait_with_output())
        .await
        .unwrap()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let (_, settled) = stderr
        .rsplit_once("--skip-records ")
        .expect("how to resume");
    let settled: usize = settled.trim().parse().unwrap();
    let accepted: BTreeSet<_> = webhook.accepted_ids().into_iter().collect();
    assert!(settled < 5000, "it stopped");
    assert_eq!(
        accepted,
        all_ids(0..settled).into_iter().collect(),
        "no more, no less than it says"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn files_read_in_parallel_resume_by_count_without_loss() {
    let folder = tempfile::tempdir().unwrap();
    let dumps = folder.path().join("dumps").display().to_string();
    for n in 0..5 {
        let name = format!("dumps/{n}.jsonl");
        write(folder.path(), &name, lines(n * 300..n * 300 + 300));
    }
    let webhook = ScriptedWebhook::start().await;
    let replay = |more: Vec<String>| {
        let (url, dumps) = (webhook.url(), dumps.clone());
        tokio::task::spawn_blocking(move || {
            let mut args = vec!["replay", &dumps, "--webhook-url", &url];
            args.extend([
                "--give-up-after=1s",
                "--batch-events-max=20",
                "--parallel=3",
            ]);
            args.extend(more.iter().map(String::as_str));
            run("eks", &args)
        })
    };
    let mut skip = Vec::new();
    for accepted in [25, 40] {
        webhook.script(vec![WebhookAnswer::status(200); accepted]);
        webhook.set_answer(WebhookAnswer::status(503));
        let ran = replay(skip).await.unwrap();
        assert_eq!(ran.status, 1, "{}", ran.stderr);
        let (_, settled) = ran.stderr.rsplit_once("--skip-records ").unwrap();
        let settled: usize = settled.trim().parse().unwrap();
        let came: BTreeSet<_> = webhook.accepted_ids().into_iter().collect();
        assert!(all_ids(0..settled).iter().all(|id| came.contains(id)));
        skip = vec![format!("--skip-records={settled}")];
    }
    webhook.accept();
    let ran = replay(skip).await.unwrap();
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    let came: BTreeSet<_> = webhook.accepted_ids().into_iter().collect();
    assert_eq!(came, all_ids(0..1500).into_iter().collect());
}
