//! What tells a canary's audit event from all others: unguessable, and used once.

use std::fmt::{self, Write as _};

/// A random UUID (version 4), as `Audit-ID`s are: 122 bits of the system's random source.
///
/// It is a secret until its event was read, so it has no `Display`, and `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Mark(String);

/// The system's random source gives nothing.
#[derive(Debug, thiserror::Error)]
#[error("the system's random source gives nothing")]
pub(crate) struct NoRandom;

impl Mark {
    /// A mark that nobody has ever seen.
    ///
    /// # Errors
    /// There is no randomness to be had.
    pub(crate) fn random() -> Result<Mark, NoRandom> {
        let mut bytes = [0; 16];
        aws_lc_rs::rand::fill(&mut bytes).map_err(|_| NoRandom)?;
        // RFC 9562, 5.4: version and variant.
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        let mut text = String::with_capacity(36);
        for (at, byte) in bytes.iter().enumerate() {
            if matches!(at, 4 | 6 | 8 | 10) {
                text.push('-');
            }
            // Writing to a string does not fail.
            let _ = write!(text, "{byte:02x}");
        }
        Ok(Mark(text))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mark(…)")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn mark_is_a_version_4_uuid_never_the_same_and_never_shown() {
        let marks: BTreeSet<String> = (0..1000)
            .map(|_| Mark::random().unwrap().as_str().to_owned())
            .collect();
        assert_eq!(marks.len(), 1000);
        for mark in &marks {
            let groups: Vec<&str> = mark.split('-').collect();
            assert_eq!(
                groups.iter().map(|it| it.len()).collect::<Vec<_>>(),
                [8, 4, 4, 4, 12]
            );
            assert!(groups[2].starts_with('4'), "{mark}");
            assert!(groups[3].starts_with(['8', '9', 'a', 'b']), "{mark}");
        }
        let mark = Mark::random().unwrap();
        assert!(!format!("{mark:?}").contains(mark.as_str()));
    }
}
