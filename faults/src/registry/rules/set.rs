//! The rules of one layer. In front is a word, and most requests get no further than this. Behind it is a mutex around
//! all that must agree.
//!
//! The word has the commands that something in force could match, and those of which requests have passed uncounted
//! (see [`occurrences`](super::occurrences)). It is zero while nothing is in force. It changes under the mutex, and is
//! read with a relaxed load: whatever orders arming before the work that it is meant for orders the load too.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::watch;

use super::RuleListing;
use super::coverage::Coverage;
use super::decision::{Decision, Fired};
use super::occurrences::{ByRequest, Occurrences, RequestKey};
use super::tally::Tally;
use crate::event::{Firing, REPLAY, RuleFiring, ScriptKey};
use crate::kind::{RequestKind, RequestKinds};
use crate::registry::{Shared, lock};
use crate::rule::{ArmedRule, Fate, Layer, RequestView, Rule};

/// Where the commands of which requests have passed lie in the word.
const PASSED_SHIFT: u32 = u16::BITS;

/// The rules of one layer.
#[derive(Default)]
pub(crate) struct RuleSet {
    /// The word; see the module's documentation.
    kinds: AtomicU32,
    /// Raised by every change of what is in force.
    version: AtomicU64,
    pub(super) inner: Mutex<Inner>,
}

/// Everything here is guarded by the mutex around it.
#[derive(Default)]
pub(super) struct Inner {
    rules: Vec<ArmedRule>,
    script: Option<Replay>,
    pub(super) occurrences: Occurrences,
    /// Commands of which some request has passed uncounted since something is in force.
    passed: RequestKinds,
}

struct Replay {
    /// How many requests it is about.
    total: usize,
    fates: ByRequest<HashMap<u64, Fate>>,
    kinds: RequestKinds,
    gone: watch::Sender<u64>,
}

impl RuleSet {
    /// Whether nothing in force is about such commands.
    #[inline]
    pub(super) fn passes(&self, kind: RequestKind) -> bool {
        let word = self.word();
        word == 0 || self.passes_others(kind, word)
    }

    pub(super) fn word(&self) -> u32 {
        self.kinds.load(Ordering::Relaxed)
    }

    /// As [`passes`](Self::passes), while something is in force.
    pub(super) fn passes_others(&self, kind: RequestKind, word: u32) -> bool {
        let bit = u32::from(RequestKinds::of(kind).bits());
        word & bit == 0 && (word & bit << PASSED_SHIFT != 0 || self.pass_unless_covered(kind))
    }

    /// Remembers that a request of that command has passed uncounted, unless what is in force now is about it.
    #[cold]
    fn pass_unless_covered(&self, kind: RequestKind) -> bool {
        let mut inner = lock(&self.inner);
        if inner.kinds().contains(kind) {
            return false;
        }
        self.pass(&mut inner, kind);
        true
    }

    /// Remembers that a request has passed uncounted; `false` if it looked at another `version` than is in force now.
    #[cold]
    pub(super) fn note_passed(&self, kind: RequestKind, version: u64) -> bool {
        let mut inner = lock(&self.inner);
        let current = version == self.version();
        if current {
            self.pass(&mut inner, kind);
        }
        current
    }

    fn pass(&self, inner: &mut Inner, kind: RequestKind) {
        if inner.is_armed() && !inner.passed.contains(kind) {
            inner.passed |= RequestKinds::of(kind);
            self.publish(inner);
        }
    }

    /// The number of the last change.
    #[inline]
    pub(super) fn version(&self) -> u64 {
        self.version.load(Ordering::Relaxed)
    }

