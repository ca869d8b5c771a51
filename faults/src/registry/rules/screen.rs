//! The test in front of the rules that costs next to nothing.
//!
//! A connection keeps its own copy of what is in force for its export: commands, and ranges of offsets. A request that none
//! of it covers passes after a look at the shared version number, a cache line that only changes when rules do. No lock, no
//! allocation, no shared write: so rules about other requests don't slow this one down, however many there are of either.

use std::ops::Range;

use super::decision::Decision;
use crate::kind::{RequestKind, RequestKinds};
use crate::registry::Faults;
use crate::rule::{Layer, RequestView, overlaps};

/// One connection's view of the rules for its export.
#[derive(Debug)]
pub struct Screen {
    faults: Faults,
    export: String,
    connection: u64,
    /// What is in force in `version`.
    coverage: Coverage,
    version: u64,
    /// Commands of which requests have passed under this version: told to the registry once each.
    passed: RequestKinds,
}

/// Which requests something in force could match.
#[derive(Debug, Default)]
pub(super) struct Coverage {
    armed: bool,
    /// Commands of which any request could be matched.
    everywhere: RequestKinds,
    /// Commands of which requests to a range of offsets could be matched.
    ranges: Vec<(RequestKinds, Range<u64>)>,
    /// All of those commands.
    somewhere: RequestKinds,
}

impl Coverage {
    /// Nothing at all, although something may be in force.
    pub(super) fn new(armed: bool) -> Self {
        Self {
            armed,
            ..Self::default()
        }
    }

    pub(super) fn add(&mut self, kinds: RequestKinds, offset: Option<Range<u64>>) {
        match offset {
            None => self.everywhere |= kinds,
            Some(range) => self.ranges.push((kinds, range)),
        }
        self.somewhere |= kinds;
    }

    fn covers(&self, kind: RequestKind, offset: u64, length: u64) -> bool {
        let covers = |(kinds, range): &(RequestKinds, Range<u64>)| {
            kinds.contains(kind) && overlaps(range, offset, length)
        };
        self.everywhere.contains(kind)
            || (self.somewhere.contains(kind) && self.ranges.iter().any(covers))
    }
}

impl Faults {
    /// What a connection to the export of that name asks about its requests.
    #[must_use]
    pub fn screen(&self, export: &str, connection: u64) -> Screen {
        let (coverage, version) = self.shared.rules.request.coverage(export);
        Screen {
            faults: self.clone(),
            export: export.to_owned(),
            connection,
            coverage,
            version,
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
        if !self.coverage.armed {
            return None;
        }
        if !self.coverage.covers(kind, offset, length) {
            if !self.passed.contains(kind) {
                self.note_passed(kind);
            }
            return None;
        }
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
        (self.coverage, self.version) = self.faults.shared.rules.request.coverage(&self.export);
        self.passed = RequestKinds::NONE;
    }

    #[cold]
    fn note_passed(&mut self, kind: RequestKind) {
        let set = &self.faults.shared.rules.request;
        set.note_passed(kind, Some(self.version));
        self.passed |= kind.into();
    }
}

#[cfg(test)]
mod tests;
