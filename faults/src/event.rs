//! What happened: every firing of rules and points and every power cut, in a bounded ring, with followers.
//!
//! A follower keeps the number of the last event that it has seen and fetches what came after. A follower that is too
//! slow finds a gap in the numbers, and holds nothing up.

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;
use std::sync::Mutex;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::kind::RequestKind;
use crate::registry::lock;
use crate::rule::{Fate, Layer, fate_from_words};
use crate::words::{self, LanguageError};

mod script;
pub use script::Script;
pub(crate) use script::ScriptKey;

/// How many events are kept: some minutes of a busy test, in a few megabytes.
pub const EVENTS_KEPT: usize = 16_384;

/// The rule number of a firing that a replayed script caused.
pub const REPLAY: u64 = 0;

/// One firing. Its text form parses back to the same, but for [`Event::number`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Counts events, from 1; in the text form it is left out.
    #[serde(default)]
    pub number: u64,
    /// Microseconds since the registry was made.
    pub time_us: u64,
    /// What fired.
    #[serde(flatten)]
    pub firing: Firing,
}

/// What fired.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "source", rename_all = "lowercase")]
pub enum Firing {
    /// A rule, at a request.
    Rule(RuleFiring),
    /// A point in code.
    Point(PointFiring),
    /// A device that was made to fail at that moment.
    Device(DeviceFiring),
}

/// A rule's firing at one request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleFiring {
    /// The rule's number, or [`REPLAY`].
    pub rule: u64,
    /// Where it saw the request.
    pub at: Layer,
    /// The export's name.
    pub export: String,
    /// The connection's number; absent at the backend.
    pub connection: Option<u64>,
    /// The command.
    #[serde(with = "by_name")]
    pub command: RequestKind,
    /// Where the request begins, in bytes.
    pub offset: u64,
    /// How long it is, in bytes.
    pub length: u64,
    /// Which of the requests with the same export, command, offset and length it was since something was in force where
    /// nothing had been, from 1. Absent if that isn't known: the rule came in force when others were already and
    /// requests like this one had passed uncounted, or there were too many different ones to count.
    pub occurrence: Option<u64>,
    /// What was decided.
    #[serde(with = "as_words")]
    pub decision: Fate,
}

/// A point's firing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PointFiring {
    /// The source file.
    pub file: String,
    /// The line.
    pub line: u32,
    /// The class.
    pub class: String,
    /// The function around it.
    pub function: String,
    /// The kinds of work that it fired under, a comma list.
    pub within: String,
    /// Which of the point's firings it was, from 1.
    pub fire: u64,
    /// What was armed.
    pub action: String,
}

/// What was done to a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceFiring {
    /// The export's name.
    pub export: String,
    /// The words that do it again, without the name: `power-cut keep=random tear=512 seed=7`.
    pub action: String,
}

mod by_name {
    use super::RequestKind;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    // serde's signature.
    #[expect(
        clippy::trivially_copy_pass_by_ref,
        reason = "serde calls it with a reference"
    )]
    pub(super) fn serialize<S: Serializer>(
        kind: &RequestKind,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(kind.name())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<RequestKind, D::Error> {
        let name = String::deserialize(deserializer)?;
        RequestKind::from_name(&name)
            .ok_or_else(|| D::Error::custom(format!("unknown command `{name}`")))
    }
}

mod as_words {
    use super::Fate;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(fate: &Fate, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(fate)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Fate, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(D::Error::custom)
    }
}

/// The ring and the clock that its events are stamped with.
#[derive(Debug)]
pub(crate) struct EventLog {
    epoch: Instant,
    kept: Mutex<VecDeque<Event>>,
    /// The number of the newest event.
    newest: watch::Sender<u64>,
}

impl Default for EventLog {
    fn default() -> Self {
        Self {
            epoch: Instant::now(),
            kept: Mutex::default(),
            newest: watch::Sender::default(),
        }
    }
}

impl EventLog {
    pub(crate) fn push(&self, firing: Firing) {
        let time_us = u64::try_from(self.epoch.elapsed().as_micros()).unwrap_or(u64::MAX);
        let mut kept = lock(&self.kept);
        let number = *self.newest.borrow() + 1;
        if kept.len() == EVENTS_KEPT {
            kept.pop_front();
        }
        kept.push_back(Event {
            number,
            time_us,
            firing,
        });
        self.newest.send_replace(number);
    }

    /// The kept events that are newer than the event of that number, at most `most`. A caller that fires a rule waits
    /// for this.
    pub(crate) fn since(&self, number: u64, most: usize) -> Vec<Event> {
        let kept = lock(&self.kept);
        let first = kept.partition_point(|event| event.number <= number);
        kept.range(first..).take(most).cloned().collect()
    }

    pub(crate) fn newest(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "time={}us ", self.time_us)?;
        match &self.firing {
            Firing::Rule(rule) => write!(f, "{rule}"),
            Firing::Point(point) => write!(f, "{point}"),
            Firing::Device(DeviceFiring { export, action }) => {
                write!(f, "device={}: {action}", Escaped(export))
            }
        }
    }
}

