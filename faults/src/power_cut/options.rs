//! How a power cut is asked for: `keep=random tear=4k seed=7`.

use std::fmt;

use super::TEAR_MIN;
use crate::rng::draw_seed;
use crate::words::{self, LanguageError, Size, Word, look_up, names, set_once};

/// Which of the versions since the last covering sync survive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keep {
    /// Exactly the covered image.
    #[default]
    None,
    /// The newest of each sector.
    All,
    /// For each sector any version, the covered one included.
    Random,
}

/// How the power is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PowerCutOptions {
    /// What survives.
    pub keep: Keep,
    /// With [`Keep::Random`]: this many bytes, aligned, share one fate. A power of two, at least a sector.
    pub tear: u64,
    /// With [`Keep::Random`]: the same seed, the same survivors.
    pub seed: u64,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum PowerCutWord {
    Keep,
    Tear,
    Seed,
}

pub(crate) const POWER_CUT_WORDS: &[Word<PowerCutWord>] = &[
    Word {
        name: "keep",
        value: "none|all|random",
        help: "what survives: what a flush has covered (the default), the newest, or for each sector any version since",
        id: PowerCutWord::Keep,
    },
    Word {
        name: "tear",
        value: "512",
        help: "with keep=random: bytes that share one fate, a power of two from 512",
        id: PowerCutWord::Tear,
    },
    Word {
        name: "seed",
        value: "N",
        help: "of keep=random; drawn and shown if left out",
        id: PowerCutWord::Seed,
    },
];

/// The largest unit of survival: far above what any disk writes at once.
const TEAR_MAX: u64 = 1 << 30;

impl PowerCutOptions {
    /// Reads the words after the export's name. Without any, it is `keep=none`.
    ///
    /// # Errors
    /// [`LanguageError`] names the word at fault and what was expected.
    pub fn parse(text: &str) -> Result<Self, LanguageError> {
        let (mut keep, mut tear, mut seed) = (None, None, None);
        for word in text.split_whitespace() {
            let expected =
                || LanguageError::unexpected(word, format!("one of {}", names(POWER_CUT_WORDS)));
            let name = word.split('=').next().unwrap_or(word);
            let entry = look_up(POWER_CUT_WORDS, name).ok_or_else(expected)?;
            let (_, value) = word
                .split_once('=')
                .ok_or_else(|| LanguageError::missing(word, format!("={}", entry.value)))?;
            match entry.id {
                PowerCutWord::Keep => set_once(&mut keep, parse_keep(value)?, name)?,
                PowerCutWord::Tear => set_once(&mut tear, parse_tear(value)?, name)?,
                PowerCutWord::Seed => set_once(&mut seed, words::number(value)?, name)?,
            }
        }
        Ok(Self {
            keep: keep.unwrap_or_default(),
            tear: tear.unwrap_or(TEAR_MIN),
            seed: seed.unwrap_or_else(draw_seed),
        })
    }
}

fn parse_keep(value: &str) -> Result<Keep, LanguageError> {
    match value {
        "none" => Ok(Keep::None),
        "all" => Ok(Keep::All),
        "random" => Ok(Keep::Random),
        _ => Err(LanguageError::unexpected(value, "none, all or random")),
    }
}

fn parse_tear(value: &str) -> Result<u64, LanguageError> {
    let wrong = || LanguageError::unexpected(value, "a power of two from 512 to 1G");
    let valid = |bytes: &u64| bytes.is_power_of_two() && (TEAR_MIN..=TEAR_MAX).contains(bytes);
    words::size(value).ok().filter(valid).ok_or_else(wrong)
}

/// The words, with the seed: the same cut again.
impl fmt::Display for PowerCutOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.keep {
            Keep::None => f.write_str("keep=none"),
            Keep::All => f.write_str("keep=all"),
            Keep::Random => write!(f, "keep=random tear={} seed={}", Size(self.tear), self.seed),
        }
    }
}

#[cfg(test)]
mod tests;
