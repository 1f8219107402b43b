//! Where reading begins, and what it reads there.

use super::*;

#[tokio::test]
async fn start_earliest_reads_all_partitions_in_order() {
    let hubs = EventHubs::start().await;
    hubs.add_hub(HUB, 32);
    for number in 0..5 {
        for partition in 0..32 {
            hubs.publish(HUB, partition, body(&format!("{partition}-{number}")));
        }
    }
    let resume = resume(Start::Earliest);
    let telemetry = resume.telemetry.clone();
    let mut source = open(&hubs, resume).await.unwrap();
    let mut got = Got::default();
    read(&mut source, &mut got, 160).await;
    for partition in 0..32 {
        let want: Vec<_> = (0..5)
            .map(|number| format!("{partition}-{number}"))
            .collect();
        assert_eq!(got.of(partition), want);
        assert_eq!(got.positions[&partition]["sequence_number"], 4);
    }
    hubs.publish(HUB, 7, body("later"));
    read(&mut source, &mut got, 161).await;
    assert_eq!(got.of(7).last(), Some(&"later"));
    listen(&mut source, &mut got, Duration::from_secs(2)).await;
    assert_eq!(got.count(), 161, "nothing comes twice");
    assert!(
        telemetry.is_ready(Component::Source),
        "{:?}",
        telemetry.unready()
    );
    assert_eq!(hubs.attached_now(), 32);
    assert!(hubs.attached().iter().all(|link| link.epoch.is_none()));
}

#[tokio::test]
async fn start_latest_becomes_a_number_before_any_message() {
    let hubs = EventHubs::start().await;
    hubs.add_hub(HUB, 2);
    for number in 0..3 {
        hubs.publish_at(
            HUB,
            0,
            vec![body(&format!("old-{number}")).into()],
            Duration::from_secs(60),
        );
    }
    let mut source = open(&hubs, resume(latest())).await.unwrap();
    let mut got = Got::default();
    read_until(&mut source, &mut got, |got| got.positions.len() == 2).await;
    assert_eq!(got.positions[&0]["sequence_number"], 2);
    assert_eq!(got.positions[&1]["sequence_number"], -1);
    until(|| hubs.attached_now() == 2).await;
    drop(source);

    // What came while nobody read is there after a restart.
    until(|| hubs.attached_now() == 0).await;
    hubs.publish(HUB, 0, body("new-0"));
    hubs.publish(HUB, 1, body("new-1"));
    let mut again = resume(latest());
    again.positions = got.positions.clone();
    let mut source = open(&hubs, again).await.unwrap();
    read(&mut source, &mut got, 2).await;
    assert_eq!((got.of(0), got.of(1)), (vec!["new-0"], vec!["new-1"]));
}

#[tokio::test]
async fn start_latest_includes_messages_since_process_start() {
    let hubs = EventHubs::start().await;
    hubs.add_hub(HUB, 1);
    hubs.publish_at(HUB, 0, vec![body("old").into()], Duration::from_secs(60));
    let start = latest();
    // The hub could not be reached until now; meanwhile the cluster went on.
    tokio::time::sleep(Duration::from_millis(5)).await;
    hubs.publish(HUB, 0, body("meanwhile"));
    let mut source = open(&hubs, resume(start)).await.unwrap();
    let mut got = Got::default();
    read(&mut source, &mut got, 1).await;
    listen(&mut source, &mut got, Duration::from_millis(500)).await;
    assert_eq!(got.of(0), ["meanwhile"]);
}

#[tokio::test]
async fn start_at_time_survives_a_failure_before_the_first_message() {
    let hubs = EventHubs::start().await;
    hubs.add_hub(HUB, 1);
    for minutes in [30, 20, 10] {
        let ago = Duration::from_secs(minutes * 60);
        hubs.publish_at(HUB, 0, vec![body(&format!("{minutes}")).into()], ago);
    }
    hubs.silence(HUB, 0, true);
    let start = Start::At(Timestamp::now() - jiff::SignedDuration::from_mins(25));
    let mut source = open(&hubs, resume(start)).await.unwrap();
    until(|| hubs.attached_now() == 1).await;
    assert_eq!(hubs.detach(HUB, 0), 1);
    hubs.silence(HUB, 0, false);
    let mut got = Got::default();
    read(&mut source, &mut got, 2).await;
    listen(&mut source, &mut got, Duration::from_millis(500)).await;
    assert_eq!(got.of(0), ["20", "10"]);
}

