//! Hubs that are not what they were: made anew, promoted replicas, an alias that points elsewhere.
//! Nothing is left out, days do not come again, and each is reported with its size.

use serde_json::json;

use super::*;

const GAPS: &str = "audit_bridge_gaps_suspected_total";
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Goes on behind these positions.
fn continued(got: &Got) -> Resume {
    let mut again = resume(latest());
    again.positions = got.positions.clone();
    again
}

fn gaps(telemetry: &Telemetry) -> u32 {
    metric(telemetry, GAPS).round() as u32
}

/// A day's old messages and some new ones, all of them read.
async fn read_before(hubs: &EventHubs, new: usize) -> Got {
    for number in 0..50 {
        let body = body(&format!("old-{number}")).into();
        hubs.publish_at(HUB, 0, vec![body], DAY);
    }
    for number in 0..new {
        hubs.publish(HUB, 0, body(&format!("new-{number}")));
    }
    let mut source = open(hubs, resume(Start::Earliest)).await.unwrap();
    let mut got = Got::default();
    read(&mut source, &mut got, 50 + new).await;
    got
}

/// What comes after a restart behind these positions, until this name.
async fn read_after(hubs: &EventHubs, before: &Got, last: &str) -> (Got, Telemetry) {
    let begun = continued(before);
    let telemetry = begun.telemetry.clone();
    let mut source = open(hubs, begun).await.unwrap();
    let mut got = Got::default();
    come(&mut source, &mut got, &[last.to_owned()]).await;
    listen(&mut source, &mut got, Duration::from_millis(500)).await;
    (got, telemetry)
}

/// Reads until all of these came.
async fn come(source: &mut EventHub, got: &mut Got, want: &[String]) {
    let all = |got: &Got| {
        let names = got.of(0);
        want.iter().all(|name| names.contains(&name.as_str()))
    };
    let coming = timeout(MUST_COME, read_until(source, got, all)).await;
    assert!(coming.is_ok(), "{want:?} never came: {:?}", got.of(0));
}

/// Publishes these, and gives their names.
fn publish(hubs: &EventHubs, name: &str, count: usize) -> Vec<String> {
    let names = (0..count).map(|number| format!("{name}-{number}"));
    let names: Vec<_> = names.collect();
    for name in &names {
        hubs.publish(HUB, 0, body(name));
    }
    names
}

fn assert_no_old(got: &Got) {
    let old = got.of(0).iter().any(|name| name.starts_with("old-"));
    assert!(!old, "a day came again: {:?}", got.of(0));
}

#[tokio::test]
async fn position_keeps_offset_time_and_creation_of_the_hub() {
    let hubs = EventHubs::start().await;
    hubs.add_hub(HUB, 1);
    hubs.replicate(HUB);
    let got = read_before(&hubs, 3).await;
    let position = &got.positions[&0];
    assert_eq!(position["sequence_number"], 52, "{position}");
    let offset = position["offset"].as_str().unwrap();
    assert!(offset.starts_with("1:"), "{position}");
    for time in ["enqueued", "created_on"] {
        let time: Timestamp = position[time].as_str().unwrap().parse().unwrap();
        assert!(time.duration_until(Timestamp::now()).as_secs() < 300);
    }
}

#[tokio::test]
async fn replica_promoted_continues_behind_the_offset() {
    let hubs = EventHubs::start().await;
    hubs.add_hub(HUB, 1);
    hubs.replicate(HUB);
    let got = read_before(&hubs, 5).await;
    hubs.promote(HUB, 0);
    let want = publish(&hubs, "after", 4);
    let before = hubs.attached().len();
    let (after, telemetry) = read_after(&hubs, &got, "after-3").await;
    assert_eq!(after.of(0), want);
    assert_eq!(gaps(&telemetry), 0);
    let filter = &hubs.attached()[before].filter;
    assert!(filter.contains("x-opt-offset"), "{filter}");
}

#[tokio::test]
async fn replica_promoted_without_newest_messages_skips_nothing() {
    // The numbers of those that it lacked are given again: to fewer messages, as many, and more.
    for count in [2, 3, 10] {
        let hubs = EventHubs::start().await;
        hubs.add_hub(HUB, 1);
        hubs.replicate(HUB);
        let got = read_before(&hubs, 5).await;
        hubs.promote(HUB, 3);
        let want = publish(&hubs, "after", count);
        let last = want.last().unwrap().clone();
        let (after, _) = read_after(&hubs, &got, &last).await;
        let names = after.of(0);
        assert!(
            want.iter().all(|name| names.contains(&name.as_str())),
            "{count}: {names:?}"
        );
        assert_no_old(&after);
    }
}

