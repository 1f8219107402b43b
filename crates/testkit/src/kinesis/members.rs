//! Members of requests and answers.

use serde_json::{Value, json};

use super::error::ServiceError;
use super::stream::ServedShard;

/// A required member.
pub(super) fn text<'body>(body: &'body Value, name: &str) -> Result<&'body str, ServiceError> {
    let message = || {
        let mut name = name.to_owned();
        name[..1].make_ascii_lowercase();
        ServiceError::new(
            "ValidationException",
            format!(
                "1 validation error detected: Value null at '{name}' failed to satisfy constraint: \
                 Member must not be null"
            ),
        )
    };
    body[name].as_str().ok_or_else(message)
}

/// Parses the protocol's time, seconds with a fraction, into milliseconds.
pub(super) fn time_ms(value: &Value) -> Option<i64> {
    let seconds = value.as_f64()?;
    Some((seconds * 1000.0).round() as i64)
}

/// Milliseconds as the protocol's time.
pub(super) fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}

pub(super) fn hash_key_range(shard: &ServedShard) -> Value {
    let (start, end) = shard.hash_keys;
    json!({"StartingHashKey": start.to_string(), "EndingHashKey": end.to_string()})
}
