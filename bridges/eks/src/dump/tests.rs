use std::sync::Arc;

use audit_bridge_core::convert::{Convert, Outcome, Output, RecordId};
use audit_bridge_core::record::{Origin, Record};
use audit_bridge_replay::dump::Piece;
use audit_bridge_replay::read_bytes;
use proptest::prelude::*;

use super::*;
use crate::convert::EksConvert;

const PLAIN: &str = include_str!("../../fixtures/messages.txt");

fn fixture(name: &str) -> Vec<u8> {
    let path = format!("{}/fixtures/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).expect(&path)
}

type Owned = (Vec<u8>, bool, bool);

/// Splits a text dump that arrives in chunks of this size.
fn split(text: &[u8], shape: Option<&str>, chunk: usize) -> Vec<Owned> {
    let head = String::from_utf8_lossy(&text[..text.len().min(8192)]);
    let mut split = EksDump.text_split(shape, &head).expect("a text shape");
    let mut pieces = Vec::new();
    let mut push = |piece: Piece<'_>| {
        pieces.push((piece.bytes.into_owned(), piece.damaged, piece.recognised));
    };
    let mut buffer: Vec<u8> = Vec::new();
    for chunk in text.chunks(chunk) {
        buffer.extend_from_slice(chunk);
        let taken = split.split(&buffer, false, &mut push);
        buffer.drain(..taken);
    }
    assert_eq!(split.split(&buffer, true, &mut push), buffer.len());
    pieces
}

/// Reads a JSON dump as replay does, and splits a text dump.
fn read(name: &str) -> Vec<Owned> {
    let bytes = fixture(name);
    if !name.ends_with(".json") {
        return split(&bytes, None, bytes.len());
    }
    let dump: Arc<dyn Dump> = Arc::new(EksDump);
    let content = read_bytes(&dump, name, bytes);
    assert_eq!(content.problem, None, "{name}");
    let records = content.records.into_iter();
    records
        .map(|record| (record.payload.to_vec(), record.damaged, true))
        .collect()
}

fn convert(pieces: Vec<Owned>) -> Vec<Outcome> {
    let mut out = Output::default();
    let mut convert = EksConvert::default();
    for (id, (payload, damaged, _)) in (1..).zip(pieces) {
        let origin = Origin::File {
            file: Arc::from("test"),
            record: id,
        };
        let record = Record {
            damaged,
            ..Record::new(payload, origin)
        };
        convert.convert(RecordId(id), &record, &mut out);
    }
    out.drain().collect()
}

fn events(outcomes: &[Outcome]) -> Vec<String> {
    let text = |outcome: &Outcome| match outcome {
        Outcome::Event { event, .. } => Some(String::from_utf8(event.text().to_vec()).unwrap()),
        _ => None,
    };
    outcomes.iter().filter_map(text).collect()
}

/// The events of the bare messages, except the last, which is cut before any time and has no record
/// time to fall back on.
fn plain() -> Vec<String> {
    let bare = |line: &str| (line.as_bytes().to_vec(), false, true);
    let mut events = events(&convert(PLAIN.lines().map(bare).collect()));
    assert_eq!(events.len(), 3);
    events.truncate(2);
    events
}

#[test]
fn dump_each_shape_gives_the_same_bytes() {
    let plain = plain();
    for name in [
        "filter-log-events.json",
        "get-log-events.json",
        "messages.json",
        "insights-api.json",
        "subscription.json",
        "live-tail.json",
        "messages.text",
        "filter-log-events.text",
        "get-log-events.text",
        "tail-detailed.txt",
        "tail-detailed-crlf.txt",
        "tail-short.txt",
        "tail-wrapped.txt",
        "tail-wrapped-narrow.txt",
        "export.txt",
        "insights.csv",
        "insights-quoted.csv",
    ] {
        let outcomes = convert(read(name));
        assert_same(name, &outcomes, &events(&outcomes), &plain);
    }
}

/// The two whole events, then the cut one.
fn assert_same<T: PartialEq + std::fmt::Debug>(
    name: &str,
    outcomes: &[Outcome],
    events: &[T],
    plain: &[T],
) {
    assert_eq!(&events[..2], plain, "{name}");
    let is_reject = |outcome: &Outcome| matches!(outcome, Outcome::Reject { .. });
    assert!(!outcomes.iter().any(is_reject), "{name}: {outcomes:?}");
    assert_eq!(events.len(), 3, "{name}: {outcomes:?}");
}

