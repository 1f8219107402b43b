//! Positions that are no more, or never were.

use serde_json::json;

use super::*;

fn after(number: i64) -> Resume {
    let mut resume = resume(latest());
    resume.positions = [(0, json!({"sequence_number": number}))].into();
    resume
}

#[tokio::test]
async fn position_given_is_read_on_exactly_behind() {
    let hubs = EventHubs::start().await;
    hubs.add_hub(HUB, 1);
    for number in 0..10 {
        hubs.publish(HUB, 0, body(&number.to_string()));
    }
    let mut source = open(&hubs, after(6)).await.unwrap();
    let mut got = Got::default();
    read(&mut source, &mut got, 3).await;
    assert_eq!(got.of(0), ["7", "8", "9"]);
    assert_eq!(
        hubs.attached()[0].filter.replace(' ', ""),
        "amqp.annotation.x-opt-sequence-number>='6'",
        "the message itself is asked for, to see that it is the same"
    );
}

#[tokio::test]
async fn position_expired_is_reported_with_its_gap() {
    let hubs = EventHubs::start().await;
    hubs.add_hub(HUB, 1);
    for number in 0..100 {
        hubs.publish(HUB, 0, body(&number.to_string()));
    }
    hubs.trim(HUB, 0, 90);
    let begun = after(19);
    let telemetry = begun.telemetry.clone();
    let mut source = open(&hubs, begun).await.unwrap();
    let mut got = Got::default();
    read(&mut source, &mut got, 10).await;
    assert_eq!(got.of(0).first(), Some(&"90"));
    let expired = "audit_bridge_records_expired_total";
    assert!((metric(&telemetry, expired) - 70.0).abs() < 0.5);

    // The same while it reads: an outage longer than the retention.
    hubs.stop_listening().await;
    for number in 100..150 {
        hubs.publish(HUB, 0, body(&number.to_string()));
    }
    hubs.trim(HUB, 0, 140);
    hubs.come_back().await;
    read(&mut source, &mut got, 20).await;
    assert_eq!(got.of(0)[10], "140");
    assert!((metric(&telemetry, expired) - 110.0).abs() < 0.5);
}

#[tokio::test]
async fn hub_created_again_is_read_from_its_beginning() {
    let hubs = EventHubs::start().await;
    hubs.add_hub(HUB, 1);
    for number in 0..5 {
        hubs.publish(HUB, 0, body(&number.to_string()));
    }
    let mut source = open(&hubs, after(70_000)).await.unwrap();
    let mut got = Got::default();
    read(&mut source, &mut got, 5).await;
    assert_eq!(got.of(0), ["0", "1", "2", "3", "4"]);
    assert_eq!(got.positions[&0]["sequence_number"], 4);

    // The same while it reads.
    hubs.add_hub(HUB, 1);
    hubs.publish(HUB, 0, body("anew"));
    hubs.cut();
    read(&mut source, &mut got, 6).await;
    assert_eq!(got.of(0)[5], "anew");
}

#[tokio::test]
async fn position_foreign_is_refused() {
    let hubs = EventHubs::start().await;
    hubs.add_hub(HUB, 1);
    let mut wrong = resume(latest());
    wrong.positions = [(0, json!("2026-11-21T10:00:00Z"))].into();
    let unavailable = open(&hubs, wrong).await.unwrap_err();
    assert!(
        unavailable.to_string().contains("partition 0"),
        "{unavailable}"
    );
    assert!(
        unavailable.remedy.contains("sequence_number"),
        "{unavailable}"
    );
}

#[tokio::test]
async fn position_of_first_message_need_not_be_zero() {
    let hubs = EventHubs::start().await;
    hubs.add_hub(HUB, 1);
    hubs.skip_to(HUB, 0, 1 << 40);
    hubs.publish(HUB, 0, body("far"));
    let begun = resume(Start::Earliest);
    let telemetry = begun.telemetry.clone();
    let mut source = open(&hubs, begun).await.unwrap();
    let mut got = Got::default();
    read(&mut source, &mut got, 1).await;
    assert_eq!(got.positions[&0]["sequence_number"], 1_i64 << 40);
    assert!(metric(&telemetry, "audit_bridge_records_expired_total") < 0.5);
}
