//! What readers take while the pipeline takes nothing.

use super::*;

/// A little less than Event Hubs lets through.
const LARGE: usize = 1_000_000;
/// So many partitions with such messages have their turn at the same time.
const AT_A_TIME: usize = 6;

fn publish(hubs: &EventHubs, partitions: usize, numbers: std::ops::Range<usize>) {
    for number in numbers {
        for partition in 0..partitions {
            let name = format!("{partition}-{number}-{}", "x".repeat(LARGE));
            hubs.publish(HUB, partition, body(&name));
        }
    }
}

/// A hub whose partitions have so many messages each.
async fn filled(partitions: usize, messages: usize) -> EventHubs {
    let hubs = EventHubs::start().await;
    hubs.add_hub(HUB, partitions);
    publish(&hubs, partitions, 0..messages);
    hubs
}

/// Each of so many messages of each partition came once, in order.
fn each_came_once(got: &Got, messages: &[usize]) {
    for (partition, messages) in messages.iter().enumerate() {
        let names = got.of(u32::try_from(partition).unwrap());
        assert_eq!(names.len(), *messages, "partition {partition}");
        for (number, name) in names.into_iter().enumerate() {
            assert!(name.starts_with(&format!("{partition}-{number}-")));
        }
    }
}

#[tokio::test]
async fn readers_waiting_for_the_pipeline_hold_few_messages() {
    const PARTITIONS: usize = 16;
    let hubs = filled(PARTITIONS, 4).await;
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
    // One of each partition that has its turn is in flight, whatever its reader does.
    let came = usize::try_from(hubs.bytes_out()).unwrap() / LARGE;
    let held = came.saturating_sub(taken + AT_A_TIME);
    assert!(
        held <= 3,
        "{held} besides one of each partition that has its turn"
    );
    // They only wait.
    read(&mut source, &mut got, 4 * PARTITIONS).await;
    each_came_once(&got, &[4; PARTITIONS]);
}

/// A link that others wait for is closed between two messages, and the next one goes on there.
#[tokio::test]
async fn partitions_with_large_messages_take_turns_and_lose_nothing() {
    const PARTITIONS: usize = AT_A_TIME + 4;
    /// More than fit in a turn.
    const MESSAGES: usize = 36;
    let hubs = filled(PARTITIONS, MESSAGES).await;
    let begun = resume(Start::Earliest);
    let telemetry = begun.telemetry.clone();
    // A link that is quiet rests its turn: on a slow machine, messages must not look so.
    let timing = PartitionTiming {
        idle: Duration::from_secs(5),
        ..timing()
    };
    let opened = EventHub::open(&client(&hubs), begun, 8 << 20, timing).await;
    let mut source = opened.unwrap();
    let mut got = Got::default();
    read(&mut source, &mut got, PARTITIONS * MESSAGES).await;
    each_came_once(&got, &[MESSAGES; PARTITIONS]);
    assert!(hubs.attached().len() > PARTITIONS, "no turn ended");
    let ended = "audit_bridge_source_requests_total{status=\"ended\"}";
    assert!(!telemetry.render().contains(ended), "a link failed");
}

/// The same while connections are cut.
#[tokio::test]
async fn connection_cut_between_turns_loses_nothing() {
    const PARTITIONS: usize = AT_A_TIME + 4;
    const MESSAGES: usize = 10;
    let hubs = filled(PARTITIONS, MESSAGES).await;
    let mut source = open(&hubs, resume(Start::Earliest)).await.unwrap();
    let mut got = Got::default();
    for part in 1..4 {
        read(&mut source, &mut got, PARTITIONS * MESSAGES * part / 4).await;
        hubs.cut();
    }
    read(&mut source, &mut got, PARTITIONS * MESSAGES).await;
    each_came_once(&got, &[MESSAGES; PARTITIONS]);
}

/// All links are attached when more arrives than the pipeline takes: those that cannot hand on what
/// they have are closed, and request it again.
#[tokio::test]
async fn quiet_partitions_that_all_get_large_messages_keep_few_of_them() {
    const PARTITIONS: usize = AT_A_TIME + 6;
    let hubs = EventHubs::start().await;
    hubs.add_hub(HUB, PARTITIONS);
    let mut source = open(&hubs, resume(Start::Earliest)).await.unwrap();
    let mut got = Got::default();
    read_until(&mut source, &mut got, |_| {
        hubs.attached().len() == PARTITIONS
    })
    .await;
    publish(&hubs, PARTITIONS, 0..2);
    // Nothing is read, and those that have no turn close their connections.
    let closed = || hubs.connections_now() <= AT_A_TIME + 3;
    until(closed).await;
    read(&mut source, &mut got, PARTITIONS * 2).await;
    each_came_once(&got, &[2; PARTITIONS]);
}

/// Messages of any size come at any time, connections are cut, and the pipeline now and then takes
/// nothing. `SEED=n` repeats a run.
#[tokio::test]
async fn partitions_that_take_turns_lose_nothing_whatever_happens() {
    const PARTITIONS: usize = AT_A_TIME + 8;
    let seed = std::env::var("SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let mut state: u64 = seed.unwrap_or_else(|| u64::from(std::process::id())) | 1;
    println!("SEED={state}");
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % 1_000_003).unwrap() % below
    };
    let hubs = EventHubs::start().await;
    hubs.add_hub(HUB, PARTITIONS);
    let mut source = open(&hubs, resume(Start::Earliest)).await.unwrap();
    let mut got = Got::default();
    let mut published = [0; PARTITIONS];
    for _ in 0..25 {
        for _ in 0..random(30) {
            let partition = random(PARTITIONS);
            let bytes = [10, 60_000, 200_000, LARGE][random(4)];
            let name = format!(
                "{partition}-{}-{}",
                published[partition],
                "x".repeat(random(bytes))
            );
            hubs.publish(HUB, partition, body(&name));
            published[partition] += 1;
        }
        match random(5) {
            0 => hubs.cut(),
            1 => tokio::time::sleep(Duration::from_millis(random(4000) as u64)).await,
            _ => {
                let span = Duration::from_millis(random(800) as u64);
                listen(&mut source, &mut got, span).await;
            }
        }
    }
    read(&mut source, &mut got, published.iter().sum()).await;
    each_came_once(&got, &published);
}