impl fmt::Display for RuleFiring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "rule={} at={} export={}",
            self.rule,
            self.at.name(),
            Escaped(&self.export)
        )?;
        if let Some(connection) = self.connection {
            write!(f, " conn={connection}")?;
        }
        write!(
            f,
            " command={} offset={} length={}",
            self.command, self.offset, self.length
        )?;
        if let Some(occurrence) = self.occurrence {
            write!(f, " occurrence={occurrence}")?;
        }
        write!(f, ": {}", self.decision)
    }
}

impl fmt::Display for PointFiring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            file,
            line,
            class,
            function,
            within,
            fire,
            action,
        } = self;
        let (file, function) = (Escaped(file), Escaped(function));
        write!(
            f,
            "point={file} line={line} class={class} func={function} within={within} fire={fire}: {action}"
        )
    }
}

/// Percent-encoded where it would end a word.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            if c == '%' || c == ':' || c.is_whitespace() || c.is_control() {
                let mut bytes = [0; 4];
                for byte in c.encode_utf8(&mut bytes).bytes() {
                    write!(f, "%{byte:02X}")?;
                }
            } else {
                write!(f, "{c}")?;
            }
        }
        Ok(())
    }
}

fn unescape(word: &str) -> Result<String, LanguageError> {
    let wrong = || LanguageError::unexpected(word, "a percent-encoded name");
    let mut bytes = Vec::with_capacity(word.len());
    let mut rest = word.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = [
            rest.next().ok_or_else(wrong)?,
            rest.next().ok_or_else(wrong)?,
        ];
        let digits = std::str::from_utf8(&digits).map_err(|_| wrong())?;
        bytes.push(u8::from_str_radix(digits, 16).map_err(|_| wrong())?);
    }
    String::from_utf8(bytes).map_err(|_| wrong())
}

impl FromStr for Event {
    type Err = LanguageError;

    fn from_str(line: &str) -> Result<Self, LanguageError> {
        let (head, tail) = line
            .split_once(": ")
            .ok_or_else(|| LanguageError::missing(line, "a colon and what was decided"))?;
        let fields = Fields::parse(head)?;
        let time_us = duration_us(fields.needed("time")?)?;
        let firing = if fields.get("rule").is_some() {
            Firing::Rule(rule_firing(&fields, tail)?)
        } else if let Some(export) = fields.get("device") {
            Firing::Device(DeviceFiring {
                export: unescape(export)?,
                action: tail.to_owned(),
            })
        } else {
            Firing::Point(point_firing(&fields, tail)?)
        };
        Ok(Self {
            number: 0,
            time_us,
            firing,
        })
    }
}

/// The `name=value` words of an event.
struct Fields<'a> {
    line: &'a str,
    pairs: Vec<(&'a str, &'a str)>,
}

impl<'a> Fields<'a> {
    fn parse(line: &'a str) -> Result<Self, LanguageError> {
        let pair = |word: &'a str| {
            word.split_once('=')
                .ok_or_else(|| LanguageError::unexpected(word, "name=value"))
        };
        Ok(Self {
            line,
            pairs: line
                .split_whitespace()
                .map(pair)
                .collect::<Result<_, _>>()?,
        })
    }

    fn get(&self, name: &str) -> Option<&'a str> {
        self.pairs
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| *value)
    }

    fn needed(&self, name: &str) -> Result<&'a str, LanguageError> {
        self.get(name)
            .ok_or_else(|| LanguageError::missing(self.line, format!("{name}=")))
    }
}

fn duration_us(word: &str) -> Result<u64, LanguageError> {
    word.strip_suffix("us")
        .and_then(|figure| figure.parse().ok())
        .ok_or_else(|| LanguageError::unexpected(word, "microseconds, such as 1500us"))
}

fn rule_firing(fields: &Fields<'_>, decision: &str) -> Result<RuleFiring, LanguageError> {
    let at = match fields.needed("at")? {
        "request" => Layer::Request,
        "backend" => Layer::Backend,
        other => return Err(LanguageError::unexpected(other, "request or backend")),
    };
    let command = fields.needed("command")?;
    Ok(RuleFiring {
        rule: words::number(fields.needed("rule")?)?,
        at,
        export: unescape(fields.needed("export")?)?,
        connection: fields.get("conn").map(words::number).transpose()?,
        command: RequestKind::from_name(command)
            .ok_or_else(|| LanguageError::unexpected(command, "a command's name"))?,
        offset: words::number(fields.needed("offset")?)?,
        length: words::number(fields.needed("length")?)?,
        occurrence: fields.get("occurrence").map(words::count).transpose()?,
        decision: fate_from_words(decision.split_whitespace())?,
    })
}

fn point_firing(fields: &Fields<'_>, action: &str) -> Result<PointFiring, LanguageError> {
    let line = fields.needed("line")?;
    Ok(PointFiring {
        file: unescape(fields.needed("point")?)?,
        line: line
            .parse()
            .map_err(|_| LanguageError::unexpected(line, "a line"))?,
        class: fields.needed("class")?.to_owned(),
        function: unescape(fields.needed("func")?)?,
        within: fields.needed("within")?.to_owned(),
        fire: words::number(fields.needed("fire")?)?,
        action: action.to_owned(),
    })
}

impl Event {
    /// When it happened, since the registry was made.
    #[must_use]
    pub fn time(&self) -> Duration {
        Duration::from_micros(self.time_us)
    }
}

#[cfg(test)]
mod tests;
