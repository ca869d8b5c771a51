//! A coherent write-back page cache for block devices.
//!
//! # What
//! [`PageCache`] stands between the server of a block device and the [`Backend`] that stores it. Reads that hit take no
//! lock; writes are acknowledged from memory and written back later; FLUSH and FUA are kept to the letter; and
//! everything that changes data behind the cache (trim, write-zeroes, resize) shoots pages down and keeps them removed
//! while it works.
//!
//! # How it hangs together
//! - [`page_cache`]: the cache as a whole, and the table of what waits for what.
//! - [`requests`]: what clients ask for. [`durability`]: flush, writeback, power. [`pressure`]: memory, throttle,
//!   quotas, readahead.
//! - [`pages`]: what a slot's bits mean and what changes them. [`frame`]: the memory of the pages.
//! - [`primitives`]: locks and the sparse array, which know nothing of the rest.
//! - [`backend`]: what a store is, with the contract; [`filter`]: a layer over a store; [`faulted_backend`]: the
//!   cache's handle to its store.
//! - [`transfer`]: transfers that are completed even if their request goes away. [`pace`]: turns for others during long
//!   work.

pub mod primitives;

pub use primitives::{add_lock, error_seq, gen_radix, lg_lock, two_state_lock};

#[cfg(not(loom))]
mod backend;
#[cfg(not(loom))]
mod durability;
#[cfg(not(loom))]
mod faulted_backend;
#[cfg(not(loom))]
mod filter;
#[cfg(not(loom))]
mod options;
#[cfg(not(loom))]
mod pace;
#[cfg(not(loom))]
mod page_cache;
#[cfg(not(loom))]
mod pages;
#[cfg(not(loom))]
mod pressure;
#[cfg(not(loom))]
mod requests;
#[cfg(not(loom))]
mod stats;
#[cfg(not(loom))]
mod transfer;

// The users of frames need not know where they are.
#[cfg(not(loom))]
use crate::pages::frame;
#[cfg(not(loom))]
pub use crate::{
    backend::{
        Backend, BackendExtent, BackendFuture, Capabilities, ExtentKind, Geometry, ZeroMode,
    },
    durability::writeback::WritebackTrouble,
    faulted_backend::FaultedBackend,
    filter::Filter,
    frame::{FrameBuf, FramePool, FrameRefs, IoRuns, PAGE_BYTES, PAGE_SHIFT, PAGE_SIZE, PageSlice},
    options::{
        CacheMode, CacheOptions, DEFAULT_CACHE_BYTES, MIN_CACHE_BYTES, SLICE_BYTES, WRITEBACK_RUNS,
    },
    page_cache::{CloseError, OpenError, PageCache},
    pressure::memory::MemoryLine,
    pressure::quota::QuotaStats,
    requests::payload::Payload,
    requests::status::ResidencyExtent,
    stats::CacheStats,
};
#[cfg(not(loom))]
pub use weir_faults::Errno;

#[cfg(all(any(test, feature = "testing"), not(loom)))]
pub mod spy;

#[cfg(all(test, not(loom)))]
mod races;
#[cfg(all(test, not(loom)))]
mod testing;
