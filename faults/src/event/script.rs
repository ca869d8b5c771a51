//! Events fed back: the same requests fail the same way.

use std::collections::HashMap;

use super::{Event, Firing};
use crate::kind::RequestKind;
use crate::rule::{Fate, Layer};
use crate::words::LanguageError;

/// What a request is recognised by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ScriptKey {
    pub(crate) export: String,
    pub(crate) kind: RequestKind,
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

/// The decisions of a run, by request. Each is used once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Script {
    fates: HashMap<(Layer, ScriptKey), HashMap<u64, Fate>>,
    /// Events by which no request can be recognised.
    skipped: usize,
}

impl Script {
    /// The decisions of those events. Where several rules fired at one request, delays add up and the first action
    /// holds, as they did in the run. Events of points and devices and those without an occurrence number are skipped.
    pub fn from_events<'a>(events: impl IntoIterator<Item = &'a Event>) -> Self {
        let mut script = Self::default();
        for event in events {
            let Firing::Rule(firing) = &event.firing else {
                script.skipped += 1;
                continue;
            };
            let Some(occurrence) = firing.occurrence else {
                script.skipped += 1;
                continue;
            };
            let key = ScriptKey {
                export: firing.export.clone(),
                kind: firing.command,
                offset: firing.offset,
                length: firing.length,
            };
            let fates = script.fates.entry((firing.at, key)).or_default();
            fates
                .entry(occurrence)
                .or_default()
                .combine(&firing.decision);
        }
        script
    }

    /// Reads events in their text form, one on a line; empty lines are skipped.
    ///
    /// # Errors
    /// [`LanguageError`] names the word at fault in the first line that is wrong.
    pub fn parse(text: &str) -> Result<Self, LanguageError> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let events = lines.map(str::parse).collect::<Result<Vec<Event>, _>>()?;
        Ok(Self::from_events(&events))
    }

    /// How many requests it is about.
    #[must_use]
    pub fn len(&self) -> usize {
        self.fates.values().map(HashMap::len).sum()
    }

    /// Whether it is about no request.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.fates.is_empty()
    }

    /// How many events it could not use.
    #[must_use]
    pub fn skipped(&self) -> usize {
        self.skipped
    }

    /// The part about one layer.
    pub(crate) fn of_layer(&self, layer: Layer) -> HashMap<ScriptKey, HashMap<u64, Fate>> {
        let there = self.fates.iter().filter(|((at, _), _)| *at == layer);
        there
            .map(|((_, key), fates)| (key.clone(), fates.clone()))
            .collect()
    }
}

impl Fate {
    /// Adds what another rule decided for the same request.
    pub(crate) fn combine(&mut self, other: &Self) {
        if let Some(delay) = other.delay {
            self.delay = Some(self.delay.unwrap_or_default().saturating_add(delay));
        }
        if self.action.is_none() {
            (self.action, self.seed) = (other.action, other.seed);
        }
    }
}