/// These shapes decode the event and encode it again, so the events are equal, but not their text.
#[test]
fn dump_decoded_shapes_give_the_same_events() {
    let value = |text: &String| serde_json::from_str::<serde_json::Value>(text).unwrap();
    let plain: Vec<_> = plain().iter().map(value).collect();
    for name in ["tail-json.txt", "insights-console.json"] {
        let outcomes = convert(read(name));
        let events: Vec<_> = events(&outcomes).iter().map(value).collect();
        assert_same(name, &outcomes, &events, &plain);
    }
}

#[test]
fn dump_each_fixture_has_its_outcome() {
    for name in [
        "filter-log-events.json",
        "get-log-events.json",
        "messages.json",
        "subscription.json",
        "live-tail.json",
        "insights-api.json",
        "insights-console.json",
        "messages.text",
        "filter-log-events.text",
        "get-log-events.text",
        "tail-detailed.txt",
        "tail-short.txt",
        "tail-json.txt",
        "tail-wrapped.txt",
        "export.txt",
        "aws-logs-write-test",
        "insights.csv",
    ] {
        let pieces = read(name);
        let shown: Vec<String> = pieces
            .iter()
            .zip(convert(pieces.clone()))
            .map(|((bytes, damaged, _), outcome)| {
                let bytes: String = String::from_utf8_lossy(bytes).chars().take(150).collect();
                let outcome = match outcome {
                    Outcome::Event { event, .. } => {
                        format!(
                            "event of {} bytes, truncated: {}",
                            event.text().len(),
                            event.truncated()
                        )
                    }
                    Outcome::Skip { reason, .. } => format!("skipped: {reason}"),
                    Outcome::Reject { reason, error, .. } => format!("rejected: {reason}: {error}"),
                };
                format!(
                    "{outcome}{}\n    {bytes}",
                    if *damaged { ", damaged" } else { "" }
                )
            })
            .collect();
        insta::assert_snapshot!(name, shown.join("\n"));
    }
}

const TEXTS: &[&str] = &[
    "messages.text",
    "filter-log-events.text",
    "get-log-events.text",
    "tail-detailed.txt",
    "tail-detailed-crlf.txt",
    "tail-short.txt",
    "tail-json.txt",
    "tail-wrapped.txt",
    "tail-wrapped-narrow.txt",
    "export.txt",
    "aws-logs-write-test",
    "insights.csv",
    "insights-quoted.csv",
];

#[test]
fn dump_in_chunks_of_any_size_gives_the_same_pieces() {
    for name in TEXTS {
        let text = fixture(name);
        let whole = split(&text, None, text.len());
        for chunk in (1..40).chain([100, 255, 256, 1023, 1024, 1025, 4096]) {
            assert_eq!(
                split(&text, None, chunk),
                whole,
                "{name} in chunks of {chunk}"
            );
        }
    }
}

#[test]
fn dump_first_pieces_show_the_provider() {
    for name in TEXTS {
        let text = fixture(name);
        let known = split(&text, None, text.len())
            .iter()
            .filter(|piece| piece.2)
            .count();
        assert!(known > 0, "{name}");
    }
    for text in [
        "2026-03-05T09:15:02Z some program's log\n",
        "2026-03-05T09:15:02 GET / 200\n",
    ] {
        assert!(
            split(text.as_bytes(), None, 100)
                .iter()
                .all(|piece| !piece.2),
            "{text}"
        );
    }
    for head in [
        "",
        "hello\nworld\n",
        "a,b\n1,2\n",
        "<html>",
        "2026-03-05 09:15:02 x\n",
    ] {
        assert!(EksDump.text_split(None, head).is_none(), "{head}");
    }
    for (piece, want) in [
        ("\"{\\\"kind\\\":\\\"Event\\\",\\\"auditID\\\":1}\"", true),
        ("\"I0520 05:24:43.888087      11 a.go:152] Skip\"", true),
        ("\"hello\"", false),
        ("[{\"field\":\"@message\",\"value\":\"x\"}]", true),
        ("[1]", false),
        ("7", false),
    ] {
        assert_eq!(
            EksDump.recognises(Raw::parse(piece).unwrap()),
            want,
            "{piece}"
        );
    }
}

