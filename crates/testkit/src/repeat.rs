//! How often a random test runs, as people ask for it in the environment.

use std::ops::Range;

/// The number that this variable says.
///
/// # Panics
/// It says something else.
pub fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok().filter(|it| !it.is_empty())?;
    let number = text.parse();
    Some(number.unwrap_or_else(|error| panic!("{variable}={text}: {error}")))
}

/// How often: the number that this variable says, `x10` for ten times as often as by default.
///
/// # Panics
/// It says something else.
pub fn times(variable: &str, by_default: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) if !text.is_empty() => times_of(&text, by_default)
            .unwrap_or_else(|| panic!("{variable}={text}: neither a number nor x and a number")),
        _ => by_default,
    }
}

fn times_of(text: &str, by_default: u64) -> Option<u64> {
    match text.strip_prefix('x') {
        Some(factor) => by_default.checked_mul(factor.parse().ok()?),
        None => text.parse().ok(),
    }
}

/// The seeds of random schedules: that of `SEED`, or as many as `SCHEDULES` says, as [`times`].
///
/// # Panics
/// One of them says something else.
pub fn schedules(by_default: u64) -> Range<u64> {
    match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..times("SCHEDULES", by_default),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_a_number_or_a_multiple_of_the_default() {
        assert_eq!(times_of("7", 30), Some(7));
        assert_eq!(times_of("x7", 30), Some(210));
        for wrong in ["", "x", "7x", "-1", "x18446744073709551615"] {
            assert_eq!(times_of(wrong, 30), None, "{wrong}");
        }
    }
}
