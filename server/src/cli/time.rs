//! Spans of time as people write them: `500ms`, `10s`, `5m`, `2h`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

/// A span of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time(pub Duration);

/// The text is no span of time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no time; write a whole number with its unit: 500ms, 10s, 5m, 2h")]
pub struct TimeError(String);

/// Milliseconds by unit.
const UNITS: [(&str, u64); 4] = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)];

impl FromStr for Time {
    type Err = TimeError;

    /// More than zero, with a unit: half of its readers would take a bare number for seconds.
    fn from_str(text: &str) -> Result<Self, TimeError> {
        let malformed = || TimeError(text.to_owned());
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| malformed())?;
        let (_, factor) = UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .ok_or_else(malformed)?;
        let milliseconds = number
            .checked_mul(*factor)
            .filter(|count| *count > 0)
            .ok_or_else(malformed)?;
        Ok(Self(Duration::from_millis(milliseconds)))
    }
}

/// For people: the two largest units, `3d 4h` or `500ms`.
impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = self.0.as_millis();
        if milliseconds < 1000 && milliseconds > 0 {
            return write!(f, "{milliseconds}ms");
        }
        let mut left = self.0.as_secs();
        let units = [("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)];
        let mut parts = Vec::new();
        for (unit, seconds) in units {
            if left >= seconds {
                parts.push(format!("{}{unit}", left / seconds));
                left %= seconds;
            }
        }
        // Two units are enough.
        parts.truncate(2);
        match parts.is_empty() {
            true => f.write_str("0s"),
            false => f.write_str(&parts.join(" ")),
        }
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units() {
        for (text, milliseconds) in [
            ("500ms", 500),
            ("10s", 10_000),
            ("5m", 300_000),
            ("2h", 7_200_000),
        ] {
            assert_eq!(
                text.parse(),
                Ok(Time(Duration::from_millis(milliseconds))),
                "{text}"
            );
        }
    }

    #[test]
    fn for_people() {
        for (milliseconds, text) in [
            (0, "0s"),
            (500, "500ms"),
            (1000, "1s"),
            (61_000, "1m 1s"),
            (7_200_000, "2h"),
            (90_061_000, "1d 1h"),
        ] {
            assert_eq!(Time(Duration::from_millis(milliseconds)).to_string(), text);
        }
    }

    #[test]
    fn refusals() {
        for text in [
            "",
            "10",
            "s",
            "0s",
            "-1s",
            "1.5s",
            "10 s",
            "10S",
            "1d",
            "99999999999999999999s",
            "18446744073709551615h",
        ] {
            assert_eq!(
                text.parse::<Time>(),
                Err(TimeError(text.to_owned())),
                "{text}"
            );
        }
    }
}
