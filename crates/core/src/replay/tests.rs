//! Content that is in memory already.

use super::dump::{Context, Role, Split};
use super::*;

/// Records are objects with an `id`.
struct Plain;

impl Dump for Plain {
    fn shapes(&self) -> &'static [Shape] {
        &[Shape {
            name: "plain",
            about: "objects with an id",
            json: true,
        }]
    }

    fn role(&self, key: &str) -> Role {
        match key {
            "id" => Role::Record,
            "records" => Role::Records,
            _ => Role::Neutral,
        }
    }

    fn record<'a>(&self, piece: Raw<'a>, _: &Context) -> Result<Cow<'a, str>, String> {
        Ok(piece.text().into())
    }

    fn recognises(&self, _: Raw<'_>) -> bool {
        false
    }

    fn text_split(&self, _: Option<&str>, _: &str) -> Option<Box<dyn Split>> {
        None
    }
}

fn page(content: &str) -> Page {
    let dump: Arc<dyn Dump> = Arc::new(Plain);
    read_bytes(&dump, "message", content.into())
}

#[test]
fn a_message_gives_its_records() {
    let page = page(r#"{"records":[{"id":1},{"id":2}, oops]}"#);
    let got: Vec<_> = page
        .records
        .iter()
        .map(|record| {
            let payload = String::from_utf8_lossy(&record.payload).into_owned();
            (record.origin.to_string(), payload, record.damaged)
        })
        .collect();
    let want = [
        (1, r#"{"id":1}"#, false),
        (2, r#"{"id":2}"#, false),
        (3, "oops", true),
    ];
    let want = want
        .map(|(n, payload, damaged)| (format!("message: record {n}"), payload.to_owned(), damaged));
    assert_eq!(got, want);
    assert_eq!(page.problems, []);
}

#[test]
fn a_message_of_no_known_shape_is_a_problem() {
    let foreign = page("hello");
    assert_eq!(foreign.records, []);
    assert_eq!(foreign.problems.len(), 1);
    assert_eq!(foreign.problems[0].place, "message");
    let error = &foreign.problems[0].error;
    assert!(
        error.contains("\"hello\"") && error.contains("objects with an id"),
        "{error}"
    );
    let cut = page(r#"{"records":[{"id":1},"#);
    assert_eq!((cut.records.len(), cut.problems.len()), (1, 1));
    let empty = page(" \n");
    assert_eq!((empty.records.len(), empty.problems.len()), (0, 0));
}
