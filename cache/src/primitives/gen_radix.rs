//! A sparse array of any fixed-size type, indexed by integer: the kernel's generic radix tree, and more.
//!
//! It keeps from the kernel's `lib/generic-radix-tree.c`: lookup without locks, entries that begin all-zero
//! ([`Zeroable`] says that this is a valid value), growth by compare-and-swap, after which the loser frees its own
//! node, the depth in the low bits of the root pointer, entries that never straddle nodes, preallocation, overflow and
//! failed allocation as errors. It adds two [tags](Tag) with a bitmap in every node, so that "next dirty at or after"
//! costs what is found; ordered, seekable iteration both ways; and reclaim of emptied nodes.
//!
//! # Shape
//! Leaves hold 4 KiB of entries, interior nodes 512 children. Level 0 is a leaf; the root's level follows from the
//! highest index ever created. A tree only grows upwards: a new root takes the old one as its child 0. Untouched space
//! has no nodes.
//!
//! # References and reclaim
//! Every reference into the array lives no longer than the caller's pin of the *default* epoch collector
//! ([`crossbeam_epoch::pin`]).
//!
//! A node counts what keeps it alive. A leaf counts the calls of [`occupy`](GenRadix::occupy) not yet answered by
//! [`vacate`](GenRadix::vacate), an interior node counts its children. The call that brings the count to zero declares
//! the node dead by a compare-and-swap from zero. It unlinks the node from its parent by another compare-and-swap,
//! retires it through the epoch, and takes it off the parent's count. Reclaim is immediate, not lazy, because an
//! emptied leaf is memory that the cache could use for a page.
//!
//! A dead node never comes back to life. An `occupy` that meets one helps to unlink it and starts anew from the root,
//! so it never waits for the call that declared the node dead. Thus an occupied entry's leaf, and every node above it,
//! is linked until `vacate`.
//!
//! The root is never reclaimed. A former root dies below a newer one like any other node, by calls whose walk began at
//! the newer one. A call whose walk began at the former root itself doesn't know its parent, and leaves it alone, empty
//! or dead. If the former root is dead, the call meets it again on its next walk, which begins at a newer root. If it
//! is empty, it stays until it is used once more: at most one node for each time the tree grew.
//!
//! # Tags
//! In a leaf, a tag's bit belongs to the entry. In an interior node it says that the child *may* have that tag
//! somewhere below. It may be stale-set: [`clear_tag`](GenRadix::clear_tag) clears only the leaf's own bit, and scans
//! pass over what they find empty. A scan must never find it clear when a tag was set below.
//! [`set_tag`](GenRadix::set_tag) walks from the leaf to the root and checks every level: a bit that is found set may
//! be that of another setter, whose own walk isn't finished.
//!
//! [`tidy_tags`](GenRadix::tidy_tags) clears stale bits: clear, fence, look at the child again, and set again if it has
//! the tag after all. The setter's side is: set below, fence, look at the bit above, set it if it is clear. Both fences
//! are sequentially consistent, so one comes first. If the setter's does, the tidier's second look sees the bit below
//! and restores the one above. If the tidier's does, the setter sees the bit above cleared and sets it. The same holds
//! one level up for a setter that found a bit set by another, because what it read before its fence is visible after
//! the tidier's later one. And it holds for the root: a new root is published with the bit of its child 0 set, and a
//! setter looks at the root again, after a fence, when its walk is done. Between clear and restore a scan could miss a
//! tag: that is why scans and other tidiers must be excluded.
//!
//! ```
//! use crossbeam_epoch as epoch;
//! use std::sync::atomic::{AtomicU64, Ordering};
//! use weir_cache::gen_radix::{GenRadix, Tag};
//!
//! let array = GenRadix::<AtomicU64>::new();
//! let pin = epoch::pin();
//! array.occupy(1 << 50, &pin)?.store(7, Ordering::Relaxed);
//! array.set_tag(1 << 50, Tag::Dirty, &pin);
//! assert_eq!(array.next_tagged(0, Tag::Dirty, &pin), Some(1 << 50));
//! # Ok::<(), weir_cache::gen_radix::GenRadixError>(())
//! ```
#![expect(
    unsafe_code,
    reason = "nodes of a size known at run time, shared without locks: the workspace's one place for that"
)]

mod bitmap;
mod clear;
mod grow;
mod immortal;
mod iter;
#[cfg(all(test, loom))]
mod loom_models;
mod node;
mod once_arc;
mod path;
mod reclaim;
mod scan;
mod tags;
#[cfg(all(test, not(loom)))]
mod tests;

use std::fmt;
use std::marker::PhantomData;
use std::ptr;
use std::sync::atomic::AtomicUsize;

use bytemuck::Zeroable;
use crossbeam_epoch::Guard;
use weir_faults::{ArmedPoints, FaultContext};