#[tokio::test]
async fn replica_promoted_while_it_is_read_skips_nothing() {
    let hubs = EventHubs::start().await;
    hubs.add_hub(HUB, 1);
    hubs.replicate(HUB);
    let mut source = open(&hubs, resume(Start::Earliest)).await.unwrap();
    let mut got = Got::default();
    publish(&hubs, "before", 10);
    read(&mut source, &mut got, 10).await;
    for (round, lost) in [0, 1, 4].into_iter().enumerate() {
        hubs.promote(HUB, lost);
        let want = publish(&hubs, &format!("after-{round}"), 6);
        come(&mut source, &mut got, &want).await;
    }
}

#[tokio::test]
async fn offset_of_another_kind_falls_back_to_the_sequence_number() {
    // Replication was switched on after the position was written, or off.
    for (position, replicated) in [
        (json!({"sequence_number": 3, "offset": "400"}), true),
        (json!({"sequence_number": 3, "offset": "1:400:3"}), false),
        (json!({"sequence_number": 3, "offset": "99999999"}), false),
        (json!({"sequence_number": 3, "offset": "0"}), false),
        (json!({"sequence_number": 3}), true),
    ] {
        let hubs = EventHubs::start().await;
        hubs.add_hub(HUB, 1);
        publish(&hubs, "it", 8);
        if replicated {
            hubs.replicate(HUB);
        }
        let mut before = Got::default();
        before.positions.insert(0, position.clone());
        let (after, telemetry) = read_after(&hubs, &before, "it-7").await;
        assert_eq!(
            after.of(0),
            ["it-4", "it-5", "it-6", "it-7"],
            "{position} {replicated}"
        );
        assert_eq!(gaps(&telemetry), 0);
    }
}

#[tokio::test]
async fn hub_created_again_is_read_whole_whatever_its_numbers() {
    // Fewer messages than the former one had, and more.
    for count in [3, 200] {
        let hubs = EventHubs::start().await;
        hubs.add_hub(HUB, 1);
        let got = read_before(&hubs, 5).await;
        hubs.add_hub(HUB, 1);
        let want = publish(&hubs, "anew", count);
        let (after, telemetry) = read_after(&hubs, &got, want.last().unwrap()).await;
        assert_eq!(after.of(0), want, "{count}");
        assert_eq!(after.positions[&0]["sequence_number"], count - 1);
        assert_eq!(gaps(&telemetry), 1, "the time between is reported");
        let expired = metric(&telemetry, "audit_bridge_records_expired_total");
        assert!(expired < 0.5, "numbers of another hub are no gap");
    }
}

#[tokio::test]
async fn hub_created_again_and_trimmed_is_read_from_what_it_holds() {
    let hubs = EventHubs::start().await;
    hubs.add_hub(HUB, 1);
    let got = read_before(&hubs, 5).await;
    hubs.add_hub(HUB, 1);
    let want = publish(&hubs, "anew", 200);
    hubs.trim(HUB, 0, 100);
    let (after, telemetry) = read_after(&hubs, &got, want.last().unwrap()).await;
    assert_eq!(after.of(0), want[100..]);
    assert_eq!(gaps(&telemetry), 1);
}

#[tokio::test]
async fn hub_created_again_without_messages_waits_for_the_first() {
    let hubs = EventHubs::start().await;
    hubs.add_hub(HUB, 1);
    let got = read_before(&hubs, 5).await;
    hubs.add_hub(HUB, 1);
    let begun = continued(&got);
    let telemetry = begun.telemetry.clone();
    let mut source = open(&hubs, begun).await.unwrap();
    let mut after = Got::default();
    listen(&mut source, &mut after, Duration::from_secs(3)).await;
    assert_eq!(after.count(), 0);
    assert!(
        telemetry.is_ready(Component::Source),
        "an empty hub is fine"
    );
    let want = publish(&hubs, "anew", 2);
    read(&mut source, &mut after, 2).await;
    assert_eq!(after.of(0), want);
}

#[tokio::test]
async fn alias_pointing_to_another_namespace_is_followed_without_restart() {
    let hubs = EventHubs::start().await;
    hubs.add_hub(HUB, 1);
    read_before(&hubs, 0).await;
    let begun = resume(latest());
    let telemetry = begun.telemetry.clone();
    let timing = PartitionTiming {
        renew: Duration::from_secs(1),
        ..timing()
    };
    let client = client(&hubs);
    let opening = EventHub::open(&client, begun, 8 << 20, timing);
    let mut source = opening.await.unwrap();
    let mut got = Got::default();
    publish(&hubs, "first", 3);
    read(&mut source, &mut got, 3).await;

    // The connection lives on, to the namespace that nobody writes to any more.
    hubs.fail_over();
    let want = publish(&hubs, "second", 4);
    come(&mut source, &mut got, &want).await;
    assert_eq!(got.count(), 7, "{:?}", got.of(0));
    assert_eq!(gaps(&telemetry), 1);

    // And back: a day's messages are still there, and were delivered.
    hubs.fail_back();
    let want = publish(&hubs, "third", 2);
    come(&mut source, &mut got, &want).await;
    assert_no_old(&got);
}

