//! Files through the reader and the JSON splitter, with a minimal provider.

use std::borrow::Cow;
use std::io::Cursor;

use audit_bridge_core::event::json::{Raw, ValueKind};
use proptest::prelude::*;

use super::*;
use crate::dump::{PieceContext, RecordError, Role};

/// Records are objects with an `id`. Containers hold them in `events`, with the name of a `stream`.
/// A string is a record; `@id` marks a wrapped one.
struct Plain;

impl Dump for Plain {
    fn shapes(&self) -> &'static [Shape] {
        &[]
    }

    fn role(&self, key: &str) -> Role {
        match key {
            "id" => Role::Record,
            "events" => Role::Records,
            "@id" => Role::Wrapped,
            _ => Role::Neutral,
        }
    }

    fn context_names(&self) -> &'static [&'static str] {
        &["stream"]
    }

    fn record<'a>(
        &self,
        piece: Raw<'a>,
        context: &PieceContext,
    ) -> Result<Cow<'a, str>, RecordError> {
        match (context.str("stream"), piece.get("@id")) {
            (Some(stream), _) => Ok(format!("{stream}:{}", piece.text()).into()),
            (None, Some(id)) => Ok(format!("{{\"id\":{}}}", id.text()).into()),
            _ => Ok(piece.text().into()),
        }
    }

    fn recognises(&self, piece: Raw<'_>) -> bool {
        piece.kind() == ValueKind::String
    }

    fn text_split(&self, _: Option<&str>, _: &str) -> Option<Box<dyn Splitter>> {
        None
    }
}

/// Returns its bytes in chunks of one size.
struct Chunks(Cursor<Vec<u8>>, usize);

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(self.1);
        self.0.read(&mut buffer[..most])
    }
}

/// The pieces of a file, with `!` before those from damaged places, and the result.
fn pieces(text: &[u8], chunk: usize) -> (Vec<String>, Result<(), String>) {
    pieces_up_to(RECORD_BYTES_MAX, text, chunk)
}

/// The same with another limit of a record's size.
fn pieces_up_to(
    record_bytes_max: usize,
    text: &[u8],
    chunk: usize,
) -> (Vec<String>, Result<(), String>) {
    let mut all = Vec::new();
    let content = Box::new(Chunks(Cursor::new(text.to_vec()), chunk));
    let input = Input::new(content, record_bytes_max);
    let dump: Arc<dyn Dump> = Arc::new(Plain);
    let mut receive = Pieces(|found: Found<'_>| {
        all.push(match found {
            Found::Piece(piece) => {
                let mark = if piece.damaged { "!" } else { "" };
                format!("{mark}{}", String::from_utf8_lossy(&piece.bytes))
            }
            Found::TooLarge(head) => format!("too large: {}", head.len()),
        });
        true
    });
    let result = read_from(input, &dump, None, &mut receive);
    (
        all,
        result.map_err(|stop| match stop {
            Unreadable::Io(error) => error.to_string(),
            Unreadable::Shape(what) => what,
            Unreadable::Cut(place) => place.to_owned(),
            Unreadable::Closed => "closed".to_owned(),
        }),
    )
}

#[track_caller]
fn check(text: &str, want: &[&str]) {
    for chunk in [usize::MAX, 1, 7, 64] {
        let (got, result) = pieces(text.as_bytes(), chunk);
        assert_eq!(got, want, "{text} in chunks of {chunk}");
        assert_eq!(result, Ok(()), "{text}");
    }
}

