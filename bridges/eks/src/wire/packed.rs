//! Subscription data inside the JSON of AWS's APIs: gzip in base64 (Amazon CloudWatch Logs User
//! Guide, "Log group-level subscription filters").

use std::io::Read as _;

use audit_bridge_core::event::json::Raw;
use audit_bridge_replay::dump::RecordError;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Most bytes that are unpacked, so that memory is bounded: a subscription message has at most 1
/// MiB packed. A larger record is kept as it came.
pub(crate) const UNPACKED_BYTES_MAX: u64 = 16 << 20;

/// The data in a Lambda event (`awslogs`, `kinesis`), a record of Kinesis' `GetRecords`, or a
/// Firehose transformation.
pub(crate) fn data<'a>(key: &str, value: Raw<'a>) -> Option<Raw<'a>> {
    match key {
        "awslogs" | "kinesis" => value.get("data"),
        "Data" | "data" => Some(value),
        _ => None,
    }
}

/// Why the object's data, if there is any, cannot be read completely.
pub(crate) fn fault(object: &str) -> Option<String> {
    let mut members = Raw::parse(object).ok()?.members()?;
    let data = members.find_map(|(key, value)| data(&key, value))?;
    match unpack(data) {
        Err(error) => Some(error.to_string()),
        Ok(text) => match Raw::parse(&text) {
            Ok(_) => None,
            Err(_) if text.len() as u64 >= UNPACKED_BYTES_MAX - 3 => Some(format!(
                "the subscription's data is more than {} MiB unpacked: what follows is not read",
                UNPACKED_BYTES_MAX >> 20
            )),
            Err(error) => Some(format!("the subscription's data is no whole json: {error}")),
        },
    }
}

/// Unpacks a subscription's message, `{"messageType":…,"logEvents":[…]}`. One that is too large is
/// cut at the limit: the reader notices the missing end, reads the log events before it, and keeps
/// the whole packed record as well.
pub(crate) fn unpack(data: Raw<'_>) -> Result<String, RecordError> {
    let text = data
        .as_str()
        .ok_or("the subscription's data is no string")?;
    let packed = STANDARD
        .decode(&*text)
        .map_err(|error| format!("the subscription's data is no base64: {error}"))?;
    let mut json = Vec::new();
    flate2::read::MultiGzDecoder::new(packed.as_slice())
        .take(UNPACKED_BYTES_MAX)
        .read_to_end(&mut json)
        .map_err(|error| format!("the subscription's data is no gzip of text: {error}"))?;
    if json.len() as u64 == UNPACKED_BYTES_MAX
        && let Err(error) = std::str::from_utf8(&json)
        && error.error_len().is_none()
    {
        // The limit may have cut a character.
        json.truncate(error.valid_up_to());
    }
    let text = String::from_utf8(json);
    Ok(text.map_err(|error| format!("the subscription's data is no gzip of text: {error}"))?)
}
