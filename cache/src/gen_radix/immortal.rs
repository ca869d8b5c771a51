//! An array that only grows, and so needs no pin.

use bytemuck::Zeroable;
use crossbeam_epoch as epoch;

use super::{GenRadix, GenRadixError};

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

    /// The entry, if its leaf exists.
    #[inline]
    pub fn get(&self, index: u64) -> Option<&T> {
        let (leaf_number, slot) = GenRadix::<T>::split(index);
        // SAFETY: no node is reclaimed while the array is borrowed.
        let leaf = unsafe { self.array.leaf(leaf_number) }?;
        Some(leaf.entry(slot))
    }

    /// The entry, its leaf made if need be.
    ///
    /// # Errors
    /// [`GenRadixError`].
    pub fn get_or_create(&self, index: u64) -> Result<&T, GenRadixError> {
        // SAFETY: no node is ever retired here, so there is nothing that a pin would have to keep.
        self.array
            .get_or_create(index, unsafe { epoch::unprotected() })
    }

    /// Memory of the nodes.
    pub fn bytes(&self) -> usize {
        self.array.bytes()
    }
}
