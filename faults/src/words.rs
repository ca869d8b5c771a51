//! What the control language is made of: tables of words, figures with units, and errors that name the word at fault.
//!
//! Parsers look their words up in the tables that [`crate::help`] prints, so the help can't say what the parser doesn't
//! do.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use thiserror::Error;

/// Words that can't be obeyed. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LanguageError {
    /// A word that is unknown there, or a figure that is none.
    #[error("`{word}`: expected {expected}")]
    Unexpected {
        /// The word at fault.
        word: String,
        /// What would have been right.
        expected: String,
    },
    /// The words end too early.
    #[error("after `{after}`: missing {expected}")]
    Missing {
        /// The last word, or what the words are for.
        after: String,
        /// What should have followed.
        expected: String,
    },
    /// A word that may stand once stands twice.
    #[error("`{word}`: given twice")]
    Repeated {
        /// The word at fault.
        word: String,
    },
    /// Words understood, but they can't apply.
    #[error("`{word}`: {reason}")]
    Refused {
        /// The word at fault.
        word: String,
        /// Why not, and what could.
        reason: String,
    },
    /// Nothing is selected.
    #[error("`{words}`: matches no {what}; {hint}")]
    NoMatch {
        /// What selects nothing.
        words: String,
        /// What was looked for.
        what: &'static str,
        /// What may have been meant, or where to look.
        hint: String,
    },
}

impl LanguageError {
    pub(crate) fn unexpected(word: &str, expected: impl Into<String>) -> Self {
        Self::Unexpected {
            word: word.to_owned(),
            expected: expected.into(),
        }
    }

    pub(crate) fn missing(after: &str, expected: impl Into<String>) -> Self {
        Self::Missing {
            after: after.to_owned(),
            expected: expected.into(),
        }
    }

    pub(crate) fn refused(word: &str, reason: impl Into<String>) -> Self {
        Self::Refused {
            word: word.to_owned(),
            reason: reason.into(),
        }
    }

    pub(crate) fn repeated(word: &str) -> Self {
        Self::Repeated {
            word: word.to_owned(),
        }
    }
}

/// One word of the language: how it is written, what it takes, what it means.
#[derive(Debug)]
pub(crate) struct Word<T: 'static> {
    pub(crate) name: &'static str,
    /// The shape of its value; empty if it stands alone.
    pub(crate) value: &'static str,
    pub(crate) help: &'static str,
    pub(crate) id: T,
}

