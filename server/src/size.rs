//! Sizes as people write them: `4096`, `512k`, `10G`, `1T`, in binary units.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer};

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// Why a text is no size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// Not a whole number and at most one unit.
    #[error(
        "{0:?} is no size; write a whole number of bytes, or one with a unit: 4096, 512k, 10G, 1T"
    )]
    Malformed(String),
    /// It has more than 64 bits.
    #[error("{0} is more than 2^64 bytes")]
    TooLarge(String),
}

/// Units by their letter, with the power of two that they stand for.
const UNITS: [(char, u32); 6] = [
    ('K', 10),
    ('M', 20),
    ('G', 30),
    ('T', 40),
    ('P', 50),
    ('E', 60),
];

impl FromStr for Size {
    type Err = SizeError;

    /// A whole number, then nothing, `B`, or a unit in either case (`k`, `K`, `KiB`, `kb`): always binary.
    fn from_str(text: &str) -> Result<Self, SizeError> {
        let malformed = || SizeError::Malformed(text.to_owned());
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        if number.is_empty() {
            return Err(malformed());
        }
        let number: u64 = number
            .parse()
            .map_err(|_| SizeError::TooLarge(text.to_owned()))?;
        let unit = unit.to_ascii_uppercase();
        let shift = match unit.as_str() {
            "" | "B" => 0,
            _ => {
                let letter = unit.chars().next().ok_or_else(malformed)?;
                if !matches!(&unit[letter.len_utf8()..], "" | "B" | "IB") {
                    return Err(malformed());
                }
                UNITS
                    .iter()
                    .find(|(known, _)| *known == letter)
                    .ok_or_else(malformed)?
                    .1
            }
        };
        let bytes = number
            .checked_mul(1 << shift)
            .ok_or_else(|| SizeError::TooLarge(text.to_owned()))?;
        Ok(Self(bytes))
    }
}

/// Exact, in the largest unit that divides it: the printed text can be parsed again.
impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fitting = UNITS
            .iter()
            .rev()
            .find(|(_, shift)| self.0 != 0 && self.0.trailing_zeros() >= *shift);
        match fitting {
            Some((letter, shift)) => write!(f, "{}{letter}", self.0 >> shift),
            None => write!(f, "{}", self.0),
        }
    }
}

/// A whole number of bytes, or a text.
impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(
            untagged,
            expecting = "a size: a number of bytes, or a text such as \"10G\""
        )]
        enum Written {
            Bytes(u64),
            Text(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Bytes(bytes) => Ok(Self(bytes)),
            Written::Text(text) => text.parse().map_err(serde::de::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests;
