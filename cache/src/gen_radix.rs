//! A sparse array of any fixed-size type, indexed by integer: the kernel's generic radix tree, and more.
//!
//! Kept from the kernel's `lib/generic-radix-tree.c`: lookup without locks, entries that begin all-zero
//! ([`Zeroable`] says that this is a valid value), growth by compare-and-swap where the loser frees its own node, the
//! depth in the low bits of the root pointer, entries that never straddle nodes, preallocation, overflow and failed
//! allocation as errors. Added: two [tags](Tag) with a bitmap in every node, so that "next dirty at or after"
//! costs what is found; ordered, seekable iteration both ways; and reclaim of emptied nodes.
//!
//! # Shape
//! Leaves hold 4 KiB of entries, interior nodes 512 children. Level 0 is a leaf; the root's level follows from the highest
//! index ever created. A tree only grows upwards: a new root takes the old one as its child 0. Untouched space has no nodes.
//!
//! # References and reclaim
//! Every reference into the array lives no longer than the caller's pin of the *default* epoch collector
//! ([`crossbeam_epoch::pin`]). A node counts what keeps it alive: a leaf the calls of [`occupy`](GenRadix::occupy)
//! not yet answered by [`vacate`](GenRadix::vacate), an interior node its children. Whoever takes the last one
//! away declares the node dead by a compare-and-swap from zero, unlinks it from its parent by another, retires it
//! through the epoch, and takes itself off the parent's count. Reclaim is immediate, not lazy, because an emptied leaf is memory that
//! the cache could use for a page. A dead node never comes back to life: an `occupy` that meets one helps to unlink it and starts anew
//! from the root, so it never waits for whoever was about to. Thus an occupied entry's leaf, and every node above it, is
//! linked until `vacate`. The root is never reclaimed, nor is a former root that was emptied while it still was
//! the root, until it is used once more: at most one node for each time the tree grew.
//!
//! # Tags
//! In a leaf, a tag's bit belongs to the entry. In an interior node it says that the child *may* have that tag somewhere below.
//! It may be stale-set: [`clear_tag`](GenRadix::clear_tag) clears only the leaf's own bit, and scans pass over what they find empty. It must
//! never be clear towards a scan when a tag was set below. [`set_tag`](GenRadix::set_tag) walks from the leaf to the root and
//! checks every level: a level found set may have been set by another setter whose own walk isn't finished.
//!
//! [`tidy_tags`](GenRadix::tidy_tags) clears stale bits: clear, fence, look at the child again, and set again if
//! it has the tag after all. The setter's side is: set below, fence, look at the bit above, set it if it is clear. Both fences are sequentially
//! consistent, so one comes first. If the setter's does, the tidier's second look sees the bit below and restores the one above.
//! If the tidier's does, the setter sees the bit above cleared and sets it. The same holds one level up for a setter that found
//! a bit set by another, because what it read before its fence is visible after the tidier's later one. And it holds for the
//! root: a new root is published with the bit of its child 0 set, and a setter looks at the root again, after a fence, when its
//! walk is done. Between clear and restore a scan could miss a tag: that is why scans and other tidiers must be excluded.
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
#![allow(unsafe_code)] // Nodes of a size known at run time, shared without locks: the workspace's one place for that.

mod bitmap;
mod clear;
mod immortal;
mod iter;
#[cfg(all(test, loom))]
mod loom_models;
mod node;
mod once_arc;
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

use crate::sync::atomic::{AtomicPtr, Ordering};
use crate::sync::const_unless_loom;

pub use immortal::ImmortalRadix;
pub use iter::{Entries, Tagged};
pub use once_arc::OnceArc;

use node::{FANOUT, FANOUT_BITS, Header, Interior, LEVEL_MASK, LEVELS_MAX, Leaf};

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
    /// The index is `u64::MAX`, which is no index, so that an exclusive end reaches all that are.
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
    /// Loom knows nothing of epochs: retired nodes stay until the array goes.
    #[cfg(loom)]
    retired: std::sync::Mutex<Vec<(*mut Header, u32)>>,
    entries: PhantomData<T>,
}

// SAFETY: the array owns its nodes and entries (`T: Send`), and the pointers in it are only followed as they are.
unsafe impl<T: Zeroable + Send + Sync> Send for GenRadix<T> {}
// SAFETY: shared use hands out `&T` (`T: Sync`), may drop entries on any thread (`T: Send`), and changes nodes through atomics.
unsafe impl<T: Zeroable + Send + Sync> Sync for GenRadix<T> {}

/// A node and its level, as the root pointer keeps them together.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Root(*mut Header);

impl Root {
    fn new(node: *mut Header, level: u32) -> Self {
        Self(node.map_addr(|address| address | level as usize))
    }

    fn node(self) -> *mut Header {
        self.0.map_addr(|address| address & !LEVEL_MASK)
    }

    fn level(self) -> u32 {
        const { assert!(LEVEL_MASK < u8::MAX as usize) };
        u32::from((self.0.addr() & LEVEL_MASK).to_le_bytes()[0])
    }

