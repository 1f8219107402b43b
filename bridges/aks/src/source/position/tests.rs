use super::*;

fn at(text: &str) -> Option<Timestamp> {
    Some(text.parse().unwrap())
}

fn number(sequence_number: i64) -> MessagePosition {
    MessagePosition {
        sequence_number,
        offset: None,
        enqueued: None,
        created_on: None,
    }
}

#[test]
fn position_written_is_read_again() {
    let time: Timestamp = "2026-11-21T10:00:00.123456789Z".parse().unwrap();
    let whole = MessagePosition {
        offset: Some("1:4711:7".to_owned()),
        enqueued: at("2026-11-21T10:00:00.123Z"),
        created_on: at("2026-01-01T00:00:00Z"),
        ..number(7)
    };
    for begin in [
        PartitionStart::After(number(-1)),
        PartitionStart::After(number(SEQUENCE_NUMBER_MAX)),
        PartitionStart::After(whole),
        PartitionStart::Earliest,
        PartitionStart::From(time),
    ] {
        assert_eq!(read(&begin.to_stored()), Some(begin));
    }
}

#[test]
fn position_of_an_earlier_version_is_read() {
    let before = [
        (json!({"sequence_number": 7}), None),
        (
            json!({"sequence_number": 7, "offset": "4711"}),
            Some("4711"),
        ),
    ];
    for (position, offset) in before {
        let want = MessagePosition {
            offset: offset.map(str::to_owned),
            ..number(7)
        };
        assert_eq!(read(&position), Some(PartitionStart::After(want)));
    }
}

#[test]
fn position_reached_is_further_than_any_start() {
    let made = [
        PartitionStart::Earliest,
        PartitionStart::From(Timestamp::MAX),
    ];
    let made = made.map(|start| start.to_stored());
    for made in &made {
        assert!(is_further(&number(-1).to_stored(), made));
        assert!(!is_further(made, &number(-1).to_stored()));
        assert!(!is_further(made, &made.clone()));
    }
    assert!(is_further(&number(8).to_stored(), &number(7).to_stored()));
    assert!(!is_further(&number(7).to_stored(), &number(7).to_stored()));
}

#[test]
fn position_of_a_hub_created_again_is_further_by_its_time() {
    let old = MessagePosition {
        enqueued: at("2026-11-21T10:00:00Z"),
        ..number(70_000)
    };
    let new = MessagePosition {
        enqueued: at("2026-11-21T10:00:01Z"),
        ..number(3)
    };
    assert!(is_further(&new.to_stored(), &old.to_stored()));
    assert!(!is_further(&old.to_stored(), &new.to_stored()));
    // What an earlier version wrote has no time.
    assert!(is_further(&number(70_001).to_stored(), &old.to_stored()));
}

#[test]
fn position_invalid_is_refused() {
    for wrong in [
        json!(null),
        json!(7),
        json!({}),
        json!({"sequence_number": "7"}),
        json!({"sequence_number": -2}),
        json!({"sequence_number": i64::MAX}),
        json!({"sequence_number": 7, "enqueued": "yesterday"}),
        json!({"sequence_number": 7, "created_on": 7}),
        json!({"from": 7}),
        json!({"from": "yesterday"}),
    ] {
        assert_eq!(read(&wrong), None, "{wrong}");
    }
}

#[test]
fn offset_that_is_no_message_is_left_out() {
    for offset in [
        json!(""),
        json!("-1"),
        json!("@latest"),
        json!("1' or '1"),
        json!("1\n"),
        json!(4711),
        json!(null),
    ] {
        let position = json!({"sequence_number": 7, "offset": offset});
        assert_eq!(read(&position), Some(PartitionStart::After(number(7))));
    }
}
