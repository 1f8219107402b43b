//! A JSON text as a map of its values, for comparing what general parsers refuse: nesting of any
//! depth, duplicate keys, invalid UTF-8, numbers that fit no type.

use std::collections::BTreeMap;
use std::ops::Bound;

/// The values of a text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leaves {
    /// By JSON pointer: strings with a leading quotation mark, other values as written, `{}` and
    /// `[]` if empty. Of duplicate keys the last.
    pub values: BTreeMap<String, String>,
    /// Number of values that a later one of the same key replaced.
    pub doubles: usize,
    /// Depth of nested containers.
    pub depth: usize,
    /// Whether the text is UTF-8 without lone surrogates.
    pub is_unicode: bool,
}

struct Container {
    /// The length of its own path.
    path: usize,
    /// The next element's index; `None` in an object.
    index: Option<usize>,
    is_empty: bool,
}

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
    path: String,
    containers: Vec<Container>,
    leaves: Leaves,
}

impl Leaves {
    /// Parses a text.
    ///
    /// # Panics
    /// The structure is broken.
    pub fn of(text: &[u8]) -> Leaves {
        let mut reader = Reader {
            text,
            at: 0,
            path: String::new(),
            containers: Vec::new(),
            leaves: Leaves {
                is_unicode: true,
                ..Leaves::default()
            },
        };
        while reader.next_byte().is_some() {
            reader.step();
        }
        assert!(reader.containers.is_empty(), "the text ends too early");
        reader.leaves
    }

    /// The string or the raw text at a place.
    pub fn get(&self, place: &str) -> Option<&str> {
        let value = self.values.get(place)?;
        Some(value.strip_prefix('"').unwrap_or(value))
    }

    /// The elements of the list at a place; properties of the whole text are copied to each.
    pub fn elements(&self, place: &str) -> Vec<Leaves> {
        let mut all: BTreeMap<usize, Leaves> = BTreeMap::new();
        let below = format!("{place}/");
        for (path, value) in self.values.range(below.clone()..) {
            let Some(rest) = path.strip_prefix(&below) else {
                break;
            };
            let (number, rest) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let element = all.entry(number.parse().unwrap_or(usize::MAX));
            let element = element.or_insert_with(|| Leaves {
                values: BTreeMap::new(),
                ..*self
            });
            element.values.insert(rest.to_owned(), value.clone());
        }
        all.into_values().collect()
    }

    /// Removes a place and everything below it; returns whether there was anything.
    pub fn remove(&mut self, place: &str) -> bool {
        let below = format!("{place}/");
        let inner = self.values.range(below.clone()..);
        let inner = inner.take_while(|(path, _)| path.starts_with(&below));
        let mut gone: Vec<String> = inner.map(|(path, _)| path.clone()).collect();
        gone.extend(
            self.values
                .get_key_value(place)
                .map(|(path, _)| path.clone()),
        );
        for path in &gone {
            self.values.remove(path);
        }
        !gone.is_empty()
    }

    /// The places where the two differ.
    pub fn differences<'a>(&'a self, other: &'a Leaves) -> Vec<Difference<'a>> {
        let of = |leaves: &'a Leaves, path: &str| leaves.values.get(path).map(String::as_str);
        let mut paths: Vec<&str> = self.values.keys().map(String::as_str).collect();
        paths.extend(other.values.keys().map(String::as_str));
        paths.sort_unstable();
        paths.dedup();
        paths
            .into_iter()
            .map(|place| Difference {
                place,
                here: of(self, place),
                there: of(other, place),
            })
            .filter(|difference| difference.here != difference.there)
            .collect()
    }
}

impl FromIterator<(String, String)> for Leaves {
    fn from_iter<T: IntoIterator<Item = (String, String)>>(values: T) -> Leaves {
        Leaves {
            values: values.into_iter().collect(),
            is_unicode: true,
            ..Leaves::default()
        }
    }
}

/// A place where two texts differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Difference<'a> {
    /// A JSON pointer.
    pub place: &'a str,
    /// The value in this text.
    pub here: Option<&'a str>,
    /// The value in the other.
    pub there: Option<&'a str>,
}

