use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;

fn time(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_760_000_000 + seconds).unwrap()
}

fn known(sequence_number: i64) -> MessagePosition {
    MessagePosition {
        sequence_number,
        offset: Some("4711".to_owned()),
        enqueued: Some(time(0)),
        created_on: Some(time(-1000)),
    }
}

fn bounds(first: i64, last: i64) -> PartitionBounds {
    PartitionBounds {
        first,
        last,
        last_enqueued: Some(time(0)),
        is_empty: last < first,
    }
}

fn message(sequence_number: i64, enqueued: Timestamp) -> HubMessage {
    HubMessage {
        sequence_number: Some(sequence_number),
        offset: Some("1:4711:7".to_owned()),
        enqueued: Some(enqueued),
        body: Bytes::new(),
    }
}

#[test]
fn message_still_there_is_looked_for_by_offset_then_number_then_time() {
    let created = Some(time(-1000));
    let place = |by| Placement::of(&known(7), by, bounds(3, 9), created);
    let by_offset = place(Lookup::Offset);
    assert_eq!(by_offset.start(), ReceiverStart::AtOffset("4711".into()));
    assert_eq!(by_offset.next_lookup(), Some(Lookup::SequenceNumber));
    let by_number = place(Lookup::SequenceNumber);
    assert_eq!(by_number.start(), ReceiverStart::At(7));
    assert_eq!(by_number.next_lookup(), Some(Lookup::Time));
    let by_time = place(Lookup::Time);
    assert_eq!(by_time.start(), ReceiverStart::From(time(-60)));
    assert_eq!(by_time.next_lookup(), None);

    let bare = MessagePosition {
        offset: None,
        ..known(7)
    };
    let by_number = Placement::of(&bare, Lookup::Offset, bounds(3, 9), created);
    assert_eq!(by_number.start(), ReceiverStart::At(7));
    assert_eq!(by_number.next_lookup(), Some(Lookup::Time));
}

#[test]
fn message_trimmed_is_left_behind_only_in_the_same_hub() {
    let place = |number, bounds, created| {
        Placement::of(&known(number), Lookup::Offset, bounds, created).start()
    };
    let (same, other) = (Some(time(-1000)), Some(time(5)));
    for created in [same, None] {
        assert_eq!(place(7, bounds(90, 99), created), ReceiverStart::After(7));
        // The partition is empty, but no message is missing.
        assert_eq!(place(7, bounds(8, 7), created), ReceiverStart::After(7));
        assert_eq!(place(-1, bounds(0, -1), created), ReceiverStart::After(-1));
    }
    let overlap = ReceiverStart::From(time(-900));
    assert_eq!(place(7, bounds(90, 99), other), overlap);
    assert_eq!(place(7, bounds(8, 7), other), overlap);
}

/// The position of a partition that held nothing when it was first read has no time to compare.
#[test]
fn position_without_a_time_is_no_message_of_another_hub() {
    let never_read = MessagePosition {
        offset: None,
        enqueued: None,
        ..known(99)
    };
    let place = |bounds, created| Placement::of(&never_read, Lookup::Offset, bounds, created);
    let (same, other) = (Some(time(-1000)), Some(time(5)));
    assert_eq!(place(bounds(0, 149), same).start(), ReceiverStart::At(99));
    for (first, last) in [(0, 149), (0, 99), (0, 60), (100, 149)] {
        let start = place(bounds(first, last), other).start();
        assert_eq!(start, ReceiverStart::After(first - 1), "{first}..={last}");
    }
}

#[test]
fn partition_ending_before_the_message_is_read_by_time() {
    for (created, seconds) in [(Some(time(-1000)), -60), (None, -60), (Some(time(5)), -900)] {
        let placement = Placement::of(&known(7), Lookup::Offset, bounds(0, 3), created);
        assert_eq!(placement.start(), ReceiverStart::From(time(seconds)));
    }
    // An earlier version kept no time.
    let bare = MessagePosition {
        enqueued: None,
        ..known(7)
    };
    let placement = Placement::of(&bare, Lookup::Offset, bounds(2, 3), None);
    assert_eq!(placement.start(), ReceiverStart::After(1));
    // A time that a filter cannot express is not requested.
    let old = MessagePosition {
        enqueued: Some(Timestamp::UNIX_EPOCH - Duration::from_secs(1)),
        ..known(7)
    };
    let placement = Placement::of(&old, Lookup::Offset, bounds(2, 3), None);
    assert_eq!(
        placement.start(),
        ReceiverStart::From(Timestamp::UNIX_EPOCH)
    );
}

