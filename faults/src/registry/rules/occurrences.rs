//! The number of a request among those like it. By this number a script finds again the requests that it is about.
//!
//! # What is counted
//! The *key* of a request is its export, command, offset and length. Its occurrence is how many requests of that key
//! there were, this one included, since something came in force where nothing was. It doesn't matter which connection
//! they came on, or whether they had FUA. Three things follow.
//!
//! **Only keys that matter are counted.** A rule *covers* a key if it could match some request of that key, that is, if
//! its command, export and offset fit. A script covers the keys that it has a fate for. A request whose key nothing in
//! force covers passes uncounted, and that costs it no lock and no shared write. Nothing is lost by that: an event is
//! about a covered key, and a replay asks for the keys of its events only.
//!
//! **Record and replay count alike**, although in a replay the script is in force in place of the rules. Coverage is a
//! matter of the key alone. So requests of one key are all counted or all not, as long as what is in force doesn't
//! change. Filters by connection and by FUA are not part of it, because a script doesn't know them. If `conn=2` counted
//! the requests of that connection only, the script, which can't tell them apart, would hit other requests.
//!
//! **A rule that comes late says so.** Under a first rule, requests may have passed that a second rule covers. The
//! second rule can't know how many of each key there were since the beginning. If it counted from its own beginning, a
//! replay, which counts from one beginning, would hit earlier requests than the rule did. So its events have no
//! occurrence number, and scripts made from them skip them and say so, rather than hit others.
//!
//! The registry remembers by command which requests have passed: a rule is late for the commands of which any request
//! has passed since the beginning. Rules that are put in force one after the other before the requests begin are not
//! late. Nor is a rule that covers only what earlier rules cover as well. There is a new beginning when everything is
//! cleared, or when a replay starts.
//!
//! # When it is counted
//! A number is needed when something fires. Until then requests are noted: by connections in tallies of their own
//! ([`tally`](super::tally)), and here if the rules decided about them. They are counted many at a time. They lie
//! scattered over a table that the processor's caches don't keep, and so it fetches several at once.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::Arc;

use super::tally::Tally;
use crate::event::ScriptKey;
use crate::kind::RequestKind;
use crate::rule::RequestView;

/// The most different requests whose occurrences are counted, per layer: some tens of megabytes.
const OCCURRENCES_MAX: usize = 1 << 18;

/// How many requests are noted before they are counted: three kilobytes.
const NOTED_MAX: usize = 128;

/// What a request is recognised by, in place of a [`ScriptKey`]: cheap to make and to copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RequestKey {
    /// The export's place in [`Occurrences::exports`].
    pub(super) export: u32,
    pub(super) kind: RequestKind,
    pub(super) offset: u64,
    pub(super) length: u64,
}

impl Hash for RequestKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.offset);
        state.write_u64(self.length);
        state.write_u64(u64::from(self.export) << 8 | self.kind as u64);
    }
}

/// How often each request was seen.
#[derive(Default)]
pub(super) struct Occurrences {
    /// The exports that requests were seen for.
    exports: Vec<Export>,
    /// Where in `exports` they are.
    places: HashMap<Arc<str>, u32, Seed>,
    /// The place of the one asked for last: mostly the next one, too.
    recent: u32,
    /// Nothing in here includes what was noted and not yet counted.
    counts: Counts,
    /// Requests that were decided about without a need for their numbers.
    noted: Vec<RequestKey>,
}

struct Export {
    name: Arc<str>,
    /// The tallies of its connections that note what they send.
    tallies: Vec<Arc<Tally>>,
}

#[derive(Default)]
struct Counts(HashMap<RequestKey, u64, Seed>);

/// A map of requests.
pub(super) type ByRequest<T> = HashMap<RequestKey, T, Seed>;

impl Occurrences {
    /// The key of this request.
    pub(super) fn key(&mut self, request: &RequestView<'_>) -> RequestKey {
        RequestKey {
            export: self.export(request.export),
            kind: request.kind,
            offset: request.offset,
            length: request.length,
        }
    }

    /// The same key as a script has it.
    pub(super) fn key_of_script(&mut self, key: &ScriptKey) -> RequestKey {
        RequestKey {
            export: self.export(&key.export),
            kind: key.kind,
            offset: key.offset,
            length: key.length,
        }
    }