#[test]
fn records_in_every_arrangement_are_found() {
    let both = [r#"{"id":1}"#, r#"{"id":2}"#];
    check("{\"id\":1}\n{\"id\":2}\n", &both);
    check("\u{feff}{\"id\":1}\r\n\r\n{\"id\":2}", &both);
    check("\u{feff}{\"id\":1}\n\u{feff}{\"id\":2}\n", &both);
    check("[{\"id\":1}]\n\u{feff}\u{feff}[{\"id\":2}]\u{feff}", &both);
    check("{\"id\":1}\n\0\0\0{\"id\":2}\n\0", &both);
    check("{\"id\":1}{\"id\":2}", &both);
    check("\u{1e}{\"id\":1}\n\u{1e}{\"id\":2}\n", &both);
    check("[{\"id\":1},{\"id\":2}]", &both);
    check(" [\n  {\"id\":1},\n  {\"id\":2}\n]\n", &both);
    check("{\"events\":[{\"id\":1},{\"id\":2}],\"next\":\"x\"}", &both);
    check(
        "{\"a\":{\"events\":[]},\"events\": [ {\"id\":1} ] ,\"n\":1, \"events\":[{\"id\":2}]}",
        &both,
    );
    check("{\"events\":[{\"id\":1}]}{\"events\":[{\"id\":2}]}", &both);
    check(
        "[{\"events\":[{\"id\":1}]},{\"events\":[{\"id\":2}]}]",
        &both,
    );
    check("{\"events\":[{\"id\":1}]}\n{\"id\":2}", &both);
    check("{\"events\":[{\"@id\":1},{\"id\":2}]}", &both);
    check(
        "{\n    \"id\": 1\n}\n{\n    \"id\": 2\n}\n",
        &["{\n    \"id\": 1\n}", "{\n    \"id\": 2\n}"],
    );
    check(
        "{\n\"events\": [\n{\n\"id\": [\n{\n}\n]\n}\n]\n}",
        &["{\n\"id\": [\n{\n}\n]\n}"],
    );
    check(r#"["a","b\"]"]"#, &[r#""a""#, r#""b\"]""#]);
    check(
        r#"{"stream":"s","events":[{"id":1}],"stream":"t"}"#,
        &[r#"s:{"id":1}"#],
    );
    check("[]", &[]);
    check("{\"events\":[]}", &[]);
    check("  \n", &[]);
    check("", &[]);
}

#[test]
fn dead_letter_is_read_as_a_shape() {
    let line = |payload: &str| {
        format!(r#"{{"time":"t","provider":"p","reason":"r","error":"e","source":{{}},{payload}}}"#)
    };
    check(&line(r#""payload":{"id":1}"#), &[r#"!{"id":1}"#]);
    check(&line(r#""payload":{"@id":1}"#), &[r#"!{"id":1}"#]);
    check(&line(r#""payload":"cut {\"id\"""#), &[r#"!cut {"id""#]);
    check(&line(r#""payload_base64":"/2E=""#), &["!\u{fffd}a"]);
}

#[test]
fn file_damaged_loses_the_damaged_record_only() {
    let good = r#"{"id":9}"#;
    for broken in [
        r#"{"id":1"#,
        r#"{"id":"1}"#,
        r#"{"id":1,"a":[{"b":2}"#,
        r#"{"id":1,"a":"#,
        r#"{"id":1,"a":["#,
        r#"{"id":1,"a":[1,"#,
        "garbage",
        "\u{1}\u{0}",
    ] {
        check(
            &format!("{good}\n{broken}\n{good}\n{good}\n"),
            &[good, &format!("!{broken}"), good, good],
        );
        check(&format!("{good}\n{broken}"), &[good, &format!("!{broken}")]);
    }
    // In a pretty array, the next record starts at the same indent.
    check(
        "[\n  {\n    \"id\": 1,\n    \"a\": \"x\n  },\n  {\n    \"id\": 2\n  }\n]",
        &[
            "!{\n    \"id\": 1,\n    \"a\": \"x\n  },",
            "{\n    \"id\": 2\n  }",
        ],
    );
    // On one line, it starts with the same member.
    check(
        r#"[{"id":1},{"id":"2},{"id":3},{"id":4}]"#,
        &[
            r#"{"id":1}"#,
            r#"!{"id":"2},"#,
            r#"{"id":3}"#,
            r#"{"id":4}"#,
        ],
    );
    check(
        r#"[{"id":1},{"id":[2},{"id":3},{"id":4}]"#,
        &[
            r#"{"id":1}"#,
            r#"!{"id":[2},"#,
            r#"{"id":3}"#,
            r#"{"id":4}"#,
        ],
    );
}

/// A line that is torn costs only the records on it, wherever the line and the tear are.
#[test]
fn line_torn_at_any_byte_costs_no_other() {
    let torn = r#"{"id":1,"a":{"b":[{"c":"d\"{"},2]},"e":[[{}],"f"]}"#;
    let good: Vec<String> = (2..6)
        .map(|n| format!(r#"{{"id":{n},"a":[{{"b":1}}]}}"#))
        .collect();
    let lines = good.join("\n");
    let page = |records: &[&str]| format!(r#"{{"events":[{}]}}"#, records.join(","));
    let pages = [page(&[&good[0], &good[1]]), page(&[&good[2], &good[3]])].join("\n");
    for cut in 1..torn.len() {
        let torn = &torn[..cut];
        let page_of = |before: &str| format!(r#"{{"events":[{before}{torn}"#);
        for (line, rest) in [
            (torn.to_owned(), &lines),
            (format!(" {torn}"), &lines),
            (format!("   \t{torn}"), &lines),
            (format!(r#"{{"id":7}}{torn}"#), &lines),
            (format!("{{}}{torn}"), &lines),
            (format!(r#"{{"id":7}}, {torn}"#), &lines),
            (page_of(""), &pages),
            (page_of(r#"{"id":7},"#), &pages),
            (page_of(r#"{"id":7}, "#), &pages),
        ] {
            let text = format!(r#"{{"id":8}}{}{line}{}{rest}{}"#, "\n", "\n", "\n");
            for chunk in [usize::MAX, 64] {
                let (got, _) = pieces(text.as_bytes(), chunk);
                for good in &good {
                    assert!(got.contains(good), "{good} is lost behind {line}: {got:?}");
                }
            }
        }
    }
}

#[test]
fn file_cut_off_is_reported() {
    let (got, result) = pieces(br#"{"events":[{"id":1},{"id":2}"#, 10);
    assert_eq!(got, [r#"{"id":1}"#, r#"{"id":2}"#]);
    assert!(result.unwrap_err().contains("inside an array"));
    let (got, result) = pieces(br#"{"events":[{"id":1}],"next":"ab"#, 10);
    assert_eq!(got, [r#"{"id":1}"#]);
    assert!(result.unwrap_err().contains("object around"));
}

#[test]
fn file_of_unknown_shape_is_named() {
    for (text, seen) in [
        (&b"{\"kind\":0}"[..], "a json object with \"kind\""),
        (b"[1,2]", "text that begins with \"1,2\""),
        (b"{}", "an empty json object"),
        (b"hello world", "text that begins with \"hello world\""),
        (
            b"\x89PNG\r\n\x1a\n\x00\x00",
            "binary data that begins with 89 50 4e 47",
        ),
        (b"\xff\xfe{\x00", "UTF-16"),
    ] {
        let (got, result) = pieces(text, 1000);
        assert_eq!(got, Vec::<String>::new());
        let error = result.unwrap_err();
        assert!(error.contains(seen), "{error}");
    }
}

#[test]
fn foreign_values_beside_records_are_kept() {
    check(
        "{\"a\":1}\n{\"id\":1}\n{\"b\":1}",
        &["{\"a\":1}", "{\"id\":1}", "{\"b\":1}"],
    );
}

#[test]
fn file_with_many_foreign_values_first_is_refused() {
    let file = |strangers: usize| "{\"a\":1}\n".repeat(strangers) + "{\"id\":1}\n";
    for chunk in [usize::MAX, 1, 7] {
        let (got, result) = pieces(file(UNRECOGNISED_PIECES_MAX - 1).as_bytes(), chunk);
        assert_eq!(got.len(), UNRECOGNISED_PIECES_MAX, "chunk {chunk}");
        assert_eq!(result, Ok(()));
        for strangers in [UNRECOGNISED_PIECES_MAX, UNRECOGNISED_PIECES_MAX + 9] {
            let (got, result) = pieces(file(strangers).as_bytes(), chunk);
            assert_eq!(got, Vec::<String>::new(), "chunk {chunk}");
            assert!(result.unwrap_err().contains("\"a\""));
        }
    }
}

#[test]
fn record_above_limit_takes_no_memory_and_no_neighbours() {
    let huge = format!(
        "{{\"id\":1}}\n{{\"id\":\"{}\\\"}}\"}}\n{{\"id\":2}}\n",
        "x".repeat(40 << 20)
    );
    let (got, result) = pieces(huge.as_bytes(), 1 << 20);
    assert_eq!(
        got,
        [
            "{\"id\":1}".to_owned(),
            format!("too large: {RECORD_BYTES_MAX}"),
            "{\"id\":2}".to_owned()
        ]
    );
    assert_eq!(result, Ok(()));
    // The same for text that is no JSON, and for a string.
    let too_large = format!("too large: {RECORD_BYTES_MAX}");
    let garbage = format!(
        "{{\"id\":1}}\n{}\n{{\"id\":2}}\n",
        "garbage ".repeat(4 << 20)
    );
    let (got, result) = pieces(garbage.as_bytes(), 1 << 20);
    assert_eq!(got, ["{\"id\":1}", &too_large, "{\"id\":2}"]);
    assert_eq!(result, Ok(()));
    let strings = format!("[\"a\",\"{}\\\"\",\"b\"]", "x".repeat(40 << 20));
    let (got, result) = pieces(strings.as_bytes(), 1 << 20);
    assert_eq!(got, ["\"a\"", &too_large, "\"b\""]);
    assert_eq!(result, Ok(()));
    // A missing quote in one long line must not swallow the rest of it.
    let mut line = r#"[{"id":"a},"#.to_owned();
    while line.len() < RECORD_BYTES_MAX * 2 {
        line.push_str(r#"{"id":"b"},"#);
    }
    line.push_str(r#"{"id":"c"}]"#);
    let (got, result) = pieces(line.as_bytes(), 1 << 20);
    assert_eq!(got[0], r#"!{"id":"a},"#);
    assert!(
        got[1..got.len() - 1]
            .iter()
            .all(|piece| piece == r#"{"id":"b"}"#)
    );
    assert_eq!(got.last().unwrap(), r#"{"id":"c"}"#);
    assert_eq!(result, Ok(()));
}

/// The first lines are foreign, and longer or shorter than what is read of a file at first.
#[test]
fn file_with_foreign_lines_is_read_alike_in_any_chunks() {
    for foreign in (HEAD_BYTES - 40..HEAD_BYTES + 40).chain([40_000, BUFFER_BYTES - 30]) {
        let text = format!("{}\n\"one\"\n\"two\"\n{{\"id\":1}}\n", "x".repeat(foreign));
        let (whole, result) = pieces(text.as_bytes(), usize::MAX);
        assert_eq!(
            whole.last().map(String::as_str),
            Some("{\"id\":1}"),
            "{foreign}"
        );
        for chunk in [1, 64, 129, 4096] {
            let pieced = pieces(text.as_bytes(), chunk);
            let alike = (&whole, &result) == (&pieced.0, &pieced.1);
            assert!(alike, "{foreign} in chunks of {chunk}");
        }
    }
}

/// A writer that was killed leaves half a line, and the next one goes on behind it.
#[test]
fn record_glued_to_a_torn_one_is_found() {
    let torn = r#"{"id":1,"a":{"b":[{"c":"d\"{é\u00e9"},2.5]},"e":[[true],"f"]}"#;
    let glued = r#"{"id":2,"a":{"b":["x"]}}"#;
    let mut lost = Vec::new();
    for cut in (1..torn.len()).filter(|&cut| torn.is_char_boundary(cut)) {
        let torn = &torn[..cut];
        let text = format!("{{\"id\":8}}\n{torn}{glued}\n{{\"id\":9}}\n");
        for chunk in [usize::MAX, 64] {
            let (got, result) = pieces(text.as_bytes(), chunk);
            assert_eq!(result, Ok(()), "{torn}");
            assert_eq!(got.first().map(String::as_str), Some("{\"id\":8}"));
            assert_eq!(got.last().map(String::as_str), Some("{\"id\":9}"), "{torn}");
            if !got.iter().any(|piece| piece == glued) {
                lost.push(torn);
            }
        }
    }
    // Where a value may stand, it may be one of the torn record. What has no first member shows
    // nothing that the other one might begin with.
    let may_be_lost = |torn: &&str| torn.ends_with([':', '[', ',']) || torn.len() < 5;
    assert!(lost.iter().all(may_be_lost), "{lost:?}");
    // Half a character.
    let text = [b"{\"id\":1,\"a\":\"\xc3", glued.as_bytes(), b"\n{\"id\":9}"].concat();
    let (got, _) = pieces(&text, usize::MAX);
    assert_eq!(got[1..], [glued, "{\"id\":9}"]);
    // An object that is part of a torn record is none.
    check(
        "{\"id\":1,\"a\":{\"id\":2},\"b\":tr\n{\"id\":9}\n",
        &["!{\"id\":1,\"a\":{\"id\":2},\"b\":tr", "{\"id\":9}"],
    );
}

/// Whatever a record's size, below the limit or above it, and however the file is read, its
/// neighbours pass, and so does the record up to the limit.
#[test]
fn large_record_takes_no_neighbours_in_any_chunks() {
    const NEIGHBOURS: usize = 20_000;
    let neighbour = format!(r#"{{"id":"{}"}}"#, "n".repeat(1000));
    for (before, between, after) in [
        ("", "\n", "\n"),
        ("[", ",", "]"),
        (r#"{"events":["#, ",\n", "]}"),
        ("", "", ""),
    ] {
        for sixteenths in [7, 9, 12, 15, 16, 17, 20, 24, 31, 33, 40] {
            let bytes = RECORD_BYTES_MAX / 16 * sixteenths;
            let large = format!(r#"{{"id":"{}"}}"#, "x".repeat(bytes));
            let fits = bytes + 10 < RECORD_BYTES_MAX;
            let mut text = format!("{before}{neighbour}{between}{large}");
            for _ in 0..NEIGHBOURS {
                text.push_str(between);
                text.push_str(&neighbour);
            }
            text.push_str(after);
            for chunk in [usize::MAX, 64 << 10] {
                let (got, result) = pieces(text.as_bytes(), chunk);
                let case = format!("{between:?} {sixteenths} in chunks of {chunk}");
                assert_eq!(result, Ok(()), "{case}");
                assert_eq!(got.len(), NEIGHBOURS + 2, "{case}");
                let is_whole = |at: usize| match at {
                    1 if fits => got[at] == large,
                    1 => got[at].starts_with("too large"),
                    _ => got[at] == neighbour,
                };
                assert!((0..got.len()).all(is_whole), "{case}");
            }
        }
    }
}

proptest! {
    /// Records of any size beside a limit: those below it pass whole, those above it are told, and
    /// nobody pays for another one, in whatever pieces the file is read.
    #[test]
    fn records_of_any_size_are_found_in_any_chunks(
        sizes in prop::collection::vec(prop_oneof![0..100_usize, 100..9000_usize], 1..40),
        arrangement in 0..4_usize,
        escaped in any::<bool>(),
        chunk in prop_oneof![1..200_usize, 200..9000_usize, Just(usize::MAX)],
    ) {
        const LIMIT: usize = 4096;
        let filler = if escaped { "\\\"]}" } else { "x" };
        let records: Vec<String> = sizes
            .iter()
            .enumerate()
            .map(|(number, size)| format!(r#"{{"id":"{number}{}"}}"#, filler.repeat(*size)))
            .collect();
        let (before, between, after) = [
            ("", "\n", "\n"),
            ("[", ",", "]"),
            (r#"{"events":["#, ",\n", "]}"),
            ("", "", ""),
        ][arrangement];
        let text = format!("{before}{}{after}", records.join(between));
        let (got, result) = pieces_up_to(LIMIT, text.as_bytes(), chunk);
        prop_assert_eq!(result, Ok(()));
        prop_assert_eq!(got.len(), records.len());
        for (got, record) in got.iter().zip(&records) {
            // Up to a block of the scan more may be needed to see the end.
            let told = got.starts_with("too large: ") && record.len() > LIMIT - 64;
            prop_assert!(got == record && record.len() <= LIMIT || told, "{} bytes", record.len());
        }
    }
}
