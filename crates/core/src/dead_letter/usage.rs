//! Bytes of the dead letter by holder, which decide how much of the next record may be kept.
//!
//! Bytes are counted by *holder*: the reason together with the file or stream of the record. A
//! holder may use as many bytes as are still free. So a holder that floods the dead letter loses
//! payloads, its newest ones, and there is always room for others. Nothing that is kept is ever
//! removed.

use std::collections::BTreeMap;

/// How many holders are distinguished; all others count as one.
const HOLDERS_MAX: usize = 1024;

/// The reason, and the file or stream.
pub(super) type Holder = (String, String);

pub(super) type BytesByHolder = BTreeMap<Holder, u64>;

/// How much of a record's payload is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    Whole,
    /// The payload's beginning, with size and SHA-256 of the whole.
    Head,
    /// Only size and SHA-256.
    Line,
}

impl Keep {
    /// From most to least.
    pub(super) const ALL: [Keep; 3] = [Keep::Whole, Keep::Head, Keep::Line];

    /// A holder may use this many times the bytes that stay free: of an otherwise empty dead letter
    /// a half, two thirds or three quarters.
    fn share(self) -> u64 {
        match self {
            Keep::Whole => 1,
            Keep::Head => 2,
            Keep::Line => 3,
        }
    }
}

/// Bytes of all files and of the buffer.
#[derive(Debug, Default)]
pub(super) struct Usage {
    held: BytesByHolder,
    bytes: u64,
}

impl Usage {
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether a line of this holder and length may be kept in this form.
    pub(super) fn allows(&self, keep: Keep, holder: Holder, len: u64, bytes_max: u64) -> bool {
        let free = bytes_max.saturating_sub(self.bytes.saturating_add(len));
        let holder = self.known(holder);
        let held = self.held.get(&holder).copied().unwrap_or_default();
        free > 0 && held.saturating_add(len) <= free.saturating_mul(keep.share())
    }

    /// Counts a line, also in `held`, which covers one file.
    pub(super) fn add_line(&mut self, holder: Holder, len: u64, held: &mut BytesByHolder) {
        let holder = self.known(holder);
        *held.entry(holder.clone()).or_default() += len;
        *self.held.entry(holder).or_default() += len;
        self.bytes += len;
    }

    /// Adds a file's bytes.
    pub(super) fn add(&mut self, held: &BytesByHolder) {
        for (holder, bytes) in held {
            let holder = self.known(holder.clone());
            *self.held.entry(holder).or_default() += bytes;
            self.bytes += bytes;
        }
    }

    /// Subtracts a removed file's bytes.
    pub(super) fn remove(&mut self, held: &BytesByHolder) {
        for (holder, bytes) in held {
            let holder = self.known(holder.clone());
            if let Some(there) = self.held.get_mut(&holder) {
                *there = there.saturating_sub(*bytes);
            }
            self.bytes = self.bytes.saturating_sub(*bytes);
        }
    }

    fn known(&self, holder: Holder) -> Holder {
        match self.held.len() < HOLDERS_MAX || self.held.contains_key(&holder) {
            true => holder,
            false => Holder::default(),
        }
    }
}

/// The same shares scaled to another total, for a file that was compressed.
pub(super) fn scaled(held: &BytesByHolder, bytes: u64) -> BytesByHolder {
    let all: u128 = held.values().map(|&part| u128::from(part)).sum();
    let scale = |sum: u128| u64::try_from(sum * u128::from(bytes) / all.max(1)).unwrap_or(bytes);
    let mut sum = 0;
    held.iter()
        .map(|(holder, &part)| {
            // A difference of two sums, so that the parts add up to the new total.
            let before = scale(sum);
            sum += u128::from(part);
            (holder.clone(), scale(sum) - before)
        })
        .collect()
}
