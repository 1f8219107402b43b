//! High volume: 32 partitions, messages of a MiB, and bounded memory.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_messages_of_32_partitions_use_bounded_memory() {
    let stage = Stage::new(32).await;
    // Each message is just below Event Hubs' limit of a MiB.
    let per_message = 220;
    let rounds = 4;
    for round in 0..rounds {
        for partition in 0..32 {
            let first = (round * 32 + partition) * per_message;
            let records: Vec<_> = (first..first + per_message)
                .map(|n| record_of("kube-audit", "prod", &event(n, 3300)))
                .collect();
            let text = message(&records);
            assert!((900_000..1 << 20).contains(&text.len()), "{}", text.len());
            stage.hubs.publish(HUB, partition, text);
        }
    }
    let mut bridge = stage.start(&["--start", "earliest"]);
    bridge.until_ready();
    stage.until_accepted(&bridge, 0..rounds * 32 * per_message);
    stage.assert_no_duplicates();
    let peak = audit_bridge_tests::load::peak_mib(bridge.pid());
    println!("peak resident memory: {peak:.1} MiB");
    assert!(peak < 200.0, "{peak} MiB");
    assert_eq!(bridge.terminate(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_ending_repeatedly_leave_nothing_behind() {
    let stage = Stage::new(8).await;
    let mut bridge = stage.start(&["--start", "earliest"]);
    bridge.until_ready();
    let before = bridge.open_files();
    for round in 0..12 {
        stage.publish(round * 8..(round + 1) * 8, 8);
        stage.until_accepted(&bridge, 0..(round + 1) * 8);
        match round % 3 {
            0 => stage.hubs.cut(),
            _ => {
                for partition in 0..8 {
                    stage.hubs.detach(HUB, partition);
                }
            }
        }
    }
    bridge.until_ready();
    let links = stage.hubs.attached().len();
    assert!(links >= 80, "{links}");
    let done = wait(|| (bridge.open_files() <= before + 4).then_some(()));
    assert!(
        done.is_some(),
        "{before} before, {} now",
        bridge.open_files()
    );
    stage.assert_no_duplicates();
}
