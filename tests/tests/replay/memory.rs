//! Memory is bounded.

use super::*;

/// Runs a replay; returns the exit status and the largest resident memory that was seen, in MiB.
fn peak_mib(provider: &str, args: &[&str]) -> (i32, u64) {
    let mut child = command(provider, args)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let status_file = PathBuf::from(format!("/proc/{}/status", child.id()));
    let mut peak = 0;
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return (status.code().unwrap_or(-1), peak);
        }
        let status = std::fs::read_to_string(&status_file).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
        peak = peak.max(kib.unwrap_or(0) / 1024);
        assert!(started.elapsed() < Duration::from_secs(300), "it hangs");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
#[cfg(target_os = "linux")]
fn memory_of_large_dump_stays_flat() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out").to_str().unwrap().to_owned();
    // One array on one line, and one line with a single value: far larger than the limit.
    let path = folder.path().join("array.json");
    let mut file = std::io::BufWriter::new(std::fs::File::create(&path).unwrap());
    file.write_all(b"[").unwrap();
    for n in 0..80_000 {
        file.write_all(event(n, 1600).as_bytes()).unwrap();
        file.write_all(if n < 79_999 { b"," } else { b"]" })
            .unwrap();
    }
    drop(file);
    let (status, peak) = peak_mib(
        "eks",
        &["replay", path.to_str().unwrap(), "--output", "/dev/null"],
    );
    assert_eq!(status, 0);
    assert!(peak <= 64, "{peak} MiB for an array of 128 MB");
    let path = folder.path().join("line.json");
    let mut file = std::io::BufWriter::new(std::fs::File::create(&path).unwrap());
    let (head, tail) = {
        let event = event(1, 700);
        let (head, tail) = event.split_once("value").unwrap();
        (head.to_owned(), tail.to_owned())
    };
    file.write_all(head.as_bytes()).unwrap();
    for _ in 0..300 {
        file.write_all(&[b'x'; 1 << 20]).unwrap();
    }
    file.write_all(tail.as_bytes()).unwrap();
    file.write_all(b"\n").unwrap();
    file.write_all(event(2, 700).as_bytes()).unwrap();
    drop(file);
    let (status, peak) = peak_mib("eks", &["replay", path.to_str().unwrap(), "--output", &out]);
    assert!(peak <= 64, "{peak} MiB for a line of 300 MB");
    assert!(matches!(status, 0 | 3), "{status}");
    let came = events(&std::fs::read_to_string(out).unwrap());
    assert_eq!(
        came.last().unwrap()["auditID"],
        audit_id(2).as_str(),
        "its neighbour goes through"
    );
}

/// Each tiny line is a record, a reject and a line of the dead letter.
#[test]
#[cfg(target_os = "linux")]
fn memory_of_many_rejects_stays_flat() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let text = format!("{}\n{}", event(1, 700), "x\n".repeat(1_000_000));
    std::fs::write(path("in"), text).unwrap();
    let (input, dead) = (path("in"), path("dead"));
    let args = [
        "replay",
        &input,
        "--output",
        "/dev/null",
        "--dead-letter",
        &dead,
    ];
    let (status, peak) = peak_mib("eks", &args);
    assert_eq!(status, 3);
    assert!(peak <= 64, "{peak} MiB for a million rejects");
}

#[tokio::test(flavor = "multi_thread")]
#[cfg(target_os = "linux")]
async fn memory_with_refusing_webhook_is_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let dump: String = (0..40_000)
        .map(|n| {
            let stream = "kube-apiserver-audit-0";
            let message = event(n, 1600);
            serde_json::json!({"logStreamName": stream, "message": message}).to_string() + "\n"
        })
        .collect();
    let dump = write(folder.path(), "dump.jsonl", dump);
    let webhook = ScriptedWebhook::start().await;
    // Each event is tried alone and parked: the worst case of memory.
    webhook.set_answer(WebhookAnswer::status(400));
    let url = webhook.url();
    let (status, peak) = tokio::task::spawn_blocking(move || {
        let args = ["replay", &dump, "--webhook-url", &url];
        peak_mib("eks", &[&args[..], &["--give-up-after", "5s"]].concat())
    })
    .await
    .unwrap();
    assert_eq!(status, 1);
    assert!(peak <= 64, "{peak} MiB");
}
