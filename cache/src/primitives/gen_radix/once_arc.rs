//! A cell that is empty when zeroed and can be filled once: how a [`GenRadix`](super::GenRadix) holds what isn't plain.

use std::fmt;
use std::marker::PhantomData;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, Ordering};

use bytemuck::Zeroable;

/// Nothing, then an `Arc` for ever.
///
/// ```
/// use weir_cache::gen_radix::OnceArc;
///
/// let cell = OnceArc::<String>::new();
/// assert!(cell.get().is_none());
/// assert_eq!(*cell.get_or_init(|| "first".to_owned().into()), "first");
/// assert_eq!(*cell.get_or_init(|| "second".to_owned().into()), "first");
/// ```
#[repr(transparent)]
pub struct OnceArc<T> {
    /// Null, or what `Arc::into_raw` returned; the reference that it stands for is the cell's.
    value: AtomicPtr<T>,
    owned: PhantomData<Arc<T>>,
}

// SAFETY: a null pointer is all-zero, and means an empty cell.
unsafe impl<T> Zeroable for OnceArc<T> {}

impl<T> OnceArc<T> {
    /// An empty cell.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            value: AtomicPtr::new(ptr::null_mut()),
            owned: PhantomData,
        }
    }

    /// The value, if the cell was filled.
    #[inline]
    pub fn get(&self) -> Option<Arc<T>> {
        let value = self.value.load(Ordering::Acquire);
        // SAFETY: from `Arc::into_raw`, and the cell keeps its own reference while it is borrowed.
        (!value.is_null()).then(|| unsafe { share(value) })
    }

    /// The value, made by `init` if the cell is empty. If several make one, the first to arrive stays.
    pub fn get_or_init(&self, init: impl FnOnce() -> Arc<T>) -> Arc<T> {
        if let Some(value) = self.get() {
            return value;
        }
        let made = Arc::into_raw(init()).cast_mut();
        let filled =
            self.value
                .compare_exchange(ptr::null_mut(), made, Ordering::AcqRel, Ordering::Acquire);
        let value = match filled {
            Ok(_) => made,
            Err(other) => {
                // SAFETY: from `Arc::into_raw` above, and not given to anyone.
                drop(unsafe { Arc::from_raw(made) });
                other
            }
        };
        // SAFETY: in the cell, which keeps its own reference while it is borrowed.
        unsafe { share(value) }
    }
}

/// # Safety
/// From `Arc::into_raw`, with a reference that lives for the length of this call.
unsafe fn share<T>(value: *mut T) -> Arc<T> {
    // SAFETY: the caller's promise.
    unsafe {
        Arc::increment_strong_count(value);
        Arc::from_raw(value)
    }
}

impl<T> Drop for OnceArc<T> {
    fn drop(&mut self) {
        let value = *self.value.get_mut();
        if !value.is_null() {
            // SAFETY: from `Arc::into_raw`; the cell's own reference.
            drop(unsafe { Arc::from_raw(value) });
        }
    }
}

impl<T> Default for OnceArc<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> fmt::Debug for OnceArc<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_filled = !self.value.load(Ordering::Relaxed).is_null();
        f.debug_struct("OnceArc")
            .field("is_filled", &is_filled)
            .finish()
    }
}