use crate::primitives::points::Points;
use crate::primitives::sync::atomic::{AtomicPtr, Ordering};
use crate::primitives::sync::const_unless_loom;

pub use immortal::ImmortalRadix;
pub use iter::{Entries, Tagged};
pub use once_arc::OnceArc;

use node::{Header, Interior, Leaf};
use path::{Root, slot_number, slot_of};

/// What entries are marked with. Each tag has a bitmap in every node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum Tag {
    /// The entry holds something.
    Present = 0,
    /// The entry holds something to be written back.
    Dirty = 1,
}

const TAGS: usize = 2;

/// Why an entry could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GenRadixError {
    /// The index is `u64::MAX`. It isn't a valid index, so that a range with an exclusive end can cover all valid ones.
    #[error("index {index} is beyond the largest one")]
    Overflow {
        /// The index asked for.
        index: u64,
    },
    /// The allocator has no memory for a node. Nothing was changed.
    #[error("no memory for a node of {bytes} bytes")]
    OutOfMemory {
        /// The size of the node.
        bytes: usize,
    },
}

/// The array; see the module's documentation.
pub struct GenRadix<T: Zeroable + Send + Sync + 'static> {
    /// Null, or the top node with its level in the bits of [`LEVEL_MASK`].
    root: AtomicPtr<Header>,
    /// Memory of the nodes that are linked.
    bytes: AtomicUsize,
    points: Points,
    /// Loom doesn't know epochs: retired nodes stay until the array goes.
    #[cfg(loom)]
    retired: std::sync::Mutex<Vec<(*mut Header, u32)>>,
    entries: PhantomData<T>,
}

// SAFETY: the array owns its nodes and entries (`T: Send`), and the pointers in it are only followed as they are.
unsafe impl<T: Zeroable + Send + Sync> Send for GenRadix<T> {}
// SAFETY: shared use hands out `&T` (`T: Sync`), may drop entries on any thread (`T: Send`), and changes nodes through
// atomics.
unsafe impl<T: Zeroable + Send + Sync> Sync for GenRadix<T> {}

impl<T: Zeroable + Send + Sync> GenRadix<T> {
    const_unless_loom! {
        /// An empty array, which takes no memory.
        ///
        /// ```
        /// use std::sync::atomic::AtomicU64;
        /// use weir_cache::gen_radix::GenRadix;
        ///
        /// static ARRAY: GenRadix<AtomicU64> = GenRadix::new();
        /// assert_eq!(ARRAY.bytes(), 0);
        /// ```
        pub fn new() -> Self {
            Self {
                root: AtomicPtr::new(ptr::null_mut()),
                bytes: AtomicUsize::new(0),
                points: Points::NONE,
                #[cfg(loom)]
                retired: std::sync::Mutex::new(Vec::new()),
                entries: PhantomData,
            }
        }
    }

    /// As [`new`](Self::new), with fault points.
    #[must_use]
    pub fn with_faults(faults: FaultContext) -> Self {
        let mut array = Self::new();
        array.points = Points::of(faults);
        array
    }

