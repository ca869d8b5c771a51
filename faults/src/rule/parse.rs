//! Reading a rule, and refusing what could never apply.

use std::ops::Range;
use std::time::Duration;

use super::action::{ACTIONS, Action, ActionDraft, ActionWord};
use super::{Commands, Delay, Filters, Layer, Rule, Triggers};
use crate::errno::Errno;
use crate::kind::{RequestKind, RequestKinds};
use crate::words::{self, LanguageError, Word, look_up, names, set_once};

/// The commands of requests. `None` is `any`.
pub(crate) const COMMANDS: &[Word<Option<RequestKind>>] = &[
    Word {
        name: "any",
        value: "",
        help: "all of these but connect",
        id: None,
    },
    Word {
        name: "read",
        value: "",
        help: "NBD_CMD_READ",
        id: Some(RequestKind::Read),
    },
    Word {
        name: "write",
        value: "",
        help: "NBD_CMD_WRITE",
        id: Some(RequestKind::Write),
    },
    Word {
        name: "trim",
        value: "",
        help: "NBD_CMD_TRIM",
        id: Some(RequestKind::Trim),
    },
    Word {
        name: "zero",
        value: "",
        help: "NBD_CMD_WRITE_ZEROES",
        id: Some(RequestKind::Zero),
    },
    Word {
        name: "flush",
        value: "",
        help: "NBD_CMD_FLUSH",
        id: Some(RequestKind::Flush),
    },
    Word {
        name: "cache",
        value: "",
        help: "NBD_CMD_CACHE",
        id: Some(RequestKind::Cache),
    },
    Word {
        name: "status",
        value: "",
        help: "NBD_CMD_BLOCK_STATUS",
        id: Some(RequestKind::Status),
    },
    Word {
        name: "connect",
        value: "",
        help: "a client that connects, before it has chosen an export",
        id: Some(RequestKind::Connect),
    },
];

/// Where a rule sees requests.
pub(crate) const PLACES: &[Word<()>] = &[Word {
    name: "at",
    value: "backend",
    help: "the cache's own I/O instead of clients' requests",
    id: (),
}];

#[derive(Clone, Copy, Debug)]
pub(crate) enum FilterWord {
    Export,
    Connection,
    Offset,
    Fua,
}

pub(crate) const FILTERS: &[Word<FilterWord>] = &[
    Word {
        name: "export",
        value: "GLOB",
        help: "exports whose name matches, with * and ?",
        id: FilterWord::Export,
    },
    Word {
        name: "conn",
        value: "ID",
        help: "one connection",
        id: FilterWord::Connection,
    },
    Word {
        name: "offset",
        value: "A..B",
        help: "what touches a byte of that half-open range",
        id: FilterWord::Offset,
    },
    Word {
        name: "fua",
        value: "",
        help: "with forced unit access only",
        id: FilterWord::Fua,
    },
];

#[derive(Clone, Copy, Debug)]
pub(crate) enum TriggerWord {
    Chance,
    Nth,
    Every,
    First,
    After,
    Times,
    For,
    Up,
    Down,
    Seed,
}

pub(crate) const TRIGGERS: &[Word<TriggerWord>] = &[
    Word {
        name: "p",
        value: "P%",
        help: "each hit by chance",
        id: TriggerWord::Chance,
    },
    Word {
        name: "nth",
        value: "N",
        help: "the Nth hit only",
        id: TriggerWord::Nth,
    },
    Word {
        name: "every",
        value: "N",
        help: "each Nth hit",
        id: TriggerWord::Every,
    },
    Word {
        name: "first",
        value: "N",
        help: "only the first N hits",
        id: TriggerWord::First,
    },
    Word {
        name: "after",
        value: "N",
        help: "skip N hits; the others are counted from there",
        id: TriggerWord::After,
    },
    Word {
        name: "times",
        value: "N",
        help: "stop after N firings",
        id: TriggerWord::Times,
    },
    Word {
        name: "for",
        value: "T",
        help: "only for that long after it was added",
        id: TriggerWord::For,
    },
    Word {
        name: "up",
        value: "T",
        help: "with down: well for T, then failing for down's time, and again",
        id: TriggerWord::Up,
    },
    Word {
        name: "down",
        value: "T",
        help: "with up",
        id: TriggerWord::Down,
    },
    Word {
        name: "seed",
        value: "N",
        help: "of all that is random; drawn and shown if left out",
        id: TriggerWord::Seed,
    },
];

/// Commands that have a range of bytes.
const RANGED: RequestKinds = RequestKinds::READ
    .union(RequestKinds::WRITE)
    .union(RequestKinds::TRIM)
    .union(RequestKinds::ZERO)
    .union(RequestKinds::CACHE)
    .union(RequestKinds::STATUS);

