//! The unguessable mark, used once, that identifies a canary's audit event.

use std::fmt;

use aws_lc_rs::digest;

/// A random UUID (version 4), as `Audit-ID`s are: 122 bits of the system's random source.
///
/// It is a secret until its event was read, so it has no `Display`, and `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Mark(String);

/// The system's random source failed.
#[derive(Debug, thiserror::Error)]
#[error("the system's random source gives nothing")]
pub(crate) struct NoRandom;

impl Mark {
    /// A new random mark.
    ///
    /// # Errors
    /// The system's random source failed.
    pub(crate) fn random() -> Result<Mark, NoRandom> {
        let mut bytes = [0; 16];
        aws_lc_rs::rand::fill(&mut bytes).map_err(|_| NoRandom)?;
        // RFC 9562, 5.4: version and variant.
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        let mut text = hex::encode(bytes);
        for at in [8, 13, 18, 23] {
            text.insert(at, '-');
        }
        Ok(Mark(text))
    }

    /// Parses a mark found in an event.
    pub(super) fn parse(text: &str) -> Option<Mark> {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        let has_form = text.len() == 36
            && text.bytes().enumerate().all(|(at, byte)| match at {
                8 | 13 | 18 | 23 => byte == b'-',
                _ => is_digit(byte),
            });
        has_form.then(|| Mark(text.to_owned()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn digest(&self) -> Digest {
        let sum = digest::digest(&digest::SHA256, self.0.as_bytes());
        let mut bytes = [0; 32];
        bytes.copy_from_slice(sum.as_ref());
        Digest(bytes)
    }
}

/// The SHA-256 of a mark: identifies the mark without revealing it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Digest([u8; 32]);

impl Digest {
    /// Parses 64 lower-case hexadecimal digits.
    pub(super) fn parse(text: &str) -> Option<Digest> {
        let lower_case = !text.bytes().any(|byte| byte.is_ascii_uppercase());
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes)
            .ok()
            .filter(|()| lower_case)?;
        Some(Digest(bytes))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
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

    #[test]
    fn mark_is_parsed_from_its_own_form_alone() {
        let mark = Mark::random().unwrap();
        assert_eq!(Mark::parse(mark.as_str()), Some(mark.clone()));
        let upper = mark
            .as_str()
            .replace(['a', 'b', 'c', 'd', 'e', 'f', '4'], "A");
        for odd in [
            "",
            &upper,
            &mark.as_str()[1..],
            &mark.as_str().replace('-', "0"),
        ] {
            assert!(Mark::parse(odd).is_none(), "{odd}");
        }
    }

    /// The examples of FIPS 180-2 begin with this one.
    #[test]
    fn digest_is_the_sha_256_in_hexadecimal_digits() {
        let want = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(Mark("abc".to_owned()).digest().to_string(), want);
        assert_eq!(Digest::parse(want), Some(Mark("abc".to_owned()).digest()));
        for odd in [
            "",
            &want[1..],
            &want.to_uppercase(),
            &want.replace('b', "g"),
        ] {
            assert_eq!(Digest::parse(odd), None, "{odd}");
        }
    }
}