#[test]
fn dump_shape_named_is_used() {
    for shape in EksDump.shapes() {
        assert_eq!(
            EksDump.text_split(Some(shape.name), "").is_some(),
            !shape.json,
            "{}",
            shape.name
        );
    }
    assert!(EksDump.text_split(Some("other"), "").is_none());
}

fn payloads(text: &[u8]) -> Vec<String> {
    let show = |(bytes, damaged, _): Owned| {
        format!(
            "{}{}",
            if damaged { "! " } else { "" },
            String::from_utf8_lossy(&bytes)
        )
    };
    split(text, None, 7).into_iter().map(show).collect()
}

#[test]
fn dump_malformed_text_is_kept() {
    for (text, want) in [
        // A message whose start is cut off: it may have been an event.
        (
            "\":\"x\"}}\n2026-03-05T09:15:02.000000+00:00 s {}\n",
            &[
                "! {\"message\":\"\\\":\\\"x\\\"}}\"}",
                "{\"logStreamName\":\"s\",\"timestamp\":1772702102000,\"message\":\"{}\"}",
            ][..],
        ),
        // A time of another form inside a wrapped message starts no record.
        (
            "2026-03-05T09:15:02.000000+00:00 s {\"a\":\"at \n2026-03-05T09:15:03Z in\"}",
            &[
                "{\"logStreamName\":\"s\",\"timestamp\":1772702102000,\"message\":\"{\\\"a\\\":\\\"at 2026-03-05T09:15:03Z in\\\"}\"}",
            ],
        ),
        // A terminal drops spaces at the end of a line.
        (
            "2026-03-05T09:15:02.000000+00:00 s\n{\n    \"a\": \" \\\" b\"\n}\n",
            &[
                "{\"logStreamName\":\"s\",\"timestamp\":1772702102000,\"message\":\"{\\\"a\\\":\\\" \\\\\\\" b\\\"}\"}",
            ],
        ),
        // Columns: a message with tabs and line ends, an event that the file ends in.
        (
            "EVENTS\t12\t1772702102000\ts\tI0520 05:24:43 a\tb\nc\t1772702102001\nSEARCHEDLOGSTREAMS\ts\tTrue\nNone\nwhat is this\nEVENTS\t1772702102000\t{\"a",
            &[
                "{\"logStreamName\":\"s\",\"timestamp\":1772702102001,\"message\":\"I0520 05:24:43 a\\tb\\nc\"}",
                "! {\"message\":\"what is this\"}",
                "! {\"message\":\"EVENTS\\t1772702102000\\t{\\\"a\"}",
            ],
        ),
        // CSV: line ends and commas in quotes, a missing cell, an end inside quotes.
        (
            "@timestamp,@message\n2026-03-05 09:15:02.000,\"a\n\"\"b\"\",c\"\n1772702102000,x\njust one\n2026,\"{\"\"a",
            &[
                "{\"timestamp\":1772702102000,\"message\":\"a\\n\\\"b\\\",c\"}",
                "{\"timestamp\":1772702102000,\"message\":\"x\"}",
                "! {\"message\":\"just one\"}",
                "! {\"timestamp\":2026,\"message\":\"{\\\"a\"}",
            ],
        ),
        // Bytes that are no text stay unchanged.
        (
            "2026-03-05T09:15:02Z {\u{fffd}}\n",
            &["{\"timestamp\":1772702102000,\"message\":\"{\u{fffd}}\"}"],
        ),
    ] {
        assert_eq!(payloads(text.as_bytes()), want, "{text}");
    }
    assert_eq!(
        split(b"2026-03-05T09:15:02Z {\xff}\n", None, 5),
        [(b"{\xff}".to_vec(), true, false)]
    );
}

