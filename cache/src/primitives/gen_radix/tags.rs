//! Setting, clearing and tidying tags. The protocol is proved in the [module above](super).

use std::ops::{Range, RangeInclusive};

use bytemuck::Zeroable;
use crossbeam_epoch::Guard;
use weir_faults::{ArmedPoints, race_fault};

use crate::primitives::sync::atomic::{Ordering, fence};

use super::bitmap::Bitmap;
use super::node::{FANOUT_BITS, Header, Interior};
use super::path::{Path, slot_of};
use super::{GenRadix, Tag, check_pin};

impl<T: Zeroable + Send + Sync> GenRadix<T> {
    /// Tags an occupied entry. The caller sets and clears the tags of one entry under a lock of its own for that entry.
    ///
    /// ```
    /// # use crossbeam_epoch as epoch;
    /// # use std::sync::atomic::AtomicU64;
    /// # use weir_cache::gen_radix::{GenRadix, Tag};
    /// let array = GenRadix::<AtomicU64>::new();
    /// let pin = epoch::pin();
    /// array.occupy(9, &pin)?;
    /// array.set_tag(9, Tag::Present, &pin);
    /// assert!(array.has_tag(9, Tag::Present, &pin));
    /// assert!(!array.has_tag(9, Tag::Dirty, &pin));
    /// # Ok::<(), weir_cache::gen_radix::GenRadixError>(())
    /// ```
    ///
    /// # Panics
    /// If the entry doesn't exist.
    pub fn set_tag(&self, index: u64, tag: Tag, pin: &Guard) {
        check_pin(pin);
        let (leaf_number, slot) = Self::split(index);
        let mut armed = self.armed();
        loop {
            let path = self
                .path(leaf_number, pin)
                .expect("tagged an index that is not occupied");
            self.header(&path, 0, pin).tags(tag).set(slot);
            for level in 1..=path.root.level() {
                // Everything below is visible before the look above: see the module's proof.
                fence(Ordering::SeqCst);
                let tags = self.header(&path, level, pin).tags(tag);
                let slot = path.slot(level);
                // Most often set already; a look doesn't take the cache line from the other processors.
                if !tags.is_set(slot) {
                    tags.set(slot);
                }
            }
            fence(Ordering::SeqCst);
            if self.load_root() == path.root && !race_fault!(armed) {
                return;
            }
            armed = ArmedPoints::NONE;
        }
    }

    /// Takes a tag off an entry, at once. The nodes above may keep theirs until [`tidy_tags`](Self::tidy_tags). The
    /// caller sets and clears the tags of one entry under a lock of its own for that entry.
    ///
    /// ```
    /// # use crossbeam_epoch as epoch;
    /// # use std::sync::atomic::AtomicU64;
    /// # use weir_cache::gen_radix::{GenRadix, Tag};
    /// # let array = GenRadix::<AtomicU64>::new();
    /// # let pin = epoch::pin();
    /// array.occupy(9, &pin)?;
    /// array.set_tag(9, Tag::Dirty, &pin);
    /// array.clear_tag(9, Tag::Dirty, &pin);
    /// assert!(!array.has_tag(9, Tag::Dirty, &pin));
    /// # Ok::<(), weir_cache::gen_radix::GenRadixError>(())
    /// ```
    pub fn clear_tag(&self, index: u64, tag: Tag, pin: &Guard) {
        check_pin(pin);
        let (leaf_number, slot) = Self::split(index);
        if let Some(path) = self.path(leaf_number, pin) {
            self.header(&path, 0, pin).tags(tag).clear(slot);
        }
    }

    /// Whether the entry has the tag.
    pub fn has_tag(&self, index: u64, tag: Tag, pin: &Guard) -> bool {
        check_pin(pin);
        let (leaf_number, slot) = Self::split(index);
        self.path(leaf_number, pin)
            .is_some_and(|path| self.header(&path, 0, pin).tags(tag).is_set(slot))
    }

