//! Entries that came in parts.

use super::*;

/// A part of the entry, with this request.
fn part(index: u64, total: u64, request: Value) -> Value {
    let entry = with(
        "/split",
        json!({"uid": "u", "index": index, "totalSplits": total}),
    );
    let entry = set(entry, "/protoPayload/response", Value::Null);
    let entry = set(entry, "/insertId", format!("0c7d4f6e-{index}"));
    set(entry, "/protoPayload/request", request)
}

fn parts() -> [Value; 3] {
    [
        part(
            0,
            3,
            json!({"@type": "apps.k8s.io/v1.Deployment", "metadata": {"name": "we"}, "spec": {"replicas": 3, "list": ["a", "b"]}}),
        ),
        part(
            1,
            3,
            json!({"metadata": {"name": "b"}, "spec": {"list": ["", "c", {"x": "1"}]}}),
        ),
        part(
            2,
            3,
            json!({"spec": {"list": ["", "", {"x": "2"}], "paused": true}}),
        ),
    ]
}

#[test]
fn split_entry_in_any_order_becomes_one_event() {
    let [a, b, c] = parts();
    for (order, ids) in [
        (vec![a.clone(), b.clone(), c.clone()], vec![0, 1, 2]),
        (vec![c.clone(), a.clone(), b.clone()], vec![0, 1, 2]),
        (vec![b.clone(), b.clone(), c, a], vec![0, 1, 2, 3]),
    ] {
        let found = run_with(GkeConvertOptions::default(), &order);
        let [(event, records)] = found.as_slice() else {
            panic!("one event: {found:?}");
        };
        assert_eq!(*records, ids);
        assert_eq!(event["level"], "Request");
        assert_eq!(
            event["requestObject"],
            json!({"kind": "Deployment", "apiVersion": "apps/v1", "metadata": {"name": "web"},
                   "spec": {"replicas": 3, "list": ["a", "bc", {"x": "12"}], "paused": true}})
        );
    }
}

#[test]
fn split_entry_of_one_part_is_whole() {
    let event = run(&part(0, 1, json!({"a": 1})));
    assert_eq!(event["requestObject"], json!({"a": 1}));
    let bare = run(&set(entry(), "/split", json!({})));
    assert_eq!(bare["level"], "RequestResponse");
}

#[test]
fn split_entry_is_placed_at_its_first_part() {
    let [a, b, c] = parts();
    let found = run_with(GkeConvertOptions::default(), &[b.clone(), a.clone()]);
    let [(event, records)] = found.as_slice() else {
        panic!("one event: {found:?}");
    };
    assert_eq!(*records, [0, 1]);
    assert_eq!(event["level"], "Request");
    assert_eq!(
        event["requestObject"],
        json!({"kind": "Deployment", "apiVersion": "apps/v1", "metadata": {"name": "web"},
               "spec": {"replicas": 3, "list": ["a", "bc", {"x": "1"}]}})
    );
    assert_eq!(event["annotations"]["audit.k8s.io/truncated"], "true");
    assert_eq!(event["objectRef"]["name"], "web");
    let lost = json!({"reject": "incomplete_split"});
    let found = run_with(GkeConvertOptions::default(), &[b, c]);
    assert_eq!(found, [(lost.clone(), vec![0]), (lost.clone(), vec![1])]);
    // Numbers that cannot be.
    let stray = set(a, "/split/totalSplits", 99_999);
    assert_eq!(run(&stray)["annotations"]["audit.k8s.io/truncated"], "true");
    assert_eq!(run(&part(7, 3, json!({}))), lost);
}

/// The author of an object can decide by padding what is in which part: every part that came is in
/// the event, even after a missing one.
#[test]
fn split_entry_incomplete_keeps_what_is_there() {
    let [a, _, c] = parts();
    let found = run_with(GkeConvertOptions::default(), &[c, a.clone()]);
    let event = &found[0].0;
    assert_eq!(event["annotations"]["audit.k8s.io/truncated"], "true");
    assert_eq!(
        event["requestObject"]["spec"],
        json!({"replicas": 3, "list": ["a", "b", {"x": "2"}], "paused": true})
    );
    // Nothing of the bodies in what came.
    let bare = set(a, "/protoPayload/request", Value::Null);
    let event = run(&bare);
    assert_eq!(
        (&event["level"], event.get("requestObject")),
        (&json!("Metadata"), None)
    );
    assert_eq!(event["annotations"]["audit.k8s.io/truncated"], "true");
}

