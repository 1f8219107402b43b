//! Events larger than receivers take.

use super::*;

#[test]
fn both_objects_go_and_the_mark_says_so() {
    let limit = options(&[], WHOLE.len() - 1);
    let event = convert(WHOLE, true, None, &limit).unwrap();
    let got = value(&event);
    assert!(event.truncated());
    assert_eq!(got["annotations"]["audit.k8s.io/truncated"], "true");
    assert_eq!(got["annotations"]["authorization.k8s.io/decision"], "allow");
    assert_rest_kept(
        WHOLE,
        &event,
        &["requestObject", "responseObject", "annotations"],
    );
    assert_eq!(
        count(&event, "requestObject") + count(&event, "responseObject"),
        0
    );
    assert!(event.text().len() <= limit.event_bytes_max);

    // The limit itself is fine.
    let limit = options(&[], WHOLE.len());
    assert_eq!(text(&convert(WHOLE, true, None, &limit).unwrap()), WHOLE);
}

#[test]
fn what_is_still_too_large_is_refused() {
    let limit = options(&[], 300);
    let stripped_bytes = strip_objects(&plain(WHOLE).unwrap()).unwrap().text().len();
    let want = Failure::TooLarge {
        bytes: WHOLE.len(),
        stripped_bytes,
        max: 300,
    };
    assert_eq!(convert(WHOLE, true, None, &limit), Err(want.clone()));
    assert_eq!(fit(plain(WHOLE).unwrap(), 300), Err(want));
}

#[test]
fn without_objects_nothing_can_go() {
    // Space that a rewrite would save must not make an unmarked event "truncated".
    let json = MINIMAL.replace(',', ",          ");
    for annotations in [&[][..], &[("a", "b")]] {
        let max = MINIMAL.len() + 10;
        let limit = options(annotations, max);
        match convert(&json, true, None, &limit) {
            Err(Failure::TooLarge {
                bytes,
                stripped_bytes,
                ..
            }) => {
                assert_eq!(bytes, json.len());
                assert!(stripped_bytes >= bytes);
            }
            got => panic!("{got:?}"),
        }
    }
    let event = plain(MINIMAL).unwrap();
    assert_eq!(strip_objects(&event), None);
    assert!(matches!(fit(event, 10), Err(Failure::TooLarge { .. })));
}

#[test]
fn changes_count_against_the_limit() {
    let long = "x".repeat(100);
    let limit = options(&[("cluster", &long)], WHOLE.len() + 50);
    let event = convert(WHOLE, true, None, &limit).unwrap();
    let got = value(&event);
    assert_eq!(got["annotations"]["cluster"], long);
    assert_eq!(got["annotations"]["audit.k8s.io/truncated"], "true");
    assert_eq!(count(&event, "annotations"), 1);
    assert_eq!(count(&event, "responseObject"), 0);
}

#[test]
fn a_large_event_that_was_cut_is_stripped_too() {
    let cut = &WHOLE[..WHOLE.find(",\"stageTimestamp\"").unwrap() + 3];
    let whole = plain(cut).unwrap();
    assert_eq!(count(&whole, "requestObject"), 1);
    let limit = options(&[], whole.text().len() - 1);
    let event = convert(cut, true, None, &limit).unwrap();
    value(&event);
    assert!(event.truncated());
    assert_eq!(count(&event, "requestObject"), 0);
    assert_eq!(text(&event).matches("audit.k8s.io/truncated").count(), 1);
}

#[test]
fn stripping_takes_any_kind_of_object_and_every_twin() {
    let json = MINIMAL.replacen(
        '{',
        concat!(
            r#"{"requestObject":"skipped-too-big-size-object","responseObject":null,"#,
            r#""requestObject":{"responseObject":1},"annotations":{"audit.k8s.io/truncated":"no"},"#,
        ),
        1,
    );
    let event = strip_objects(&plain(&json).unwrap()).unwrap();
    assert!(event.truncated());
    let want = MINIMAL.replace('}', r#","annotations":{"audit.k8s.io/truncated":"true"}}"#);
    assert_eq!(text(&event), want);
    assert_eq!(strip_objects(&event), None);
}

#[test]
fn a_stripped_event_holds_little_memory() {
    let big = format!("{{\"data\":\"{}\"}}", "x".repeat(5 << 20));
    let json = MINIMAL.replacen('{', &format!("{{\"requestObject\":{big},"), 1);
    let event = plain(&json).unwrap();
    let vec = Vec::from(event.text().clone());
    assert!(vec.capacity() < 1024, "{}", vec.capacity());
}