    fn armed(&self) -> ArmedPoints<'_> {
        self.points.armed()
    }

    /// Entries of one leaf: what is allocated, and reclaimed, together.
    pub const LEAF_ENTRIES: usize = Leaf::<T>::ENTRIES;

    fn split(index: u64) -> (u64, usize) {
        let entries = Leaf::<T>::ENTRIES as u64;
        (index / entries, slot_number(index % entries))
    }

    fn load_root(&self) -> Root {
        Root(self.root.load(Ordering::Acquire))
    }

    /// The entry, if its leaf exists; the array doesn't look at what the entry holds. No lock, no write.
    ///
    /// ```
    /// # use crossbeam_epoch as epoch;
    /// # use std::sync::atomic::AtomicU64;
    /// # use weir_cache::gen_radix::GenRadix;
    /// let array = GenRadix::<AtomicU64>::new();
    /// let pin = epoch::pin();
    /// assert!(array.get(3, &pin).is_none());
    /// array.get_or_create(3, &pin)?;
    /// assert!(array.get(3, &pin).is_some());
    /// # Ok::<(), weir_cache::gen_radix::GenRadixError>(())
    /// ```
    #[inline]
    pub fn get<'g>(&'g self, index: u64, pin: &'g Guard) -> Option<&'g T> {
        check_pin(pin);
        let (leaf_number, slot) = Self::split(index);
        // SAFETY: the pin keeps the nodes that it may meet.
        let leaf = unsafe { self.leaf(leaf_number) }?;
        Some(leaf.entry(slot))
    }

    /// # Safety
    /// For all of `'g`, nodes met here are not freed: an epoch is pinned, or no node is ever reclaimed.
    #[inline]
    unsafe fn leaf<'g>(&'g self, leaf_number: u64) -> Option<Leaf<'g, T>> {
        let root = self.load_root();
        if !root.reaches(leaf_number) {
            return None;
        }
        let mut node = root.node();
        for level in (1..=root.level()).rev() {
            // SAFETY: a node above level 0 is an interior one, and lives by the caller's promise.
            let interior = unsafe { Interior::from_raw(node) };
            node = interior
                .child(slot_of(leaf_number, level))
                .load(Ordering::Acquire);
            if node.is_null() {
                return None;
            }
        }
        // SAFETY: level 0 is a leaf of this array's type, and lives by the caller's promise.
        Some(unsafe { Leaf::from_raw(node) })
    }

    /// The entry; its leaf is made if need be. The leaf stays until entries of it are occupied and all vacated again.
    /// In an array where that happens, a reference to an entry that the caller doesn't occupy may outlive its leaf's
    /// place in the array. That is safe, but what is stored there is lost.
    ///
    /// # Errors
    /// [`GenRadixError`]; then nothing has changed except, perhaps, the depth.
    ///
    /// ```
    /// # use crossbeam_epoch as epoch;
    /// # use std::sync::atomic::{AtomicU64, Ordering};
    /// # use weir_cache::gen_radix::{GenRadix, GenRadixError};
    /// let array = GenRadix::<AtomicU64>::new();
    /// let pin = epoch::pin();
    /// assert_eq!(array.get_or_create(3, &pin)?.load(Ordering::Relaxed), 0);
    /// let overflow = array.get_or_create(u64::MAX, &pin).unwrap_err();
    /// assert_eq!(overflow, GenRadixError::Overflow { index: u64::MAX });
    /// # Ok::<(), GenRadixError>(())
    /// ```
    pub fn get_or_create<'g>(&'g self, index: u64, pin: &'g Guard) -> Result<&'g T, GenRadixError> {
        self.create(index, pin, |leaf| !leaf.header().population.is_dead())
    }

    /// As [`get_or_create`](Self::get_or_create), and the leaf can't be reclaimed until [`vacate`](Self::vacate) was
    /// called as often for its entries.
    ///
    /// # Errors
    /// [`GenRadixError`]; then nothing is occupied.
    ///
    /// ```
    /// # use crossbeam_epoch as epoch;
    /// # use std::sync::atomic::AtomicU64;
    /// # use weir_cache::gen_radix::GenRadix;
    /// let array = GenRadix::<AtomicU64>::new();
    /// let pin = epoch::pin();
    /// array.occupy(1 << 40, &pin)?;
    /// let occupied = array.bytes();
    /// array.vacate(1 << 40, &pin);
    /// assert!(array.get(1 << 40, &pin).is_none());
    /// assert!(array.bytes() < occupied);
    /// # Ok::<(), weir_cache::gen_radix::GenRadixError>(())
    /// ```
    pub fn occupy<'g>(&'g self, index: u64, pin: &'g Guard) -> Result<&'g T, GenRadixError> {
        let armed = self.armed();
        self.create(index, pin, |leaf| leaf.header().population.occupy(armed))
    }

    /// Answers one [`occupy`](Self::occupy) of this index. When the last occupied entry of a leaf is vacated, the leaf
    /// goes, with whatever its entries hold: make the entries all-zero and untagged before.
    ///
    /// # Panics
    /// If the leaf isn't occupied.
    pub fn vacate(&self, index: u64, pin: &Guard) {
        check_pin(pin);
        let (leaf_number, _) = Self::split(index);
        let path = self
            .path(leaf_number, pin)
            .expect("vacated an index that is not occupied");
        self.release(&path, 0, pin);
    }

    /// Memory of the nodes in use. A node leaves this figure when it is unlinked; its memory is freed a grace period
    /// later.
    ///
    /// ```
    /// # use crossbeam_epoch as epoch;
    /// # use std::sync::atomic::AtomicU64;
    /// # use weir_cache::gen_radix::GenRadix;
    /// let array = GenRadix::<[AtomicU64; 2]>::new();
    /// array.get_or_create(0, &epoch::pin())?;
    /// assert!((4096..4096 + 256).contains(&array.bytes()));
    /// # Ok::<(), weir_cache::gen_radix::GenRadixError>(())
    /// ```
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// A pin of another collector would protect nothing here: a node that is met under it could be freed meanwhile. So this
/// is checked in release builds too.
#[inline]
fn check_pin(pin: &Guard) {
    assert!(
        pin.collector()
            .is_none_or(|collector| collector == crossbeam_epoch::default_collector()),
        "pinned with a collector other than the default one"
    );
}

impl<T: Zeroable + Send + Sync> Default for GenRadix<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Zeroable + Send + Sync> fmt::Debug for GenRadix<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GenRadix")
            .field("levels", &self.load_root().level())
            .field("bytes", &self.bytes())
            .finish()
    }
}
