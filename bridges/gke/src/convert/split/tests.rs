use super::*;

fn join(parts: &[&str]) -> String {
    let raws: Vec<_> = parts
        .iter()
        .map(|part| Raw::parse(part).expect(part))
        .collect();
    let mut out = String::new();
    merge(&mut out, &raws);
    assert!(Raw::parse(&out).is_ok(), "{out}");
    out
}

#[test]
fn split_parts_are_joined_by_type() {
    for (parts, want) in [
        (&[r#"{"a":1}"#][..], r#"{"a":1}"#),
        (&[r#"{"a":1}"#, r#"{"b":2}"#], r#"{"a":1,"b":2}"#),
        (
            &[r#"{"a":{"b":"x"}}"#, r#"{"a":{"b":"y","c":true}}"#],
            r#"{"a":{"b":"xy","c":true}}"#,
        ),
        (&[r#""ab\n""#, r#""""#, r#""c\"d""#], r#""ab\nc\"d""#),
        (&[r#"["a","b"]"#, r#"["","c","d"]"#], r#"["a","bc","d"]"#),
        (
            &[r#"[{"x":1},"",{"z":1}]"#, r#"["",{"y":"k"},{"z2":2}]"#],
            r#"[{"x":1},{"y":"k"},{"z":1,"z2":2}]"#,
        ),
        (&[r#"{"a":""}"#, r#"{"a":{"b":1}}"#], r#"{"a":{"b":1}}"#),
        (&[r#"{"a":null}"#, r#"{"a":3}"#], r#"{"a":3}"#),
        (&[r#"{"a":""}"#, r#"{"a":""}"#], r#"{"a":""}"#),
        (&[r#"{"a":5}"#, r#"{"a":5}"#], r#"{"a":5}"#),
        (&["[]", "[]"], "[]"),
        // The type is repeated, not cut.
        (
            &[
                r#"{"@type":"t","kind":"Pod","a":"x"}"#,
                r#"{"@type":"t","kind":"Pod","a":"y"}"#,
            ],
            r#"{"@type":"t","kind":"Pod","a":"xy"}"#,
        ),
        (&[r#"{"a":"x","a":"y"}"#, r#"{"a":"z"}"#], r#"{"a":"yz"}"#),
    ] {
        assert_eq!(join(parts), want, "{parts:?}");
    }
    let deep = |leaf: &str| format!("{}{leaf}{}", "[".repeat(900), "]".repeat(900));
    assert_eq!(join(&[&deep("\"a\""), &deep("\"b\"")]), deep("\"a\""));
}

#[test]
fn split_impossible_numbers_are_no_parts() {
    let place = |uid: Option<&str>, index, total| {
        let split = wire::LogSplit {
            uid: uid.map(Cow::Borrowed),
            index,
            total,
        };
        match SplitPart::of(Some(&split)) {
            SplitPart::Whole => "whole",
            SplitPart::Part { .. } => "part",
            SplitPart::Stray { first: true } => "stray first",
            SplitPart::Stray { first: false } => "stray",
        }
    };
    assert_eq!(SplitPart::of(None), SplitPart::Whole);
    for (uid, index, total, want) in [
        (None, 0, 0, "whole"),
        (Some("u"), 0, 1, "whole"),
        (Some("u"), 0, 2, "part"),
        (Some("u"), 1, 2, "part"),
        (Some("u"), 9_999, 10_000, "part"),
        (Some("u"), 0, 10_001, "stray first"),
        (Some("u"), 2, 2, "stray"),
        (Some("u"), -1, 2, "stray"),
        (Some("u"), 0, -1, "stray first"),
        (Some("u"), 0, 0, "stray first"),
        (Some("u"), i64::MAX, i64::MIN, "stray"),
        (None, 0, 2, "stray first"),
        (None, 1, 2, "stray"),
    ] {
        assert_eq!(place(uid, index, total), want, "{uid:?} {index} {total}");
    }
}

#[test]
fn split_parts_wait_in_bounded_time_and_memory() {
    let mut held = PendingSplits::default();
    let payload = Bytes::from(vec![b'x'; 1 << 20]);
    let added = held.add(("a", 0, 2), RecordId(1), &payload);
    assert!(matches!(added, Added::Held));
    assert!(
        held.overdue(Duration::from_secs(100)).is_none(),
        "first seen now"
    );
    assert!(held.overdue(Duration::from_secs(129)).is_none());
    let late = held.overdue(Duration::from_secs(130)).expect("late");
    assert_eq!(late.records, [RecordId(1)]);
    assert_eq!(
        (held.bytes, held.groups.len(), held.by_uid.len()),
        (0, 0, 0)
    );
    // A part that comes twice counts twice: its record is held too.
    for id in 0..7 {
        held.add(("b", 0, 2), RecordId(id), &payload);
        assert!(held.pop_surplus().is_none());
    }
    held.add(("c", 0, 2), RecordId(8), &payload);
    let oldest = held.pop_surplus().expect("more than fits");
    assert_eq!(oldest.records.len(), 7);
    assert!(held.pop_surplus().is_none());
    let added = held.add(("c", 0, 2), RecordId(9), &payload);
    assert!(matches!(added, Added::Held));
    let Added::Complete(whole) = held.add(("c", 1, 2), RecordId(10), &payload) else {
        panic!("incomplete");
    };
    assert_eq!(whole.records, [RecordId(8), RecordId(9), RecordId(10)]);
    assert_eq!((held.bytes, held.parts), (0, 0));
}
