//! The page cache's add lock, after bcachefs' pagecache add lock, in ranges.
//!
//! An *adder* puts data of a range into the cache: it fills pages from the store, or writes to them. A *blocker* keeps
//! adders out of a range while the store is changed below it. The two exclude each other where they overlap. Adders
//! share, and so do blockers.
//!
//! The device is cut into *regions* of [`REGION_BYTES`], each with a lock of its own that knows the ranges of its
//! adders and blockers (see [`region`]). An operation locks its range, not the region. The region only bounds what has
//! to be searched and which operations meet on a mutex. Operations that don't overlap don't wait for each other, with
//! one exception: a blocker waits some microseconds for the brief adders of its region, below.
//!
//! An operation holds one range in one region at a time. One that is longer goes through its regions one after the
//! other ([`AddLock::regions`]), so it holds up nobody for long, and no order between regions has to be kept.
//!
//! In front of the regions stands a *gate* with three modes (see [`gate`]). *Region* is the above. *Whole* is one lock
//! for a blocker of any range: it keeps out the adders and the blockers of all regions, and is shared with other
//! wholes. *Exclusive* keeps out everything else.
//!
//! # Cost
//! A *brief* adder gives its guard back without an await ([`AddLock::try_add_briefly`]: a small write). While no
//! blocker is in the region, the guard takes a compare-and-swap on the thread's own shard of the gate, a lookup, a
//! compare-and-swap on the region, and one more reference to it. Dropping the guard undoes the three. All other
//! operations enter the region's queue under its mutex and leave it again. That is some dozens of instructions each,
//! beside the I/O that they hold their guard for. Nothing is allocated once the region's lock is there and its queue
//! has been as long before.
//!
//! # Guards never nest
//! A holder that asks for another guard may queue behind an operation that waits for it. So functions that need the
//! lock take the guard as a parameter. A request checks its range against the device's size after it is past the gate,
//! because a resize holds the gate.
//!
//! # Fairness
//! At the gate, phases of region operations and of the other two modes alternate (see [`gate`]). In a region every
//! operation waits for the opponents that overlap it and came before it, and nothing overtakes. So endless adders let a
//! blocker in, and the other way round. The bound is in [`region`].
//!
//! # Wait-for graph
//! | what waits, and where | held meanwhile | ended by | bound |
//! | --- | --- | --- | --- |
//! | region operation at its shard of the gate | nothing | whole and exclusive holders | the rest of their phase, and the phases of those that queued before |
//! | region operation at its region | its shard of the gate, its place in the region's queue | opponents that overlap it and have an earlier place | the phases before it in the queue |
//! | blocker at its region, for brief adders | its shard of the gate, its place in the queue | the brief adders that were in before it | a small write |
//! | whole or exclusive at the turnstile | nothing | those before it, in order | the entry of each whole, the hold of each exclusive |
//! | exclusive at `wholes` | the turnstile | whole holders | the slowest of them |
//! | whole or exclusive at the shards | the turnstile, `wholes`, some shards | region operations past the gate, wholes inside it | the slowest: its wait at its region, and its hold |
//!
//! There is no cycle. Take what can be held in this order: a guard; a place in a region's queue, with the shard that
//! was passed for it; shards on the way to a whole or an exclusive; `wholes`; the turnstile. An operation that waits
//! for one of these holds only what stands after it, or, in a region's queue, a later place. A holder of a guard waits
//! for nothing of this lock: what it waits for, the store in the end, is in [`page_cache`](crate::page_cache).
//!
//! # Cancel safety
//! Every await is of a cancel safe future. What was gained before it is in a guard, so a dropped future gives it back.
//! A place in a region's queue is in a guard from the moment at which it is taken.
//!
//! # Memory
//! There are [`LOCKS`] locks, whatever the size of the device. Regions share them, neighbours hardly ever. Two regions
//! that share a lock share its mutex and its count of brief adders; their ranges don't overlap. Each lock is made when
//! it is first used, and stays. Its queue grows as it must and shrinks to a little when it is empty, see
//! [`AddLock::bytes`].

mod gate;
mod guard;
mod region;
mod turnstile;

#[cfg(all(test, loom))]
mod loom_models;
#[cfg(all(test, not(loom)))]
mod tests;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use weir_faults::{ArmedPoints, FaultContext, race_fault};

use crate::gen_radix::OnceArc;
use crate::lg_lock::default_shards;
use crate::primitives::sync::thread_number;
use crate::two_state_lock::Side;

use gate::Gate;
use guard::RegionHold;
use region::RegionLock;

