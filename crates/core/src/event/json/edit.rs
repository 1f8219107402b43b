//! Edits of a text, applied at once.

use std::borrow::Cow;
use std::ops::Range;

/// Ranges of a text and their replacements.
#[derive(Debug, Default, Clone)]
pub(crate) struct Edits {
    edits: Vec<(Range<usize>, Cow<'static, str>)>,
}

impl Edits {
    /// Replaces a range; an empty text removes it.
    pub(crate) fn replace(&mut self, range: Range<usize>, text: impl Into<Cow<'static, str>>) {
        self.edits.push((range, text.into()));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.edits.is_empty()
    }

    /// Applies all edits. Edits inside a replaced range are dropped.
    pub(crate) fn apply(mut self, text: &str) -> String {
        // A range sorts before those that it contains.
        self.edits
            .sort_by(|(a, _), (b, _)| a.start.cmp(&b.start).then(b.end.cmp(&a.end)));
        let mut out = String::with_capacity(text.len());
        let mut at = 0;
        for (range, new) in &self.edits {
            if range.start < at {
                continue;
            }
            out.push_str(text.get(at..range.start).unwrap_or_default());
            out.push_str(new);
            at = range.end;
        }
        out.push_str(text.get(at..).unwrap_or_default());
        out
    }
}
