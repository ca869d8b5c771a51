//! The control language of points: matches that are AND-ed, then what to do there.
//!
//! ```text
//! class cache:race frequency 100
//! file writeback.rs line 40-80 oneshot
//! class backend within flush error EIO
//! ```
//! These are the words of bcachefs' dynamic faults, and more. A query is parsed and checked against every point that it
//! selects before anything is changed.

use std::fmt;
use std::time::Duration;

use crate::errno::Errno;
use crate::kind::{RequestKind, RequestKinds};
use crate::rng::draw_seed;
use crate::words::{self, LanguageError, Time, Word, look_up, names, set_once};

mod selection;
pub use selection::Selection;
pub(crate) use selection::{MATCHES, Match};

/// The words that say what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ActionWord {
    Enable,
    Disable,
    Oneshot,
    Frequency,
    Probability,
    Seed,
    Times,
    After,
    For,
    Error,
    Delay,
    Pause,
}

pub(crate) const ACTIONS: &[Word<ActionWord>] = &[
    Word {
        name: "enable",
        value: "",
        help: "every hit",
        id: ActionWord::Enable,
    },
    Word {
        name: "disable",
        value: "",
        help: "disarm, and release whoever is paused there",
        id: ActionWord::Disable,
    },
    Word {
        name: "oneshot",
        value: "",
        help: "the next hit, once",
        id: ActionWord::Oneshot,
    },
    Word {
        name: "frequency",
        value: "N",
        help: "every Nth hit of each point",
        id: ActionWord::Frequency,
    },
    Word {
        name: "probability",
        value: "P%",
        help: "each hit by chance",
        id: ActionWord::Probability,
    },
    Word {
        name: "seed",
        value: "N",
        help: "of the chance; drawn and shown if left out",
        id: ActionWord::Seed,
    },
    Word {
        name: "times",
        value: "N",
        help: "disarm after N firings",
        id: ActionWord::Times,
    },
    Word {
        name: "after",
        value: "N",
        help: "let N hits pass first",
        id: ActionWord::After,
    },
    Word {
        name: "for",
        value: "T",
        help: "disarm after that time",
        id: ActionWord::For,
    },
    Word {
        name: "error",
        value: "NAME",
        help: "return it; the default is the first that the point allows",
        id: ActionWord::Error,
    },
    Word {
        name: "delay",
        value: "T",
        help: "wait there, then go on (where the point is awaited)",
        id: ActionWord::Delay,
    },
    Word {
        name: "pause",
        value: "",
        help: "wait there until released (where the point is awaited)",
        id: ActionWord::Pause,
    },
];

/// When an armed point fires: all of it must hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Trigger {
    /// Every Nth hit.
    pub(crate) frequency: Option<u64>,
    /// The chance of each hit.
    pub(crate) chance: Option<Chance>,
    /// No more firings than this; the point is disarmed after the last.
    pub(crate) times: Option<u64>,
    /// As many hits pass first.
    pub(crate) after: u64,
    /// Only for this long.
    pub(crate) limit: Option<Duration>,
}

/// A seeded chance.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Chance {
    pub(crate) percent: f64,
    pub(crate) seed: u64,
}

/// What a firing does. With nothing set it fails with the point's first error, or loses the race.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Effect {
    pub(crate) error: Option<Errno>,
    pub(crate) delay: Option<Duration>,
    pub(crate) pause: bool,
}

/// What a query does to the points that it selects.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum PointAction {
    Arm {
        trigger: Trigger,
        effect: Effect,
        within: RequestKinds,
    },
    Disable,
}

/// A query: which points, and what to do there. Its text form parses back to the same.
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    pub(crate) selection: Selection,
    pub(crate) action: PointAction,
}

/// What the action's words said, before it is known that they fit together.
#[derive(Default)]
struct Draft {
    within: Option<RequestKinds>,
    enable: Option<()>,
    disable: Option<()>,
    oneshot: Option<()>,
    frequency: Option<u64>,
    percent: Option<f64>,
    seed: Option<u64>,
    times: Option<u64>,
    after: Option<u64>,
    limit: Option<Duration>,
    error: Option<Errno>,
    delay: Option<Duration>,
    pause: Option<()>,
}

impl Query {
    /// Reads a query.
    ///
    /// # Errors
    /// [`LanguageError`] names the word at fault and what was expected. Whether the points that it selects can do this
    /// is checked when it is set.
    pub fn parse(text: &str) -> Result<Self, LanguageError> {
        let mut selection = Selection::default();
        let mut draft = Draft::default();
        let mut words = text.split_whitespace();
        let mut acts = false;
        while let Some(word) = words.next() {
            if word == Match::WITHIN {
                let value = words
                    .next()
                    .ok_or_else(|| LanguageError::missing(word, "the name of a kind"))?;
                set_once(&mut draft.within, kinds(value)?, word)?;
            } else if let Some(entry) = look_up(MATCHES, word) {
                selection.take(entry, &mut words)?;
            } else if let Some(entry) = look_up(ACTIONS, word) {
                acts = true;
                draft.take(entry, words_after(entry, &mut words)?)?;
            } else {
                return Err(LanguageError::unexpected(
                    word,
                    format!("one of {}, {}", names(MATCHES), names(ACTIONS)),
                ));
            }
        }
        if selection.is_empty() {
            return Err(LanguageError::missing(
                text,
                format!("what to match: one of {}", names(MATCHES)),
            ));
        }
        if !acts {
            return Err(LanguageError::missing(
                text,
                format!("what to do: one of {}", names(ACTIONS)),
            ));
        }
        Ok(Self {
            selection,
            action: draft.finish()?,
        })
    }
}

