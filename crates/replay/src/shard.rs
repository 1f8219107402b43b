//! Every N-th input: divides an archive among the pods of an Indexed Job.

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::input::Input;
use super::position::digits;

/// One of several equal parts of the inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    index: u64,
    count: u64,
}

/// The files that are divided. All parts must see the same. Serialises as a member of the report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DividedFiles {
    /// How many, in all parts.
    pub files: usize,
    /// How many are in this part.
    pub here: usize,
    /// The SHA-256 of their names in order, each with an end of line.
    pub names_sha256: String,
}

/// Why a text does not name a part.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShardError {
    /// It gives only the number of parts, and no index is set.
    #[error(
        "names no index: write I/N, or run it in a Job with completionMode: Indexed, which sets \
         JOB_COMPLETION_INDEX"
    )]
    NoIndex,
    /// The index is not less than the count.
    #[error(
        "names part {index} of {count}: parts are counted from 0, so the last is {}",
        count.saturating_sub(1)
    )]
    NoSuchPart {
        /// The given index.
        index: u64,
        /// The number of parts.
        count: u64,
    },
    /// It cannot be parsed.
    #[error("is none of I/N and N, like 0/4")]
    Malformed,
}

impl Shard {
    /// Parses `I/N`, with I from 0, or `N` alone if the environment sets the index (`index`: the
    /// completion index of a Job).
    ///
    /// # Errors
    /// It is neither, or there is no such part.
    pub fn read(text: &str, index: Option<&str>) -> Result<Shard, ShardError> {
        let number = |text: &str| text.trim().parse::<u64>().ok();
        let (index, count) = match text.split_once('/') {
            Some((index, count)) => (number(index), number(count)),
            None => match index {
                Some(index) => (number(index), number(text)),
                None => return Err(ShardError::NoIndex),
            },
        };
        match (index, count) {
            (Some(index), Some(count)) if index < count => Ok(Shard { index, count }),
            (Some(index), Some(count)) => Err(ShardError::NoSuchPart { index, count }),
            _ => Err(ShardError::Malformed),
        }
    }

    /// The inputs of this part, sorted by name, so that the parts are the same in whatever order
    /// inputs are given, and have no input in common. But one that was `begun` stays this part's:
    /// files that came or went since may have moved it to another one, whose pod may have ended.
    pub(super) fn select(
        self,
        mut inputs: Vec<Input>,
        begun: impl Fn(&Input) -> bool,
    ) -> (Vec<Input>, DividedFiles) {
        inputs.sort_by_key(Input::name);
        let mut names = Sha256::new();
        for input in &inputs {
            names.update(input.name().as_bytes());
            names.update(b"\n");
        }
        let files = inputs.len();
        let selected: Vec<Input> = (0..)
            .zip(inputs)
            .filter(|(number, input)| number % self.count == self.index || begun(input))
            .map(|(_, input)| input)
            .collect();
        let divided = DividedFiles {
            files,
            here: selected.len(),
            names_sha256: digits(&names),
        };
        (selected, divided)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn shards_together_take_every_input_once() {
        let inputs = |names: &str| -> Vec<Input> {
            let names = names.chars();
            names
                .map(|name| Input::File(name.to_string().into()))
                .collect()
        };
        let (mut all, mut names) = (Vec::new(), BTreeSet::new());
        for (index, order) in ["gabcdef", "abcdefg", "fgdeabc"].into_iter().enumerate() {
            let shard = Shard::read("3", Some(&index.to_string())).unwrap();
            assert_eq!(Shard::read(&format!("{index}/3"), Some("9")), Ok(shard));
            let (selected, divided) = shard.select(inputs(order), |_| false);
            assert_eq!((divided.files, divided.here), (order.len(), selected.len()));
            names.insert(divided.names_sha256);
            all.extend(selected);
        }
        all.sort_by_key(Input::name);
        assert_eq!(all, inputs("abcdefg"));
        assert_eq!(names.len(), 1, "in whatever order");
        let shard = Shard::read("1/2", None).unwrap();
        let begun = |input: &Input| *input.name() == *"c";
        assert_eq!(shard.select(inputs("abcd"), begun).0, inputs("bcd"));
    }

    #[test]
    fn shard_invalid_is_refused() {
        for (wrong, index) in [("", None), ("3", None), ("3/3", None), ("0/0", None)] {
            assert!(Shard::read(wrong, index).is_err(), "{wrong}");
        }
        for (wrong, index) in [
            ("2", Some("2")),
            ("x", Some("0")),
            ("3", Some("")),
            ("-1/2", None),
        ] {
            assert!(Shard::read(wrong, index).is_err(), "{wrong}");
        }
    }
}
