//! Sequence numbers of records, which fit no integer type.

use std::cmp::Ordering;
use std::fmt;

use serde::{Deserialize, Serialize};

/// The sequence number of a record in its shard: decimal digits, up to 186 bits. Later records have
/// greater numbers.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SequenceNumber(String);

impl SequenceNumber {
    /// Parses decimal digits.
    pub(crate) fn parse(text: &str) -> Option<SequenceNumber> {
        let digits = !text.is_empty() && text.len() <= 256;
        (digits && text.bytes().all(|byte| byte.is_ascii_digit()))
            .then(|| SequenceNumber(text.to_owned()))
    }

    /// The number as the stream sent it, unchecked.
    pub(crate) fn of_stream(text: String) -> SequenceNumber {
        SequenceNumber(text)
    }
}

impl Ord for SequenceNumber {
    fn cmp(&self, other: &SequenceNumber) -> Ordering {
        let digits = |number: &SequenceNumber| number.0.trim_start_matches('0').len();
        let value = |number: &'_ SequenceNumber| number.0.trim_start_matches('0').to_owned();
        digits(self)
            .cmp(&digits(other))
            .then_with(|| value(self).cmp(&value(other)))
            .then_with(|| self.0.cmp(&other.0))
    }
}

impl PartialOrd for SequenceNumber {
    fn partial_cmp(&self, other: &SequenceNumber) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for SequenceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The stored text is no sequence number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no sequence number")]
pub struct InvalidSequenceNumber(String);

impl TryFrom<String> for SequenceNumber {
    type Error = InvalidSequenceNumber;

    fn try_from(text: String) -> Result<SequenceNumber, InvalidSequenceNumber> {
        SequenceNumber::parse(&text).ok_or(InvalidSequenceNumber(text))
    }
}

impl From<SequenceNumber> for String {
    fn from(number: SequenceNumber) -> String {
        number.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn sequence_numbers_ordered_as_the_numbers_they_are(a in any::<u128>(), b in any::<u128>()) {
            let number = |n: u128| SequenceNumber::parse(&n.to_string()).unwrap();
            prop_assert_eq!(number(a).cmp(&number(b)), a.cmp(&b));
        }
    }
}
