//! The nodes of a [`GenRadix`](super::GenRadix): their layout, allocation and typed access.
//!
//! A node is a [`Header`] followed by its slots: a leaf's entries, or an interior node's child pointers. Only its level
//! says which of the two it is (0 is a leaf), and the level is known from the root pointer. So a pointer to a node is a
//! pointer to its header. Turning it into a [`Leaf`] or an [`Interior`] is the unsafe step, and is done here alone.
//! All-zero bytes are an empty node of either kind.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::marker::PhantomData;
use std::mem;
use std::ptr::{self, NonNull};

use bytemuck::Zeroable;
use weir_faults::{ArmedPoints, race_fault};

use crate::primitives::sync::atomic::{AtomicPtr, AtomicUsize, Ordering, fence};

use super::bitmap::Bitmap;
use super::{GenRadixError, TAGS, Tag};

/// Children of an interior node, as a power of two: 4 KiB of pointers. Loom needs small nodes.
pub(super) const FANOUT_BITS: u32 = if cfg!(loom) { 4 } else { 9 };
pub(super) const FANOUT: usize = 1 << FANOUT_BITS;

/// Bytes of entries in a leaf, at most, unless a single entry is larger.
const LEAF_BYTES: usize = if cfg!(loom) { 16 } else { 4096 };

/// Set instead of a count when a node's last occupant has left and the node is about to be unlinked.
const DEAD: usize = usize::MAX;

/// Interior nodes above the leaves, at most: enough for a leaf of one entry at every `u64`.
pub(super) const LEVELS_MAX: u32 = u64::BITS.div_ceil(FANOUT_BITS);
/// The bits of a node's address that are always zero; the root pointer keeps its level there.
pub(super) const LEVEL_MASK: usize = align_of::<Header>() - 1;
const _: () = assert!(LEVELS_MAX as usize <= LEVEL_MASK);

/// What every node begins with.
#[cfg_attr(not(loom), repr(C, align(16)))]
#[cfg_attr(loom, repr(C, align(64)))]
pub(super) struct Header {
    pub(super) population: Population,
    tags: [Bitmap; TAGS],
}

impl Header {
    #[cfg(loom)]
    fn new() -> Self {
        Self {
            population: Population(AtomicUsize::new(0)),
            tags: std::array::from_fn(|_| Bitmap::new()),
        }
    }

    pub(super) fn tags(&self, tag: Tag) -> &Bitmap {
        &self.tags[tag as usize]
    }
}

/// What keeps a node alive, counted: occupied entries of a leaf, children of an interior node.
///
/// A call that finds a node dead sees what the call that killed it saw before: that there was a root above it.
#[repr(transparent)]
pub(super) struct Population(AtomicUsize);

impl Population {
    /// Counts one more, unless the node is dead.
    pub(super) fn occupy(&self, mut armed: ArmedPoints<'_>) -> bool {
        let mut count = self.0.load(Ordering::Relaxed);
        while count != DEAD {
            assert!(count < DEAD - 1, "a node's population overflows");
            if race_fault!(armed) {
                armed = ArmedPoints::NONE;
                count = self.0.load(Ordering::Relaxed);
                continue;
            }
            match self.0.compare_exchange_weak(
                count,
                count + 1,
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => return true,
                Err(current) => count = current,
            }
        }
        // The release of the call that killed the node comes before what this caller loads next.
        fence(Ordering::Acquire);
        false
    }

    /// Counts one less; true if none is left.
    pub(super) fn vacate(&self) -> bool {
        let before = self.0.fetch_sub(1, Ordering::AcqRel);
        assert!(
            before != 0 && before != DEAD,
            "vacated more often than occupied"
        );
        before == 1
    }

    /// Declares an empty node dead: true for the one caller that did. From then on it is never occupied.
    pub(super) fn kill(&self) -> bool {
        self.0
            .compare_exchange(0, DEAD, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    }

    pub(super) fn is_dead(&self) -> bool {
        self.0.load(Ordering::Acquire) == DEAD
    }
}

/// A node whose slots are pointers to nodes one level below, or null.
#[repr(C)]
pub(super) struct Interior {
    pub(super) header: Header,
    children: [AtomicPtr<Header>; FANOUT],
}

impl Interior {
    /// # Safety
    /// `node` is an interior node's pointer as [`allocate`] returned it, and outlives `'g`.
    pub(super) unsafe fn from_raw<'g>(node: *mut Header) -> &'g Self {
        // SAFETY: the caller's promise; an interior node is only ever shared, and changes through atomics.
        unsafe { &*node.cast::<Self>() }
    }

    pub(super) fn child(&self, slot: usize) -> &AtomicPtr<Header> {
        &self.children[slot]
    }
}

/// A node whose slots are entries.
pub(super) struct Leaf<'g, T> {
    header: NonNull<Header>,
    lifetime: PhantomData<&'g T>,
}