/// The value that follows the word, empty if it takes none.
fn words_after<'a, T>(
    entry: &Word<T>,
    words: &mut impl Iterator<Item = &'a str>,
) -> Result<&'a str, LanguageError> {
    if entry.value.is_empty() {
        return Ok("");
    }
    words
        .next()
        .ok_or_else(|| LanguageError::missing(entry.name, entry.value))
}

/// A comma list of kinds of work.
fn kinds(value: &str) -> Result<RequestKinds, LanguageError> {
    value
        .split(',')
        .map(|name| {
            RequestKind::from_name(name).ok_or_else(|| {
                let known: Vec<_> = RequestKind::NAMED.iter().map(|(name, _)| *name).collect();
                LanguageError::unexpected(name, format!("one of {}", known.join(", ")))
            })
        })
        .collect()
}

/// An error's name.
pub(crate) fn errno(name: &str) -> Result<Errno, LanguageError> {
    Errno::from_name(name).ok_or_else(|| {
        let known: Vec<_> = Errno::NAMED.iter().map(|(name, _)| *name).collect();
        LanguageError::unexpected(name, format!("one of {}", known.join(", ")))
    })
}

impl Draft {
    fn take(&mut self, entry: &Word<ActionWord>, value: &str) -> Result<(), LanguageError> {
        let name = entry.name;
        match entry.id {
            ActionWord::Enable => set_once(&mut self.enable, (), name),
            ActionWord::Disable => set_once(&mut self.disable, (), name),
            ActionWord::Oneshot => set_once(&mut self.oneshot, (), name),
            ActionWord::Frequency => set_once(&mut self.frequency, words::count(value)?, name),
            ActionWord::Probability => set_once(&mut self.percent, words::percent(value)?, name),
            ActionWord::Seed => set_once(&mut self.seed, words::number(value)?, name),
            ActionWord::Times => set_once(&mut self.times, words::count(value)?, name),
            ActionWord::After => set_once(&mut self.after, words::number(value)?, name),
            ActionWord::For => set_once(&mut self.limit, words::duration(value)?, name),
            ActionWord::Error => set_once(&mut self.error, errno(value)?, name),
            ActionWord::Delay => set_once(&mut self.delay, words::duration(value)?, name),
            ActionWord::Pause => set_once(&mut self.pause, (), name),
        }
    }

    fn finish(self) -> Result<PointAction, LanguageError> {
        if self.disable.is_some() {
            if self.arms() || self.within.is_some() {
                return Err(LanguageError::refused(
                    "disable",
                    "stands alone after the matches",
                ));
            }
            return Ok(PointAction::Disable);
        }
        if self.oneshot.is_some() && self.times.is_some() {
            return Err(LanguageError::refused("times", "oneshot says so already"));
        }
        if self.seed.is_some() && self.percent.is_none() {
            return Err(LanguageError::refused("seed", "only with probability"));
        }
        let trigger = Trigger {
            frequency: self.frequency,
            chance: self.percent.map(|percent| Chance {
                percent,
                seed: self.seed.unwrap_or_else(draw_seed),
            }),
            times: self.oneshot.map(|()| 1).or(self.times),
            after: self.after.unwrap_or(0),
            limit: self.limit,
        };
        let effect = Effect {
            error: self.error,
            delay: self.delay,
            pause: self.pause.is_some(),
        };
        Ok(PointAction::Arm {
            trigger,
            effect,
            within: self.within.unwrap_or(RequestKinds::ALL),
        })
    }

    fn arms(&self) -> bool {
        self.enable.is_some()
            || self.oneshot.is_some()
            || self.frequency.is_some()
            || self.percent.is_some()
            || self.seed.is_some()
            || self.times.is_some()
            || self.after.is_some()
            || self.limit.is_some()
            || self.error.is_some()
            || self.delay.is_some()
            || self.pause.is_some()
    }
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.selection, self.action)
    }
}

/// The words after the matches; what a listing shows as the point's state.
impl fmt::Display for PointAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Arm {
            trigger,
            effect,
            within,
        } = self
        else {
            return f.write_str("disable");
        };
        let mut parts = Vec::new();
        if *within != RequestKinds::ALL {
            parts.push(format!("within {within}"));
        }
        let before = parts.len();
        parts.extend(trigger.frequency.map(|n| format!("frequency {n}")));
        parts.extend(
            trigger
                .chance
                .map(|Chance { percent, seed }| format!("probability {percent}% seed {seed}")),
        );
        parts.extend(trigger.times.map(|n| {
            if n == 1 {
                "oneshot".to_owned()
            } else {
                format!("times {n}")
            }
        }));
        parts.extend((trigger.after > 0).then(|| format!("after {}", trigger.after)));
        parts.extend(trigger.limit.map(|limit| format!("for {}", Time(limit))));
        parts.extend(effect.error.map(|errno| format!("error {errno}")));
        parts.extend(effect.delay.map(|delay| format!("delay {}", Time(delay))));
        parts.extend(effect.pause.then(|| "pause".to_owned()));
        if parts.len() == before {
            parts.push("enable".to_owned());
        }
        f.write_str(&parts.join(" "))
    }
}

#[cfg(test)]
mod tests;
