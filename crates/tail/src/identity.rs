//! The identity of a log entry: a 64-bit hash of the provider's own identifier.
//!
//! It is SipHash-2-4 with a fixed key, because identities are stored on disk and the standard
//! library's hasher may change with any release. Two entries with the same hash *and* the same few
//! seconds would be taken for one. For an entry among the 16,000 that a busy log has in such a
//! bucket, the chance is one in 10¹⁵. The key is no secret. The identifiers of audit entries are
//! the provider's own, but somebody who may write into a Cloud Logging log chooses those of their
//! own entries: with some four billion tries they can make two of their own collide, and the second
//! is then skipped. A collision with another's entry takes 2⁶⁴ tries.

use std::hash::Hasher as _;

use siphasher::sip::SipHasher24;

/// The key: any value works, but it must not change, or restarts deliver duplicates.
const KEY: (u64, u64) = (0x6175_6469_742d_6272, 0x6964_6765_2d74_6169);

/// Distinguishes a log entry from every other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity(pub(super) u64);

impl Identity {
    /// The identity made of these parts, such as a log's name, a time and an insert ID. The
    /// boundaries count: `["ab", "c"]` differs from `["a", "bc"]`.
    pub fn of(parts: &[&[u8]]) -> Identity {
        let mut hash = SipHasher24::new_with_keys(KEY.0, KEY.1);
        for part in parts {
            hash.write(&(part.len() as u64).to_le_bytes());
            hash.write(part);
        }
        Identity(hash.finish())
    }
}

/// Formats sixteen hexadecimal digits.
impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A checksum of bytes, for data on disk.
pub(super) fn checksum(bytes: &[u8]) -> u64 {
    let mut hash = SipHasher24::new_with_keys(KEY.0, KEY.1);
    hash.write(bytes);
    hash.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn siphash_reference_vectors_match() {
        let key = (0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908);
        let message: Vec<u8> = (0..15).collect();
        for (length, want) in [
            (0, 0x726f_db47_dd0e_0e31),
            (1, 0x74f8_39c5_93dc_67fd),
            (8, 0x93f5_f579_9a93_2462),
            (15, 0xa129_ca61_49be_45e5),
        ] {
            let mut hash = SipHasher24::new_with_keys(key.0, key.1);
            hash.write(&message[..length]);
            assert_eq!(hash.finish(), want, "{length} bytes");
        }
    }

    #[test]
    fn identity_parts_are_kept_apart_and_value_is_stable() {
        assert_ne!(Identity::of(&[b"ab", b"c"]), Identity::of(&[b"a", b"bc"]));
        assert_ne!(Identity::of(&[b"ab"]), Identity::of(&[b"ab", b""]));
        // Data on disk was written by older builds.
        assert_eq!(
            Identity::of(&[b"log", b"1"]),
            Identity(0x690c_c0e8_c47c_e467)
        );
    }
}
