//! Opaque values for the next call: shard iterators and the tokens of `ListShards`.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::sequence::ServedSequenceNumber;

/// A position in a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ShardIterator {
    pub(super) stream: String,
    pub(super) shard: u32,
    /// The first sequence number to read.
    pub(super) from: ServedSequenceNumber,
    pub(super) issued_ms: i64,
    /// Iterators of an earlier generation have expired.
    pub(super) generation: u64,
}

impl ShardIterator {
    pub(super) fn encode(&self) -> String {
        BASE64_STANDARD.encode(format!(
            "iterator/{}/{}/{}/{}/{}/{:036}",
            self.issued_ms,
            self.generation,
            self.stream,
            self.shard,
            self.from.to_hex(),
            0
        ))
    }

    pub(super) fn decode(text: &str) -> Option<ShardIterator> {
        let parts = parts(text, "iterator", 6)?;
        Some(ShardIterator {
            issued_ms: parts[0].parse().ok()?,
            generation: parts[1].parse().ok()?,
            stream: parts[2].clone(),
            shard: parts[3].parse().ok()?,
            from: ServedSequenceNumber::from_hex(&parts[4])?,
        })
    }
}

/// Where a list of shards continues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NextToken {
    pub(super) stream: String,
    pub(super) after: u32,
    /// The filter of the first request, as JSON.
    pub(super) filter: String,
    pub(super) issued_ms: i64,
}

impl NextToken {
    pub(super) fn encode(&self) -> String {
        BASE64_STANDARD.encode(format!(
            "next/{}/{}/{}/{}",
            self.issued_ms, self.stream, self.after, self.filter
        ))
    }

    pub(super) fn decode(text: &str) -> Option<NextToken> {
        let parts = parts(text, "next", 4)?;
        Some(NextToken {
            issued_ms: parts[0].parse().ok()?,
            stream: parts[1].clone(),
            after: parts[2].parse().ok()?,
            filter: parts[3].clone(),
        })
    }
}

fn parts(text: &str, kind: &str, count: usize) -> Option<Vec<String>> {
    let plain = String::from_utf8(BASE64_STANDARD.decode(text).ok()?).ok()?;
    let rest = plain.strip_prefix(kind)?.strip_prefix('/')?;
    let parts: Vec<String> = rest.splitn(count, '/').map(str::to_owned).collect();
    (parts.len() == count).then_some(parts)
}