#[tokio::test]
async fn alias_pointing_back_before_anything_was_read_continues_exactly() {
    let hubs = EventHubs::start().await;
    hubs.add_hub(HUB, 1);
    let mut got = read_before(&hubs, 5).await;
    hubs.fail_over();
    let mut source = open(&hubs, continued(&got)).await.unwrap();
    listen(&mut source, &mut got, Duration::from_secs(2)).await;
    drop(source);
    hubs.fail_back();
    let want = publish(&hubs, "later", 3);
    let (after, telemetry) = read_after(&hubs, &got, "later-2").await;
    assert_eq!(after.of(0), want);
    assert_eq!(gaps(&telemetry), 0);
}

#[tokio::test]
async fn clock_of_the_new_hub_behind_the_old_one_skips_nothing() {
    let hubs = EventHubs::start().await;
    hubs.add_hub(HUB, 1);
    let got = read_before(&hubs, 5).await;
    hubs.add_hub(HUB, 1);
    let ago = Duration::from_secs(120);
    for number in 0..3 {
        let body = body(&format!("anew-{number}")).into();
        hubs.publish_at(HUB, 0, vec![body], ago);
    }
    let (after, telemetry) = read_after(&hubs, &got, "anew-2").await;
    assert_eq!(after.of(0), ["anew-0", "anew-1", "anew-2"]);
    assert_eq!(gaps(&telemetry), 0, "no time is missing");
}

#[tokio::test]
async fn link_quiet_for_long_is_opened_anew_and_repeats_nothing() {
    let hubs = EventHubs::start().await;
    hubs.add_hub(HUB, 2);
    let timing = PartitionTiming {
        renew: Duration::from_millis(300),
        ..timing()
    };
    let client = client(&hubs);
    let opening = EventHub::open(&client, resume(Start::Earliest), 8 << 20, timing);
    let mut source = opening.await.unwrap();
    let mut got = Got::default();
    for number in 0..4 {
        hubs.publish(HUB, 0, body(&number.to_string()));
        read(&mut source, &mut got, number + 1).await;
        listen(&mut source, &mut got, Duration::from_secs(1)).await;
    }
    assert_eq!(got.of(0), ["0", "1", "2", "3"]);
    assert!(hubs.attached().len() >= 6, "{:?}", hubs.attached());
}

/// What becomes of a hub in any order: whatever is in it once all has settled was handed on, and
/// what a day ago was handed on came once.
async fn survives_history(seed: u64) {
    let mut dice = seed;
    let mut roll = move |sides: usize| {
        // A linear congruential generator: its upper bits are good enough to choose by.
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from(dice >> 40).unwrap() % sides
    };
    let hubs = EventHubs::start().await;
    hubs.add_hub(HUB, 1);
    let replicated = roll(2) == 0;
    if replicated {
        hubs.replicate(HUB);
    }
    let mut got = read_before(&hubs, 0).await;
    let mut held: Vec<String> = Vec::new();
    let mut source = None;
    for round in 0..12 {
        let what = roll(6);
        match what {
            0 => {
                let lost = roll(4).min(held.len());
                hubs.promote(HUB, lost);
                held.truncate(held.len() - lost);
            }
            1 => {
                hubs.add_hub(HUB, 1);
                if replicated {
                    hubs.replicate(HUB);
                }
                hubs.cut();
                held.clear();
            }
            2 => hubs.cut(),
            3 => source = None,
            _ => {}
        }
        held.extend(publish(&hubs, &format!("{round}-{what}"), roll(5)));
        let mut reader = match source.take() {
            Some(reader) => reader,
            None => open(&hubs, continued(&got)).await.unwrap(),
        };
        let names = got.names.values().flatten();
        let all: std::collections::BTreeSet<_> = names.cloned().collect();
        let want: Vec<_> = held
            .iter()
            .filter(|it| !all.contains(*it))
            .cloned()
            .collect();
        come(&mut reader, &mut got, &want).await;
        source = Some(reader);
    }
    let names = got.of(0);
    for number in 0..50 {
        let name = format!("old-{number}");
        let times = names.iter().filter(|it| **it == name).count();
        assert_eq!(times, 1, "seed {seed}: {name}");
    }
}

#[tokio::test]
async fn hub_of_any_history_is_read_whole_and_not_again() {
    for seed in 1..=6 {
        survives_history(seed).await;
    }
}