#[test]
fn dump_record_too_large_is_dropped_and_the_next_read() {
    for (shape, head, rest, next) in [
        (
            TAIL,
            "2026-03-05T09:15:02Z {aaaa",
            "aaaa\nwrapped\n2026-03-05T09:15:03Z {next}\n",
            "{next}",
        ),
        (
            TAIL,
            "2026-03-05T09:15:02Z {aaaa\n",
            "wrapped\n2026-03-05T09:15:03Z {next}\n",
            "{next}",
        ),
        (
            TABLE,
            "EVENTS\t1\t2\ts\t{aaaa",
            "a\t1772702102001\nEVENTS\t1772702102001\t{next}\t1772702102001\n",
            "{next}",
        ),
        (
            CSV,
            "@message\n\"{aaaa",
            "a\n,\"\"\"\n\"{next}\"\n",
            "{next}",
        ),
        (MESSAGES, "{aaaa", "aaaa\t{next}\n", "{next}"),
    ] {
        for chunk in [1, 3, 1000] {
            let mut split = EksDump.text_split(Some(shape), "").unwrap();
            let mut messages = Vec::new();
            let mut push = |piece: Piece<'_>| {
                messages.push(String::from_utf8(piece.bytes.into_owned()).unwrap());
            };
            let taken = split.split(head.as_bytes(), false, &mut push);
            assert_eq!(split.overflow(&head.as_bytes()[taken..], &mut push), None);
            let mut buffer = Vec::new();
            for part in rest.as_bytes().chunks(chunk) {
                buffer.extend_from_slice(part);
                let taken = split.split(&buffer, false, &mut push);
                buffer.drain(..taken);
            }
            split.split(&buffer, true, &mut push);
            let want = format!("\"message\":\"{next}\"");
            assert!(
                messages.len() == 1 && messages[0].contains(&want),
                "{shape}: {messages:?}"
            );
        }
    }
}