/// The table's entry of that name.
pub(crate) fn look_up<T>(table: &'static [Word<T>], name: &str) -> Option<&'static Word<T>> {
    table.iter().find(|word| word.name == name)
}

/// The table's names, for an error that says what was expected.
pub(crate) fn names<T>(table: &'static [Word<T>]) -> String {
    table
        .iter()
        .map(|word| word.name)
        .collect::<Vec<_>>()
        .join(", ")
}

/// Sets what may be given once.
pub(crate) fn set_once<T>(slot: &mut Option<T>, value: T, word: &str) -> Result<(), LanguageError> {
    if slot.replace(value).is_some() {
        Err(LanguageError::repeated(word))
    } else {
        Ok(())
    }
}

/// The longest time that the language takes: longer than any test, and far from what overflows a clock.
pub const DURATION_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

const SIZE_UNITS: &[(&str, u32)] = &[
    ("E", 60),
    ("P", 50),
    ("T", 40),
    ("G", 30),
    ("M", 20),
    ("k", 10),
];

const NANOSECONDS: &[(&str, u64)] = &[
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// Digits only: neither sign nor space.
fn digits(word: &str) -> Option<u64> {
    if word.bytes().all(|byte| byte.is_ascii_digit()) {
        word.parse().ok()
    } else {
        None
    }
}

/// A whole figure, such as `12`.
pub(crate) fn number(word: &str) -> Result<u64, LanguageError> {
    digits(word).ok_or_else(|| LanguageError::unexpected(word, "a whole number"))
}

/// A whole figure from 1.
pub(crate) fn count(word: &str) -> Result<u64, LanguageError> {
    digits(word)
        .filter(|count| *count > 0)
        .ok_or_else(|| LanguageError::unexpected(word, "a whole number from 1"))
}

/// A size in bytes, such as `4096`, `4k` or `1M` (binary).
///
/// # Errors
/// If it is none, or larger than 64 bits hold.
pub fn size(word: &str) -> Result<u64, LanguageError> {
    let split = word
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(word.len());
    let (figure, unit) = word.split_at(split);
    let shift = match unit {
        "" => Some(0),
        "K" => Some(10),
        _ => SIZE_UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .map(|(_, shift)| *shift),
    };
    digits(figure)
        .zip(shift)
        .and_then(|(figure, shift)| figure.checked_mul(1 << shift))
        .ok_or_else(|| LanguageError::unexpected(word, "a size below 16E, such as 4096, 4k or 1M"))
}

/// A half-open range of bytes, such as `1M..2M`.
///
/// # Errors
/// If it is none, or empty.
pub fn range(word: &str) -> Result<Range<u64>, LanguageError> {
    let wrong = || LanguageError::unexpected(word, "a range that is not empty, such as 0..4k");
    let (start, end) = word.split_once("..").ok_or_else(wrong)?;
    let range = size(start)?..size(end)?;
    if range.is_empty() {
        Err(wrong())
    } else {
        Ok(range)
    }
}

/// A time, such as `20ms` or `5s`.
///
/// # Errors
/// If it is none, or longer than [`DURATION_MAX`].
pub fn duration(word: &str) -> Result<Duration, LanguageError> {
    let split = word
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(word.len());
    let (figure, unit) = word.split_at(split);
    let unit = NANOSECONDS
        .iter()
        .find(|(name, _)| *name == unit)
        .map(|(_, nanoseconds)| *nanoseconds);
    digits(figure)
        .zip(unit)
        .and_then(|(figure, unit)| figure.checked_mul(unit))
        .map(Duration::from_nanos)
        .filter(|duration| *duration <= DURATION_MAX)
        .ok_or_else(|| {
            LanguageError::unexpected(word, "a time of at most 366 days, such as 20ms or 5s")
        })
}

/// A chance in percent, such as `5%` or `0.1%`.
pub(crate) fn percent(word: &str) -> Result<f64, LanguageError> {
    word.strip_suffix('%')
        .filter(|figure| {
            figure
                .bytes()
                .all(|byte| byte.is_ascii_digit() || byte == b'.')
        })
        .and_then(|figure| figure.parse().ok())
        .filter(|percent| (0.0..=100.0).contains(percent))
        .ok_or_else(|| {
            LanguageError::unexpected(word, "a chance of at most 100%, such as 5% or 0.1%")
        })
}

/// Shows bytes so that [`size`] reads the same figure.
pub(crate) struct Size(pub(crate) u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = SIZE_UNITS
            .iter()
            .find(|(_, shift)| self.0 != 0 && self.0.trailing_zeros() >= *shift);
        match exact {
            Some((unit, shift)) => write!(f, "{}{unit}", self.0 >> shift),
            None => write!(f, "{}", self.0),
        }
    }
}

/// Shows a time so that [`duration`] reads the same.
pub(crate) struct Time(pub(crate) Duration);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanoseconds = self.0.as_nanos();
        // Hours and minutes are read, but seconds are what a reader compares.
        let units = NANOSECONDS.iter().skip_while(|(name, _)| *name != "s");
        let mut exact = units.filter(|(_, unit)| nanoseconds.is_multiple_of(u128::from(*unit)));
        match exact.next() {
            Some((name, unit)) => write!(f, "{}{name}", nanoseconds / u128::from(*unit)),
            None => write!(f, "{nanoseconds}ns"),
        }
    }
}

#[cfg(test)]
mod tests;
