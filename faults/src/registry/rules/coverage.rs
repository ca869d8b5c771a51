//! What the rules in force are to one connection, worked out once for each version of them.

use std::ops::Range;

use crate::kind::{RequestKind, RequestKinds};
use crate::rule::{ArmedRule, overlaps};

/// What the rules in force are to the requests of one connection.
#[derive(Debug, Default)]
pub(super) struct Coverage {
    armed: bool,
    /// What something in force covers; see [`occurrences`](super::occurrences).
    covered: Span,
    /// What something in force could match on this connection.
    matched: Span,
    /// What it could match if the request asks for forced unit access.
    matched_with_fua: Span,
    /// What is counted, matched or not.
    counted: Span,
}

/// What the rules in force are to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Concern {
    /// Nothing covers it.
    Passes,
    /// Nothing could match it. Nor can requests like it be counted any more, because all that covers it came late.
    Covered,
    /// Nothing could match it, but others that look like it to a script: it is counted.
    Counted,
    /// Something could match it.
    Matched,
}

impl Coverage {
    /// Nothing at all, although something may be in force.
    pub(super) fn new(armed: bool) -> Self {
        Self {
            armed,
            ..Self::default()
        }
    }

    /// Adds a rule about the connection's export.
    pub(super) fn add(&mut self, armed: &ArmedRule, connection: u64) {
        let (kinds, filters) = (armed.rule.kinds(), &armed.rule.filters);
        let known = kinds.without(armed.late);
        self.covered.add(kinds, filters.offset.as_ref());
        self.counted.add(known, filters.offset.as_ref());
        if filters.connection.is_none_or(|only| only == connection) {
            let matched = match filters.fua {
                false => &mut self.matched,
                true => &mut self.matched_with_fua,
            };
            matched.add(kinds, filters.offset.as_ref());
        }
    }

    /// Adds a script, which is to be asked about every request of its commands.
    pub(super) fn add_script(&mut self, kinds: RequestKinds) {
        self.covered.add(kinds, None);
        self.matched.add(kinds, None);
    }

    /// Whether anything is in force, if only for others.
    #[inline]
    pub(super) fn is_armed(&self) -> bool {
        self.armed
    }

    #[inline]
    pub(super) fn concern(
        &self,
        kind: RequestKind,
        offset: u64,
        length: u64,
        fua: bool,
    ) -> Concern {
        if !self.covered.has(kind, offset, length) {
            Concern::Passes
        } else if self.matched.has(kind, offset, length)
            || (fua && self.matched_with_fua.has(kind, offset, length))
        {
            Concern::Matched
        } else if self.counted.has(kind, offset, length) {
            Concern::Counted
        } else {
            Concern::Covered
        }
    }
}

/// A set of requests.
#[derive(Debug, Default)]
struct Span {
    /// Commands of which it has every request.
    everywhere: RequestKinds,
    /// Commands of which it has the requests to a range of offsets.
    ranges: Vec<(RequestKinds, Range<u64>)>,
    /// All of those commands.
    somewhere: RequestKinds,
}

impl Span {
    fn add(&mut self, kinds: RequestKinds, offset: Option<&Range<u64>>) {
        match offset {
            None => self.everywhere |= kinds,
            Some(range) => self.ranges.push((kinds, range.clone())),
        }
        self.somewhere |= kinds;
    }

    #[inline]
    fn has(&self, kind: RequestKind, offset: u64, length: u64) -> bool {
        let has = |(kinds, range): &(RequestKinds, Range<u64>)| {
            kinds.contains(kind) && overlaps(range, offset, length)
        };
        self.everywhere.contains(kind)
            || (self.somewhere.contains(kind) && self.ranges.iter().any(has))
    }
}