impl<T> Clone for Leaf<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Leaf<'_, T> {}

impl<'g, T> Leaf<'g, T> {
    /// Entries of a leaf: as many as fit whole, so that none straddles two leaves.
    pub(super) const ENTRIES: usize = {
        assert!(size_of::<T>() > 0, "entries of no size need no array");
        let fit = LEAF_BYTES / size_of::<T>();
        if fit == 0 {
            1
        } else if fit > FANOUT {
            FANOUT
        } else {
            fit
        }
    };

    const LAYOUT: (Layout, usize) = {
        let Ok(entries) = Layout::array::<T>(Self::ENTRIES) else {
            panic!("an entry larger than the address space")
        };
        let Ok((layout, offset)) = Layout::new::<Header>().extend(entries) else {
            panic!("an entry larger than the address space")
        };
        (layout.pad_to_align(), offset)
    };

    /// # Safety
    /// `node` is a leaf's pointer as [`allocate`] returned it for this very `T`, and outlives `'g`.
    pub(super) unsafe fn from_raw(node: *mut Header) -> Self {
        Self {
            // SAFETY: the caller's promise; an allocated node is never null.
            header: unsafe { NonNull::new_unchecked(node) },
            lifetime: PhantomData,
        }
    }

    pub(super) fn header(self) -> &'g Header {
        // SAFETY: the promise of `from_raw`; a header is only ever shared, and changes through atomics.
        unsafe { self.header.as_ref() }
    }

    pub(super) fn entry(self, slot: usize) -> &'g T {
        assert!(slot < Self::ENTRIES);
        // SAFETY: the promise of `from_raw`, and the slot lies within the entries.
        unsafe { &*self.entry_ptr(slot) }
    }

    /// Drops an entry and leaves the empty one.
    ///
    /// # Safety
    /// This entry has no other user.
    pub(super) unsafe fn reset(self, slot: usize)
    where
        T: Zeroable,
    {
        assert!(slot < Self::ENTRIES);
        let entry = self.entry_ptr(slot);
        // SAFETY: the promise of `from_raw`, the slot lies within the entries, and the caller is alone with it.
        let old = unsafe { entry.replace(T::zeroed()) };
        // Replaced before: if this panics, the old entry is not dropped again.
        drop(old);
    }

    fn entry_ptr(self, slot: usize) -> *mut T {
        self.header
            .as_ptr()
            .wrapping_byte_add(Self::LAYOUT.1)
            .cast::<T>()
            .wrapping_add(slot)
    }
}

fn layout<T>(level: u32) -> Layout {
    if level == 0 {
        Leaf::<T>::LAYOUT.0
    } else {
        Layout::new::<Interior>()
    }
}

/// What one node of this level takes.
pub(super) fn bytes<T>(level: u32) -> usize {
    layout::<T>(level).size()
}

/// An empty node, not yet linked.
pub(super) fn allocate<T: Zeroable>(level: u32) -> Result<*mut Header, GenRadixError> {
    let layout = layout::<T>(level);
    // SAFETY: the layout holds at least a header, so it isn't of size zero.
    let node = unsafe { alloc_zeroed(layout) };
    if node.is_null() {
        return Err(GenRadixError::OutOfMemory {
            bytes: layout.size(),
        });
    }
    #[cfg(loom)]
    initialise_for_loom(node, level);
    Ok(node.cast::<Header>())
}

/// Loom's atomics aren't all-zero when new.
#[cfg(loom)]
fn initialise_for_loom(node: *mut u8, level: u32) {
    // SAFETY: the node was just allocated with the layout of this level, and no other thread knows it.
    unsafe {
        if level == 0 {
            node.cast::<Header>().write(Header::new());
        } else {
            node.cast::<Interior>().write(Interior {
                header: Header::new(),
                children: std::array::from_fn(|_| AtomicPtr::new(ptr::null_mut())),
            });
        }
    }
}

/// Frees one node: drops its entries, and leaves its children alone.
///
/// # Safety
/// [`allocate`] returned `node` for this very `T` and level, it has no users any more, and it is freed once.
pub(super) unsafe fn free<T>(node: *mut Header, level: u32) {
    if level == 0 && mem::needs_drop::<T>() {
        // SAFETY: the caller's promise.
        let leaf = unsafe { Leaf::<T>::from_raw(node) };
        for slot in 0..Leaf::<T>::ENTRIES {
            // SAFETY: all entries are initialised (to zero at least), and the caller is alone with them.
            unsafe { ptr::drop_in_place(leaf.entry_ptr(slot)) };
        }
    }
    // SAFETY: the caller's promise: same allocator, same layout, once.
    unsafe { dealloc(node.cast::<u8>(), layout::<T>(level)) };
}
