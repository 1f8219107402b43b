//! Integers in any notation.

use std::borrow::Cow;

/// Longer integers keep their text: `protojson` itself writes an exponent from here on.
const DIGITS_MAX: usize = 21;

/// The number without fraction and exponent if it is an integer. Exact, as it works on decimal
/// digits.
pub fn integral(number: &str) -> Cow<'_, str> {
    let Some(exponent_at) = number.find(['e', 'E', '.']) else {
        return Cow::Borrowed(number);
    };
    let (mantissa, exponent) = match number.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()),
        None => (number, Some(0)),
    };
    debug_assert!(exponent_at <= mantissa.len());
    let Some(exponent) = exponent else {
        return Cow::Borrowed(number);
    };
    let (sign, magnitude) = match mantissa.strip_prefix('-') {
        Some(magnitude) => ("-", magnitude),
        None => ("", mantissa),
    };
    let (whole, fraction) = magnitude.split_once('.').unwrap_or((magnitude, ""));
    let fraction = fraction.trim_end_matches('0');
    let digits = format!("{whole}{fraction}");
    let digits = digits.trim_start_matches('0');
    if digits.is_empty() {
        return Cow::Borrowed("0");
    }
    // The value is the digits times ten to this power.
    let power = i64::from(exponent) - i64::try_from(fraction.len()).unwrap_or(i64::MAX);
    if power >= 0 {
        let zeros = usize::try_from(power).unwrap_or(usize::MAX);
        if digits.len().saturating_add(zeros) > DIGITS_MAX {
            return Cow::Borrowed(number);
        }
        return format!("{sign}{digits}{}", "0".repeat(zeros)).into();
    }
    let drop = usize::try_from(power.unsigned_abs()).unwrap_or(usize::MAX);
    match digits.len().checked_sub(drop).map(|at| digits.split_at(at)) {
        Some((kept, dropped)) if !kept.is_empty() && dropped.bytes().all(|b| b == b'0') => {
            format!("{sign}{kept}").into()
        }
        _ => Cow::Borrowed(number),
    }
}