pub use guard::{AddGuard, BlockGuard, BriefAddGuard, ExclusiveGuard};

/// The bytes under one region's lock: as many as a large streaming request touches, few enough that requests of
/// different places rarely meet on a mutex.
pub const REGION_BYTES: u64 = 64 << 20;

/// How many locks the regions share. One for each would be memory that a client can ask for without bound, a page here
/// and a page there on a device of exabytes. These take 26 KiB, and [`AddLock::bytes`] says what their queues take.
pub const LOCKS: usize = 1 << LOCKS_SHIFT;
const LOCKS_SHIFT: u32 = 8;

/// The lock; see the module's documentation.
///
/// ```
/// use std::sync::Arc;
/// use weir_cache::add_lock::AddLock;
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let lock = Arc::new(AddLock::new(12));
/// let add = lock.add(100..200).await;
/// add.assert_covers(150..160);
/// assert!(lock.try_block(0..4096).is_none());
/// drop(add);
/// let block = lock.block(0..4096).await;
/// assert!(lock.try_add(100..200).is_none());
/// # drop(block);
/// # });
/// ```
pub struct AddLock {
    /// Blocks cover whole pages of this many bytes, as a power of two.
    page_shift: u32,
    shared: Arc<Shared>,
    /// By [`lock_number`].
    regions: Box<[OnceArc<Region>]>,
    region_count: AtomicUsize,
    waits: Waits,
}

/// What the regions have in common.
struct Shared {
    gate: Gate,
    /// Memory of the regions' queues.
    queue_bytes: AtomicUsize,
}

impl Shared {
    fn new(gate: Gate) -> Arc<Self> {
        Arc::new(Self {
            gate,
            queue_bytes: AtomicUsize::new(0),
        })
    }
}

/// One region's lock, and the way back to the gate, so that a guard needs no other reference.
struct Region {
    lock: RegionLock,
    shared: Arc<Shared>,
}

/// Touched only by those who wait.
#[derive(Default)]
struct Waits {
    gate: AtomicU64,
    add: AtomicU64,
    block: AtomicU64,
    whole: AtomicU64,
    exclusive: AtomicU64,
}

/// How often someone had to wait, since the lock was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AddLockStats {
    /// Waits of region operations, of all three kinds below.
    pub waits: u64,
    /// Region operations that waited at the gate.
    pub gate_waits: u64,
    /// Adders that waited at their region.
    pub add_waits: u64,
    /// Blockers that waited at their region.
    pub block_waits: u64,
    /// Whole-device blocks asked for, each of which may have waited.
    pub wholes: u64,
    /// Exclusive holds asked for, each of which may have waited.
    pub exclusives: u64,
}

impl AddLock {
    /// A lock for a device with pages of `1 << page_shift` bytes.
    ///
    /// # Panics
    /// If a page is larger than a region.
    #[must_use]
    pub fn new(page_shift: u32) -> Self {
        Self::with_shards(page_shift, default_shards())
    }

    /// As [`new`](Self::new), with fault points.
    ///
    /// # Panics
    /// As [`new`](Self::new).
    #[must_use]
    pub fn with_faults(page_shift: u32, faults: FaultContext) -> Self {
        let lock = Self::new(page_shift);
        Self {
            shared: Shared::new(Gate::new(default_shards()).with_faults(faults)),
            ..lock
        }
    }

    fn with_shards(page_shift: u32, shards: usize) -> Self {
        assert!(
            page_shift <= REGION_BYTES.trailing_zeros(),
            "a page of 2^{page_shift} bytes is larger than a region"
        );
        Self {
            page_shift,
            shared: Shared::new(Gate::new(shards)),
            regions: (0..LOCKS).map(|_| OnceArc::new()).collect(),
            region_count: AtomicUsize::new(0),
            waits: Waits::default(),
        }
    }

    /// Cuts a range at the borders of regions.
    ///
    /// ```
    /// use weir_cache::add_lock::{AddLock, REGION_BYTES};
    ///
    /// let cut: Vec<_> = AddLock::regions(5..REGION_BYTES + 5).collect();
    /// assert_eq!(cut, [5..REGION_BYTES, REGION_BYTES..REGION_BYTES + 5]);
    /// ```
    pub fn regions(range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
        let mut start = range.start;
        std::iter::from_fn(move || {
            if start >= range.end {
                return None;
            }
            let border = (start / REGION_BYTES + 1).saturating_mul(REGION_BYTES);
            let piece = start..border.min(range.end);
            start = piece.end;
            Some(piece)
        })
    }

