//! Turns at the quota among blockers, which share the guards of their ranges.
//!
//! There are three kinds of turns: taking space, giving it back, and counting it. The three keep each other out; any
//! number of turns of one kind go together. Two locks make the three kinds. Takers *add* to the first lock, and givers
//! and counters *block* it. Of these two, givers *add* to the second lock and counters *block* it. Both locks are fair,
//! so a blocker waits for the present turn of the other kinds and no more.
//!
//! A blocker waits for a turn under its block guard, and holds the turn while the backend works. The backend waits for
//! nothing of the cache. It waits for the second lock under the first, and a holder of the second lock has both.

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