    fn is_null(self) -> bool {
        self.0.is_null()
    }

    /// Whether the tree below this root has a place for the leaf.
    fn reaches(self, leaf_number: u64) -> bool {
        !self.is_null()
            && leaf_number
                .checked_shr(self.level() * FANOUT_BITS)
                .unwrap_or(0)
                == 0
    }
}

/// The nodes from the root to a leaf, by level.
struct Path {
    nodes: [*mut Header; LEVELS_MAX as usize + 1],
    root: Root,
    leaf_number: u64,
}

impl Path {
    fn new(root: Root, leaf_number: u64) -> Self {
        let mut nodes = [ptr::null_mut(); LEVELS_MAX as usize + 1];
        nodes[root.level() as usize] = root.node();
        Self {
            nodes,
            root,
            leaf_number,
        }
    }

    fn slot(&self, level: u32) -> usize {
        slot_of(self.leaf_number, level)
    }
}

/// Which slot of an interior node of this level leads to the leaf.
fn slot_of(leaf_number: u64, level: u32) -> usize {
    let below = leaf_number
        .checked_shr((level - 1) * FANOUT_BITS)
        .unwrap_or(0);
    slot_number(below % FANOUT as u64)
}

/// A slot's number, which is below [`FANOUT`].
#[expect(clippy::cast_possible_truncation, reason = "slots are few")]
const fn slot_number(number: u64) -> usize {
    number as usize
}