#[tokio::test]
async fn partition_added_is_read_from_its_beginning() {
    let hubs = EventHubs::start().await;
    hubs.add_hub(HUB, 1);
    let mut source = open(&hubs, resume(latest())).await.unwrap();
    let mut got = Got::default();
    read_until(&mut source, &mut got, |got| got.positions.len() == 1).await;
    hubs.add_partitions(HUB, 2);
    hubs.publish(HUB, 2, body("early"));
    read(&mut source, &mut got, 1).await;
    assert_eq!(got.of(2), ["early"]);
    drop(source);

    // One that came while nobody read is new to the checkpoint, and read from its beginning too.
    hubs.add_partitions(HUB, 1);
    hubs.publish_at(
        HUB,
        3,
        vec![body("while away").into()],
        Duration::from_secs(60),
    );
    let mut again = resume(latest());
    again.positions = got.positions.clone();
    let mut source = open(&hubs, again).await.unwrap();
    read(&mut source, &mut got, 2).await;
    assert_eq!(got.of(3), ["while away"]);
}

/// An event hub never loses a partition, so a list without one is wrong, also the first list.
#[tokio::test]
async fn partition_that_lists_lack_is_read_on_where_it_was() {
    let hubs = EventHubs::start().await;
    hubs.add_hub(HUB, 2);
    hubs.publish(HUB, 0, body("a"));
    hubs.publish(HUB, 1, body("b"));
    let mut source = open(&hubs, resume(Start::Earliest)).await.unwrap();
    let mut got = Got::default();
    read(&mut source, &mut got, 2).await;
    drop(source);

    hubs.leave_out([1]);
    let mut again = resume(latest());
    again.positions = got.positions.clone();
    let mut source = open(&hubs, again).await.unwrap();
    // Several lists.
    listen(&mut source, &mut got, Duration::from_secs(2)).await;
    hubs.publish(HUB, 1, body("c"));
    read(&mut source, &mut got, 3).await;
    hubs.leave_out([]);
    listen(&mut source, &mut got, Duration::from_secs(1)).await;
    assert_eq!(got.of(1), ["b", "c"], "and nothing again");
}

#[tokio::test]
async fn job_until_a_time_ends_there() {
    let hubs = EventHubs::start().await;
    hubs.add_hub(HUB, 4);
    for (partition, minutes) in [(0, 30), (0, 5), (1, 30), (2, 5)] {
        let ago = Duration::from_secs(minutes * 60);
        let name = format!("{partition}-{minutes}");
        hubs.publish_at(HUB, partition, vec![body(&name).into()], ago);
    }
    let mut job = resume(Start::Earliest);
    job.until = Some(Timestamp::now() - jiff::SignedDuration::from_mins(10));
    let mut source = open(&hubs, job).await.unwrap();
    let mut got = Got::default();
    let all = async {
        while let Some(page) = source.read().await {
            got.add(page);
        }
    };
    timeout(MUST_COME, all).await.expect("the job ends");
    assert_eq!((got.of(0), got.of(1)), (vec!["0-30"], vec!["1-30"]));
    assert_eq!(got.count(), 2);
}

#[tokio::test]
async fn messages_large_and_odd_are_read() {
    let hubs = EventHubs::start().await;
    hubs.add_hub(HUB, 1);
    let huge = body(&"x".repeat((1 << 20) - 200));
    for _ in 0..12 {
        hubs.publish(HUB, 0, huge.clone());
    }
    // One body in three data sections, then what is no message of a diagnostic setting.
    let text = body("three");
    let sections = [&text[..10], &text[10..20], &text[20..]];
    let sections = sections.map(|part| part.to_owned().into());
    hubs.publish_at(HUB, 0, sections.to_vec(), Duration::ZERO);
    hubs.publish(HUB, 0, "not json");
    hubs.publish(HUB, 0, "");
    hubs.publish(HUB, 0, body("last"));
    let mut source = open(&hubs, resume(Start::Earliest)).await.unwrap();
    let mut got = Got::default();
    read_until(&mut source, &mut got, |got| {
        got.of(0).last() == Some(&"last")
    })
    .await;
    let names = got.of(0);
    assert_eq!(names.len(), 15 + usize::from(names.contains(&"")));
    assert!(names[..12].iter().all(|name| name.len() == (1 << 20) - 200));
    assert_eq!(names[12..14], ["three", "not json"]);
    assert_eq!(got.positions[&0]["sequence_number"], 15);
}
