use serde_json::json;

use super::*;

const DOCUMENTS: &str = "# a comment\n\
insertId: a\n\
labels:\n  reason: ''\n  text: |-\n    one\n    --- two\n  yes: no\n  octal: 0755\n  quoted: \"5\"\n  time: \"2024-01-01T01:00:00Z\"\n\
protoPayload:\n  '@type': t\n  status:\n    code: 0\n  request:\n    big: 9007199254740993\n    half: 0.5\n    nothing: null\n    tilde: ~\n    flag: true\n\
timestamp: 2024-01-01T01:00:00Z\n\
---\n\
insertId: b\n\
---\n\
---\n\
insertId: [broken\n\
---\n\
insertId: d";

fn pieces(text: &str, chunk: usize) -> Vec<(String, bool)> {
    let mut split = YamlSplit::default();
    let mut out = Vec::new();
    let mut buffer = Vec::new();
    let mut piece = |piece: Piece<'_>| {
        let text = String::from_utf8(piece.bytes.into_owned()).expect("utf-8");
        out.push((text, piece.damaged));
    };
    for bytes in text.as_bytes().chunks(chunk) {
        buffer.extend_from_slice(bytes);
        let taken = split.split(&buffer, false, &mut piece);
        buffer.drain(..taken);
    }
    let taken = split.split(&buffer, true, &mut piece);
    assert_eq!(taken, buffer.len());
    out
}

#[test]
fn yaml_documents_in_any_chunks_are_read() {
    let found = pieces(DOCUMENTS, usize::MAX);
    let first: Value = serde_json::from_str(&found[0].0).expect("json");
    assert_eq!(
        first,
        json!({
            "insertId": "a",
            "labels": {"reason": "", "text": "one\n--- two", "yes": "no", "octal": "0755", "quoted": "5", "time": "2024-01-01T01:00:00Z"},
            "protoPayload": {"@type": "t", "status": {"code": 0},
                "request": {"big": 9_007_199_254_740_993_i64, "half": 0.5, "nothing": null, "tilde": null, "flag": true}},
            "timestamp": "2024-01-01T01:00:00Z"
        })
    );
    let rest: Vec<_> = found[1..]
        .iter()
        .map(|(text, damaged)| (text.as_str(), *damaged))
        .collect();
    assert_eq!(
        rest,
        [
            (r#"{"insertId":"b"}"#, false),
            ("---\ninsertId: [broken", true),
            (r#"{"insertId":"d"}"#, false)
        ]
    );
    for chunk in 1..40 {
        assert_eq!(pieces(DOCUMENTS, chunk), found, "{chunk}");
    }
    let crlf = DOCUMENTS.replace('\n', "\r\n");
    assert_eq!(pieces(&crlf, 7).len(), found.len());
}

#[test]
fn yaml_list_is_split_at_its_elements() {
    let text = "---\n# entries\n- insertId: a\n  list:\n  - x\n  - y\n- insertId: b\n-\n  insertId: c\n---\nerrorGroups:\n- id: x\n- id: y\ninsertId: d\n";
    let want = [
        r#"{"insertId":"a","list":["x","y"]}"#,
        r#"{"insertId":"b"}"#,
        r#"{"insertId":"c"}"#,
        r#"{"errorGroups":[{"id":"x"},{"id":"y"}],"insertId":"d"}"#,
    ];
    for chunk in [1, 3, 10, 1000] {
        let found: Vec<_> = pieces(text, chunk)
            .into_iter()
            .map(|piece| piece.0)
            .collect();
        assert_eq!(found, want, "{chunk}");
    }
    // The output of gcloud for pulled messages.
    let data = "eyJpbnNlcnRJZCI6ImEifQ==";
    let found = pieces(&format!("- ackId: x\n  message:\n    data: {data}\n"), 9);
    assert_eq!(found, [(r#"{"insertId":"a"}"#.to_owned(), false)]);
    assert!(pieces("# nothing\n---\n...\n", 5).is_empty());
}

#[test]
fn yaml_entry_too_large_is_dropped_up_to_the_next() {
    for chunk in 1..30 {
        let mut split = YamlSplit::default();
        let mut found = Vec::new();
        let mut piece = |piece: Piece<'_>| found.push(piece.bytes.into_owned());
        let head = b"insertId: huge\ntext: xxxxxx";
        assert_eq!(split.split(head, false, &mut piece), 0);
        assert_eq!(split.overflow(head, &mut piece), None);
        let mut buffer = Vec::new();
        for bytes in
            b"--- yyy\nmore: |\n  zzz\n---\ninsertId: next\n---\ninsertId: last\n".chunks(chunk)
        {
            buffer.extend_from_slice(bytes);
            let taken = split.split(&buffer, false, &mut piece);
            buffer.drain(..taken);
        }
        assert_eq!(split.split(&buffer, true, &mut piece), buffer.len());
        assert_eq!(
            found,
            [&br#"{"insertId":"next"}"#[..], br#"{"insertId":"last"}"#],
            "{chunk}"
        );
    }
}