    /// What is in force for a connection to the export of that name, and in which version. What it has noted is
    /// counted.
    pub(super) fn look(
        &self,
        export: &str,
        connection: u64,
        tally: Option<Arc<Tally>>,
    ) -> (Coverage, u64) {
        let mut inner = lock(&self.inner);
        if let Some(tally) = tally {
            inner.occurrences.close_tally(&tally);
        }
        let mut coverage = Coverage::new(inner.is_armed());
        if let Some(script) = &inner.script {
            coverage.add_script(script.kinds);
        }
        for armed in &inner.rules {
            if armed.rule.covers_export(export) {
                coverage.add(armed, connection);
            }
        }
        (coverage, self.version())
    }

    /// A tally for a connection to the export of that name; `None` if another version is in force than the one that it
    /// looked at.
    #[cold]
    pub(super) fn open_tally(&self, export: &str, version: u64) -> Option<Arc<Tally>> {
        let mut inner = lock(&self.inner);
        (version == self.version()).then(|| inner.occurrences.open_tally(export))
    }

    /// Counts what a connection has noted, so that it has room again.
    pub(super) fn count_tally(&self, tally: &Arc<Tally>) {
        lock(&self.inner).occurrences.count_tally(tally);
    }

    /// Counts what a connection has noted before it goes.
    pub(super) fn close_tally(&self, tally: &Arc<Tally>) {
        lock(&self.inner).occurrences.close_tally(tally);
    }

    pub(super) fn add(&self, id: u64, rule: Rule) {
        let mut inner = lock(&self.inner);
        let late = inner.passed.intersection(rule.kinds());
        inner.rules.push(ArmedRule::new(id, rule, late));
        self.changed(&mut inner);
    }

    /// Whether there was a rule of that number.
    pub(super) fn remove(&self, id: u64) -> bool {
        let mut inner = lock(&self.inner);
        let before = inner.rules.len();
        inner.rules.retain(|rule| rule.id != id);
        if inner.rules.len() == before {
            return false;
        }
        self.changed(&mut inner);
        true
    }

    /// Removes the rules and the script; says how many rules there were.
    pub(super) fn clear(&self) -> usize {
        let mut inner = lock(&self.inner);
        inner.script = None;
        let count = std::mem::take(&mut inner.rules).len();
        self.changed(&mut inner);
        count
    }

    /// Puts a script in force in place of the one before it. All is counted from now on.
    pub(super) fn replay(&self, fates: HashMap<ScriptKey, HashMap<u64, Fate>>) {
        let mut inner = lock(&self.inner);
        inner.begin();
        for rule in &mut inner.rules {
            rule.late = RequestKinds::NONE;
        }
        let kinds = fates.keys().map(|key| key.kind).collect::<RequestKinds>();
        let total = fates.values().map(HashMap::len).sum();
        let occurrences = &mut inner.occurrences;
        let fates: ByRequest<_> = fates
            .into_iter()
            .map(|(key, fates)| (occurrences.key_of_script(&key), fates))
            .collect();
        inner.script = (!fates.is_empty()).then(|| Replay {
            total,
            fates,
            kinds,
            gone: watch::Sender::default(),
        });
        self.changed(&mut inner);
    }

    /// Tells the connections, which look at the version.
    fn changed(&self, inner: &mut Inner) {
        if !inner.is_armed() {
            inner.begin();
        }
        self.publish(inner);
        self.version.fetch_add(1, Ordering::Relaxed);
    }

    fn publish(&self, inner: &Inner) {
        let word = u32::from(inner.kinds().bits()) | u32::from(inner.passed.bits()) << PASSED_SHIFT;
        self.kinds.store(word, Ordering::Relaxed);
    }

    /// Ends the script; whether there was one.
    pub(super) fn end_replay(&self) -> bool {
        let mut inner = lock(&self.inner);
        let ended = inner.script.take().is_some();
        if ended {
            self.changed(&mut inner);
        }
        ended
    }

    /// How many requests the script is about, and how many of these have not come yet.
    pub(super) fn replaying(&self) -> Option<(usize, usize)> {
        let inner = lock(&self.inner);
        let script = inner.script.as_ref()?;
        let left = script.fates.values().map(HashMap::len).sum();
        Some((script.total, left))
    }

