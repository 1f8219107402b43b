//! What readers take while the pipeline takes nothing.

use super::*;

/// A little less than Event Hubs lets through.
const LARGE: usize = 1_000_000;

#[tokio::test]
async fn readers_waiting_for_the_pipeline_hold_few_messages() {
    let hubs = EventHubs::start().await;
    hubs.add_hub(HUB, 32);
    for number in 0..4 {
        for partition in 0..32 {
            let name = format!("{partition}-{number}-{}", "x".repeat(LARGE));
            hubs.publish(HUB, partition, body(&name));
        }
    }
    let mut source = open(&hubs, resume(Start::Earliest)).await.unwrap();
    // One of each partition is on its way, whatever its reader does.
    let one_of_each = 32 * LARGE as u64;
    until(|| hubs.bytes_out() >= one_of_each).await;
    let mut before = 0;
    while before != hubs.bytes_out() {
        before = hubs.bytes_out();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let more = hubs.bytes_out() - one_of_each;
    let messages = more / LARGE as u64;
    assert!(messages <= 3, "{messages} more than one of each partition");
    // They only wait.
    let mut got = Got::default();
    read(&mut source, &mut got, 4 * 32).await;
    for partition in 0..32 {
        let names = got.of(partition);
        assert_eq!(names.len(), 4);
        for (number, name) in names.into_iter().enumerate() {
            assert!(name.starts_with(&format!("{partition}-{number}-")));
        }
    }
}
