//! The test in front of the rules that costs next to nothing.
//!
//! A connection keeps its own copy of what is in force for it ([`Coverage`]): commands, and ranges of offsets. A
//! request that none of it covers passes after a look at the shared version number, a cache line that only changes when
//! rules do. The request takes no lock, allocates nothing and writes nothing shared. So rules about other requests
//! don't slow it down, however many rules and requests there are. A request that only needs to be counted, because
//! others like it on other connections could be matched, is noted in the connection's own [`Tally`].
//!
//! # Which requests a change catches
//! A request that has looked at the version just before a change may go by what was in force before, as if it had come
//! a moment earlier. But the registry must know of requests that pass uncounted, for rules that come later. The first
//! of each command tells it, under the mutex, and is decided about anew if its version is out of date by then. So a
//! rule is late for whatever passed it by.

use std::sync::Arc;

use super::coverage::{Concern, Coverage};
use super::decision::Decision;
use super::tally::Tally;
use crate::kind::{RequestKind, RequestKinds};
use crate::registry::Faults;
use crate::rule::{Layer, RequestView};

/// One connection's view of the rules for its export.
#[derive(Debug)]
pub struct Screen {
    faults: Faults,
    export: String,
    connection: u64,
    /// What is in force in `version`.
    coverage: Coverage,
    version: u64,
    /// Requests that are counted without a decision. Absent until there is one, because all tallies are gone through
    /// when a number is needed.
    tally: Option<Arc<Tally>>,
    /// Commands of which requests have passed under this version: told to the registry once each.
    passed: RequestKinds,
}

impl Faults {
    /// What a connection to the export of that name asks about its requests.
    #[must_use]
    pub fn screen(&self, export: &str, connection: u64) -> Screen {
        let (coverage, version) = self.shared.rules.request.look(export, connection, None);
        Screen {
            faults: self.clone(),
            export: export.to_owned(),
            connection,
            coverage,
            version,
            tally: None,
            passed: RequestKinds::NONE,
        }
    }
}

impl Screen {
    /// What happens to this request, as [`Faults::decide`] says; one relaxed load if nothing in force could match it.
    #[inline]
    pub fn decide(
        &mut self,
        kind: RequestKind,
        offset: u64,
        length: u64,
        fua: bool,
    ) -> Option<Decision> {
        if self.version != self.faults.shared.rules.request.version() {
            self.look_again();
        }
        self.decide_as_seen(kind, offset, length, fua)
    }

    /// Decides by the version that it saw last.
    #[inline]
    pub(super) fn decide_as_seen(
        &mut self,
        kind: RequestKind,
        offset: u64,
        length: u64,
        fua: bool,
    ) -> Option<Decision> {
        if !self.coverage.is_armed() {
            return None;
        }
        match self.coverage.concern(kind, offset, length, fua) {
            Concern::Passes if self.passed.contains(kind) || self.note_passed(kind) => None,
            Concern::Covered => None,
            Concern::Counted if self.note_counted(kind, offset, length) => None,
            // What is in force has changed meanwhile, or it can't be noted: the rules decide, and see to it.
            Concern::Passes | Concern::Counted | Concern::Matched => {
                self.ask(kind, offset, length, fua)
            }
        }
    }

    fn ask(&self, kind: RequestKind, offset: u64, length: u64, fua: bool) -> Option<Decision> {
        let request = RequestView {
            export: &self.export,
            connection: self.connection,
            kind,
            offset,
            length,
            fua,
        };
        let shared = &self.faults.shared;
        shared.decide(Layer::Request, &request, Some(self.connection))
    }

    #[cold]
    fn look_again(&mut self) {
        let set = &self.faults.shared.rules.request;
        (self.coverage, self.version) = set.look(&self.export, self.connection, self.tally.take());
        self.passed = RequestKinds::NONE;
    }

    /// Tells the registry that requests of that command pass; `false` if that is no longer sure.
    #[cold]
    fn note_passed(&mut self, kind: RequestKind) -> bool {
        let set = &self.faults.shared.rules.request;
        let noted = set.note_passed(kind, self.version);
        if noted {
            self.passed |= kind.into();
        }
        noted
    }

    /// Notes a request that is counted; `false` if that can't be.
    #[inline]
    fn note_counted(&mut self, kind: RequestKind, offset: u64, length: u64) -> bool {
        let noted = |tally: &Arc<Tally>| tally.note(kind, offset, length);
        self.tally.as_ref().is_some_and(noted) || self.note_in_empty(kind, offset, length)
    }

    /// The same in a tally that is empty, because it is new or was full and is counted now.
    #[cold]
    fn note_in_empty(&mut self, kind: RequestKind, offset: u64, length: u64) -> bool {
        let set = &self.faults.shared.rules.request;
        match &self.tally {
            Some(tally) => set.count_tally(tally),
            None => self.tally = set.open_tally(&self.export, self.version),
        }
        let noted = |tally: &Arc<Tally>| tally.note(kind, offset, length);
        self.tally.as_ref().is_some_and(noted)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if let Some(tally) = self.tally.take() {
            self.faults.shared.rules.request.close_tally(&tally);
        }
    }
}

#[cfg(test)]
mod tests;