#[test]
fn subscription_data_is_unpacked_or_refused_with_reason() {
    let record = |json: &str| {
        let raw = Raw::parse(json).unwrap();
        EksDump
            .record(raw, &PieceContext::empty())
            .map(Cow::into_owned)
            .map_err(|error| error.to_string())
    };
    let gzip = "H4sIAAAAAAAA/6tWSkksSVSyqlYqSyzKzEvMTVWyMqwFAAxC2SAVAAAA";
    let error = record(&format!("{{\"Data\":\"{gzip}!\"}}")).unwrap_err();
    assert!(error.contains("no base64"), "{error}");
    let error = record(r#"{"awslogs":{"data":"aGVsbG8="}}"#).unwrap_err();
    assert!(error.contains("no gzip"), "{error}");
    assert!(record(r#"{"Data":7}"#).is_err());
}

#[test]
fn subscription_data_above_limit_is_read_in_part_and_kept_whole() {
    use std::io::Write as _;

    use base64::Engine as _;

    // Three bytes per character: with one of the paddings, the limit cuts a character.
    let padding = "€".repeat(90_000);
    for pad in ["", "x", "xx"] {
        let events: Vec<_> = (0..70)
            .map(|n| format!("{{\"id\":\"{n}\",\"timestamp\":{n},\"message\":\"{{\\\"a\\\":\\\"{padding}\\\"}}\"}}"))
            .collect();
        let message = format!(
            "{{\"messageType\":\"DATA_MESSAGE{pad}\",\"logStream\":\"kube-apiserver-audit-1\",\"logEvents\":[{}]}}",
            events.join(",")
        );
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(message.as_bytes()).unwrap();
        let data = base64::engine::general_purpose::STANDARD.encode(gzip.finish().unwrap());
        let packed = format!("{{\"awslogs\":{{\"data\":\"{data}\"}}}}");
        let dump: Arc<dyn Dump> = Arc::new(EksDump);
        let content = read_bytes(&dump, "lambda.json", packed.clone().into_bytes());
        let whole = content
            .records
            .iter()
            .filter(|record| !record.damaged)
            .count();
        assert_eq!(whole, (16 << 20) / events[0].len(), "{pad}");
        let kept = content.records.last().unwrap();
        assert!(kept.damaged && kept.payload == packed, "{pad}");
        let kept = vec![(kept.payload.to_vec(), true, true)];
        assert!(
            matches!(&convert(kept)[..], [Outcome::Reject { .. }]),
            "{pad}"
        );
    }
}

#[test]
fn dump_of_two_concatenated_formats_is_read() {
    let mut text = fixture("tail-short.txt");
    text.extend_from_slice(&fixture("tail-detailed.txt"));
    let outcomes = convert(split(&text, None, 1000));
    assert_eq!(events(&outcomes).len(), 6);
}

#[test]
fn dump_container_members_reach_their_events() {
    let event = r#"{"id":"1","timestamp":1,"message":"x"}"#;
    let bring = |piece: &str, context: &PieceContext| {
        EksDump
            .record(Raw::parse(piece).unwrap(), context)
            .unwrap()
            .into_owned()
    };
    let quoted = |text: &str| format!("\"{text}\"");
    let data = PieceContext::new([
        ("messageType", quoted("DATA_MESSAGE")),
        ("logStream", quoted("s\\u0061")),
    ]);
    assert_eq!(
        bring(event, &data),
        r#"{"logStreamName":"sa","id":"1","timestamp":1,"message":"x"}"#
    );
    assert_eq!(
        bring("\"x\"", &data),
        r#"{"logStreamName":"sa","message":"x"}"#
    );
    let control = PieceContext::new([
        ("logStream", quoted("")),
        ("messageType", quoted("CONTROL_MESSAGE")),
    ]);
    assert_eq!(
        bring(event, &control),
        r#"{"messageType":"CONTROL_MESSAGE","id":"1","timestamp":1,"message":"x"}"#
    );
    let piece = Raw::parse(event).unwrap();
    assert!(matches!(
        EksDump.record(piece, &PieceContext::empty()),
        Ok(Cow::Borrowed(_))
    ));
    for native in [
        r#"{"kind":"Event"}"#,
        "{}",
        r#"{"logStreamName":"s","message":"x"}"#,
    ] {
        assert_eq!(bring(native, &data), native);
    }
}

proptest! {
    #[test]
    fn dump_any_text_in_any_chunks_is_taken_whole(
        shape in prop::sample::select(vec![TAIL, TABLE, CSV, MESSAGES]),
        parts in prop::collection::vec(prop::sample::select(vec![
            "2026-03-05T09:15:02Z ", "2026-03-05T09:15:02.000000+00:00 s ", "EVENTS\t1\t1772702102001\ts\t", "\t1772702102001\n",
            "\n", "\r\n", "\"", "\"\"", ",", "@message", "{}", "{\"a\":1}", "\t", "x", "ü", " ",
        ]), 0..40),
        bytes: Vec<u8>,
        chunk in 1usize..30,
    ) {
        let mut text = parts.concat().into_bytes();
        text.extend_from_slice(&bytes);
        prop_assert_eq!(split(&text, Some(shape), chunk), split(&text, Some(shape), text.len().max(1)));
    }
}

proptest! {
    /// The rules of the `csv` crate: line ends and quotes within quotes, unquoted cells, missing
    /// cells, LF and CRLF.
    #[test]
    fn csv_rows_in_any_chunks_give_what_was_written(
        messages in prop::collection::vec("[ab\",\r\n\u{e9}]{0,12}", 0..8),
        ends in prop::sample::select(vec!["\n", "\r\n"]),
        last in any::<bool>(),
        chunk in 1_usize..64,
    ) {
        let quoted = |cell: &String| format!("s,\"{}\"", cell.replace('"', "\"\""));
        let rows = std::iter::once("@logStream,@message".to_owned()).chain(messages.iter().map(quoted));
        let mut text = rows.collect::<Vec<_>>().join(ends);
        if last {
            text.push_str(ends);
        }
        let pieces = split(text.as_bytes(), Some(CSV), chunk);
        let want: Vec<Owned> = messages.iter().map(|message| {
            let mut bytes = b"{\"logStreamName\":\"s\",\"message\":".to_vec();
            audit_bridge_core::event::json::write_string(&mut bytes, message);
            bytes.push(b'}');
            (bytes, false, true)
        }).collect();
        prop_assert_eq!(pieces, want);
    }

    #[test]
    fn csv_cut_anywhere_gives_the_rows_before_and_at_most_one_damaged(cut in 0_usize..60, chunk in 1_usize..9) {
        let text = "@message\n\"{\"\"a\"\":\n1}\"\nb\n\"c,\"\"\"\n\"dd\"\"d\"\n\r\ne\n";
        let text = &text[..cut.min(text.len())];
        let pieces = split(text.as_bytes(), Some(CSV), chunk);
        let damaged = pieces.iter().filter(|(_, damaged, _)| *damaged).count();
        let quotes = text.bytes().filter(|&byte| byte == b'"').count();
        prop_assert_eq!(damaged, quotes % 2, "{}", text);
    }
}