/// Commands that change data, and so may ask for forced unit access.
const CHANGING: RequestKinds = RequestKinds::WRITE
    .union(RequestKinds::TRIM)
    .union(RequestKinds::ZERO);

#[derive(Default)]
struct Draft {
    layer: Option<Layer>,
    export: Option<String>,
    connection: Option<u64>,
    offset: Option<Range<u64>>,
    fua: Option<()>,
    triggers: Triggers,
    up: Option<Duration>,
    down: Option<Duration>,
    seed: Option<u64>,
    delay: Option<Delay>,
    action: ActionDraft,
}

impl Rule {
    /// Reads a rule.
    ///
    /// # Errors
    /// [`LanguageError`] names the word at fault and what was expected; also for an action or a filter that can't apply
    /// to one of the commands.
    pub fn parse(text: &str) -> Result<Self, LanguageError> {
        let mut words = text.split_whitespace();
        let first = words
            .next()
            .ok_or_else(|| LanguageError::missing(text, commands_expected()))?;
        let commands = commands(first)?;
        let mut draft = Draft::default();
        for word in words {
            draft.take(word)?;
        }
        let rule = draft.finish(commands)?;
        rule.check()?;
        Ok(rule)
    }

    /// Refuses what could never apply.
    fn check(&self) -> Result<(), LanguageError> {
        let kinds = match self.commands {
            Commands::Any => self.layer.any(),
            Commands::Listed(kinds) => kinds,
        };
        let Some(action) = self.action else {
            return if self.delay.is_some() {
                self.check_filters(kinds)
            } else {
                Err(LanguageError::missing(
                    &self.to_string(),
                    format!("an action: one of {}", names(ACTIONS)),
                ))
            };
        };
        let word = action.to_string();
        let beyond = kinds.without(action.applies_to());
        if !beyond.is_empty() {
            let reason = format!(
                "can't apply to {beyond}; it applies to {}",
                kinds_of(action, self.layer)
            );
            return Err(LanguageError::refused(&word, reason));
        }
        if self.layer == Layer::Backend && action.needs_client() {
            return Err(LanguageError::refused(
                &word,
                "there is no client at the backend",
            ));
        }
        if let Action::Error { errno, .. } = action
            && self.layer == Layer::Request
            && !errno.is_on_the_wire()
        {
            let known: Vec<_> = Errno::ON_THE_WIRE.iter().map(ToString::to_string).collect();
            let reason = format!(
                "NBD can't say it to a client; expected one of {}",
                known.join(", ")
            );
            return Err(LanguageError::refused(&errno.to_string(), reason));
        }
        self.check_filters(kinds)
    }

    fn check_filters(&self, kinds: RequestKinds) -> Result<(), LanguageError> {
        let Filters {
            export,
            connection,
            offset,
            fua,
        } = &self.filters;
        if self.layer == Layer::Backend {
            let beyond = kinds.without(Layer::Backend.any());
            if !beyond.is_empty() {
                let reason = format!(
                    "a backend is never asked for {beyond}; expected some of {}",
                    Layer::Backend.any()
                );
                return Err(LanguageError::refused("at=backend", reason));
            }
            if connection.is_some() {
                return Err(LanguageError::refused(
                    "conn",
                    "the cache's own I/O belongs to no connection",
                ));
            }
            if *fua {
                return Err(LanguageError::refused(
                    "fua",
                    "the cache's own I/O has no such flag",
                ));
            }
        }
        // `any` means those of its commands to which the filter can apply.
        let Commands::Listed(kinds) = self.commands else {
            return Ok(());
        };
        for (word, given, able) in [
            // A client that connects has not chosen one yet.
            ("export", export.is_some(), Layer::Request.any()),
            ("offset", offset.is_some(), RANGED),
            ("fua", *fua, CHANGING),
        ] {
            let beyond = kinds.without(able);
            if given && !beyond.is_empty() {
                return Err(LanguageError::refused(
                    word,
                    format!("can't apply to {beyond}; it applies to {able}"),
                ));
            }
        }
        Ok(())
    }
}

/// What the action applies to, of what clients can ask for there.
fn kinds_of(action: Action, layer: Layer) -> RequestKinds {
    let known = layer
        .any()
        .iter()
        .chain((layer == Layer::Request).then_some(RequestKind::Connect));
    known
        .filter(|kind| action.applies_to().contains(*kind))
        .collect()
}

fn commands_expected() -> String {
    format!("commands: a comma list of {}", names(COMMANDS))
}

fn commands(word: &str) -> Result<Commands, LanguageError> {
    let mut kinds = RequestKinds::NONE;
    for name in word.split(',') {
        let entry = look_up(COMMANDS, name)
            .ok_or_else(|| LanguageError::unexpected(name, commands_expected()))?;
        match entry.id {
            None if word == name => return Ok(Commands::Any),
            None => return Err(LanguageError::refused(name, "stands alone, not in a list")),
            Some(kind) if kinds.contains(kind) => return Err(LanguageError::repeated(name)),
            Some(kind) => kinds |= kind.into(),
        }
    }
    Ok(Commands::Listed(kinds))
}

