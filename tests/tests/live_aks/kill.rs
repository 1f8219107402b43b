//! `kill -9` at random, again and again, while the hub and the receiver fail: what is lost?
//!
//! `KILLS=1000` makes it longer, `SEED=n` repeats the choices of a run that failed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use audit_bridge_testkit::Answer;
use audit_bridge_tests::live::number;

use super::*;

/// Partitions of the hub.
const PARTITIONS: usize = 5;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn killed_at_random_nothing_is_lost() {
    let kills = number("KILLS").unwrap_or(60);
    let seed = number("SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("SEED={seed} KILLS={kills}");
    let mut dice = fastrand::Rng::with_seed(seed);
    let stage = Arc::new(Stage::new(PARTITIONS).await);
    let issued = Arc::new(AtomicUsize::new(0));
    let going = Arc::new(AtomicBool::new(true));

    let issuer = {
        let (stage, issued, going) = (stage.clone(), issued.clone(), going.clone());
        let mut dice = dice.fork();
        tokio::spawn(async move {
            while going.load(Ordering::Relaxed) {
                let records = dice.usize(1..4);
                let first = issued.load(Ordering::Relaxed);
                let records: Vec<_> = (first..first + records).map(record).collect();
                let partition = dice.usize(0..PARTITIONS);
                stage.hubs.publish(HUB, partition, message(&records));
                issued.fetch_add(records.len(), Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
    };
    let weather = {
        let (stage, going) = (stage.clone(), going.clone());
        let mut dice = dice.fork();
        tokio::spawn(async move {
            while going.load(Ordering::Relaxed) {
                tokio::time::sleep(Duration::from_millis(dice.u64(20..300))).await;
                match dice.u32(0..8) {
                    0 => stage.hubs.cut(),
                    1 => {
                        stage.hubs.expire_tokens();
                    }
                    2 => {
                        stage.hubs.go_down().await;
                        tokio::time::sleep(Duration::from_millis(dice.u64(20..400))).await;
                        stage.hubs.come_back().await;
                    }
                    3 => stage.hubs.latency(Duration::from_millis(dice.u64(1..20))),
                    _ => {
                        stage.hubs.detach(HUB, dice.usize(0..PARTITIONS));
                    }
                }
            }
            stage.hubs.latency(Duration::from_millis(1));
        })
    };

    for _ in 0..kills {
        let answers = (0..dice.usize(0..4)).map(|_| match dice.u32(0..7) {
            0 => Answer::status(500),
            1 => Answer::status(503).header("retry-after", "1"),
            2 => Answer::status(429),
            3 => Answer::reset_before_reading(),
            4 => Answer::reset_after_reading(),
            5 => Answer::half(),
            _ => Answer::status(200).after(Duration::from_millis(60)),
        });
        stage.webhook.script(answers);
        let bridge = stage.start(&["--start", "earliest"]);
        tokio::time::sleep(Duration::from_millis(dice.u64(20..1200))).await;
        bridge.kill();
    }
    going.store(false, Ordering::Relaxed);
    issuer.await.unwrap();
    weather.await.unwrap();

    let bridge = stage.start(&[]);
    let issued = issued.load(Ordering::Relaxed);
    stage.until_accepted(&bridge, 0..issued);
    assert_eq!(bridge.terminate(), 0);
    let accepted = stage.webhook.accepted_ids();
    println!("{issued} issued, {} accepted", accepted.len());
    assert!(stage.dead_letter().is_empty());
    let once: BTreeSet<_> = accepted.into_iter().collect();
    assert_eq!(once.len(), issued, "and nothing that was never issued");
}
