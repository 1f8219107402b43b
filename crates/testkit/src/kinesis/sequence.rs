//! Sequence numbers: 186 bits, written in decimal digits.
//!
//! AWS documents only that they grow and that they must not be used as an index ("Amazon Kinesis
//! Data Streams Terminology and concepts"). The layout is that of kinesalite, which checked it
//! against the service (its `db/index.js`, version 2): the shard's creation time, its number, a
//! counter, the record's time.

use std::fmt;

/// The largest counter; it is in a closed shard's ending sequence number.
const COUNTER_MAX: u64 = i64::MAX.unsigned_abs();

/// A sequence number; within a shard later records have greater ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ServedSequenceNumber {
    high: u64,
    low: u128,
}

/// The parts of a sequence number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Parts {
    /// When the shard was created, in seconds.
    pub(super) created_s: i64,
    pub(super) shard: u32,
    pub(super) counter: u64,
    /// When the record arrived, in seconds.
    pub(super) at_s: i64,
}

impl Parts {
    /// The largest sequence number of the shard.
    pub(super) fn ending(self) -> Parts {
        Parts {
            counter: COUNTER_MAX,
            ..self
        }
    }

    pub(super) fn number(self) -> ServedSequenceNumber {
        let hex = format!(
            "02{:09x}{:x}{:016x}00{:09x}{:08x}2",
            self.created_s,
            self.shard & 15,
            self.counter,
            self.at_s,
            self.shard
        );
        ServedSequenceNumber {
            high: u64::from_str_radix(&hex[..16], 16).unwrap(),
            low: u128::from_str_radix(&hex[16..], 16).unwrap(),
        }
    }
}

impl ServedSequenceNumber {
    pub(super) const MIN: ServedSequenceNumber = ServedSequenceNumber { high: 0, low: 0 };

    pub(super) fn next(self) -> ServedSequenceNumber {
        let (low, carry) = self.low.overflowing_add(1);
        ServedSequenceNumber {
            high: self.high + u64::from(carry),
            low,
        }
    }

    /// Parses decimal digits; `None` if they do not have this layout.
    pub(super) fn parse(text: &str) -> Option<(ServedSequenceNumber, Parts)> {
        if text.is_empty() || text.len() > 129 || text.starts_with('0') {
            return None;
        }
        let mut number = ServedSequenceNumber::MIN;
        for digit in text.chars() {
            number = number.push(digit.to_digit(10)?)?;
        }
        Some((number, number.parts()?))
    }

    /// The form in iterators: any position, also between sequence numbers.
    pub(super) fn to_hex(self) -> String {
        format!("{:016x}{:032x}", self.high, self.low)
    }

    /// Parses the form of [`ServedSequenceNumber::to_hex`].
    pub(super) fn from_hex(hex: &str) -> Option<ServedSequenceNumber> {
        let (high, low) = hex.split_at_checked(16)?;
        Some(ServedSequenceNumber {
            high: u64::from_str_radix(high, 16).ok()?,
            low: u128::from_str_radix(low, 16).ok()?,
        })
    }

    fn push(self, digit: u32) -> Option<ServedSequenceNumber> {
        let split = |value: u128| ((value >> 64) as u64, value as u64);
        let (middle, lowest) = split(self.low);
        let (carry, lowest) = split(u128::from(lowest) * 10 + u128::from(digit));
        let (carry, middle) = split(u128::from(middle) * 10 + u128::from(carry));
        let high = self.high.checked_mul(10)?.checked_add(carry)?;
        let low = u128::from(middle) << 64 | u128::from(lowest);
        Some(ServedSequenceNumber { high, low })
    }

    /// The shard that the number belongs to.
    pub(super) fn shard(self) -> Option<u32> {
        self.parts().map(|parts| parts.shard)
    }

    fn parts(self) -> Option<Parts> {
        let hex = self.to_hex();
        if !hex.starts_with("02") || !hex.ends_with('2') {
            return None;
        }
        let part = |from: usize, until: usize| u64::from_str_radix(&hex[from..until], 16).ok();
        let parts = Parts {
            created_s: i64::try_from(part(2, 11)?).ok()?,
            counter: part(12, 28)?,
            at_s: i64::try_from(part(30, 39)?).ok()?,
            shard: u32::try_from(part(39, 47)?).ok()?,
        };
        (parts.counter <= COUNTER_MAX && parts.shard <= 0x7fff_ffff).then_some(parts)
    }
}

impl fmt::Display for ServedSequenceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const BASE: u128 = 10u128.pow(18);
        let mut limbs = [self.high, (self.low >> 64) as u64, self.low as u64];
        let mut groups = Vec::new();
        while limbs != [0; 3] {
            let mut rest = 0u128;
            for limb in &mut limbs {
                let value = rest << 64 | u128::from(*limb);
                *limb = (value / BASE) as u64;
                rest = value % BASE;
            }
            groups.push(rest);
        }
        write!(f, "{}", groups.pop().unwrap_or(0))?;
        groups
            .iter()
            .rev()
            .try_for_each(|group| write!(f, "{group:018}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sequence_number_of_the_service_has_the_known_parts() {
        // From an answer of PutRecord in kinesalite's issue 79.
        let text = "49589238005775633934916144566022322418012108603250442258";
        let (number, parts) = ServedSequenceNumber::parse(text).unwrap();
        assert_eq!(number.to_string(), text);
        assert_eq!(parts.shard, 1);
        assert_eq!(parts.number(), number);
    }

    #[test]
    fn sequence_number_invalid_is_refused() {
        let too_large = "9".repeat(129);
        for text in ["", "0", "5", "-1", "1e9", "x", too_large.as_str()] {
            assert!(ServedSequenceNumber::parse(text).is_none(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn sequence_number_survives_a_round_trip(
            created_s in 0i64..0xf_ffff_ffff,
            shard in 0u32..0x7fff_ffff,
            counter in 0..=COUNTER_MAX,
            at_s in 0i64..0xf_ffff_ffff,
        ) {
            let parts = Parts { created_s, shard, counter, at_s };
            let (number, read) = ServedSequenceNumber::parse(&parts.number().to_string()).unwrap();
            prop_assert_eq!(read, parts);
            prop_assert_eq!(number, parts.number());
            prop_assert!(number < number.next());
            prop_assert!(number <= parts.ending().number());
        }

        #[test]
        fn sequence_number_of_greater_counter_is_greater_text(
            counter in 0..COUNTER_MAX,
            more in 1u64..1000,
            at_s in 0i64..4_000_000_000,
        ) {
            let first = Parts { created_s: 1_790_000_000, shard: 7, counter, at_s };
            let second = Parts { counter: (counter + more).min(COUNTER_MAX), ..first };
            let texts = [first, second].map(|parts| parts.number().to_string());
            prop_assert!((texts[0].len(), &texts[0]) < (texts[1].len(), &texts[1]));
        }
    }
}