    /// How many rules are in force.
    pub(super) fn rules(&self) -> usize {
        lock(&self.inner).rules.len()
    }

    pub(super) fn listings(&self) -> Vec<RuleListing> {
        let listing = |rule: &ArmedRule| RuleListing {
            id: rule.id,
            text: rule.text(),
            seed: rule.seed,
            hits: rule.hits,
            fires: rule.fires,
        };
        lock(&self.inner).rules.iter().map(listing).collect()
    }
}

impl Inner {
    fn is_armed(&self) -> bool {
        self.script.is_some() || !self.rules.is_empty()
    }

    /// Forgets what was counted.
    fn begin(&mut self) {
        self.occurrences = Occurrences::default();
        self.passed = RequestKinds::NONE;
    }

    /// What something in force is about.
    fn kinds(&self) -> RequestKinds {
        let script = self.script.iter().map(|script| script.kinds);
        let rules = self.rules.iter().map(|armed| armed.rule.kinds());
        script.chain(rules).fold(RequestKinds::NONE, |a, b| a | b)
    }

    /// What fires at a request, and its number if that is known; `None` if nothing in force covers it.
    fn decide(&mut self, request: &RequestView<'_>) -> Option<(Vec<Fired>, Option<u64>)> {
        let (mut covered, mut known) = (false, false);
        let mut fired = Vec::new();
        for armed in self.rules.iter_mut() {
            if !armed.rule.covers(request) {
                continue;
            }
            covered = true;
            known |= !armed.late.contains(request.kind);
            if armed.rule.admits(request)
                && let Some(fate) = armed.hit()
            {
                fired.push(Fired {
                    rule: armed.id,
                    fate,
                    gone: armed.gone(),
                });
            }
        }
        if !covered && self.script.is_none() {
            return None;
        }
        let key = self.occurrences.key(request);
        let scripted = self.is_scripted(&key);
        if !covered && !scripted {
            return None;
        }
        if !scripted && (!known || fired.is_empty()) {
            if known {
                self.occurrences.note(key);
            }
            return Some((fired, None));
        }
        let occurrence = self.occurrences.count(key);
        if let Some(replayed) = self.replayed(key, occurrence) {
            fired.insert(0, replayed);
        }
        Some((fired, occurrence))
    }

    /// Whether the script has something for requests like this one.
    fn is_scripted(&self, key: &RequestKey) -> bool {
        let script = self.script.as_ref();
        script.is_some_and(|script| script.fates.contains_key(key))
    }

    /// The script's fate for this request, once.
    fn replayed(&mut self, key: RequestKey, occurrence: Option<u64>) -> Option<Fired> {
        let replay = self.script.as_mut()?;
        let fate = replay.fates.get_mut(&key)?.remove(&occurrence?)?;
        Some(Fired {
            rule: REPLAY,
            fate,
            gone: replay.gone.subscribe(),
        })
    }
}

impl Shared {
    /// What happens to a request if something in force is about its command.
    #[cold]
    pub(super) fn decide(
        &self,
        layer: Layer,
        request: &RequestView<'_>,
        connection: Option<u64>,
    ) -> Option<Decision> {
        let set = self.rules.layer(layer);
        let mut inner = lock(&set.inner);
        let Some((fired, occurrence)) = inner.decide(request) else {
            set.pass(&mut inner, request.kind);
            return None;
        };
        for Fired { rule, fate, .. } in &fired {
            self.events.push(Firing::Rule(RuleFiring {
                rule: *rule,
                at: layer,
                export: request.export.to_owned(),
                connection,
                command: request.kind,
                offset: request.offset,
                length: request.length,
                occurrence,
                decision: *fate,
            }));
        }
        // Subscribed under the lock: what interrupts the device from here on ends the waits.
        self.combine(request.export, fired)
    }
}
