//! What the add lock hands out: owned guards that know their range.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::two_state_lock::Side;

use super::Region;
use super::gate::{Gate, Pass};

/// One hold of a region: of its lock, and of the gate's shard that was passed. Given back when
/// dropped, region first.
pub(super) struct RegionHold {
    region: Arc<Region>,
    side: Side,
    shard: usize,
}

impl RegionHold {
    /// Takes over what the caller has leaked: a hold of `side` on the region's lock, and of *add*
    /// on the gate's shard.
    pub(super) fn new(region: Arc<Region>, side: Side, shard: usize) -> Self {
        Self {
            region,
            side,
            shard,
        }
    }
}

impl Drop for RegionHold {
    fn drop(&mut self) {
        let gate = &self.region.gate;
        self.region.lock.release(self.side, gate.points());
        self.region.gate.leave(Pass::Region { shard: self.shard });
    }
}

/// One hold of the gate as a whole, or alone. Given back when dropped.
struct GateHold {
    gate: Arc<Gate>,
    pass: Pass,
}

impl Drop for GateHold {
    fn drop(&mut self) {
        self.gate.leave(self.pass);
    }
}

/// While this lives, nothing shoots pages of its range down: data may be added there.
///
/// It belongs to whoever does the work, a task as well as a future: it borrows nothing.
#[must_use = "the range is given back when the guard is dropped"]
pub struct AddGuard {
    range: Range<u64>,
    _hold: RegionHold,
}

impl AddGuard {
    pub(super) fn new(range: Range<u64>, hold: RegionHold) -> Self {
        Self { range, _hold: hold }
    }

    /// The bytes that it covers.
    #[must_use]
    pub fn range(&self) -> Range<u64> {
        self.range.clone()
    }

    /// Asserts, in release builds too, that the guard covers these bytes.
    ///
    /// # Panics
    /// If it doesn't.
    #[track_caller]
    pub fn assert_covers(&self, range: Range<u64>) {
        assert_covers(&self.range, &range);
    }
}

/// While this lives, nothing is added in its range: what is shot down there stays away.
#[must_use = "the range is given back when the guard is dropped"]
pub struct BlockGuard {
    range: Range<u64>,
    _hold: BlockHold,
}

enum BlockHold {
    Region { _hold: RegionHold },
    Gate { _hold: GateHold },
}

impl BlockGuard {
    pub(super) fn of_region(range: Range<u64>, hold: RegionHold) -> Self {
        Self {
            range,
            _hold: BlockHold::Region { _hold: hold },
        }
    }

    pub(super) fn of_gate(range: Range<u64>, gate: Arc<Gate>, pass: Pass) -> Self {
        Self {
            range,
            _hold: BlockHold::Gate {
                _hold: GateHold { gate, pass },
            },
        }
    }

    /// The bytes that it covers.
    #[must_use]
    pub fn range(&self) -> Range<u64> {
        self.range.clone()
    }

    /// Asserts, in release builds too, that the guard covers these bytes.
    ///
    /// # Panics
    /// If it doesn't.
    #[track_caller]
    pub fn assert_covers(&self, range: Range<u64>) {
        assert_covers(&self.range, &range);
    }
}

/// While this lives, nobody else holds anything of the add lock.
#[must_use = "the lock is given back when the guard is dropped"]
pub struct ExclusiveGuard {
    block: BlockGuard,
}

impl ExclusiveGuard {
    pub(super) fn new(gate: Arc<Gate>, pass: Pass) -> Self {
        Self {
            block: BlockGuard::of_gate(0..u64::MAX, gate, pass),
        }
    }

    /// It blocks every range, so it serves wherever a block is asked for.
    pub fn as_block(&self) -> &BlockGuard {
        &self.block
    }
}

#[track_caller]
fn assert_covers(held: &Range<u64>, range: &Range<u64>) {
    assert!(
        held.start <= range.start && range.start <= range.end && range.end <= held.end,
        "a guard of {held:?} does not cover {range:?}"
    );
}

impl fmt::Debug for AddGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AddGuard").field(&self.range).finish()
    }
}

impl fmt::Debug for BlockGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BlockGuard").field(&self.range).finish()
    }
}

impl fmt::Debug for ExclusiveGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ExclusiveGuard")
    }
}
