//! An array that only grows, and so needs no pin.

use std::ops::Range;

use bytemuck::Zeroable;
use crossbeam_epoch as epoch;
use weir_faults::FaultContext;

use super::{Entries, GenRadix, GenRadixError};

/// A [`GenRadix`] whose nodes are never reclaimed before it goes itself: lookups need no pin.
///
/// ```
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use weir_cache::gen_radix::ImmortalRadix;
///
/// let array = ImmortalRadix::<AtomicU64>::new();
/// array.get_or_create(12)?.store(1, Ordering::Relaxed);
/// assert_eq!(array.get(12).map(|entry| entry.load(Ordering::Relaxed)), Some(1));
/// # Ok::<(), weir_cache::gen_radix::GenRadixError>(())
/// ```
#[derive(Debug, Default)]
pub struct ImmortalRadix<T: Zeroable + Send + Sync + 'static> {
    /// Private, and never occupied, so nothing is ever vacated or reclaimed.
    array: GenRadix<T>,
}

impl<T: Zeroable + Send + Sync> ImmortalRadix<T> {
    /// An empty array, which takes no memory.
    #[must_use]
    pub fn new() -> Self {
        Self {
            array: GenRadix::new(),
        }
    }

    /// As [`new`](Self::new), with fault points.
    #[must_use]
    pub fn with_faults(faults: FaultContext) -> Self {
        Self {
            array: GenRadix::with_faults(faults),
        }
    }

    /// The entry, if its leaf exists.
    #[inline]
    pub fn get(&self, index: u64) -> Option<&T> {
        let (leaf_number, slot) = GenRadix::<T>::split(index);
        // SAFETY: no node is reclaimed while the array is borrowed.
        let leaf = unsafe { self.array.leaf(leaf_number) }?;
        Some(leaf.entry(slot))
    }

    /// The entry; its leaf is made if need be.
    ///
    /// # Errors
    /// [`GenRadixError`].
    pub fn get_or_create(&self, index: u64) -> Result<&T, GenRadixError> {
        // SAFETY: no node is ever retired here, so there is nothing that a pin would have to keep.
        self.array
            .get_or_create(index, unsafe { epoch::unprotected() })
    }

    /// The entries of the range whose leaves exist, with their indexes, empty ones too.
    ///
    /// ```
    /// use std::sync::atomic::AtomicU64;
    /// use weir_cache::gen_radix::{GenRadix, ImmortalRadix};
    ///
    /// let array = ImmortalRadix::<AtomicU64>::new();
    /// array.get_or_create(1 << 40)?;
    /// assert_eq!(array.entries(0..u64::MAX).count(), GenRadix::<AtomicU64>::LEAF_ENTRIES);
    /// # Ok::<(), weir_cache::gen_radix::GenRadixError>(())
    /// ```
    pub fn entries(&self, range: Range<u64>) -> Entries<'_, T> {
        // SAFETY: no node is ever retired here, so there is nothing that a pin would have to keep.
        self.array.entries(range, unsafe { epoch::unprotected() })
    }

    /// Makes the leaves of all entries of the range.
    ///
    /// # Errors
    /// [`GenRadixError`]; what was made before stays.
    pub fn preallocate(&self, range: Range<u64>) -> Result<(), GenRadixError> {
        // SAFETY: no node is ever retired here, so there is nothing that a pin would have to keep.
        self.array
            .preallocate(range, unsafe { epoch::unprotected() })
    }

    /// Memory of the nodes.
    pub fn bytes(&self) -> usize {
        self.array.bytes()
    }
}
