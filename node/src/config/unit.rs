//! Sizes and durations as people write them: a whole number and a unit, with nothing between.
//!
//! The rule: no unit is ever assumed, and decimal look-alikes (`MB`) are refused rather than guessed at.

use std::{fmt, time::Duration};

const SIZES: [(&str, u64); 5] = [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];

const DURATIONS: [(&str, u64); 5] =
    [("us", 1_000), ("ms", 1_000_000), ("s", 1_000_000_000), ("min", 60_000_000_000), ("h", 3_600_000_000_000)];

/// The bytes that `text` says, such as "64MiB".
pub(super) fn size(text: &str) -> Result<u64, String> {
    parse(text, &SIZES)
}

/// The time that `text` says, such as "5ms".
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    parse(text, &DURATIONS).map(Duration::from_nanos)
}

/// `bytes` in the largest unit that holds them exactly.
pub(super) struct Size(pub(super) u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_exact(f, self.0, &SIZES)
    }
}

/// `duration` in the largest unit that holds it exactly.
pub(super) struct Time(pub(super) Duration);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_exact(f, u64::try_from(self.0.as_nanos()).unwrap_or(u64::MAX), &DURATIONS)
    }
}

fn parse(text: &str, units: &[(&str, u64)]) -> Result<u64, String> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let known: Vec<&str> = units.iter().map(|(name, _)| *name).collect();
    let known = known.join(", ");
    if number.is_empty() || unit.starts_with('.') {
        return Err(format!("must be a whole number and a unit ({known}); got \"{text}\""));
    }
    if unit.is_empty() {
        return Err(format!("needs a unit ({known}); got \"{text}\""));
    }
    let Some((_, factor)) = units.iter().find(|(name, _)| *name == unit) else {
        return Err(format!("has the unknown unit \"{unit}\"; known are {known}"));
    };
    let value = number.parse::<u64>().ok().and_then(|number| number.checked_mul(*factor));
    value.ok_or_else(|| format!("is too large: \"{text}\""))
}

fn write_exact(f: &mut fmt::Formatter<'_>, value: u64, units: &[(&str, u64)]) -> fmt::Result {
    let mut fitting = units.iter().rev().filter(|(_, factor)| value.is_multiple_of(*factor) && value >= *factor);
    let (name, factor) = fitting.next().unwrap_or(&units[0]);
    write!(f, "{}{name}", value / factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_durations_are_read_and_written() {
        for (text, bytes) in [("0B", 0), ("1B", 1), ("64KiB", 65_536), ("3MiB", 3 << 20), ("2TiB", 2 << 40)] {
            assert_eq!(size(text), Ok(bytes), "{text}");
            assert_eq!(Size(bytes).to_string(), text);
        }
        for (text, micros) in [("0us", 0), ("250us", 250), ("5ms", 5_000), ("2s", 2_000_000), ("1h", 3_600_000_000)] {
            assert_eq!(duration(text), Ok(Duration::from_micros(micros)), "{text}");
            assert_eq!(Time(Duration::from_micros(micros)).to_string(), text);
        }
    }

    #[test]
    fn what_is_not_a_size_is_refused() {
        let cases =
            ["", "64", "MiB", "64MB", "64 MiB", "64mib", "1.5GiB", "-1MiB", "64MiB ", "18446744073709551615KiB"];
        for text in cases.into_iter().chain(["99999999999999999999B", "٣MiB", "1s"]) {
            assert!(size(text).is_err(), "{text}");
        }
        assert!(size("64MB").unwrap_err().contains("MiB"));
    }
}
