//! Finds line ends in a growing buffer.

/// Searches each byte only once.
#[derive(Debug, Clone, Default)]
pub(super) struct Lines {
    searched: usize,
}

impl Lines {
    /// The end of the line that starts at `from`, after its line feed. With `last`, the end of the
    /// buffer ends a line.
    pub(super) fn end(&mut self, buffer: &[u8], from: usize, last: bool) -> Option<usize> {
        self.end_at(buffer, from, last, |byte| byte == b'\n')
    }

    /// The same for pieces that end at another byte.
    pub(super) fn end_at(
        &mut self,
        buffer: &[u8],
        from: usize,
        last: bool,
        ends: impl Fn(u8) -> bool,
    ) -> Option<usize> {
        let start = self.searched.max(from);
        let found = buffer
            .get(start..)
            .and_then(|rest| rest.iter().position(|&byte| ends(byte)));
        match found {
            Some(at) => {
                self.searched = start + at + 1;
                Some(self.searched)
            }
            None => {
                self.searched = buffer.len();
                (last && from < buffer.len()).then_some(buffer.len())
            }
        }
    }

    /// The caller removed this many bytes from the buffer's front.
    pub(super) fn taken(&mut self, bytes: usize) {
        self.searched = self.searched.saturating_sub(bytes);
    }
}

/// The line without its LF or CRLF.
pub(super) fn chomp(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}
