//! The README's live demo, for each cloud.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;

use audit_bridge_tests::{BRIDGES, binary, root};

/// Runs the demo, which fails if an event is lost.
fn demo(provider: &str) -> String {
    let demo = binary(provider).with_file_name("examples").join("demo");
    let ran = Command::new(demo)
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
