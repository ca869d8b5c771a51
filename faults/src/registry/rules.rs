//! Rules in force, and what they decide.
//!
//! One set per layer, each behind a flag that is read with a relaxed load; one mutex per set guards all of it, so that
//! requests are numbered in one order. Every rule sees every request, whatever the others decided: delays add up, the
//! first rule with an action gives the action.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::watch;

use crate::event::{Event, Firing, REPLAY, RuleFiring, Script, ScriptKey};
use crate::registry::{Faults, Shared, lock};
use crate::rule::{
    Action, ArmedRule, BackendView, Damage, Fate, Layer, RequestView, Rule, glob_matches,
};
use crate::wait::Ends;
use crate::words::LanguageError;

/// The most rules in force: each request walks them all.
pub const RULES_MAX: usize = 1024;

/// The most different requests whose occurrences are counted, per layer: some tens of megabytes.
const OCCURRENCES_MAX: usize = 1 << 18;

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

/// What happens to one request.
#[derive(Debug)]
pub struct Decision {
    /// The rule that gave the action, or the first that gave a delay; [`REPLAY`] for a script.
    pub rule: u64,
    /// How long it waits, all rules together; [`Decision::wait`] does it.
    pub delay: Option<Duration>,
    /// What happens then.
    pub action: Option<Action>,
    /// What its damage is drawn from.
    pub seed: u64,
    /// One wait after the other, each over early if its rule goes. `None` is a hang.
    waits: Vec<(Option<Duration>, Ends)>,
}

impl Decision {
    /// Waits out the delay, and the hang if that is the action. Over early for a rule that is removed, and when the
    /// export's device is interrupted. Hold nothing meanwhile.
    pub async fn wait(&mut self) {
        for (delay, ends) in &mut self.waits {
            match delay {
                Some(delay) => ends.within(*delay).await,
                None => ends.reached().await,
            }
        }
    }

    /// How the data is to be damaged, if it is.
    #[must_use]
    pub fn damage(&self) -> Option<Damage> {
        match self.action {
            Some(Action::Corrupt(damage)) => Some(damage),
            _ => None,
        }
    }
}

/// The rules of one layer.
#[derive(Default)]
pub(crate) struct RuleSet {
    /// How many rules and scripts are in force; zero lets every request pass.
    armed: AtomicUsize,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    rules: Vec<ArmedRule>,
    script: Option<Replay>,
    /// How often each request was seen since something was in force.
    occurrences: HashMap<ScriptKey, u64>,
}

