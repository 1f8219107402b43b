use proptest::prelude::*;

use super::*;
use crate::convert::RecordId;

fn item(number: u64, bytes: usize) -> Item {
    Item::new(Event::of_bytes(vec![b'x'; bytes]), RecordId(number))
}

fn limits(events_max: usize, events_bytes: usize) -> BatchLimits {
    BatchLimits {
        events_max,
        bytes_max: list::OVERHEAD_BYTES + events_bytes,
        wait_max: Duration::from_secs(1),
    }
}

#[test]
fn batch_completes_by_count_bytes_or_age() {
    let now = Instant::now();
    let mut batcher = Batcher::new(limits(3, 25));
    assert_eq!(batcher.deadline(), None);
    for number in 0..3 {
        assert!(!batcher.has_complete());
        batcher.push(item(number, 5), now);
    }
    assert_eq!(batcher.deadline(), Some(now), "three is the limit");
    assert_eq!(batcher.due(now).map(|batch| batch.items.len()), Some(3));

    batcher.push(item(3, 10), now);
    batcher.push(item(4, 15), now);
    let batch = batcher
        .due(now)
        .expect("10 and a comma and 15 are one too many");
    assert_eq!(batch.bytes, list::OVERHEAD_BYTES + 10);
    assert_eq!(batcher.due(now), None);
    let later = now + Duration::from_secs(1);
    assert_eq!(batcher.deadline(), Some(later));
    assert_eq!(batcher.due(later).map(|batch| batch.items.len()), Some(1));
    assert!(batcher.is_empty());
}

#[test]
fn batch_event_above_the_limit_goes_alone() {
    let now = Instant::now();
    let mut batcher = Batcher::new(limits(10, 20));
    batcher.push(item(0, 5), now);
    batcher.push(item(1, 100), now);
    batcher.push(item(2, 5), now);
    let mut sizes = Vec::new();
    while let Some(batch) = batcher.flush() {
        sizes.push(batch.items.len());
    }
    assert_eq!(sizes, [1, 1, 1]);
}

#[test]
fn records_single_id_needs_no_allocation() {
    assert_eq!(Records::from(vec![RecordId(7)]), Records::One(RecordId(7)));
    let many = Records::from(vec![RecordId(1), RecordId(2)]);
    assert_eq!(many.as_slice(), [RecordId(1), RecordId(2)]);
}

proptest! {
    #[test]
    fn batcher_random_events_keep_order_and_limits(
        sizes in proptest::collection::vec((1_usize..60, 0_u64..400), 0..120),
        events_max in 1_usize..7,
        events_bytes in 1_usize..100,
    ) {
        let limits = limits(events_max, events_bytes);
        let mut batcher = Batcher::new(limits);
        let mut now = Instant::now();
        let mut out = Vec::new();
        for (number, (bytes, pause_ms)) in sizes.iter().enumerate() {
            now += Duration::from_millis(*pause_ms);
            while let Some(batch) = batcher.due(now) {
                out.push(batch);
            }
            prop_assert!(batcher.deadline().is_none_or(|deadline| deadline > now));
            batcher.push(item(number as u64, *bytes), now);
        }
        let (waiting, due) = (batcher.waiting_bytes(), out.len());
        while let Some(batch) = batcher.flush() {
            out.push(batch);
        }
        prop_assert_eq!(waiting, out[due..].iter().map(|batch| batch.bytes).sum::<usize>());
        prop_assert!(batcher.is_empty() && batcher.waiting_bytes() == 0);
        for batch in &out {
            prop_assert!(batch.items.len() <= events_max);
            prop_assert!(batch.bytes <= limits.bytes_max || batch.items.len() == 1);
            let events: Vec<Event> = batch.items.iter().map(|item| item.event.clone()).collect();
            prop_assert_eq!(list::body(&events).len(), batch.bytes);
            prop_assert_eq!(Batch::new(batch.items.clone()).bytes, batch.bytes);
        }
        let ids: Vec<u64> = out
            .iter()
            .flat_map(|batch| &batch.items)
            .map(|item| item.records.as_slice()[0].0)
            .collect();
        prop_assert_eq!(ids, (0..sizes.len() as u64).collect::<Vec<_>>());
    }
}
