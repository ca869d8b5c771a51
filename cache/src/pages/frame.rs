//! Page frames: the memory in which cached pages live.
//!
//! # What
//! A [`FramePool`] is one anonymous mapping cut into 4 KiB [frames](FrameId), plus a reference word and an owner word
//! per frame. A frame is at any time one of
//!
//! - *free*: its count is zero, and it waits on the free list;
//! - *private*: in a [`FrameBuf`], whose holder alone may write it;
//! - *published*: a slot of the page cache points to it and holds one reference; it is **immutable** until its count
//!   returns to zero. Readers hold further references in [`FrameRefs`].
//!
//! # How a reader takes a reference without a lock
//! Loading a slot's frame number and then incrementing that frame's count is a classic race: the slot may drop its
//! reference in between, and the frame may have another owner. The pool's memory is type-stable: count words never go
//! away, so a late increment hits a valid word. The reader therefore takes the reference *speculatively* and then looks
//! at the slot again (as the Linux page cache does with `folio_try_get`, mm/filemap.c):
//!
//! 1. load the slot; 2. increment the frame's count unless it is zero; 3. load the slot again. If it still names the
//!    frame, the slot's own reference was alive while ours was taken, and the contents are stable until we give ours
//!    back. If not, give it back and start over.
//!
//! No reader looks at a frame's bytes before its step 3 has succeeded, so the private owner of a recycled frame may be
//! writing it meanwhile without a data race. Step 3 can't be fooled by a stale load: a recycled frame's count was set
//! to one by a release store that happens after the slot was emptied, and the increment of step 2 acquires it.
//!
//! Compared with epochs for frames, this costs one compare-and-swap per hit and one decrement per sent page, on a word
//! that belongs to the page alone. In return a frame is free the moment its last reader is done: a cache of a few
//! hundred frames makes progress without waiting for grace periods. The visited bit of the eviction policy lives in the
//! same word, so marking a page as used costs nothing more.

mod buffer;
mod pool;
mod refs;

pub use buffer::FrameBuf;
pub(crate) use buffer::PrivateFrame;
pub use pool::FramePool;
pub(crate) use pool::TakenRef;
pub use refs::{FrameRefs, IoRuns, PageSlice};

/// Bytes in a page and in a frame.
pub const PAGE_SIZE: usize = 4096;
/// log2 of [`PAGE_SIZE`].
pub const PAGE_SHIFT: u32 = 12;
/// [`PAGE_SIZE`] as a device offset.
pub const PAGE_BYTES: u64 = 4096;

/// The number of a frame inside its pool.
pub(crate) type FrameId = u32;

/// Most frames that one pool can hold: frame numbers share a word with the slot's state bits.
pub(crate) const MAX_FRAMES: u32 = u32::MAX - 1;

#[cfg(test)]
mod tests;
