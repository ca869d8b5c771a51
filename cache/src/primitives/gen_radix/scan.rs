//! Finding the next or previous leaf, of all or of those that may have a tag.

use bytemuck::Zeroable;
use crossbeam_epoch::Guard;

use crate::primitives::sync::atomic::Ordering;

use super::node::{FANOUT, FANOUT_BITS, Interior, Leaf};
use super::path::{Root, slot_of};
use super::tags::last_leaf_below;
use super::{GenRadix, Tag, check_pin};

/// Which way a scan goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Up,
    Down,
}

/// A leaf and its number.
pub(super) type Found<'g, T> = (u64, Leaf<'g, T>);

impl<T: Zeroable + Send + Sync> GenRadix<T> {
    /// The first index at or after `from` that has the tag.
    ///
    /// Finds what was tagged before the call began and not cleared since, unless a tidier runs.
    ///
    /// ```
    /// # use crossbeam_epoch as epoch;
    /// # use std::sync::atomic::AtomicU64;
    /// # use weir_cache::gen_radix::{GenRadix, Tag};
    /// # let array = GenRadix::<AtomicU64>::new();
    /// # let pin = epoch::pin();
    /// for index in [5, 1 << 40] {
    ///     array.occupy(index, &pin)?;
    ///     array.set_tag(index, Tag::Dirty, &pin);
    /// }
    /// assert_eq!(array.next_tagged(0, Tag::Dirty, &pin), Some(5));
    /// assert_eq!(array.next_tagged(6, Tag::Dirty, &pin), Some(1 << 40));
    /// assert_eq!(array.next_tagged(0, Tag::Present, &pin), None);
    /// # Ok::<(), weir_cache::gen_radix::GenRadixError>(())
    /// ```
    pub fn next_tagged(&self, from: u64, tag: Tag, pin: &Guard) -> Option<u64> {
        let (mut leaf_number, mut slot) = Self::split(from);
        loop {
            let (found, leaf) = self.find_leaf(leaf_number, Direction::Up, Some(tag), pin)?;
            if found != leaf_number {
                slot = 0;
            }
            if let Some(slot) = leaf.header().tags(tag).next(slot) {
                return Some(Self::join(found, slot));
            }
            leaf_number = found.checked_add(1)?;
            slot = 0;
        }
    }

    /// The last index at or before `from` that has the tag; as [`next_tagged`](Self::next_tagged), downwards.
    ///
    /// ```
    /// # use crossbeam_epoch as epoch;
    /// # use std::sync::atomic::AtomicU64;
    /// # use weir_cache::gen_radix::{GenRadix, Tag};
    /// # let array = GenRadix::<AtomicU64>::new();
    /// # let pin = epoch::pin();
    /// array.occupy(5, &pin)?;
    /// array.set_tag(5, Tag::Dirty, &pin);
    /// assert_eq!(array.prev_tagged(u64::MAX, Tag::Dirty, &pin), Some(5));
    /// assert_eq!(array.prev_tagged(4, Tag::Dirty, &pin), None);
    /// # Ok::<(), weir_cache::gen_radix::GenRadixError>(())
    /// ```
    pub fn prev_tagged(&self, from: u64, tag: Tag, pin: &Guard) -> Option<u64> {
        let (mut leaf_number, mut slot) = Self::split(from);
        loop {
            let (found, leaf) = self.find_leaf(leaf_number, Direction::Down, Some(tag), pin)?;
            if found != leaf_number {
                slot = Leaf::<T>::ENTRIES - 1;
            }
            if let Some(slot) = leaf.header().tags(tag).prev(slot) {
                return Some(Self::join(found, slot));
            }
            leaf_number = found.checked_sub(1)?;
            slot = Leaf::<T>::ENTRIES - 1;
        }
    }

    pub(super) fn join(leaf_number: u64, slot: usize) -> u64 {
        leaf_number * Leaf::<T>::ENTRIES as u64 + slot as u64
    }

    /// The nearest leaf at `from` or beyond it in this direction; with a tag, the nearest leaf that may have the tag.
    pub(super) fn find_leaf<'g>(
        &'g self,
        from: u64,
        direction: Direction,
        tag: Option<Tag>,
        pin: &'g Guard,
    ) -> Option<Found<'g, T>> {
        check_pin(pin);
        let root = self.load_root();
        if root.is_null() {
            return None;
        }
        let mut from = from;
        if !root.reaches(from) {
            if direction == Direction::Up {
                return None;
            }
            from = last_leaf_below(0, root.level());
        }
        // SAFETY: the pin keeps the nodes that are met here.
        unsafe { find(root, 0, from, direction, tag) }
    }
}

/// As `find_leaf`, below one node whose first leaf is `base`; `from` lies below it.
///
/// # Safety
/// The node is of this array, and whatever is met below it outlives `'g`.
unsafe fn find<'g, T>(
    node: Root,
    base: u64,
    from: u64,
    direction: Direction,
    tag: Option<Tag>,
) -> Option<Found<'g, T>> {
    #[cfg(all(test, not(loom)))]
    crate::testing::interleave::at("tree:visited");
    let level = node.level();
    if level == 0 {
        // SAFETY: level 0 is a leaf, and it lives by the caller's promise.
        return Some((base, unsafe { Leaf::from_raw(node.node()) }));
    }
    // SAFETY: a node above level 0 is an interior one, and it lives by the caller's promise.
    let interior = unsafe { Interior::from_raw(node.node()) };
    let first = slot_of(from, level);
    let mut slot = first;
    loop {
        slot = candidate(interior, slot, direction, tag)?;
        let child = interior.child(slot).load(Ordering::Acquire);
        if !child.is_null() {
            let child_base = base | (slot as u64) << ((level - 1) * FANOUT_BITS);
            let child_from = match direction {
                _ if slot == first => from,
                Direction::Up => child_base,
                Direction::Down => last_leaf_below(child_base, level - 1),
            };
            // SAFETY: a child lies one level below, and lives by the caller's promise.
            let found = unsafe {
                find(
                    Root::new(child, level - 1),
                    child_base,
                    child_from,
                    direction,
                    tag,
                )
            };
            if found.is_some() {
                return found;
            }
        }
        slot = match direction {
            Direction::Up => slot + 1,
            Direction::Down => slot.checked_sub(1)?,
        };
    }
}

/// The nearest slot at `slot` or beyond it that is worth a look.
fn candidate(
    interior: &Interior,
    slot: usize,
    direction: Direction,
    tag: Option<Tag>,
) -> Option<usize> {
    if slot >= FANOUT {
        return None;
    }
    match (tag, direction) {
        (None, _) => Some(slot),
        (Some(tag), Direction::Up) => interior.header.tags(tag).next(slot),
        (Some(tag), Direction::Down) => interior.header.tags(tag).prev(slot),
    }
}
