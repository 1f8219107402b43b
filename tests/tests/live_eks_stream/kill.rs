//! Repeated `kill -9` at random while shards are split and merged, and the stream and the receiver
//! fail: nothing is lost.
//!
//! `KILLS=1000` makes it longer, `SEED=n` repeats the choices of a run that failed.

use audit_bridge_testkit::kinesis::{CloudWatchFault, internal_failure, throughput_exceeded};
use audit_bridge_testkit::repeat::{number, times};
use audit_bridge_tests::live::trouble;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn killed_at_random_amid_resharding_loses_nothing() {
    let kills = times("KILLS", 40);
    let seed = number("SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("SEED={seed} KILLS={kills}");
    let mut dice = fastrand::Rng::with_seed(seed);
    let stage = Arc::new(Stage::new(2).await);
    stage.kinesis.answer_records_max(5);
    let mut faults = dice.fork();
    stage.kinesis.choose(move |_| match faults.u32(0..40) {
        0 => Some(throughput_exceeded()),
        1 => Some(internal_failure()),
        2 => Some(CloudWatchFault::Cut),
        3 => Some(CloudWatchFault::Garbage),
        4 => Some(CloudWatchFault::Slow(Duration::from_millis(120))),
        _ => None,
    });
    let issuer = Issuer::start(&stage, 5, dice.fork());
    for _ in 0..kills {
        stage.webhook.script(trouble(&mut dice));
        let bridge = stage.start(&["--start=earliest"]);
        tokio::time::sleep(Duration::from_millis(dice.u64(100..1500))).await;
        bridge.kill();
    }
    let issued = issuer.stop().await;
    stage.kinesis.clear_faults();
    stage.kinesis.answer_records_max(10_000);
    let bridge = stage.start(&["--start=earliest"]);
    stage.until_accepted(&bridge, 0..issued);
    assert_eq!(bridge.terminate(), 0);
    let accepted = stage.accepted();
    let once: BTreeSet<_> = accepted.iter().cloned().collect();
    assert_eq!(once.len(), issued, "and nothing that was never written");
    assert_eq!(stage.kinesis.order_breaches(STREAM), [], "SEED={seed}");
    println!(
        "{issued} events, {kills} kills, {} shards, none lost, {} sent again",
        stage.kinesis.shards(STREAM).len(),
        accepted.len() - issued
    );
    let dead = stage.path("state").join("dead-letter.jsonl");
    assert_eq!(std::fs::read_to_string(dead).unwrap_or_default(), "");
}