#[test]
fn message_is_the_same_by_number_and_time() {
    use Lookup::{Offset, SequenceNumber, Time};
    let known = known(7);
    for (by, message, want) in [
        (Offset, message(7, time(0)), MessageMatch::Same),
        (SequenceNumber, message(7, time(0)), MessageMatch::Same),
        // Its number was reused.
        (Offset, message(7, time(1)), MessageMatch::Different(Time)),
        (
            SequenceNumber,
            message(7, time(1)),
            MessageMatch::Different(Time),
        ),
        // The offset belongs to another message.
        (
            Offset,
            message(3, time(0)),
            MessageMatch::Different(SequenceNumber),
        ),
        (
            Offset,
            message(8, time(1)),
            MessageMatch::Different(SequenceNumber),
        ),
        // The message expired in the meantime.
        (SequenceNumber, message(8, time(1)), MessageMatch::Later),
        (
            SequenceNumber,
            message(6, time(0)),
            MessageMatch::Different(Time),
        ),
    ] {
        assert_eq!(compare(&known, by, &message), want, "{by:?} {message:?}");
    }
    // The time that properties tell may be rounded.
    let told = MessagePosition {
        offset: None,
        ..known
    };
    let half = time(0) + Duration::from_millis(500);
    assert_eq!(
        compare(&told, SequenceNumber, &message(7, half)),
        MessageMatch::Same
    );
    // An earlier version kept no time at all.
    let bare = MessagePosition {
        enqueued: None,
        ..told
    };
    assert_eq!(
        compare(&bare, SequenceNumber, &message(7, half)),
        MessageMatch::Same
    );
}

proptest! {
    /// Wherever a link starts, no unread message lies before it: by number after a message that is
    /// known to be the same, else by time.
    #[test]
    fn placement_never_begins_behind_the_end(
        number in -1_i64..20,
        first in 0_i64..20,
        count in 0_i64..20,
        enqueued in proptest::option::of(-50_i64..50),
        created in proptest::option::of(0_i64..2),
        created_now in proptest::option::of(0_i64..2),
        lookup in prop_oneof![
            Just(Lookup::Offset), Just(Lookup::SequenceNumber), Just(Lookup::Time)
        ],
    ) {
        let known = MessagePosition {
            sequence_number: number,
            offset: None,
            enqueued: enqueued.map(time),
            created_on: created.map(time),
        };
        let bounds = bounds(first, first + count - 1);
        let placement = Placement::of(&known, lookup, bounds, created_now.map(time));
        match placement.start() {
            ReceiverStart::After(at) => {
                // Event Hubs refuses what lies behind the end.
                prop_assert!(at <= bounds.last);
                prop_assert!(at == number || at == first - 1);
                prop_assert!(at < first);
            }
            ReceiverStart::At(at) => prop_assert!(at == number && (first..=bounds.last).contains(&at)),
            ReceiverStart::From(at) => {
                let known = time(enqueued.unwrap());
                prop_assert!(at < known && at >= known - Duration::from_secs(900));
            }
            ReceiverStart::AtOffset(_) => prop_assert!(false),
        }
        // Every refusal leads to another lookup, until there is none left.
        if let Some(next) = placement.next_lookup() {
            prop_assert!(next > lookup || matches!(placement, Placement::Behind(_)));
        }
    }
}

#[test]
fn message_that_was_passed_is_left_behind_only_in_the_same_hub() {
    let created = Some(time(-1000));
    let place = |created| Placement::of(&known(7), Lookup::Offset, bounds(3, 9), created);
    for (passed, want) in [
        (Some(8), ReceiverStart::After(8)),
        (Some(7), ReceiverStart::AtOffset("4711".into())),
        (None, ReceiverStart::AtOffset("4711".into())),
    ] {
        assert_eq!(place(created).behind(passed, created).start(), want);
    }
    let again = Some(time(-1));
    let start = place(again).behind(Some(8), again).start();
    assert_eq!(start, ReceiverStart::AtOffset("4711".into()));
}
