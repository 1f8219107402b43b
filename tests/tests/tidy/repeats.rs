//! Finds runs of lines that occur in two places.

use std::collections::HashMap;
use std::fmt;

/// A file's significant lines with their numbers: without comments, `use`, lines of brackets only,
/// and tests.
pub(crate) struct Text {
    name: String,
    lines: Vec<(usize, String)>,
}

impl Text {
    pub(crate) fn new(name: &str, text: &str) -> Text {
        let mut lines = Vec::new();
        let mut within_use = false;
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
            if line == "#[cfg(test)]" {
                break;
            }
            let visibility = line.strip_prefix("pub ");
            let visibility = visibility.or_else(|| line.strip_prefix("pub(crate) "));
            let is_use = within_use || visibility.unwrap_or(&line).starts_with("use ");
            within_use = is_use && !line.ends_with(';');
            let says_nothing = line.chars().all(|c| " {}()[];,".contains(c));
            if !is_use && !says_nothing && !line.starts_with("//") {
                lines.push((number, line));
            }
        }
        Text {
            name: name.to_owned(),
            lines,
        }
    }

    fn line(&self, at: usize) -> Option<&str> {
        self.lines.get(at).map(|(_, line)| line.as_str())
    }
}

/// A run of equal lines in two places.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Repeat {
    lines: usize,
    here: String,
    there: String,
}

impl fmt::Display for Repeat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Repeat { lines, here, there } = self;
        write!(f, "{lines} lines are the same at {here} and {there}")
    }
}

/// Runs of more than `most` lines that `here` and `there` share.
pub(crate) fn repeats(here: &[Text], there: &[Text], most: usize) -> Vec<Repeat> {
    let mut places: HashMap<&str, Vec<(&Text, usize)>> = HashMap::new();
    for text in here {
        for (at, (_, line)) in text.lines.iter().enumerate() {
            places.entry(line).or_default().push((text, at));
        }
    }
    let mut found = Vec::new();
    for text in there {
        for (at, (number, line)) in text.lines.iter().enumerate() {
            for &(other, from) in places.get(line.as_str()).into_iter().flatten() {
                let begins = at == 0 || from == 0 || text.line(at - 1) != other.line(from - 1);
                let same = |n: &usize| {
                    let line = text.line(at + n);
                    line.is_some() && line == other.line(from + n)
                };
                let lines = (0..).take_while(same).count();
                if begins && lines > most {
                    found.push(Repeat {
                        lines,
                        here: format!("{}:{}", other.name, other.lines[from].0),
                        there: format!("{}:{number}", text.name),
                    });
                }
            }
        }
    }
    found
}

#[test]
fn repeats_of_more_lines_than_allowed_are_found_where_they_begin() {
    let body = "    let a = 1;\n\n    // Why.\n    let b = 2;\n}\n    let c = 3;\n";
    let here = Text::new("a", &format!("use x::{{\n    y,\n}};\nfn f() {{\n{body}"));
    let there = Text::new("b", &format!("fn g() {{\n{body}fn h() {{\n"));
    let sides = (std::slice::from_ref(&here), std::slice::from_ref(&there));
    let one = Repeat {
        lines: 3,
        here: "a:5".to_owned(),
        there: "b:2".to_owned(),
    };
    assert_eq!(repeats(sides.0, sides.1, 2), [one]);
    assert_eq!(repeats(sides.0, sides.1, 3), []);
}
