//! What a scan found in a value besides its end.

/// Facts about a scanned value: cheap to note, and enough to know that nothing in it needs a
/// repair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Findings {
    pub(super) fractional: bool,
    pub(super) lone_surrogate: bool,
    pub(super) may_repeat_a_key: bool,
    /// How many containers surround the innermost value.
    levels: u32,
}

impl Findings {
    #[inline(always)]
    pub(super) fn note_depth(&mut self, levels: usize) {
        self.levels = self.levels.max(u32::try_from(levels).unwrap_or(u32::MAX));
    }

    /// The nesting: 1 for a scalar or an empty container, otherwise one more than the deepest
    /// content.
    pub fn depth(self) -> usize {
        self.levels as usize + 1
    }

    /// Whether a string in it contains a lone UTF-16 surrogate.
    pub fn has_lone_surrogate(self) -> bool {
        self.lone_surrogate
    }

    /// Whether one of its objects may have a duplicate key: false is reliable, true is seldom
    /// wrong. Meaningless if the scan did not include keys.
    pub fn may_repeat_a_key(self) -> bool {
        self.may_repeat_a_key
    }

    /// Whether a number in it is written with a fraction or an exponent.
    pub fn has_fractional(self) -> bool {
        self.fractional
    }

    /// The findings of a container around a value with these findings.
    pub fn within(self) -> Findings {
        Findings {
            levels: self.levels.saturating_add(1),
            ..self
        }
    }

    /// The same findings, with a possibly duplicate key.
    pub fn with_repeated_key(self) -> Findings {
        Findings {
            may_repeat_a_key: true,
            ..self
        }
    }

    /// The findings of two values together.
    pub fn and(self, other: Findings) -> Findings {
        Findings {
            fractional: self.fractional | other.fractional,
            lone_surrogate: self.lone_surrogate | other.lone_surrogate,
            may_repeat_a_key: self.may_repeat_a_key | other.may_repeat_a_key,
            levels: self.levels.max(other.levels),
        }
    }
}

/// Receives the keys of a value while the scanner skips it.
pub(super) trait KeyVisitor {
    /// A non-empty container opens.
    fn open(&mut self);
    /// A key without escapes, without its quotes.
    fn key(&mut self, bytes: &[u8], from: usize, to: usize, findings: &mut Findings);
    /// A key with escapes, which may spell any other.
    fn escaped_key(&mut self, findings: &mut Findings);
    /// The innermost container closes.
    fn close(&mut self);
}

/// Ignores all keys.
pub(super) struct NoKeyVisitor;

impl KeyVisitor for NoKeyVisitor {
    #[inline(always)]
    fn open(&mut self) {}
    #[inline(always)]
    fn key(&mut self, _: &[u8], _: usize, _: usize, _: &mut Findings) {}
    #[inline(always)]
    fn escaped_key(&mut self, _: &mut Findings) {}
    #[inline(always)]
    fn close(&mut self) {}
}

/// How many keys of open objects are remembered; an event with more is checked by the slow pass.
const KEYS_MAX: usize = 128;
/// The same limit for open containers.
const LEVELS_MAX: usize = 32;

/// Fingerprints of the keys of all open objects.
///
/// A 64-bit set of the innermost object shows for most keys that they are new. Only if a key's bit
/// is already set, its fingerprint is compared with the others.
#[derive(Debug)]
pub(super) struct KeyFingerprints {
    prints: [u32; KEYS_MAX],
    len: usize,
    here: Object,
    /// The objects around it.
    around: [Object; LEVELS_MAX],
    level: usize,
}

#[derive(Debug, Clone, Copy, Default)]
struct Object {
    /// One bit per key, chosen by its fingerprint.
    bits: u64,
    /// The index of its first fingerprint.
    start: usize,
}

impl Default for KeyFingerprints {
    fn default() -> KeyFingerprints {
        KeyFingerprints {
            prints: [0; KEYS_MAX],
            len: 0,
            here: Object::default(),
            around: [Object::default(); LEVELS_MAX],
            level: 0,
        }
    }
}

impl KeyVisitor for KeyFingerprints {
    #[inline(always)]
    fn open(&mut self) {
        // Deeper levels count as one object, so that its keys may seem duplicate.
        if let Some(around) = self.around.get_mut(self.level) {
            *around = self.here;
            self.here = Object {
                bits: 0,
                start: self.len,
            };
        }
        self.level += 1;
    }

    #[inline(always)]
    fn key(&mut self, bytes: &[u8], from: usize, to: usize, findings: &mut Findings) {
        let print = fingerprint(bytes, from, to);
        let bit = 1 << (print >> 26);
        if self.here.bits & bit != 0 {
            self.compare(print, findings);
        }
        self.here.bits |= bit;
        match self.prints.get_mut(self.len) {
            Some(slot) => {
                *slot = print;
                self.len += 1;
            }
            None => findings.may_repeat_a_key = true,
        }
    }

    #[inline(always)]
    fn escaped_key(&mut self, findings: &mut Findings) {
        findings.may_repeat_a_key = true;
    }

    #[inline(always)]
    fn close(&mut self) {
        self.level -= 1;
        if let Some(&around) = self.around.get(self.level) {
            self.len = self.here.start;
            self.here = around;
        }
    }
}

impl KeyFingerprints {
    #[inline(never)]
    fn compare(&self, print: u32, findings: &mut Findings) {
        let others = self.prints.get(self.here.start..self.len);
        findings.may_repeat_a_key |= others.unwrap_or_default().contains(&print);
    }
}

/// 32 bits derived from the key's first and last eight bytes and its length.
#[inline(always)]
fn fingerprint(bytes: &[u8], from: usize, to: usize) -> u32 {
    const MIX: u64 = 0x9E37_79B9_7F4A_7C15;
    let key = bytes.get(from..to).unwrap_or_default();
    let (first, last) = match (key.first_chunk(), key.last_chunk()) {
        (Some(first), Some(last)) => (u64::from_le_bytes(*first), u64::from_le_bytes(*last)),
        _ => (short(bytes, from, key), 0),
    };
    let mixed = (first ^ last.rotate_left(31) ^ (key.len() as u64) << 56).wrapping_mul(MIX);
    (mixed >> 32) as u32
}

/// A key shorter than eight bytes as a number; usually read in one load with the bytes that follow.
#[inline(always)]
fn short(bytes: &[u8], from: usize, key: &[u8]) -> u64 {
    match bytes.get(from..).and_then(|rest| rest.first_chunk()) {
        Some(chunk) => u64::from_le_bytes(*chunk) & ((1 << (8 * (key.len() & 7))) - 1),
        None => key
            .iter()
            .rev()
            .fold(0, |number, &byte| number << 8 | u64::from(byte)),
    }
}
