//! What readers take while the pipeline takes nothing.

use super::*;

/// A little less than Event Hubs lets through.
const LARGE: usize = 1_000_000;

#[tokio::test]
async fn readers_waiting_for_the_pipeline_hold_few_messages() {
    const PARTITIONS: usize = 16;
    let hubs = EventHubs::start().await;
    hubs.add_hub(HUB, PARTITIONS);
    for number in 0..4 {
        for partition in 0..PARTITIONS {
            let name = format!("{partition}-{number}-{}", "x".repeat(LARGE));
            hubs.publish(HUB, partition, body(&name));
        }
    }
    let mut source = open(&hubs, resume(Start::Earliest)).await.unwrap();
    let mut got = Got::default();
    // Each says first where it stands.
    read_until(&mut source, &mut got, |got| {
        got.positions.len() == PARTITIONS
    })
    .await;
    let taken = got.count();
    assert!(taken <= 2 * PARTITIONS, "{taken} were taken already");
    // The hub is asked for its partitions all the while: that is little.
    let mut before = 0;
    while hubs.bytes_out() > before + LARGE as u64 / 2 {
        before = hubs.bytes_out();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    // One of each partition is on its way, whatever its reader does.
    let came = usize::try_from(hubs.bytes_out()).unwrap() / LARGE;
    let held = came.saturating_sub(taken + PARTITIONS);
    assert!(held <= 3, "{held} besides one of each partition");
    // They only wait.
    read(&mut source, &mut got, 4 * PARTITIONS).await;
    for partition in 0..PARTITIONS {
        let names = got.of(u32::try_from(partition).unwrap());
        assert_eq!(names.len(), 4);
        for (number, name) in names.into_iter().enumerate() {
            assert!(name.starts_with(&format!("{partition}-{number}-")));
        }
    }
}
