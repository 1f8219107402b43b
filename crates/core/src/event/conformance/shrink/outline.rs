//! Notes where the larger values of a text end.

use std::ops::Range;

use super::super::super::json::{Raw, Scanner, Visit, walk};

/// Smaller values are scanned again when needed.
const BYTES_MIN: usize = 64;

/// A value's range, and its index in the outline if it has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) from: usize,
    pub(super) to: usize,
    node: Option<usize>,
}

impl Span {
    pub(super) fn len(self) -> usize {
        self.to - self.from
    }
}

/// The containers and strings of at least [`BYTES_MIN`] bytes, in the order in which they begin.
#[derive(Debug, Default)]
pub(super) struct Outline {
    nodes: Vec<Node>,
}

#[derive(Debug, Clone, Copy)]
struct Node {
    from: u32,
    to: u32,
    /// The index of the first node that begins behind this one's end.
    next: u32,
}

impl Outline {
    /// The outline of one JSON value.
    pub(super) fn of(text: &str) -> Outline {
        let mut builder = Builder::default();
        // Invalid JSON gets no outline; it is scanned again.
        let _ = walk(text, &mut builder);
        Outline {
            nodes: builder.nodes,
        }
    }

    /// The whole value.
    pub(super) fn root(&self, text: &str) -> Span {
        Span {
            from: 0,
            to: text.len(),
            node: self.nodes.first().map(|_| 0),
        }
    }

    /// The members (key and value) or elements (no key) of a container.
    pub(super) fn items(
        &self,
        text: &str,
        container: Span,
    ) -> impl Iterator<Item = (Range<usize>, Span)> {
        let mut at = container.from + 1;
        let mut next = container.node.map_or(usize::MAX, |node| node + 1);
        let is_object = text.as_bytes().get(container.from) == Some(&b'{');
        std::iter::from_fn(move || {
            at = skip(text, at, b',');
            if matches!(text.as_bytes().get(at), None | Some(b'}' | b']')) {
                return None;
            }
            let mut key = at..at;
            if is_object {
                let end = at + value_len(text, at)?;
                key = at..end;
                at = skip(text, end, b':');
            }
            let from = at;
            let node = self
                .nodes
                .get(next)
                .filter(|node| node.from as usize == from);
            let span = match node {
                Some(node) => Span {
                    from,
                    to: node.to as usize,
                    node: Some(std::mem::replace(&mut next, node.next as usize)),
                },
                None => Span {
                    from,
                    to: from + value_len(text, from)?,
                    node: None,
                },
            };
            at = span.to;
            Some((key, span))
        })
    }
}

/// The offset behind whitespace and `sign`.
fn skip(text: &str, mut at: usize, sign: u8) -> usize {
    while let Some(&byte) = text.as_bytes().get(at)
        && (byte == sign || byte.is_ascii_whitespace())
    {
        at += 1;
    }
    at
}

fn value_len(text: &str, at: usize) -> Option<usize> {
    let rest = text.get(at..)?;
    Scanner::new(rest).value().ok().map(Raw::text).map(str::len)
}

#[derive(Default)]
struct Builder {
    nodes: Vec<Node>,
    open: Vec<usize>,
}

impl Builder {
    fn place(at: usize) -> u32 {
        u32::try_from(at).unwrap_or(u32::MAX)
    }
}

impl Visit for Builder {
    fn open(&mut self, at: usize, _is_object: bool) {
        self.open.push(self.nodes.len());
        self.nodes.push(Node {
            from: Builder::place(at),
            to: 0,
            next: 0,
        });
    }

    fn close(&mut self, end: usize) {
        let Some(index) = self.open.pop() else { return };
        let next = Builder::place(self.nodes.len());
        if let Some(node) = self.nodes.get_mut(index) {
            node.to = Builder::place(end);
            node.next = next;
            if end - (node.from as usize) < BYTES_MIN {
                self.nodes.truncate(index);
            }
        }
    }

    fn key(&mut self, _from: usize, _to: usize) {}

    fn scalar(&mut self, from: usize, to: usize) {
        if to - from >= BYTES_MIN {
            let next = Builder::place(self.nodes.len() + 1);
            self.nodes.push(Node {
                from: Builder::place(from),
                to: Builder::place(to),
                next,
            });
        }
    }
}