struct Replay {
    fates: HashMap<ScriptKey, HashMap<u64, Fate>>,
    gone: watch::Sender<u64>,
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
        self.layers()
            .iter()
            .map(|set| lock(&set.inner).rules.len())
            .sum()
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
        let mut inner = lock(&set.inner);
        inner.rules.push(ArmedRule::new(id, rule));
        set.rearm(&mut inner);
        Ok(id)
    }

    /// Removes a rule; its hangs and delays end.
    ///
    /// # Errors
    /// [`NoSuchRule`].
    pub fn remove_rule(&self, id: u64) -> Result<(), NoSuchRule> {
        for set in self.shared.rules.layers() {
            let mut inner = lock(&set.inner);
            let before = inner.rules.len();
            inner.rules.retain(|rule| rule.id != id);
            if inner.rules.len() < before {
                set.rearm(&mut inner);
                return Ok(());
            }
        }
        Err(NoSuchRule(id))
    }

    /// Removes every rule, and the script if one is replayed; says how many rules there were.
    pub fn clear_rules(&self) -> usize {
        let clear = |set: &RuleSet| {
            let mut inner = lock(&set.inner);
            inner.script = None;
            let count = std::mem::take(&mut inner.rules).len();
            set.rearm(&mut inner);
            count
        };
        self.shared.rules.layers().into_iter().map(clear).sum()
    }

    /// The rules in force, in the order in which they were added.
    #[must_use]
    pub fn rules(&self) -> Vec<RuleListing> {
        let mut listings = Vec::new();
        for set in self.shared.rules.layers() {
            listings.extend(lock(&set.inner).rules.iter().map(|rule| RuleListing {
                id: rule.id,
                text: rule.text(),
                seed: rule.seed,
                hits: rule.hits,
                fires: rule.fires,
            }));
        }
        listings.sort_by_key(|rule| rule.id);
        listings
    }

    /// Makes the requests of that script meet their fates again, in place of any script before it; says how many they are.
    /// Occurrences are counted from now.
    pub fn replay(&self, script: &Script) -> usize {
        for (layer, set) in [Layer::Request, Layer::Backend]
            .into_iter()
            .zip(self.shared.rules.layers())
        {
            let fates = script.of_layer(layer);
            let mut inner = lock(&set.inner);
            inner.occurrences.clear();
            inner.script = (!fates.is_empty()).then(|| Replay {
                fates,
                gone: watch::Sender::default(),
            });
            set.rearm(&mut inner);
        }
        script.len()
    }

    /// What happens to this request; one relaxed load if no rule is in force.
    #[inline]
    #[must_use]
    pub fn decide(&self, request: &RequestView<'_>) -> Option<Decision> {
        if self.shared.rules.request.armed.load(Ordering::Relaxed) == 0 {
            return None;
        }
        self.shared
            .decide(Layer::Request, request, Some(request.connection))
    }

    /// What happens to this I/O of the cache's own; one relaxed load if no rule with `at=backend` is in force.
    #[inline]
    #[must_use]
    pub fn decide_backend(&self, io: &BackendView<'_>) -> Option<Decision> {
        if self.shared.rules.backend.armed.load(Ordering::Relaxed) == 0 {
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

    /// The events kept that are newer than the one of that number; 0 for all of them.
    #[must_use]
    pub fn events_since(&self, number: u64) -> Vec<Event> {
        self.shared.events.since(number)
    }

    /// Waits for events newer than the one of that number, and returns those kept.
    pub async fn next_events(&self, number: u64) -> Vec<Event> {
        let mut newest = self.shared.events.newest();
        // The sender lives in `self.shared`: this can only be a newer event.
        drop(newest.wait_for(|newest| *newest > number).await);
        self.events_since(number)
    }

    /// The number of the newest event; 0 if there was none.
    #[must_use]
    pub fn newest_event(&self) -> u64 {
        *self.shared.events.newest().borrow()
    }
}

impl RuleSet {
    /// Sets the flag to what is in force. Nothing in force forgets the occurrences.
    fn rearm(&self, inner: &mut Inner) {
        let armed = inner.rules.len() + usize::from(inner.script.is_some());
        if armed == 0 {
            inner.occurrences = HashMap::new();
        }
        self.armed.store(armed, Ordering::Relaxed);
    }
}

impl Inner {
    /// Counts this request; `None` if there are too many different ones.
    fn count(&mut self, key: &ScriptKey) -> Option<u64> {
        if let Some(count) = self.occurrences.get_mut(key) {
            *count += 1;
            return Some(*count);
        }
        if self.occurrences.len() >= OCCURRENCES_MAX {
            return None;
        }
        self.occurrences.insert(key.clone(), 1);
        Some(1)
    }

    /// The script's fate for this request, once.
    fn replayed(
        &mut self,
        key: &ScriptKey,
        occurrence: Option<u64>,
    ) -> Option<(Fate, watch::Receiver<u64>)> {
        let replay = self.script.as_mut()?;
        let fate = replay.fates.get_mut(key)?.remove(&occurrence?)?;
        Some((fate, replay.gone.subscribe()))
    }
}

impl Shared {
    #[cold]
    fn decide(
        &self,
        layer: Layer,
        request: &RequestView<'_>,
        connection: Option<u64>,
    ) -> Option<Decision> {
        let RequestView {
            export,
            kind,
            offset,
            length,
            ..
        } = *request;
        let key = ScriptKey {
            export: export.to_owned(),
            kind,
            offset,
            length,
        };
        let mut inner = lock(&self.rules.layer(layer).inner);
        let occurrence = inner.count(&key);
        let mut fired = Vec::new();
        if let Some((fate, gone)) = inner.replayed(&key, occurrence) {
            fired.push((REPLAY, fate, gone));
        }
        for rule in &mut inner.rules {
            if let Some(fate) = rule.decide(request) {
                fired.push((rule.id, fate, rule.gone()));
            }
        }
        for (rule, decision, _) in &fired {
            self.events.push(Firing::Rule(RuleFiring {
                rule: *rule,
                at: layer,
                export: key.export.clone(),
                connection,
                command: kind,
                offset,
                length,
                occurrence,
                decision: *decision,
            }));
        }
        // Subscribed under the lock: what interrupts the device from here on ends the waits.
        self.decision(export, fired)
    }

    fn decision(
        &self,
        export: &str,
        fired: Vec<(u64, Fate, watch::Receiver<u64>)>,
    ) -> Option<Decision> {
        let actor = fired.iter().position(|(_, fate, _)| fate.action.is_some());
        let rule = fired.get(actor.unwrap_or(0))?.0;
        let interrupt = self.device(export).map(|device| device.interruption());
        let mut whole = Fate::default();
        let (mut waits, mut hangs) = (Vec::new(), Vec::new());
        for (position, (_, fate, gone)) in fired.into_iter().enumerate() {
            whole.combine(&fate);
            if fate.delay.is_some() {
                waits.push((fate.delay, Ends::new(gone.clone(), interrupt.clone())));
            }
            if actor == Some(position) && fate.action == Some(Action::Hang) {
                hangs.push((None, Ends::new(gone, interrupt.clone())));
            }
        }
        waits.extend(hangs);
        Some(Decision {
            rule,
            delay: whole.delay,
            action: whole.action,
            seed: whole.seed,
            waits,
        })
    }
}

#[cfg(test)]
mod tests;
