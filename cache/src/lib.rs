//! A coherent write-back page cache for block devices.
//!
//! # What
//! [`PageCache`] stands between whoever serves a block device and the [`Backend`] that stores it. Reads that hit take no lock;
//! writes are acknowledged from memory and written back later; FLUSH and FUA are kept to the letter; and everything that
//! changes data behind the cache (trim, write-zeroes, resize) shoots pages down and keeps them removed while it works.
//!
//! # How it hangs together
//! - [`add_lock`]: who may put pages in and who may keep them out, range by range;
//!   [`two_state_lock`] is the lock of its gate.
//! - [`gen_radix`]: the sparse array of page slots; [`pages`] tells what a slot's bits mean, and who changes them.
//! - [`frame`]: page memory, and how a reader takes a reference without a lock.
//! - [`range_lock`]: the order of changes behind the cache's back; [`range_queue`]: what both know of who came before whom.
//! - [`read`] and [`fill`], [`write`], [`discard`], [`direct`], [`resize`]: the requests; [`power`]: what ends them. [`flush`] and [`writeback`]: durability.
//! - [`backend`]: what a store is, with the contract; [`filter`]: a layer over one; [`faulted_backend`]: how the cache asks its own.
//! - [`pace`]: others' turns in long work.
//! - [`reclaim`], [`throttle`], [`readahead`], [`space`], [`background`]: what keeps it within its size and ahead of its readers.
//!
//! The table of who waits for whom is in [`page_cache`].

mod points;
mod range_queue;
mod sync;

pub mod add_lock;
pub mod error_seq;
pub mod gen_radix;
pub mod lg_lock;
pub mod two_state_lock;

#[cfg(not(loom))]
mod backend;
#[cfg(not(loom))]
mod background;
#[cfg(not(loom))]
mod carried;
#[cfg(not(loom))]
mod direct;
#[cfg(not(loom))]
mod discard;
#[cfg(not(loom))]
mod event;
#[cfg(not(loom))]
mod faulted_backend;
#[cfg(not(loom))]
mod fill;
#[cfg(not(loom))]
mod filter;
#[cfg(not(loom))]
mod flush;
#[cfg(not(loom))]
mod options;
#[cfg(not(loom))]
mod pace;
#[cfg(not(loom))]
mod page_cache;
#[cfg(not(loom))]
mod pages;
#[cfg(not(loom))]
mod payload;
#[cfg(not(loom))]
mod power;
#[cfg(not(loom))]
mod range_lock;
#[cfg(not(loom))]
mod read;
#[cfg(not(loom))]
mod readahead;
#[cfg(not(loom))]
mod reclaim;
#[cfg(not(loom))]
mod resize;
#[cfg(not(loom))]
mod space;
#[cfg(not(loom))]
mod stats;
#[cfg(not(loom))]
mod status;
#[cfg(not(loom))]
mod throttle;
#[cfg(not(loom))]
mod write;
#[cfg(not(loom))]
mod writeback;

// Where the frames are is of no interest to who uses them.
#[cfg(not(loom))]
use crate::pages::frame;
#[cfg(not(loom))]
pub use crate::{
    backend::{
        Backend, BackendExtent, BackendFuture, Capabilities, ExtentKind, Geometry, ZeroMode,
    },
    faulted_backend::FaultedBackend,
    filter::Filter,
    frame::{FrameBuf, FramePool, FrameRefs, IoRuns, PAGE_BYTES, PAGE_SHIFT, PAGE_SIZE, PageSlice},
    options::{
        CacheMode, CacheOptions, DEFAULT_CACHE_BYTES, MIN_CACHE_BYTES, SLICE_BYTES, WRITEBACK_RUNS,
    },
    page_cache::{CloseError, OpenError, PageCache},
    payload::Payload,
    space::SpaceStats,
    stats::CacheStats,
    status::ResidencyExtent,
    writeback::WritebackTrouble,
};
#[cfg(not(loom))]
pub use weir_faults::Errno;

#[cfg(all(any(test, feature = "testing"), not(loom)))]
pub mod spy;

#[cfg(all(test, not(loom)))]
mod races;
#[cfg(all(test, not(loom)))]
mod testing;
