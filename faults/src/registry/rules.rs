//! Rules in force: how they come and go, and how requests ask them.
//!
//! Every rule sees every request, whatever the others decided. Delays add up, and the first rule with an action gives
//! the action. A set of rules per layer decides under a mutex, so that requests are numbered in one order ([`set`]). A
//! request that nothing in force could match doesn't get that far ([`screen`]). If others that look like it to a script
//! could be matched, it is noted, to be counted before a number is needed ([`tally`]). Otherwise it isn't counted at
//! all; [`occurrences`] says why scripts hit the right requests all the same.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::event::{Event, REPLAY, Script};
use crate::registry::Faults;
use crate::rule::{BackendView, Layer, RequestView, Rule, glob_matches};
use crate::words::LanguageError;

mod coverage;
mod decision;
mod occurrences;
mod screen;
mod set;
mod tally;

pub use decision::Decision;
pub use screen::Screen;
use set::RuleSet;

/// The most rules in force: each request walks them all.
pub const RULES_MAX: usize = 1024;

/// There is no rule of that number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("there is no rule {0}; `weir fault list` shows those in force")]
pub struct NoSuchRule(pub u64);

/// What a listing says of one rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleListing {
    /// The rule's number.
    pub id: u64,
    /// The rule in its canonical form, with its seed: adding it again repeats its decisions.
    pub text: String,
    /// The seed in use.
    pub seed: u64,
    /// How many requests it matched.
    pub hits: u64,
    /// How many of them it fired at.
    pub fires: u64,
}

/// Both layers and the next rule's number.
#[derive(Default)]
pub(crate) struct Rules {
    request: RuleSet,
    backend: RuleSet,
    last_id: AtomicU64,
}

impl Rules {
    fn layer(&self, layer: Layer) -> &RuleSet {
        match layer {
            Layer::Request => &self.request,
            Layer::Backend => &self.backend,
        }
    }

    /// How many rules are in force.
    fn len(&self) -> usize {
        self.layers().iter().map(|set| set.rules()).sum()
    }

    fn layers(&self) -> [&RuleSet; 2] {
        [&self.request, &self.backend]
    }
}

impl Faults {
    /// Puts a rule in force and returns its number.
    ///
    /// # Errors
    /// [`LanguageError`] if the words are wrong, if it names no export that there is, or if [`RULES_MAX`] are in force.
    pub fn add_rule(&self, text: &str) -> Result<u64, LanguageError> {
        let rule = Rule::parse(text)?;
        if let Some(glob) = rule.export_glob()
            && !self
                .device_names()
                .iter()
                .any(|name| glob_matches(glob, name))
        {
            return Err(LanguageError::NoMatch {
                words: format!("export={glob}"),
                what: "export",
                hint: {
                    let names = self.device_names();
                    let names: Vec<_> = names.iter().map(|name| format!("{name:?}")).collect();
                    format!("there are {}", names.join(", "))
                },
            });
        }
        if self.shared.rules.len() >= RULES_MAX {
            return Err(LanguageError::refused(
                text,
                format!("{RULES_MAX} rules are in force already; remove some"),
            ));
        }
        let id = self.shared.rules.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        let set = self.shared.rules.layer(rule.layer());
        set.add(id, rule);
        Ok(id)
    }

    /// Removes a rule, or what is replayed; its hangs and delays end.
    ///
    /// # Errors
    /// [`NoSuchRule`].
    pub fn remove_rule(&self, id: u64) -> Result<(), NoSuchRule> {
        let layers = self.shared.rules.layers();
        let removed = match id {
            // Both layers have a part of it.
            REPLAY => layers.map(RuleSet::end_replay).contains(&true),
            id => layers.iter().any(|set| set.remove(id)),
        };
        if removed {
            return Ok(());
        }
        Err(NoSuchRule(id))
    }

    /// Removes every rule, and the script if one is replayed; says how many rules there were.
    pub fn clear_rules(&self) -> usize {
        let layers = self.shared.rules.layers();
        layers.into_iter().map(RuleSet::clear).sum()
    }

    /// The rules in force, in the order in which they were added.
    #[must_use]
    pub fn rules(&self) -> Vec<RuleListing> {
        let mut listings = Vec::new();
        for set in self.shared.rules.layers() {
            listings.extend(set.listings());
        }
        listings.sort_by_key(|rule| rule.id);
        listings
    }

    /// What is replayed, as if it were a rule of the number [`REPLAY`]: its hits are the requests that it is about, its
    /// fires those that have come.
    #[must_use]
    pub fn replaying(&self) -> Option<RuleListing> {
        let layers = self.shared.rules.layers();
        let (total, left) = layers
            .into_iter()
            .filter_map(RuleSet::replaying)
            .reduce(|(total, left), other| (total + other.0, left + other.1))?;
        Some(RuleListing {
            id: REPLAY,
            text: format!("replay: {left} of {total} requests are still to come"),
            seed: 0,
            hits: total as u64,
            fires: (total - left) as u64,
        })
    }

    /// Makes the requests of that script meet their fates again, in place of any earlier script; returns how many
    /// requests these are. Occurrences are counted from now, for the rules in force, too.
    pub fn replay(&self, script: &Script) -> usize {
        for layer in [Layer::Request, Layer::Backend] {
            self.shared
                .rules
                .layer(layer)
                .replay(script.of_layer(layer));
        }
        script.len()
    }

    /// What happens to this request; one relaxed load if no rule or script in force is about such commands. A
    /// connection that makes many asks its [`Screen`].
    #[inline]
    #[must_use]
    pub fn decide(&self, request: &RequestView<'_>) -> Option<Decision> {
        if self.shared.rules.request.passes(request.kind) {
            return None;
        }
        self.shared
            .decide(Layer::Request, request, Some(request.connection))
    }

    /// What happens to this I/O of the cache's own; one relaxed load if no rule with `at=backend` is about such calls.
    #[inline]
    #[must_use]
    pub fn decide_backend(&self, io: &BackendView<'_>) -> Option<Decision> {
        if self.shared.rules.backend.passes(io.kind) {
            return None;
        }
        let BackendView {
            export,
            kind,
            offset,
            length,
        } = *io;
        let request = RequestView {
            export,
            connection: 0,
            kind,
            offset,
            length,
            fua: false,
        };
        self.shared.decide(Layer::Backend, &request, None)
    }

    /// The kept events that are newer than the one of that number; 0 for all of them.
    #[must_use]
    pub fn events_since(&self, number: u64) -> Vec<Event> {
        self.shared.events.since(number, usize::MAX)
    }

    /// The first of them, at most `most`.
    #[must_use]
    pub fn some_events_since(&self, number: u64, most: usize) -> Vec<Event> {
        self.shared.events.since(number, most)
    }

    /// Waits for events newer than the one of that number, and returns the first of those kept, at most `most`.
    pub async fn next_events(&self, number: u64, most: usize) -> Vec<Event> {
        let mut newest = self.shared.events.newest();
        // The sender lives in `self.shared`: this can only be a newer event.
        drop(newest.wait_for(|newest| *newest > number).await);
        self.some_events_since(number, most)
    }

    /// The number of the newest event; 0 if there was none.
    #[must_use]
    pub fn newest_event(&self) -> u64 {
        *self.shared.events.newest().borrow()
    }
}

#[cfg(test)]
mod tests;