impl Draft {
    fn take(&mut self, word: &str) -> Result<(), LanguageError> {
        let (name, value) = word
            .split_once('=')
            .map_or((word, None), |(name, value)| (name, Some(value)));
        let needed =
            |shape: &str| value.ok_or_else(|| LanguageError::missing(word, format!("={shape}")));
        // `after=N` skips hits; `after` alone belongs to an error.
        if let Some(entry) = look_up(TRIGGERS, name).filter(|_| word != "after") {
            return self.trigger(entry.id, needed(entry.value)?, name);
        }
        if let Some(entry) = look_up(FILTERS, name) {
            return match entry.id {
                FilterWord::Export => {
                    set_once(&mut self.export, needed(entry.value)?.to_owned(), name)
                }
                FilterWord::Connection => set_once(
                    &mut self.connection,
                    words::number(needed(entry.value)?)?,
                    name,
                ),
                FilterWord::Offset => {
                    set_once(&mut self.offset, words::range(needed(entry.value)?)?, name)
                }
                FilterWord::Fua if value.is_some() => {
                    Err(LanguageError::unexpected(word, "fua alone"))
                }
                FilterWord::Fua => set_once(&mut self.fua, (), name),
            };
        }
        if let Some(entry) = look_up(PLACES, name) {
            return match needed(entry.value)? {
                "backend" => set_once(&mut self.layer, Layer::Backend, name),
                other => Err(LanguageError::unexpected(other, "backend")),
            };
        }
        match look_up(ACTIONS, name) {
            Some(entry) if entry.id == ActionWord::Delay => set_once(
                &mut self.delay,
                delay(needed("T, A..B or exp:MEAN")?)?,
                name,
            ),
            Some(entry) => self.action.take(entry.id, value, word),
            None => {
                let expected = format!(
                    "one of {}, {}, {}, {}",
                    names(FILTERS),
                    names(TRIGGERS),
                    names(PLACES),
                    names(ACTIONS)
                );
                Err(LanguageError::unexpected(word, expected))
            }
        }
    }

    fn trigger(&mut self, id: TriggerWord, value: &str, name: &str) -> Result<(), LanguageError> {
        let triggers = &mut self.triggers;
        match id {
            TriggerWord::Chance => set_once(&mut triggers.percent, words::percent(value)?, name),
            TriggerWord::Nth => set_once(&mut triggers.nth, words::count(value)?, name),
            TriggerWord::Every => set_once(&mut triggers.every, words::count(value)?, name),
            TriggerWord::First => set_once(&mut triggers.first, words::count(value)?, name),
            TriggerWord::After => set_once(&mut triggers.after, words::number(value)?, name),
            TriggerWord::Times => set_once(&mut triggers.times, words::count(value)?, name),
            TriggerWord::For => set_once(&mut triggers.limit, words::duration(value)?, name),
            TriggerWord::Up => set_once(&mut self.up, words::duration(value)?, name),
            TriggerWord::Down => set_once(&mut self.down, words::duration(value)?, name),
            TriggerWord::Seed => set_once(&mut self.seed, words::number(value)?, name),
        }
    }

    fn finish(mut self, commands: Commands) -> Result<Rule, LanguageError> {
        self.triggers.up_down = match (self.up, self.down) {
            (None, None) => None,
            (Some(_), Some(down)) if down.is_zero() => {
                return Err(LanguageError::refused(
                    "down",
                    "a time of zero would never fire",
                ));
            }
            (Some(up), Some(down)) => Some((up, down)),
            (Some(_), None) => return Err(LanguageError::missing("up", "down=T")),
            (None, Some(_)) => return Err(LanguageError::missing("down", "up=T")),
        };
        let filters = Filters {
            export: self.export,
            connection: self.connection,
            offset: self.offset,
            fua: self.fua.is_some(),
        };
        Ok(Rule {
            commands,
            layer: self.layer.unwrap_or_default(),
            filters,
            triggers: self.triggers,
            delay: self.delay,
            action: self.action.finish()?,
            seed: self.seed,
        })
    }
}

fn delay(value: &str) -> Result<Delay, LanguageError> {
    if let Some(mean) = value.strip_prefix("exp:") {
        return words::duration(mean).map(Delay::Exponential);
    }
    let Some((start, end)) = value.split_once("..") else {
        return words::duration(value).map(Delay::Fixed);
    };
    let range = words::duration(start)?..words::duration(end)?;
    if range.is_empty() {
        return Err(LanguageError::unexpected(
            value,
            "a range that is not empty, such as 20ms..80ms",
        ));
    }
    Ok(Delay::Between(range))
}
