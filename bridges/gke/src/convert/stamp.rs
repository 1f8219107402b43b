//! Times: `timestamp` of an entry to the API server's microseconds.

use std::borrow::Cow;
use std::time::Duration;

use audit_bridge_core::event::time;
use jiff::Timestamp;

/// The bytes of a time, `2020-01-11T01:01:19.410800Z`.
const LEN: usize = 27;

/// The second of Go's zero time, in UTC.
const GO_ZERO: &str = "0001-01-01T00:00:00";

/// A time as `metav1.MicroTime` writes it, `2020-01-11T01:01:19.410800Z`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stamp<'a> {
    text: Cow<'a, str>,
}

impl<'a> Stamp<'a> {
    /// Parses an RFC 3339 time, truncated to microseconds. Nearly all of Google's are in UTC, so at
    /// most their fraction has to be padded or cut. Go's zero time is rejected: it means that a
    /// time was never set.
    pub(crate) fn parse(text: &'a str) -> Option<Stamp<'a>> {
        if time::is_micros(text) {
            let text = Cow::Borrowed(text);
            return Some(Stamp { text });
        }
        if text.starts_with(GO_ZERO) {
            return None;
        }
        let text = match utc_fraction(text) {
            Some((seconds, fraction)) => {
                let mut out = String::with_capacity(LEN);
                out.push_str(seconds);
                out.push('.');
                let kept = fraction.get(..6).unwrap_or(fraction);
                out.push_str(kept);
                out.push_str("000000".get(kept.len()..).unwrap_or_default());
                out.push('Z');
                out
            }
            None => written(time::parse(text)?)?,
        };
        let text = Cow::Owned(text);
        Some(Stamp { text })
    }

    /// An earlier time; `None` if receivers could not parse it.
    pub(crate) fn minus(&self, duration: Duration) -> Option<Stamp<'static>> {
        let earlier = time::parse(&self.text)?.checked_sub(duration).ok()?;
        let text = Cow::Owned(written(earlier)?);
        Some(Stamp { text })
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }
}

/// The time as text, if its year has four digits.
fn written(time: Timestamp) -> Option<String> {
    Some(time::micros(time)).filter(|text| text.len() == LEN)
}

/// Date and time to the second, and the digits of the fraction, of a valid time that ends in `Z`.
fn utc_fraction(text: &str) -> Option<(&str, &str)> {
    let (seconds, rest) = text.strip_suffix('Z')?.split_at_checked(19)?;
    let number = |range: std::ops::Range<usize>| {
        let digits = seconds.as_bytes().get(range)?;
        digits.iter().try_fold(0u32, |sum, digit| {
            digit
                .is_ascii_digit()
                .then(|| sum * 10 + u32::from(digit - b'0'))
        })
    };
    let marks = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    let shape = marks
        .iter()
        .all(|&(at, mark)| seconds.as_bytes().get(at) == Some(&mark));
    // Days beyond the 28th depend on the calendar: the slow path knows it.
    let valid = shape
        && number(0..4).is_some()
        && matches!(number(5..7)?, 1..=12)
        && matches!(number(8..10)?, 1..=28)
        && number(11..13)? < 24
        && number(14..16)? < 60
        && number(17..19)? < 60;
    let fraction = match rest {
        "" => "",
        _ => rest.strip_prefix('.').filter(|digits| !digits.is_empty())?,
    };
    let valid = valid && fraction.bytes().all(|byte| byte.is_ascii_digit());
    valid.then_some((seconds, fraction))
}

/// Reads a duration as Go writes it (`time.Duration.String`): `1.5s`, `523.1ms`, `1m2.5s`.
pub(crate) fn go_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at_checked(digits)?;
        let unit = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at_checked(unit)?;
        let seconds: f64 = number.parse().ok()?;
        let scale = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" | "μs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        total = total.checked_add(Duration::try_from_secs_f64(seconds * scale).ok()?)?;
        rest = tail;
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamp_zero_time_is_none() {
        for text in ["0001-01-01T00:00:00Z", "0001-01-01T00:00:00.000Z"] {
            assert_eq!(Stamp::parse(text), None, "{text}");
        }
    }

    #[test]
    fn stamp_any_time_has_six_digits_and_z() {
        for (text, want) in [
            ("2020-01-11T01:01:19.4108Z", "2020-01-11T01:01:19.410800Z"),
            ("2020-01-11T01:01:19Z", "2020-01-11T01:01:19.000000Z"),
            (
                "2020-01-11T01:01:19.123456789Z",
                "2020-01-11T01:01:19.123456Z",
            ),
            ("2024-02-29T00:00:00.5Z", "2024-02-29T00:00:00.500000Z"),
            ("2024-05-20T05:24:43+02:00", "2024-05-20T03:24:43.000000Z"),
        ] {
            let stamp = Stamp::parse(text).expect(text);
            assert_eq!(stamp.as_str(), want);
            assert_eq!(
                Stamp {
                    text: time::micros(time::parse(text).expect(text)).into()
                },
                stamp
            );
        }
        for text in [
            "",
            "Z",
            "2023-02-29T00:00:00Z",
            "2023-13-01T00:00:00Z",
            "2023-00-01T00:00:00Z",
            "2023-01-01T24:00:00Z",
            "2023-01-01 00:00:00Z",
            "2023-01-01T00:00:00.Z",
            "2023-01-01T00:00:00.1x3Z",
            "2023-01-01T00:00:00,123Z",
            "2024-02-13 12:45:06.073905000",
            "20é3-01-01T00:00:00Z",
            // A year that no receiver reads.
            "0000-01-01T00:00:00+01:00",
        ] {
            assert_eq!(Stamp::parse(text), None, "{text}");
        }
    }

    #[test]
    fn stamp_latency_is_subtracted() {
        for (text, micros) in [
            ("1.5s", 1_500_000),
            ("523.1ms", 523_100),
            ("1m2.5s", 62_500_000),
            ("1h0m0.000001s", 3_600_000_001),
            ("12µs", 12),
            ("0s", 0),
        ] {
            assert_eq!(go_duration(text), Some(Duration::from_micros(micros)));
        }
        for text in ["", "s", "1", "1.5", "-1s", "1x", "1..5s", "1e3s", "9e99h"] {
            assert_eq!(go_duration(text), None, "{text}");
        }
        let stamp = Stamp::parse("2024-01-01T00:00:00.25Z").expect("a time");
        let earlier = stamp.minus(Duration::from_millis(1500)).expect("in range");
        assert_eq!(earlier.as_str(), "2023-12-31T23:59:58.750000Z");
        for hours in [24 * 366 * 2025, 99_999_999] {
            assert_eq!(stamp.minus(Duration::from_secs(hours * 3600)), None);
        }
    }
}
