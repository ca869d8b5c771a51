//! Rules on requests: a line of words that says which requests, when, and what happens to them.
//!
//! ```text
//! write offset=1M..2M nth=3 error=EIO
//! read p=1% delay=20ms..80ms
//! any up=5s down=2s error=EIO
//! ```
//! A rule counts the requests that its commands and filters match; each of them is a *hit*. The triggers, all of which
//! must hold, say whether the hit fires. Whatever is random comes from the seed, the rule's text and the hit's number,
//! and from nothing else: the same rule on the same requests makes the same decisions, wherever it stands in the list.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::kind::{RequestKind, RequestKinds};
use crate::rng::Rng;
use crate::words::{Size, Time};

mod action;
mod armed;
mod parse;

pub(crate) use action::{ACTIONS, fate_from_words};
pub use action::{Action, Damage, Fate};
pub(crate) use armed::ArmedRule;
pub(crate) use parse::{COMMANDS, FILTERS, PLACES, TRIGGERS};

/// Where a rule sees requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layer {
    /// What clients ask for.
    #[default]
    Request,
    /// The cache's own I/O, `at=backend`.
    Backend,
}

impl Layer {
    /// The layer's name in the control language.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Backend => "backend",
        }
    }

    /// What `any` means there: all but connect; the backend has no cache hints either.
    #[must_use]
    pub const fn any(self) -> RequestKinds {
        let data = RequestKinds::READ
            .union(RequestKinds::WRITE)
            .union(RequestKinds::TRIM)
            .union(RequestKinds::ZERO);
        let common = data.union(RequestKinds::FLUSH).union(RequestKinds::STATUS);
        match self {
            Self::Request => common.union(RequestKinds::CACHE),
            Self::Backend => common,
        }
    }
}

/// The commands that a rule means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Commands {
    Any,
    Listed(RequestKinds),
}

/// Which of the commands' requests a rule means.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Filters {
    pub(crate) export: Option<String>,
    pub(crate) connection: Option<u64>,
    pub(crate) offset: Option<Range<u64>>,
    pub(crate) fua: bool,
}

/// When a hit fires: all of it must hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Triggers {
    pub(crate) percent: Option<f64>,
    pub(crate) nth: Option<u64>,
    pub(crate) every: Option<u64>,
    pub(crate) first: Option<u64>,
    pub(crate) after: Option<u64>,
    pub(crate) times: Option<u64>,
    pub(crate) limit: Option<Duration>,
    /// Works during the first time, fails during the second, and so on.
    pub(crate) up_down: Option<(Duration, Duration)>,
}

/// How long a firing delays its request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Delay {
    Fixed(Duration),
    /// Evenly spread, half-open.
    Between(Range<Duration>),
    /// Exponentially distributed, with this mean.
    Exponential(Duration),
}

/// One rule. Its text form parses back to the same.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    pub(crate) commands: Commands,
    pub(crate) layer: Layer,
    pub(crate) filters: Filters,
    pub(crate) triggers: Triggers,
    pub(crate) delay: Option<Delay>,
    pub(crate) action: Option<Action>,
    pub(crate) seed: Option<u64>,
}

/// A request as rules see it.
#[derive(Clone, Copy, Debug)]
pub struct RequestView<'a> {
    /// The export's name; empty for the default export, and for a connection that has not chosen one.
    pub export: &'a str,
    /// The connection's number.
    pub connection: u64,
    /// The command.
    pub kind: RequestKind,
    /// Where it begins, in bytes; 0 for what has no range.
    pub offset: u64,
    /// How long it is, in bytes; 0 for what has no range.
    pub length: u64,
    /// Whether it asks for forced unit access.
    pub fua: bool,
}

/// The cache's own I/O as rules with `at=backend` see it.
#[derive(Clone, Copy, Debug)]
pub struct BackendView<'a> {
    /// The export's name.
    pub export: &'a str,
    /// What the backend is asked to do: read, write, trim, zero, flush (its sync) or status (its extents).
    pub kind: RequestKind,
    /// Where it begins, in bytes.
    pub offset: u64,
    /// How long it is, in bytes.
    pub length: u64,
}

impl Rule {
    /// Where the rule sees requests.
    #[must_use]
    pub fn layer(&self) -> Layer {
        self.layer
    }

    /// The pattern that exports' names must match, if there is one.
    #[must_use]
    pub fn export_glob(&self) -> Option<&str> {
        self.filters.export.as_deref()
    }

    /// Where it stores instead, in bytes, if that is what it does.
    #[must_use]
    pub fn misdirect(&self) -> Option<u64> {
        match self.action {
            Some(Action::Misdirect(offset)) => Some(offset),
            _ => None,
        }
    }

