//! Splits text whose records are one line, or a line and the lines that continue it.

use audit_bridge_replay::dump::{Piece, Splitter};

use super::lines::Lines;

/// How many bytes of a line decide whether it starts a record: enough for a time and the longest
/// name of a log stream (512 characters).
const START_BYTES: usize = 1024;

/// Recognises the records of one shape.
pub(super) trait Grammar: Send {
    /// Whether a line with this start begins a record.
    fn starts(&mut self, line: &[u8]) -> bool;

    /// Makes pieces of a group of lines. The first line starts a record, except in the group before
    /// the first record.
    fn group(&mut self, group: &[u8], piece: &mut dyn FnMut(Piece<'_>));
}

/// Splits before each line that starts a record.
#[derive(Debug, Default)]
pub(super) struct Groups<G> {
    grammar: G,
    ends: Lines,
    /// Start of the next line to examine; the group itself starts at the buffer's front.
    line: usize,
    dropping: Dropping,
}

/// What to drop of a record that was too large.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Dropping {
    #[default]
    Nothing,
    /// The rest of the line, then as for `Lines`.
    Line,
    /// Whole lines, up to one that starts a record.
    Lines,
}

impl<G: Grammar> Splitter for Groups<G> {
    fn split(&mut self, buffer: &[u8], last: bool, piece: &mut dyn FnMut(Piece<'_>)) -> usize {
        let mut taken = 0;
        if self.dropping == Dropping::Line {
            let Some(end) = self.ends.end(buffer, 0, last) else {
                self.ends = Lines::default();
                return buffer.len();
            };
            self.dropping = Dropping::Lines;
            (taken, self.line) = (end, end);
        }
        while let Some(line) = buffer.get(self.line..).filter(|line| !line.is_empty()) {
            let line = line.get(..START_BYTES).unwrap_or(line);
            if line.len() < START_BYTES && !last && !line.contains(&b'\n') {
                break;
            }
            let line = line.split(|&byte| byte == b'\n').next().unwrap_or_default();
            if self.grammar.starts(line) {
                if self.dropping == Dropping::Nothing && taken < self.line {
                    self.emit(buffer.get(taken..self.line), piece);
                }
                self.dropping = Dropping::Nothing;
                taken = self.line;
            }
            match self.ends.end(buffer, self.line, last) {
                Some(end) => self.line = end,
                None => break,
            }
            if self.dropping == Dropping::Lines {
                taken = self.line;
            }
        }
        if last {
            if taken < buffer.len() {
                self.emit(buffer.get(taken..), piece);
            }
            taken = buffer.len();
        }
        self.line = self.line.saturating_sub(taken);
        self.ends.taken(taken);
        taken
    }

    fn overflow(&mut self, buffer: &[u8], _piece: &mut dyn FnMut(Piece<'_>)) -> Option<usize> {
        self.dropping = if buffer.ends_with(b"\n") {
            Dropping::Lines
        } else {
            Dropping::Line
        };
        self.ends = Lines::default();
        self.line = 0;
        None
    }
}

impl<G: Grammar> Groups<G> {
    fn emit(&mut self, group: Option<&[u8]>, piece: &mut dyn FnMut(Piece<'_>)) {
        let group = group.unwrap_or_default();
        if !group.trim_ascii().is_empty() {
            self.grammar.group(group, piece);
        }
    }
}