    /// Takes *add* on a range within one region, if no one has to be waited for.
    ///
    /// # Panics
    /// If the range is empty or crosses a region's border.
    #[inline]
    pub fn try_add(&self, range: Range<u64>) -> Option<AddGuard> {
        self.try_region(range, Side::Add).map(AddGuard::new)
    }

    /// As [`try_add`](Self::try_add), for a guard that is given back without an await, and quickly: until then blockers
    /// of all the region wait.
    ///
    /// # Panics
    /// As [`try_add`](Self::try_add).
    #[inline]
    pub fn try_add_briefly(&self, range: Range<u64>) -> Option<BriefAddGuard> {
        let enter = |lock: &RegionLock, armed: ArmedPoints<'_>| {
            if lock.try_enter_briefly(armed) {
                return Some(None);
            }
            let memory = &self.shared.queue_bytes;
            lock.try_enter(Side::Add, &range, memory).map(Some)
        };
        let (region, shard, place) = self.try_pass(&range, enter)?;
        Some(BriefAddGuard::new(RegionHold::new(
            region, range, shard, place,
        )))
    }

    /// Takes *add* on a range within one region. Cancel safe.
    ///
    /// # Panics
    /// If the range is empty or crosses a region's border.
    pub async fn add(&self, range: Range<u64>) -> AddGuard {
        // Mostly nobody is there, and a guard that needn't be carried through another future costs less.
        if let Some(guard) = self.try_add(range.clone()) {
            return guard;
        }
        AddGuard::new(self.region(range, Side::Add).await)
    }

    /// Takes *block* on whole pages within one region, if no one has to be waited for.
    ///
    /// # Panics
    /// If the range is empty, crosses a region's border or cuts a page. (The last page of a device counts as whole;
    /// give its full extent.)
    pub fn try_block(&self, range: Range<u64>) -> Option<BlockGuard> {
        self.assert_whole_pages(&range);
        self.try_region(range, Side::Block)
            .map(BlockGuard::of_region)
    }

    /// Takes *block* on whole pages within one region. Cancel safe.
    ///
    /// # Panics
    /// As [`try_block`](Self::try_block).
    pub async fn block(&self, range: Range<u64>) -> BlockGuard {
        self.assert_whole_pages(&range);
        BlockGuard::of_region(self.region(range, Side::Block).await)
    }

    /// Takes *block* on whole pages of any range, for the price of one lock that keeps adders and region blockers out
    /// everywhere: hold it for a slice of the work at a time. Cancel safe.
    ///
    /// # Panics
    /// If the range is empty or cuts a page.
    pub async fn block_whole(&self, range: Range<u64>) -> BlockGuard {
        self.assert_whole_pages(&range);
        self.waits.whole.fetch_add(1, Ordering::Relaxed);
        let pass = self.shared.gate.whole().await;
        BlockGuard::of_gate(range, Arc::clone(&self.shared), pass)
    }

    /// Keeps everyone else out, for what changes the device itself: resize, insert and collapse range, power cut.
    /// Cancel safe.
    pub async fn exclusive(&self) -> ExclusiveGuard {
        self.waits.exclusive.fetch_add(1, Ordering::Relaxed);
        let pass = self.shared.gate.exclusive().await;
        ExclusiveGuard::new(Arc::clone(&self.shared), pass)
    }

    /// How often someone waited. A snapshot.
    pub fn stats(&self) -> AddLockStats {
        let Waits {
            gate,
            add,
            block,
            whole,
            exclusive,
        } = &self.waits;
        let gate_waits = gate.load(Ordering::Relaxed);
        let add_waits = add.load(Ordering::Relaxed);
        let block_waits = block.load(Ordering::Relaxed);
        AddLockStats {
            waits: gate_waits + add_waits + block_waits,
            gate_waits,
            add_waits,
            block_waits,
            wholes: whole.load(Ordering::Relaxed),
            exclusives: exclusive.load(Ordering::Relaxed),
        }
    }

    /// Memory of the locks that are in use, and of their queues: 26 KiB with all of them, and room for a few requests
    /// in each.
    pub fn bytes(&self) -> usize {
        /// The two counts in front of what an `Arc` holds.
        const ARC_BYTES: usize = 2 * size_of::<usize>();
        let regions = self.region_count.load(Ordering::Relaxed);
        size_of_val(&*self.regions)
            + regions * (size_of::<Region>() + ARC_BYTES)
            + self.shared.queue_bytes.load(Ordering::Relaxed)
    }

    fn try_region(&self, range: Range<u64>, side: Side) -> Option<RegionHold> {
        let memory = &self.shared.queue_bytes;
        let enter = |lock: &RegionLock, _: ArmedPoints<'_>| lock.try_enter(side, &range, memory);
        let (region, shard, place) = self.try_pass(&range, enter)?;
        Some(RegionHold::new(region, range, shard, Some(place)))
    }

    /// Passes the gate to the region of `range` and enters there, if both go without waiting. The caller owes the gate's
    /// shard, whose number is returned, what a [`RegionHold`] gives back.
    #[inline]
    fn try_pass<P>(
        &self,
        range: &Range<u64>,
        enter: impl FnOnce(&RegionLock, ArmedPoints<'_>) -> Option<P>,
    ) -> Option<(Arc<Region>, usize, P)> {
        let number = region_number(range);
        let shard = self.shard();
        let armed = self.shared.gate.points().armed();
        if race_fault!(armed) {
            return None;
        }
        let passed = self.shared.gate.try_region(shard, armed)?;
        let region = self.region_of(number);
        let place = enter(&region.lock, armed)?;
        passed.leak();
        Some((region, shard, place))
    }

    async fn region(&self, range: Range<u64>, side: Side) -> RegionHold {
        let number = region_number(&range);
        let shard = self.shard();
        let armed = self.shared.gate.points().armed();
        let passed = match self.shared.gate.try_region(shard, armed) {
            Some(passed) if !race_fault!(armed) => passed,
            _ => {
                self.waits.gate.fetch_add(1, Ordering::Relaxed);
                self.shared.gate.region(shard).await
            }
        };
        let region = self.region_of(number);
        let memory = &self.shared.queue_bytes;
        let (place, is_free) = region.lock.enter(side, &range, memory);
        passed.leak();
        let mut hold = RegionHold::new(region, range, shard, Some(place));
        if !is_free || race_fault!(armed) {
            match side {
                Side::Add => &self.waits.add,
                Side::Block => &self.waits.block,
            }
            .fetch_add(1, Ordering::Relaxed);
            hold.own().await;
        }
        hold
    }

    /// The shard of the gate that this thread passes through. A guard may be dropped on another thread: it remembers.
    fn shard(&self) -> usize {
        thread_number() % self.shared.gate.shards()
    }

    #[inline]
    fn region_of(&self, number: u64) -> Arc<Region> {
        let cell = &self.regions[lock_number(number)];
        match cell.get() {
            Some(region) => region,
            None => self.create_region(cell),
        }
    }

    #[cold]
    fn create_region(&self, cell: &OnceArc<Region>) -> Arc<Region> {
        let made = Arc::new(Region {
            lock: RegionLock::new(),
            shared: Arc::clone(&self.shared),
        });
        let region = cell.get_or_init(|| Arc::clone(&made));
        if Arc::ptr_eq(&made, &region) {
            self.region_count.fetch_add(1, Ordering::Relaxed);
        }
        region
    }

    fn assert_whole_pages(&self, range: &Range<u64>) {
        let within = (1_u64 << self.page_shift) - 1;
        assert!(
            !range.is_empty()
                && range.start & within == 0
                && (range.end & within == 0 || range.end == u64::MAX),
            "a block of {range:?} cuts a page of {} bytes",
            within + 1
        );
    }
}