    /// Clears the stale tags of interior nodes on the way to the range's leaves, so that later scans needn't look
    /// there.
    ///
    /// The caller excludes scans and other tidiers of this tag meanwhile: for a moment a tag may be clear above an
    /// entry that has it. [`set_tag`](Self::set_tag) and everything else may run concurrently.
    ///
    /// ```
    /// # use crossbeam_epoch as epoch;
    /// # use std::sync::atomic::AtomicU64;
    /// # use weir_cache::gen_radix::{GenRadix, Tag};
    /// # let array = GenRadix::<AtomicU64>::new();
    /// # let pin = epoch::pin();
    /// array.occupy(1 << 30, &pin)?;
    /// array.set_tag(1 << 30, Tag::Dirty, &pin);
    /// array.clear_tag(1 << 30, Tag::Dirty, &pin);
    /// array.tidy_tags(0..u64::MAX, Tag::Dirty, &pin);
    /// assert_eq!(array.next_tagged(0, Tag::Dirty, &pin), None);
    /// # Ok::<(), weir_cache::gen_radix::GenRadixError>(())
    /// ```
    pub fn tidy_tags(&self, range: Range<u64>, tag: Tag, pin: &Guard) {
        check_pin(pin);
        let root = self.load_root();
        if range.is_empty() || root.is_null() || root.level() == 0 {
            return;
        }
        let (first, _) = Self::split(range.start);
        let (last, _) = Self::split(range.end - 1);
        if !root.reaches(first) {
            return;
        }
        // SAFETY: a root above level 0 is an interior node, and the pin keeps it.
        let top = unsafe { Interior::from_raw(root.node()) };
        let last = if root.reaches(last) {
            last
        } else {
            last_leaf_below(0, root.level())
        };
        tidy(top, root.level(), 0, first..=last, tag, self.armed());
    }

    #[expect(clippy::unused_self, reason = "the path is this array's")]
    fn header<'g>(&self, path: &Path, level: u32, _pin: &'g Guard) -> &'g Header {
        // SAFETY: every node begins with a header, and the pin, which was there before the path, keeps it.
        unsafe { &*path.nodes[level as usize] }
    }
}

/// The last leaf below a node of this level whose first one is `base`.
pub(super) fn last_leaf_below(base: u64, level: u32) -> u64 {
    let leaves = 1_u64.checked_shl(level * FANOUT_BITS).unwrap_or(0);
    base | leaves.wrapping_sub(1)
}

/// Tidies the children of `node`, whose first leaf is `base`, that lead to the leaves `leaves`: the lowest nodes first,
/// so that a node is empty by the time its parent looks at it.
fn tidy(
    node: &Interior,
    level: u32,
    base: u64,
    leaves: RangeInclusive<u64>,
    tag: Tag,
    armed: ArmedPoints<'_>,
) {
    let (first, last) = (*leaves.start(), *leaves.end());
    let tags = node.header.tags(tag);
    let last_slot = slot_of(last.min(last_leaf_below(base, level)), level);
    let mut from = slot_of(first.max(base), level);
    while let Some(slot) = tags.next(from).filter(|slot| *slot <= last_slot) {
        #[cfg(all(test, not(loom)))]
        crate::testing::interleave::at("tree:visited");
        let child = node.child(slot).load(Ordering::Acquire);
        if !child.is_null() && level > 1 {
            // SAFETY: a node above level 0 is an interior one, and the pin of `tidy_tags` keeps it.
            let child = unsafe { Interior::from_raw(child) };
            let child_base = base | (slot as u64) << ((level - 1) * FANOUT_BITS);
            tidy(child, level - 1, child_base, leaves.clone(), tag, armed);
        }
        tidy_slot(node, slot, tags, tag, armed);
        from = slot + 1;
        if from > last_slot {
            return;
        }
    }
}

fn tidy_slot(node: &Interior, slot: usize, tags: &Bitmap, tag: Tag, armed: ArmedPoints<'_>) {
    if has_tag_below(node, slot, tag) {
        return;
    }
    #[cfg(all(test, not(loom)))]
    crate::testing::interleave::at("tags:seen empty");
    tags.clear(slot);
    // A tag that was set below before this fence is seen now. A setter that comes later sees the bit cleared.
    fence(Ordering::SeqCst);
    if has_tag_below(node, slot, tag) || race_fault!(armed) {
        tags.set(slot);
    }
}

fn has_tag_below(node: &Interior, slot: usize, tag: Tag) -> bool {
    let child = node.child(slot).load(Ordering::Acquire);
    // SAFETY: every node begins with a header, and the pin of `tidy_tags` keeps it.
    !child.is_null() && !unsafe { &*child }.tags(tag).is_empty()
}