    /// The commands that it is about.
    pub(crate) fn kinds(&self) -> RequestKinds {
        match self.commands {
            Commands::Any => self.layer.any(),
            Commands::Listed(kinds) => kinds,
        }
    }

    /// Whether it is about the requests of an export of that name.
    #[must_use]
    pub fn covers_export(&self, name: &str) -> bool {
        let glob = self.filters.export.as_ref();
        glob.is_none_or(|glob| glob_matches(glob, name))
    }

    /// Whether it could match a request that looks like this one to a script: whatever connection it comes from, and
    /// whether or not it asks for forced unit access.
    pub(crate) fn covers(&self, request: &RequestView<'_>) -> bool {
        let offset = self.filters.offset.as_ref();
        self.kinds().contains(request.kind)
            && offset.is_none_or(|range| overlaps(range, request.offset, request.length))
            && self.covers_export(request.export)
    }

    /// Whether it matches a request that it [covers](Self::covers).
    pub(crate) fn admits(&self, request: &RequestView<'_>) -> bool {
        let Filters {
            connection, fua, ..
        } = self.filters;
        connection.is_none_or(|connection| connection == request.connection)
            && (!fua || request.fua)
    }
}

impl Delay {
    /// The delay of one firing.
    pub(crate) fn draw(&self, rng: &mut Rng) -> Duration {
        match self {
            Self::Fixed(delay) => *delay,
            Self::Between(range) => range.start + (range.end - range.start).mul_f64(rng.unit()),
            // 1 - unit() is above zero, and at least 2^-53: no more than 37 times the mean.
            Self::Exponential(mean) => mean.mul_f64(-(1.0 - rng.unit()).ln()),
        }
    }
}

/// Whether the request touches a byte of the range.
#[inline]
pub(crate) fn overlaps(range: &Range<u64>, offset: u64, length: u64) -> bool {
    length > 0 && offset < range.end && offset.saturating_add(length) > range.start
}

/// Whether the name matches a pattern in which `*` is any run of characters and `?` any one.
pub(crate) fn glob_matches(pattern: &str, name: &str) -> bool {
    let (mut pattern, mut name) = (pattern.chars(), name.chars());
    // What follows the last star, and what is left of the name where the run that it stands for ends.
    let mut star = None;
    loop {
        let Some(c) = name.clone().next() else {
            return pattern.all(|wanted| wanted == '*');
        };
        let mut rest = pattern.clone();
        match rest.next() {
            Some('*') => {
                star = Some((rest.clone(), name.clone()));
                pattern = rest;
            }
            Some(wanted) if wanted == '?' || wanted == c => {
                pattern = rest;
                name.next();
            }
            _ => {
                let Some((after, run)) = &mut star else {
                    return false;
                };
                run.next();
                (pattern, name) = (after.clone(), run.clone());
            }
        }
    }
}

/// The canonical form, without a seed that was drawn.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.commands {
            Commands::Any => f.write_str("any")?,
            Commands::Listed(kinds) => write!(f, "{kinds}")?,
        }
        if self.layer == Layer::Backend {
            f.write_str(" at=backend")?;
        }
        write!(f, "{}{}", self.filters, self.triggers)?;
        match &self.delay {
            None => {}
            Some(Delay::Fixed(delay)) => write!(f, " delay={}", Time(*delay))?,
            Some(Delay::Between(range)) => {
                write!(f, " delay={}..{}", Time(range.start), Time(range.end))?
            }
            Some(Delay::Exponential(mean)) => write!(f, " delay=exp:{}", Time(*mean))?,
        }
        if let Some(action) = &self.action {
            write!(f, " {action}")?;
        }
        match self.seed {
            Some(seed) => write!(f, " seed={seed}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Filters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(export) = &self.export {
            write!(f, " export={export}")?;
        }
        if let Some(connection) = self.connection {
            write!(f, " conn={connection}")?;
        }
        if let Some(range) = &self.offset {
            write!(f, " offset={}..{}", Size(range.start), Size(range.end))?;
        }
        if self.fua {
            f.write_str(" fua")
        } else {
            Ok(())
        }
    }
}

impl fmt::Display for Triggers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            percent,
            nth,
            every,
            first,
            after,
            times,
            limit,
            up_down,
        } = self;
        if let Some(percent) = percent {
            write!(f, " p={percent}%")?;
        }
        for (name, count) in [
            ("nth", nth),
            ("every", every),
            ("first", first),
            ("after", after),
            ("times", times),
        ] {
            if let Some(count) = count {
                write!(f, " {name}={count}")?;
            }
        }
        if let Some(limit) = limit {
            write!(f, " for={}", Time(*limit))?;
        }
        match up_down {
            Some((up, down)) => write!(f, " up={} down={}", Time(*up), Time(*down)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
