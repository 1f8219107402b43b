//! What CloudWatch Logs writes into a stream.

use super::*;
use crate::kinesis::subscription::{self, SubscribedEvent, SubscriptionOrigin};

#[test]
fn subscription_record_is_read_as_it_was_written() {
    let subscription = SubscriptionOrigin::of_cluster(ACCOUNT, "prod");
    let events = [0, 1, 2].map(|n| SubscribedEvent::new(n, START_MS, format!("{{\"n\":{n}}}")));
    let lines = subscription::read(&subscription.record(&events));
    assert!(lines.iter().all(|line| line.subscription == subscription));
    assert_eq!(
        lines.into_iter().map(|it| it.event).collect::<Vec<_>>(),
        events
    );
    let kinesis = stand_in(1);
    kinesis.deliver(STREAM, &subscription, &events);
    kinesis.put(STREAM, "k", subscription::control_message(START_MS));
    assert_eq!(kinesis.written_lines(STREAM).len(), 3);
    for (what, record) in subscription::foreign_records() {
        assert!(subscription::read(&record).is_empty(), "{what}");
    }
    assert!(subscription::bomb(10 << 20).len() < 20 << 10);
}

#[tokio::test]
async fn filter_that_is_off_skips_what_is_filed() {
    let (logs, kinesis) = (crate::CloudWatch::start().await, stand_in(1));
    let subscription = SubscriptionOrigin::of_cluster(ACCOUNT, "prod");
    let filter = SubscriptionFilter::new(&logs, &kinesis, STREAM, subscription);
    let delivered = || {
        let lines = kinesis.written_lines(STREAM);
        let messages: Vec<_> = lines.into_iter().map(|it| it.event.message).collect();
        messages.concat()
    };
    let first = filter.file(START_MS, &["a".to_owned(), "b".to_owned()]);
    filter.switch_off(true);
    filter.file(START_MS, &["c".to_owned()]);
    filter.switch_off(false);
    filter.other_ids(true);
    let last = filter.file(START_MS, &["d".to_owned()]);
    assert_eq!(delivered(), "abd");
    assert_eq!(kinesis.written(STREAM).len(), 2);
    filter.deliver(&first);
    assert_eq!(delivered(), "abdab");
    // The group numbers its events from one.
    let id = |number: usize| SubscribedEvent::new(number, START_MS, "").id;
    assert_eq!([&first[0].id, &first[1].id], [&id(1), &id(2)]);
    assert!((1..5).all(|number| last[0].id != id(number)));
}