    fn export(&mut self, name: &str) -> u32 {
        let recent = self.exports.get(self.recent as usize);
        if recent.is_none_or(|recent| *recent.name != *name) {
            self.recent = self.place(name);
        }
        self.recent
    }

    fn place(&mut self, name: &str) -> u32 {
        if let Some(place) = self.places.get(name) {
            return *place;
        }
        let place = u32::try_from(self.exports.len()).expect("fewer exports than that");
        let name = Arc::<str>::from(name);
        self.places.insert(Arc::clone(&name), place);
        self.exports.push(Export {
            name,
            tallies: Vec::new(),
        });
        place
    }

    /// Counts a request and says which of its like it is; `None` if there are too many different ones.
    pub(super) fn count(&mut self, key: RequestKey) -> Option<u64> {
        self.count_noted();
        for tally in &self.exports[key.export as usize].tallies {
            self.counts.add_all(tally);
        }
        self.counts.add(key)
    }

    /// Counts a request whose number isn't needed.
    pub(super) fn note(&mut self, key: RequestKey) {
        self.noted.push(key);
        if self.noted.len() >= NOTED_MAX {
            self.count_noted();
        }
    }

    fn count_noted(&mut self) {
        for key in self.noted.drain(..) {
            self.counts.add(key);
        }
    }

    /// A tally for a connection to the export of that name.
    pub(super) fn open_tally(&mut self, export: &str) -> Arc<Tally> {
        let place = self.export(export);
        let tally = Arc::new(Tally::new(place));
        self.exports[place as usize]
            .tallies
            .push(Arc::clone(&tally));
        tally
    }

    /// Counts what a connection has noted, unless that was before the beginning.
    pub(super) fn count_tally(&mut self, tally: &Arc<Tally>) {
        if self.find_tally(tally).is_some() {
            self.counts.add_all(tally);
        }
    }

    /// The same for the last time.
    pub(super) fn close_tally(&mut self, tally: &Arc<Tally>) {
        if let Some(place) = self.find_tally(tally) {
            self.counts.add_all(tally);
            self.exports[tally.export() as usize]
                .tallies
                .swap_remove(place);
        }
    }

    /// How many tallies there are.
    #[cfg(test)]
    pub(super) fn tallies(&self) -> usize {
        self.exports.iter().map(|export| export.tallies.len()).sum()
    }

    /// The place of a tally among those of its export; `None` if it is from before the beginning.
    fn find_tally(&self, tally: &Arc<Tally>) -> Option<usize> {
        // Another export may be in its place by now.
        let export = self.exports.get(tally.export() as usize)?;
        export
            .tallies
            .iter()
            .position(|open| Arc::ptr_eq(open, tally))
    }
}

impl Counts {
    /// Counts what a tally has.
    fn add_all(&mut self, tally: &Tally) {
        tally.take(|key| {
            self.add(key);
        });
    }

    /// How many there are of them with this one; `None` if there are too many different ones.
    fn add(&mut self, key: RequestKey) -> Option<u64> {
        if let Some(count) = self.0.get_mut(&key) {
            *count += 1;
            return Some(*count);
        }
        if self.0.len() >= OCCURRENCES_MAX {
            return None;
        }
        self.0.insert(key, 1);
        Some(1)
    }
}

/// Makes hashers of a few instructions. The seed is secret: clients choose the offsets, and must not be able to make
/// them collide.
#[derive(Clone)]
pub(super) struct Seed {
    start: u64,
    factor: u64,
}

impl Default for Seed {
    fn default() -> Self {
        let random = RandomState::new();
        Self {
            start: random.hash_one(0_u8),
            // Odd, so that no bit of a word is lost.
            factor: random.hash_one(1_u8) | 1,
        }
    }
}

impl BuildHasher for Seed {
    type Hasher = FoldHasher;

    fn build_hasher(&self) -> FoldHasher {
        FoldHasher {
            state: self.start,
            factor: self.factor,
        }
    }
}

/// Takes in word after word by a multiplication whose halves are folded together.
pub(super) struct FoldHasher {
    state: u64,
    factor: u64,
}

impl Hasher for FoldHasher {
    fn write_u64(&mut self, word: u64) {
        let (low, high) = (self.state ^ word).carrying_mul(self.factor, 0);
        self.state = low ^ high;
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(size_of::<u64>()) {
            let mut word = [0; size_of::<u64>()];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn finish(&self) -> u64 {
        self.state
    }
}

#[cfg(test)]
mod tests;