/// The smallest level whose node has a place for the leaf.
fn level_for(leaf_number: u64) -> u32 {
    (u64::BITS - leaf_number.leading_zeros()).div_ceil(FANOUT_BITS)
}

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
                #[cfg(loom)]
                retired: std::sync::Mutex::new(Vec::new()),
                entries: PhantomData,
            }
        }
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

    /// The entry, if its leaf exists; what it holds is the entry's own business. No lock, no write.
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

    /// The entry, its leaf made if need be. The leaf stays until entries of it are occupied and all vacated again; in an
    /// array where that happens, a reference to an entry that the caller doesn't occupy may outlive its leaf's
    /// place in the array: safe, but what is stored there is lost.
    ///
    /// # Errors
    /// [`GenRadixError`]; then nothing has changed but perhaps the depth.
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
        self.create(index, pin, |leaf| leaf.header().population.occupy())
    }

    /// Answers one [`occupy`](Self::occupy) of this index. When the last occupied entry of a leaf is vacated, the leaf
    /// goes, with whatever its entries hold: leave them all-zero, and untagged, before.
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

    fn create<'g>(
        &'g self,
        index: u64,
        pin: &'g Guard,
        accept: impl Fn(Leaf<'g, T>) -> bool,
    ) -> Result<&'g T, GenRadixError> {
        check_pin(pin);
        if index == u64::MAX {
            return Err(GenRadixError::Overflow { index });
        }
        let (leaf_number, slot) = Self::split(index);
        // Each further turn follows someone else's reclaim, or helps it along.
        loop {
            let Some(path) = self.create_path(leaf_number, pin)? else {
                continue;
            };
            // SAFETY: level 0 is a leaf of this array's type, and the pin keeps it.
            let leaf = unsafe { Leaf::from_raw(path.nodes[0]) };
            if accept(leaf) {
                return Ok(leaf.entry(slot));
            }
            self.bury(&path, 0, pin);
        }
    }

    /// The path to a leaf that exists.
    fn path(&self, leaf_number: u64, _pin: &Guard) -> Option<Path> {
        let root = self.load_root();
        if !root.reaches(leaf_number) {
            return None;
        }
        let mut path = Path::new(root, leaf_number);
        for level in (1..=root.level()).rev() {
            // SAFETY: a node above level 0 is an interior one, and the pin keeps it.
            let interior = unsafe { Interior::from_raw(path.nodes[level as usize]) };
            let child = interior.child(path.slot(level)).load(Ordering::Acquire);
            if child.is_null() {
                return None;
            }
            path.nodes[level as usize - 1] = child;
        }
        Some(path)
    }

    /// The path to a leaf, made where it doesn't exist; none if a node on it was dead, and is now unlinked.
    fn create_path(&self, leaf_number: u64, pin: &Guard) -> Result<Option<Path>, GenRadixError> {
        let root = self.root_reaching(leaf_number)?;
        let mut path = Path::new(root, leaf_number);
        for level in (1..=root.level()).rev() {
            // SAFETY: a node above level 0 is an interior one, and the pin keeps it.
            let interior = unsafe { Interior::from_raw(path.nodes[level as usize]) };
            let mut child = interior.child(path.slot(level)).load(Ordering::Acquire);
            if child.is_null() {
                let Some(added) = self.add_child(&path, level, pin)? else {
                    return Ok(None);
                };
                child = added;
            }
            path.nodes[level as usize - 1] = child;
        }
        Ok(Some(path))
    }

    /// Makes the child of the path's node at `level`, unless someone else does first; none if that node is dead.
    fn add_child(
        &self,
        path: &Path,
        level: u32,
        pin: &Guard,
    ) -> Result<Option<*mut Header>, GenRadixError> {
        // SAFETY: a node above level 0 is an interior one, and the pin keeps it.
        let interior = unsafe { Interior::from_raw(path.nodes[level as usize]) };
        let child = node::allocate::<T>(level - 1)?;
        // Counted before it is linked: a parent that counts nothing may die at any time.
        if !interior.header.population.occupy() {
            // SAFETY: allocated above, never linked.
            unsafe { node::free::<T>(child, level - 1) };
            self.bury(path, level, pin);
            return Ok(None);
        }
        let linked = interior.child(path.slot(level)).compare_exchange(
            ptr::null_mut(),
            child,
            Ordering::AcqRel,
            Ordering::Acquire,
        );
        match linked {
            Ok(_) => {
                self.count_bytes(level - 1);
                Ok(Some(child))
            }
            Err(other) => {
                // SAFETY: allocated above, never linked.
                unsafe { node::free::<T>(child, level - 1) };
                self.release(path, level, pin);
                Ok(Some(other))
            }
        }
    }

    /// A root that has a place for the leaf, grown as far as need be.
    fn root_reaching(&self, leaf_number: u64) -> Result<Root, GenRadixError> {
        let mut root = self.load_root();
        while !root.reaches(leaf_number) {
            let level = if root.is_null() {
                level_for(leaf_number)
            } else {
                root.level() + 1
            };
            let node = node::allocate::<T>(level)?;
            if !root.is_null() {
                // SAFETY: allocated above, for a level above 0.
                let interior = unsafe { Interior::from_raw(node) };
                interior.child(0).store(root.node(), Ordering::Relaxed);
                interior.header.population.occupy();
                // Perhaps stale, never missing: see the module's documentation.
                interior.header.tags(Tag::Present).set(0);
                interior.header.tags(Tag::Dirty).set(0);
            }
            let grown = Root::new(node, level);
            match self
                .root
                .compare_exchange(root.0, grown.0, Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) => {
                    self.count_bytes(level);
                    root = grown;
                }
                Err(current) => {
                    // SAFETY: allocated above, never linked; the child is the old root, which stays.
                    unsafe { node::free::<T>(node, level) };
                    root = Root(current);
                }
            }
        }
        Ok(root)
    }

    /// Takes one off the count of the path's node at `level`, and reclaims what is empty from there upwards.
    fn release(&self, path: &Path, level: u32, pin: &Guard) {
        let mut level = level;
        loop {
            // SAFETY: every node begins with a header, and the pin keeps it.
            let header = unsafe { &*path.nodes[level as usize] };
            let is_empty = header.population.vacate();
            if !is_empty || level == path.root.level() || !header.population.kill() {
                return;
            }
            if !self.unlink(path, level, pin) {
                return;
            }
            level += 1;
        }
    }

    /// Finishes what the killer of the path's node at `level` has begun.
    fn bury(&self, path: &Path, level: u32, pin: &Guard) {
        if self.unlink(path, level, pin) {
            self.release(path, level + 1, pin);
        }
    }

    /// Takes a dead node out of its parent; true for the one caller that did. An address can't come back as another
    /// node's while anyone who knew it is pinned.
    fn unlink(&self, path: &Path, level: u32, pin: &Guard) -> bool {
        let node = path.nodes[level as usize];
        // SAFETY: the parent is an interior node, and the pin keeps it.
        let parent = unsafe { Interior::from_raw(path.nodes[level as usize + 1]) };
        let unlinked = parent
            .child(path.slot(level + 1))
            .compare_exchange(node, ptr::null_mut(), Ordering::AcqRel, Ordering::Relaxed)
            .is_ok();
        if unlinked {
            self.bytes
                .fetch_sub(node::bytes::<T>(level), Ordering::Relaxed);
            // SAFETY: dead and unlinked, by this caller alone.
            unsafe { self.retire(node, level, pin) };
        }
        unlinked
    }

    /// # Safety
    /// The node is unlinked, and retired once.
    #[cfg(not(loom))]
    #[allow(clippy::unused_self)] // As under loom.
    unsafe fn retire(&self, node: *mut Header, level: u32, pin: &Guard) {
        // SAFETY: whoever may know the node is pinned by now; no one can learn of it any more. `T` is `Send` and
        // `'static`, so that its entries may be dropped later and elsewhere.
        unsafe { pin.defer_unchecked(move || node::free::<T>(node, level)) };
    }

    #[cfg(loom)]
    unsafe fn retire(&self, node: *mut Header, level: u32, _pin: &Guard) {
        self.retired
            .lock()
            .expect("not poisoned")
            .push((node, level));
    }

    fn count_bytes(&self, level: u32) {
        self.bytes
            .fetch_add(node::bytes::<T>(level), Ordering::Relaxed);
    }

    /// Memory of the nodes in use. A node leaves the count when it is unlinked, and the memory a grace period later.
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

/// Another collector's pin would protect nothing here.
#[inline]
fn check_pin(pin: &Guard) {
    debug_assert!(
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