impl Reader<'_> {
    /// The next byte that is no whitespace.
    fn next_byte(&mut self) -> Option<u8> {
        while self.text.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
        self.text.get(self.at).copied()
    }

    /// Reads a value, or the beginning or end of a container.
    fn step(&mut self) {
        match self.text[self.at] {
            b',' => self.at += 1,
            b'}' | b']' => self.leave(),
            _ => {
                self.name();
                match self.next_byte() {
                    Some(open @ (b'{' | b'[')) => self.enter(open),
                    Some(b'"') => {
                        let value = format!("\"{}", self.string());
                        self.value(value);
                    }
                    _ => self.scalar(),
                }
            }
        }
    }

    /// Appends the member's or element's name to the path.
    fn name(&mut self) {
        let Some(container) = self.containers.last_mut() else {
            return;
        };
        container.is_empty = false;
        self.path.truncate(container.path);
        if let Some(index) = &mut container.index {
            self.path.push_str(&format!("/{index}"));
            *index += 1;
            return;
        }
        let name = self.string();
        assert_eq!(self.next_byte(), Some(b':'), "no colon at {}", self.at);
        self.at += 1;
        self.path.push('/');
        self.path
            .push_str(&name.replace('~', "~0").replace('/', "~1"));
        let from = (Bound::Included(self.path.as_str()), Bound::Unbounded);
        let mut behind = self.leaves.values.range::<str, _>(from);
        let may_be_there = behind
            .next()
            .is_some_and(|(path, _)| path.starts_with(&self.path));
        if may_be_there {
            self.leaves.doubles += usize::from(self.leaves.remove(&self.path));
        }
    }

    fn enter(&mut self, open: u8) {
        self.at += 1;
        self.containers.push(Container {
            path: self.path.len(),
            index: (open == b'[').then_some(0),
            is_empty: true,
        });
        self.leaves.depth = self.leaves.depth.max(self.containers.len());
    }

    fn leave(&mut self) {
        self.at += 1;
        let Some(container) = self.containers.pop() else {
            unreachable!("closed at {} what is not open", self.at);
        };
        self.path.truncate(container.path);
        if container.is_empty {
            let empty = if container.index.is_some() {
                "[]"
            } else {
                "{}"
            };
            self.value(empty.to_owned());
        }
    }

    fn value(&mut self, value: String) {
        self.leaves.values.insert(self.path.clone(), value);
    }

    fn scalar(&mut self) {
        let rest = &self.text[self.at..];
        let ends = |byte: &u8| b",]} \t\r\n".contains(byte);
        let length = rest.iter().position(ends).unwrap_or(rest.len());
        assert_ne!(length, 0, "no value at {}", self.at);
        let value = String::from_utf8_lossy(&rest[..length]).into_owned();
        self.at += length;
        self.value(value);
    }

    fn string(&mut self) -> String {
        assert_eq!(self.next_byte(), Some(b'"'), "no string at {}", self.at);
        self.at += 1;
        let (mut all, mut run) = (String::new(), Vec::new());
        loop {
            let Some(&byte) = self.text.get(self.at) else {
                unreachable!("the text ends within a string");
            };
            self.at += 1;
            match byte {
                b'"' => break,
                b'\\' => {
                    self.unicode(&mut all, &mut run);
                    self.escape(&mut all);
                }
                byte => run.push(byte),
            }
        }
        self.unicode(&mut all, &mut run);
        all
    }

    /// Appends bytes; each one that is no UTF-8 becomes U+FFFD, as in Go.
    fn unicode(&mut self, all: &mut String, run: &mut Vec<u8>) {
        for chunk in run.utf8_chunks() {
            all.push_str(chunk.valid());
            self.leaves.is_unicode &= chunk.invalid().is_empty();
            all.extend(chunk.invalid().iter().map(|_| '\u{fffd}'));
        }
        run.clear();
    }

    fn escape(&mut self, all: &mut String) {
        let kind = self.text.get(self.at).copied().unwrap_or_default();
        self.at += 1;
        all.push(match kind {
            b'n' => '\n',
            b't' => '\t',
            b'r' => '\r',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'u' => {
                let first = self.unit();
                let low =
                    (0xd800..0xdc00).contains(&first) && self.text[self.at..].starts_with(b"\\u");
                let second = low.then(|| {
                    self.at += 2;
                    self.unit()
                });
                self.pair(first, second)
            }
            other => char::from(other),
        });
    }

    fn unit(&mut self) -> u16 {
        let digits = self.text.get(self.at..self.at + 4).unwrap_or_default();
        self.at += 4;
        let digits = std::str::from_utf8(digits).unwrap_or_default();
        match u16::from_str_radix(digits, 16) {
            Ok(unit) => unit,
            Err(error) => unreachable!("\\u{digits}: {error}"),
        }
    }

    fn pair(&mut self, first: u16, second: Option<u16>) -> char {
        let decoded = char::decode_utf16([first].into_iter().chain(second)).next();
        match decoded {
            Some(Ok(found)) if second.is_none() || found > '\u{ffff}' => found,
            _ => {
                self.leaves.is_unicode = false;
                // What follows half a pair is read by itself.
                if second.is_some() {
                    self.at -= 6;
                }
                '\u{fffd}'
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(text: &[u8]) -> Vec<(String, String)> {
        Leaves::of(text).values.into_iter().collect()
    }

    fn pairs(want: &[(&str, &str)]) -> Vec<(String, String)> {
        let own = |(path, value): &(&str, &str)| ((*path).to_owned(), (*value).to_owned());
        want.iter().map(own).collect()
    }

    #[test]
    fn leaves_of_any_value_have_their_place() {
        let text =
            br#" { "a" : [ 1e400 , "x\"\u00fc\ud83d\ude00" , [ ] , { } ] , "b/c~" : null } "#;
        let want = [
            ("/a/0", "1e400"),
            ("/a/1", "\"x\"\u{fc}\u{1f600}"),
            ("/a/2", "[]"),
            ("/a/3", "{}"),
            ("/b~1c~0", "null"),
        ];
        assert_eq!(values(text), pairs(&want));
    }

    #[test]
    fn leaves_duplicate_key_keeps_the_last_whole() {
        let leaves = Leaves::of(br#"{"r":[1,2,{"x":1}],"\u0072":[3],"rr":0}"#);
        assert_eq!(leaves.doubles, 1);
        let all: Vec<_> = leaves.values.into_iter().collect();
        assert_eq!(all, pairs(&[("/r/0", "3"), ("/rr", "0")]));
    }

    #[test]
    fn leaves_invalid_unicode_is_replaced_and_reported() {
        for text in [&b"[\"a\xe2\x82b\"]"[..], br#"["a\ud800\ud800b"]"#] {
            let leaves = Leaves::of(text);
            assert!(!leaves.is_unicode);
            assert_eq!(leaves.get("/0"), Some("a\u{fffd}\u{fffd}b"));
        }
        assert_eq!(
            Leaves::of(br#"["\ud800\u0041"]"#).get("/0"),
            Some("\u{fffd}A")
        );
        assert!(Leaves::of(br#"["\ud83d\ude00"]"#).is_unicode);
    }

    #[test]
    fn leaves_deep_nesting_is_read() {
        let text = format!("{}{}", "[".repeat(9000), "]".repeat(9000));
        let leaves = Leaves::of(text.as_bytes());
        assert_eq!(leaves.depth, 9000);
        assert_eq!(leaves.values.len(), 1);
    }

    #[test]
    fn leaves_difference_names_its_place() {
        let (here, there) = (br#"{"a":1,"b":2}"#, br#"{"a":1,"b":3,"c":4}"#);
        let (here, there) = (Leaves::of(here), Leaves::of(there));
        let found = here.differences(&there);
        let places: Vec<_> = found
            .iter()
            .map(|it| (it.place, it.here, it.there))
            .collect();
        assert_eq!(
            places,
            [("/b", Some("2"), Some("3")), ("/c", None, Some("4"))]
        );
    }
}