fn region_number(range: &Range<u64>) -> u64 {
    assert!(!range.is_empty(), "{range:?} is empty");
    let number = range.start / REGION_BYTES;
    assert!(
        (range.end - 1) / REGION_BYTES == number,
        "{range:?} crosses a border of regions of {REGION_BYTES} bytes"
    );
    number
}

/// The lock of a region. The regions of one block of [`LOCKS`] that is aligned to as many have different ones. The
/// upper bits are folded in, so that what file systems put at every so many gigabytes doesn't meet in one.
#[expect(clippy::cast_possible_truncation, reason = "masked to a few bits")]
const fn lock_number(region: u64) -> usize {
    let mut folded = region;
    let mut shift = LOCKS_SHIFT;
    while shift < u64::BITS {
        folded ^= region >> shift;
        shift += LOCKS_SHIFT;
    }
    folded as usize % LOCKS
}

impl fmt::Debug for AddLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AddLock")
            .field("page_bytes", &(1_u64 << self.page_shift))
            .field("entering", &self.shared.gate.entering())
            .field("stats", &self.stats())
            .finish()
    }
}

const _: () = {
    const fn assert_send<T: Send + 'static>() {}
    assert_send::<AddGuard>();
    assert_send::<BlockGuard>();
    assert_send::<ExclusiveGuard>();
};
