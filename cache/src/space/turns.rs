//! Whose turn it is at the quota, among blockers: guards of ranges, which they share.
//!
//! Those that take space, those that give it back and those that count it keep each other out; any number of one kind go
//! together. Three kinds out of two locks: takers *add* to the first and the others *block* it; of these, givers *add* to the
//! second and counters *block* it. Both are fair, so each waits for the present turn of the others and no more.
//!
//! A turn is waited for under a block guard and held while the backend works, which waits for nobody. The second lock is
//! waited for under the first, and whoever holds it has both.

use crate::two_state_lock::{Side, TwoStateGuard, TwoStateLock};

/// What a blocker is about to do with the quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Charge, and have the backend allocate.
    Take,
    /// Have the backend deallocate, and discharge.
    Give,
    /// Look at what is allocated, and charge and discharge accordingly.
    Count,
}

#[derive(Debug, Default)]
pub(super) struct Turns {
    takers: TwoStateLock,
    givers: TwoStateLock,
}

/// A turn; over when dropped.
#[must_use = "the turn is over when the guard is dropped"]
#[derive(Debug)]
pub(crate) struct TurnGuard<'a> {
    _givers: Option<TwoStateGuard<'a>>,
    _takers: TwoStateGuard<'a>,
}

impl Turns {
    /// Cancel safe.
    pub(super) async fn wait(&self, turn: Turn) -> TurnGuard<'_> {
        let (takers, givers) = match turn {
            Turn::Take => (Side::Add, None),
            Turn::Give => (Side::Block, Some(Side::Add)),
            Turn::Count => (Side::Block, Some(Side::Block)),
        };
        let takers = self.takers.lock(takers).await;
        let givers = match givers {
            Some(side) => Some(self.givers.lock(side).await),
            None => None,
        };
        TurnGuard {
            _givers: givers,
            _takers: takers,
        }
    }
}

#[cfg(test)]
mod tests;