#[test]
fn split_entry_incomplete_waits_a_bounded_time() {
    let [a, b, c] = parts();
    let mut convert = GkeConvert::default();
    let mut out = Output::default();
    convert.convert(RecordId(5), &record(a.to_string()), &mut out);
    convert.overdue(Duration::from_secs(1), &mut out);
    convert.convert(RecordId(6), &record(b.to_string()), &mut out);
    convert.overdue(Duration::from_secs(30), &mut out);
    assert!(outcomes(&mut out).is_empty(), "still waiting");
    convert.overdue(Duration::from_secs(31), &mut out);
    let found = outcomes(&mut out);
    assert_eq!(found[0].1, [5, 6]);
    assert_eq!(found[0].0["stage"], "ResponseComplete");
    convert.convert(RecordId(7), &record(c.to_string()), &mut out);
    assert!(outcomes(&mut out).is_empty());
    convert.finish(&mut out);
    assert_eq!(
        outcomes(&mut out),
        [(json!({"reject": "incomplete_split"}), vec![7])]
    );
}

#[test]
fn split_entries_incomplete_use_bounded_memory() {
    let mut convert = GkeConvert::default();
    let mut out = Output::default();
    let filler = "x".repeat(1 << 20);
    for id in 0..9 {
        let part = set(
            part(0, 2, json!({ "x": filler })),
            "/split/uid",
            format!("u{id}"),
        );
        convert.convert(RecordId(id), &record(part.to_string()), &mut out);
    }
    let found = outcomes(&mut out);
    let ids: Vec<_> = found.iter().map(|(_, ids)| ids.clone()).collect();
    assert_eq!(ids, [[0], [1]], "the oldest made room");
}

/// A queue holds back all messages while too many are open.
#[test]
fn split_entries_incomplete_of_small_parts_are_few() {
    let mut convert = GkeConvert::default();
    let mut out = Output::default();
    for id in 0..2_001 {
        let part = set(part(0, 2, json!({})), "/split/uid", format!("u{id}"));
        convert.convert(RecordId(id), &record(part.to_string()), &mut out);
    }
    let found = outcomes(&mut out);
    let ids: Vec<_> = found.iter().map(|(_, ids)| ids.clone()).collect();
    assert_eq!(ids, [[0]], "the oldest made room");
}

/// Whoever knows the uid can forge a part. Neither text is lost, and the event says that it is not
/// as it was written.
#[test]
fn split_entry_part_with_another_text_is_kept_and_marks_the_event() {
    let [a, b, c] = parts();
    let forged = set(b.clone(), "/protoPayload/request/spec", json!({}));
    for (first, second) in [(&b, &forged), (&forged, &b)] {
        let of = [c.clone(), first.clone(), second.clone(), a.clone()];
        let found = run_with(GkeConvertOptions::default(), &of);
        let lost = json!({"reject": "incomplete_split"});
        assert_eq!(found[0], (lost, vec![2]));
        assert_eq!(found[1].1, [0, 1, 3]);
        assert_eq!(found[1].0["annotations"]["audit.k8s.io/truncated"], "true");
    }
    // The same text twice is one part.
    let found = run_with(GkeConvertOptions::default(), &[a, b.clone(), b, c]);
    assert_eq!(found[0].1, [0, 1, 2, 3]);
    assert_eq!(
        found[0].0["annotations"].get("audit.k8s.io/truncated"),
        None
    );
}

#[test]
fn split_entry_audit_id_has_no_part_index() {
    let entry = |id: &str| {
        set(
            set(part(0, 1, json!({})), "/operation", Value::Null),
            "/insertId",
            id,
        )
    };
    assert_eq!(run(&entry("abc-0"))["auditID"], "abc");
    assert_eq!(run(&entry("abc0"))["auditID"], "abc");
    assert_eq!(run(&entry("abc"))["auditID"], "abc");
    assert_eq!(run(&entry("0"))["auditID"], "0");
}
