//! The README's live demo, for each cloud.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use audit_bridge_tests::{BRIDGES, binary, root};

/// The demo's program, with the bridge beside it.
fn program(provider: &str) -> PathBuf {
    binary(provider).with_file_name("examples").join("demo")
}

/// Runs the demo, which fails if an event is lost.
fn demo(provider: &str) -> String {
    let ran = Command::new(program(provider))
        .args([provider, "--seconds=7", "--rate=50", "--kill-at=2"])
        .args(["--outage-at=4", "--outage-for=2"])
        .current_dir(root())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{said}\n{stderr}");
    said
}

#[test]
fn demo_killed_and_without_receiver_loses_nothing() {
    std::thread::scope(|scope| {
        let all = BRIDGES.map(|provider| scope.spawn(move || demo(provider)));
        for said in all.map(|it| it.join().unwrap()) {
            for shown in ["kill -9", "goes down", "is back", "lost 0"] {
                assert!(said.contains(shown), "{said}");
            }
            let account = said
                .lines()
                .find(|line| line.starts_with("written "))
                .unwrap();
            let written: Vec<_> = account.split([' ', ',']).collect();
            assert_eq!(written[1], written[4], "{account}");
            assert!(written[1].parse::<u32>().unwrap() > 100, "{account}");
        }
    });
}

/// `script` of util-linux gives the demo a terminal.
#[test]
fn demo_at_a_terminal_obeys_keys() {
    let demo = program("eks");
    let command = format!(
        "'{}' eks --seconds=60 --rate=50 --outage-for=2",
        demo.display()
    );
    let started = Command::new("script")
        .args(["--quiet", "--return", "--command", &command, "/dev/null"])
        .current_dir(root())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let Ok(mut terminal) = started else {
        eprintln!("skipped: the demo's keys, since there is no `script` (util-linux)");
        return;
    };
    let mut keyboard = terminal.stdin.take().unwrap();
    for key in ["k", "o", "q"] {
        std::thread::sleep(Duration::from_secs(4));
        writeln!(keyboard, "{key}").unwrap();
    }
    let mut said = String::new();
    let mut screen = terminal.stdout.take().unwrap();
    screen.read_to_string(&mut said).unwrap();
    assert!(terminal.wait().unwrap().success(), "{said}");
    for shown in [
        "k + Enter",
        "kill -9 of the bridge",
        "the receiver goes down",
        "lost 0",
    ] {
        assert!(said.contains(shown), "{shown}: {said}");
    }
    let last_second = said
        .lines()
        .any(|line| line.trim_start().starts_with("60 "));
    assert!(!last_second, "q ended nothing: {said}");
}
