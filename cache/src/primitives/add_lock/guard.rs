//! What the add lock hands out: owned guards that know their range.

use std::fmt;
use std::future::poll_fn;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;
use std::task::Poll;

use crate::primitives::range_queue::Place;

use super::gate::Pass;
use super::{Region, Shared};

/// One hold of a range of a region, or a place in the queue for it, and of the gate's shard that was passed. Given back
/// when dropped, region first.
pub(super) struct RegionHold {
    region: Arc<Region>,
    range: Range<u64>,
    shard: usize,
    /// None for a brief adder.
    place: Option<Place>,
}

impl RegionHold {
    /// Takes over what the caller has leaked: a hold of *add* on the gate's shard, and a place in the region's queue or
    /// one of its brief adds.
    pub(super) fn new(
        region: Arc<Region>,
        range: Range<u64>,
        shard: usize,
        place: Option<Place>,
    ) -> Self {
        Self {
            region,
            range,
            shard,
            place,
        }
    }

    /// Waits until the range is its own. Cancel safe.
    pub(super) async fn own(&mut self) {
        let Self {
            region,
            range,
            place,
            ..
        } = self;
        let place = place.as_mut().expect("brief adders don't wait");
        poll_fn(
            |context| match region.lock.poll(place, range, context.waker()) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            },
        )
        .await;
    }
}

impl Drop for RegionHold {
    #[inline]
    fn drop(&mut self) {
        let Region { lock, shared } = &*self.region;
        match self.place.take() {
            None => lock.leave_briefly(),
            Some(place) => lock.leave(place, &self.range, &shared.queue_bytes),
        }
        shared.gate.leave(Pass::Region { shard: self.shard });
    }
}

/// One hold of the gate as a whole, or alone. Given back when dropped.
struct GateHold {
    shared: Arc<Shared>,
    pass: Pass,
}

impl Drop for GateHold {
    fn drop(&mut self) {
        self.shared.gate.leave(self.pass);
    }
}

/// While this lives, no pages of its range are shot down: data may be added there.
///
/// The work owns it, in a task as well as in a future: it borrows nothing.
#[must_use = "the range is given back when the guard is dropped"]
pub struct AddGuard {
    hold: RegionHold,
}

impl AddGuard {
    pub(super) fn new(hold: RegionHold) -> Self {
        Self { hold }
    }

    /// The bytes that it covers.
    #[must_use]
    pub fn range(&self) -> Range<u64> {
        self.hold.range.clone()
    }

    /// Asserts, in release builds too, that the guard covers these bytes.
    ///
    /// # Panics
    /// If it doesn't.
    #[track_caller]
    pub fn assert_covers(&self, range: Range<u64>) {
        assert_covers(&self.hold.range, &range);
    }
}

/// An [`AddGuard`] that is given back without an await: blockers of the whole region wait for it, whatever its range.
///
/// It is not `Send`, so that no task can keep it over an await:
///
/// ```compile_fail
/// fn assert_send<T: Send>() {}
/// assert_send::<weir_cache::add_lock::BriefAddGuard>();
/// ```
#[must_use = "the range is given back when the guard is dropped"]
#[derive(Debug)]
pub struct BriefAddGuard {
    guard: AddGuard,
    not_send: PhantomData<*const ()>,
}

impl BriefAddGuard {
    pub(super) fn new(hold: RegionHold) -> Self {
        Self {
            guard: AddGuard::new(hold),
            not_send: PhantomData,
        }
    }
}

/// It serves wherever an add is asked for by reference.
impl std::ops::Deref for BriefAddGuard {
    type Target = AddGuard;

    fn deref(&self) -> &AddGuard {
        &self.guard
    }
}

/// While this lives, nothing is added in its range: what is shot down there stays away.
#[must_use = "the range is given back when the guard is dropped"]
pub struct BlockGuard {
    hold: BlockHold,
}

enum BlockHold {
    Region(RegionHold),
    Gate { range: Range<u64>, _hold: GateHold },
}

impl BlockGuard {
    pub(super) fn of_region(hold: RegionHold) -> Self {
        Self {
            hold: BlockHold::Region(hold),
        }
    }

    pub(super) fn of_gate(range: Range<u64>, shared: Arc<Shared>, pass: Pass) -> Self {
        Self {
            hold: BlockHold::Gate {
                range,
                _hold: GateHold { shared, pass },
            },
        }
    }

    /// The bytes that it covers.
    #[must_use]
    pub fn range(&self) -> Range<u64> {
        self.covered().clone()
    }

    fn covered(&self) -> &Range<u64> {
        match &self.hold {
            BlockHold::Region(hold) => &hold.range,
            BlockHold::Gate { range, .. } => range,
        }
    }

    /// Asserts, in release builds too, that the guard covers these bytes.
    ///
    /// # Panics
    /// If it doesn't.
    #[track_caller]
    pub fn assert_covers(&self, range: Range<u64>) {
        assert_covers(self.covered(), &range);
    }
}

/// While this lives, there is no other holder of any part of the add lock.
#[must_use = "the lock is given back when the guard is dropped"]
pub struct ExclusiveGuard {
    block: BlockGuard,
}

impl ExclusiveGuard {
    pub(super) fn new(shared: Arc<Shared>, pass: Pass) -> Self {
        Self {
            block: BlockGuard::of_gate(0..u64::MAX, shared, pass),
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
        f.debug_tuple("AddGuard").field(&self.hold.range).finish()
    }
}

impl fmt::Debug for BlockGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BlockGuard").field(self.covered()).finish()
    }
}

impl fmt::Debug for ExclusiveGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ExclusiveGuard")
    }
}
