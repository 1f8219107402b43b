//! Times as Kubernetes writes them: RFC 3339, UTC, six fraction digits (`metav1.MicroTime`).

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::fmt::temporal::DateTimePrinter;
use jiff::tz::TimeZone;

/// Parses an RFC 3339 time as strictly as the receivers do (Go's `time.Parse`): upper-case `T`, a
/// `Z` or a numeric offset, no leap second. Allows any number of fraction digits; those beyond
/// nanoseconds are cut.
pub fn parse(text: &str) -> Option<Timestamp> {
    let bytes = text.as_bytes();
    let digits = |from: usize, to: usize| {
        bytes
            .get(from..to)
            .is_some_and(|part| part.iter().all(u8::is_ascii_digit))
    };
    let shape = digits(0, 4)
        && digits(5, 7)
        && digits(8, 10)
        && digits(11, 13)
        && digits(14, 16)
        && digits(17, 19)
        && [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')]
            .iter()
            .all(|&(at, mark)| bytes[at] == mark)
        && &bytes[17..19] < b"60".as_slice();
    if !shape {
        return None;
    }
    let mut at = 19;
    if bytes.get(at) == Some(&b'.') {
        at += 1;
        let start = at;
        while bytes.get(at).is_some_and(u8::is_ascii_digit) {
            at += 1;
        }
        if at == start {
            return None;
        }
    }
    let offset = &bytes[at..];
    let offset_ok = offset == b"Z"
        || (offset.len() == 6
            && matches!(offset[0], b'+' | b'-')
            && offset[3] == b':'
            && digits(at + 1, at + 3)
            && digits(at + 4, at + 6));
    if !offset_ok {
        return None;
    }
    // The parser takes at most nine fraction digits.
    if at > 29 {
        return format!("{}{}", &text[..29], &text[at..]).parse().ok();
    }
    text.parse().ok()
}

/// Parses a time as providers and their exports write it: RFC 3339 with any number of fraction
/// digits, or without a zone (then it is UTC), with `T` or a space in between.
pub fn parse_lenient(text: &str) -> Option<Timestamp> {
    let read = parse(text).or_else(|| {
        let civil = text.parse::<DateTime>().ok()?;
        let zoned = civil.to_zoned(TimeZone::UTC).ok()?;
        Some(zoned.timestamp())
    })?;
    after_1970(read)
}

/// A time before 1970 is a placeholder: returns `None` for it.
pub fn after_1970(time: Timestamp) -> Option<Timestamp> {
    (time > Timestamp::UNIX_EPOCH).then_some(time)
}

/// The length of a time that [`micros`] writes.
pub(crate) const MICROS_LEN: usize = 27;

/// Formats a time like `metav1.MicroTime`: `2020-01-11T01:01:19.410800Z`; nanoseconds are cut.
pub fn micros(time: Timestamp) -> String {
    const PRINTER: DateTimePrinter = DateTimePrinter::new().precision(Some(6));
    PRINTER.timestamp_to_string(&time)
}

/// Whether the text is a time exactly as [`micros`] writes it: six fraction digits, UTC. Returns
/// false for some valid times (before 1970, the last days of a month), which need [`parse`].
#[inline]
pub fn is_micros(text: &str) -> bool {
    const SHAPE: &[u8; 27] = b"0000-00-00T00:00:00.000000Z";
    let Ok(bytes) = <&[u8; 27]>::try_from(text.as_bytes()) else {
        return false;
    };
    let shape = bytes.iter().zip(SHAPE).fold(true, |all, (byte, shape)| {
        all & match shape {
            b'0' => byte.is_ascii_digit(),
            _ => byte == shape,
        }
    });
    let two = |at: usize| 10 * (bytes[at] & 15) + (bytes[at + 1] & 15);
    shape
        && &bytes[..4] >= b"1970".as_slice()
        && (1..=12).contains(&two(5))
        && (1..=28).contains(&two(8))
        && two(11) < 24
        && two(14) < 60
        && two(17) < 60
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_parser_accepts_what_receivers_accept() {
        for (text, want) in [
            (
                "2020-01-11T01:01:19.4108Z",
                Some("2020-01-11T01:01:19.410800Z"),
            ),
            ("2020-01-11T01:01:19Z", Some("2020-01-11T01:01:19.000000Z")),
            (
                "2024-05-20T05:24:43.123456789Z",
                Some("2024-05-20T05:24:43.123456Z"),
            ),
            (
                "2024-05-20T05:24:43.1234567891234Z",
                Some("2024-05-20T05:24:43.123456Z"),
            ),
            (
                "2024-05-20T05:24:43.999999999+02:00",
                Some("2024-05-20T03:24:43.999999Z"),
            ),
            ("2024-02-29T00:00:00Z", Some("2024-02-29T00:00:00.000000Z")),
            ("2023-02-29T00:00:00Z", None),
            ("2024-05-20T05:24:60Z", None),
            ("2024-05-20 05:24:43Z", None),
            ("2024-05-20t05:24:43z", None),
            ("2024-05-20T05:24:43", None),
            ("2024-05-20T05:24:43.Z", None),
            ("2024-05-20T25:24:43Z", None),
            ("2024-05-20T05:24:43+0200", None),
            ("NaN", None),
            ("", None),
            ("1716182683", None),
        ] {
            assert_eq!(parse(text).map(micros).as_deref(), want, "{text}");
        }
    }

    #[test]
    fn parse_lenient_reads_what_exports_write_but_no_placeholder() {
        for (text, want) in [
            (
                "2026-11-21 18:46:35.975",
                Some("2026-11-21T18:46:35.975000Z"),
            ),
            ("2026-11-21T18:46:35", Some("2026-11-21T18:46:35.000000Z")),
            (
                "2026-11-21T18:46:35+02:00",
                Some("2026-11-21T16:46:35.000000Z"),
            ),
            ("1970-01-01T00:00:00Z", None),
            ("0001-01-01 00:00:00", None),
            ("yesterday", None),
        ] {
            assert_eq!(parse_lenient(text).map(micros).as_deref(), want, "{text}");
        }
    }

    #[test]
    fn is_micros_accepts_only_what_micros_writes() {
        for text in [
            "2024-05-20T05:24:43.123456Z",
            "1970-01-01T00:00:00.000000Z",
            "9999-12-28T23:59:59.999999Z",
        ] {
            assert!(is_micros(text), "{text}");
            assert_eq!(parse(text).map(micros).as_deref(), Some(text));
        }
        for text in [
            "2024-05-20T05:24:43.12345Z",
            "2024-05-20T05:24:43.1234567Z",
            "2024-05-20T05:24:43Z",
            "2024-13-20T05:24:43.123456Z",
            "2024-00-20T05:24:43.123456Z",
            "2024-05-20T24:24:43.123456Z",
            "2024-05-20T05:60:43.123456Z",
            "2024-05-20T05:24:60.123456Z",
            "0001-01-01T00:00:00.000000Z",
            "2024-05-20t05:24:43.123456Z",
            "",
        ] {
            assert!(!is_micros(text), "{text}");
        }
    }
}
