//! What needs exclusive access to the array: clearing a range, and dropping the whole array.

use std::ops::Range;
use std::ptr;

use bytemuck::Zeroable;

use crate::primitives::sync::atomic::Ordering;

use super::node::{self, FANOUT, FANOUT_BITS, Header, Interior, Leaf};
use super::path::slot_of;
use super::tags::last_leaf_below;
use super::{GenRadix, Tag};

impl<T: Zeroable + Send + Sync> GenRadix<T> {
    /// Empties the entries of the range, takes off their tags, and frees the leaves that lie wholly in the range.
    ///
    /// A freed leaf takes its occupants with it: they must not be vacated any more. Occupied entries of a leaf that
    /// lies only partly in the range are emptied, but stay occupied until they are vacated.
    ///
    /// ```
    /// # use crossbeam_epoch as epoch;
    /// # use std::sync::atomic::{AtomicU64, Ordering};
    /// # use weir_cache::gen_radix::GenRadix;
    /// let mut array = GenRadix::<AtomicU64>::new();
    /// array.get_or_create(1, &epoch::pin())?.store(7, Ordering::Relaxed);
    /// array.get_or_create(1 << 40, &epoch::pin())?;
    /// array.clear_range(1..u64::MAX);
    /// let pin = epoch::pin();
    /// assert_eq!(array.get(1, &pin).map(|entry| entry.load(Ordering::Relaxed)), Some(0));
    /// assert!(array.get(1 << 40, &pin).is_none());
    /// # Ok::<(), weir_cache::gen_radix::GenRadixError>(())
    /// ```
    pub fn clear_range(&mut self, range: Range<u64>) {
        let root = self.load_root();
        if range.is_empty() || root.is_null() {
            return;
        }
        let freed = clear::<T>(root.node(), root.level(), 0, &range);
        self.bytes.fetch_sub(freed.bytes, Ordering::Relaxed);
        if freed.is_whole {
            self.root.store(ptr::null_mut(), Ordering::Relaxed);
        }
    }
}

/// What became of a node.
struct Freed {
    bytes: usize,
    /// The node itself is gone.
    is_whole: bool,
}

/// Clears the range below a node whose first leaf is `base`. The caller has the array to itself.
fn clear<T: Zeroable>(node: *mut Header, level: u32, base: u64, range: &Range<u64>) -> Freed {
    if level == 0 {
        return clear_leaf::<T>(node, base, range);
    }
    let entries = Leaf::<T>::ENTRIES as u64;
    let first = (range.start / entries).max(base);
    let last = ((range.end - 1) / entries).min(last_leaf_below(base, level));
    if first > last {
        return Freed {
            bytes: 0,
            is_whole: false,
        };
    }
    // SAFETY: a node above level 0 is an interior one, and only the caller may free it.
    let interior = unsafe { Interior::from_raw(node) };
    let mut bytes = 0;
    for slot in slot_of(first, level)..=slot_of(last, level) {
        let child = interior.child(slot).load(Ordering::Relaxed);
        if child.is_null() {
            continue;
        }
        let child_base = base | (slot as u64) << ((level - 1) * FANOUT_BITS);
        let freed = clear::<T>(child, level - 1, child_base, range);
        bytes += freed.bytes;
        if freed.is_whole {
            interior
                .child(slot)
                .store(ptr::null_mut(), Ordering::Relaxed);
            interior.header.tags(Tag::Present).clear(slot);
            interior.header.tags(Tag::Dirty).clear(slot);
            interior.header.population.vacate();
        }
    }
    let is_whole = (0..FANOUT).all(|slot| interior.child(slot).load(Ordering::Relaxed).is_null());
    if is_whole {
        bytes += node::bytes::<T>(level);
        // SAFETY: the caller has the array to itself, and takes the pointer out of the parent.
        unsafe { node::free::<T>(node, level) };
    }
    Freed { bytes, is_whole }
}

fn clear_leaf<T: Zeroable>(node: *mut Header, leaf_number: u64, range: &Range<u64>) -> Freed {
    let entries = Leaf::<T>::ENTRIES as u64;
    let start = leaf_number * entries;
    // The very last leaf ends where indexes end.
    let end = start.saturating_add(entries);
    if range.start <= start && end <= range.end {
        // SAFETY: the caller has the array to itself, and takes the pointer out of the parent.
        unsafe { node::free::<T>(node, 0) };
        return Freed {
            bytes: node::bytes::<T>(0),
            is_whole: true,
        };
    }
    // SAFETY: level 0 is a leaf of this array's type, and only the caller may free it.
    let leaf = unsafe { Leaf::<T>::from_raw(node) };
    for index in range.start.max(start)..range.end.min(end) {
        let slot = usize::try_from(index - start).expect("a slot");
        leaf.header().tags(Tag::Present).clear(slot);
        leaf.header().tags(Tag::Dirty).clear(slot);
        // SAFETY: the caller has the array to itself.
        unsafe { leaf.reset(slot) };
    }
    Freed {
        bytes: 0,
        is_whole: false,
    }
}

impl<T: Zeroable + Send + Sync> Drop for GenRadix<T> {
    fn drop(&mut self) {
        self.clear_range(0..u64::MAX);
        debug_assert!(
            self.load_root().is_null(),
            "all leaves lie below the largest index"
        );
        #[cfg(loom)]
        for (node, level) in self.retired.get_mut().expect("not poisoned").drain(..) {
            // SAFETY: unlinked, and the array has no users any more.
            unsafe { node::free::<T>(node, level) };
        }
    }
}
