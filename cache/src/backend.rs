//! The store behind the cache, as the cache sees it.
//!
//! A store implements [`Backend`]: five methods say how large it is and what it can do, and read, write and sync it.
//! All others have a default, which says that the store can't do that. A *filter* is a layer over a store
//! ([`Filter`](crate::Filter)). The cache asks through [`FaultedBackend`](crate::FaultedBackend), which has the fault
//! points; a store has none.
//!
//! # The contract
//! **Order.** Calls run in parallel, and mutations that are under way together may take effect in any order. The cache
//! never has two mutations of the same bytes under way together.
//!
//! **A completed mutation** is what later reads see. It may live in a volatile cache of the store: only a sync makes it
//! durable. Until then a crash may leave any part of it, and of two that no sync separates the younger may survive
//! alone. A read beside a write of the same bytes may see any mixture of old and new.
//!
//! **A mutation that fails** leaves each of its bytes old or new; the cache knows neither and writes again, or tells
//! its client.
//!
//! **[`Backend::sync`]** covers every mutation that had completed when it was called, and nothing else. If it fails,
//! whatever it was to cover is unknown: the store may have forgotten it, and the next sync may succeed all the same, as
//! Linux' does. A sync is no promise to a client. [`Backend::cover`] is one: it says that a client is about to be told.
//!
//! **Sizes.** Reads ask for whole pages, the last of which may reach past the device's end and is zero there. The cache
//! cuts writes at the end, so a store need not look for what lies past it. Only [`Backend::resize`],
//! [`Backend::insert_range`] and [`Backend::collapse_range`] change the size. While one of them runs, no read and no
//! other mutation is under way; a sync or a look for extents may be.
//!
//! **Abilities.** A store that can't do a thing says so in its [`Capabilities`] and answers `ENOTSUP`; nothing is
//! emulated silently. An ability may be withdrawn later and never comes back. `ENOTSUP` from an ability that the store
//! has is an error like any other, except from [`Backend::write_zeroes`]: then the cache writes zeroes.
//!
//! **Errors** are the system's error numbers, and travel up to the client.
//!
//! **Buffers** are owned by the call for as long as it runs, so a caller that goes away frees nothing under a running
//! transfer.
//!
//! # What polls a call, and what may be dropped half-way
//! A call may begin when it is made or when its future is first polled, which is at once. Then:
//!
//! | call | polled by | when its client is gone |
//! | --- | --- | --- |
//! | `read`, of a miss or ahead; `write`, by writeback | the request that needs it, beside others ([`transfer`](crate::transfer)) | a task goes on with it |
//! | `read` and `write` past the cache, `discard`, `write_zeroes`, `sync`, `resize`, `insert_range`, `collapse_range` | a task | it runs to its end |
//! | `extents`, `cover` | the request itself | it is dropped |
//! | `close` | the task that stops the server | the process ends |
//!
//! So a call that changes the store is dropped only with the runtime, and the process has ended by then. A store for
//! which `cover` means work finishes this work by itself, in the order in which it was begun. One task polls several
//! calls, and stands still while one of them blocks: blocking work belongs on a thread of the store's own. What a call
//! does in memory counts too. A loop over pages lets others have their turn, as `memory` does with tokio's
//! `consume_budget`.
//!
//! Cache hits never reach a store, so a boxed future per call is affordable.

use std::future::Future;
use std::ops::Range;
use std::pin::Pin;

use weir_faults::Errno;

use crate::frame::{FrameBuf, FrameRefs};

/// What a backend call returns.
pub type BackendFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Size and shape of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Bytes.
    pub size: u64,
    /// The unit in which space is allocated and given back, in bytes, a power of two. Less than a page counts as a
    /// page.
    pub allocation_unit: u32,
    /// Whether the medium turns (told to clients as NBD_FLAG_ROTATIONAL).
    pub rotational: bool,
}

/// What a backend can do, and cheaply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Capabilities {
    /// [`Backend::discard`] gives space back and the range reads as zeroes afterwards.
    pub discard: bool,
    /// [`Backend::write_zeroes`] works without writing data, leaving the range allocated.
    pub zero_keep: bool,
    /// [`Backend::write_zeroes`] works without writing data, as a hole.
    pub zero_punch: bool,
    /// [`Backend::resize`] works.
    pub resize: bool,
    /// [`Backend::extents`] knows holes. A quota needs that.
    pub extents: bool,
    /// [`Backend::insert_range`] and [`Backend::collapse_range`] work.
    pub shift: bool,
}

/// May the zeroed range become a hole?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZeroMode {
    /// A hole is welcome.
    MayPunch,
    /// The range stays (or becomes) allocated: NBD_CMD_FLAG_NO_HOLE.
    KeepAllocated,
}

/// What a range of the backend holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExtentKind {
    /// Allocated data.
    Data,
    /// Not allocated, reads as zeroes.
    Hole,
    /// Allocated, known to read as zeroes.
    Zero,
}

/// A range and what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendExtent {
    /// Bytes of the device, never empty.
    pub range: Range<u64>,
    /// What is there.
    pub kind: ExtentKind,
}

/// A store of bytes: a file, a block device, memory, a remote device. The module's documentation is the contract.
pub trait Backend: Send + Sync + std::fmt::Debug + 'static {
    /// Size and shape now.
    fn geometry(&self) -> Geometry;

    /// What this store can do, as far as it is known now.
    fn capabilities(&self) -> Capabilities;

    /// Fills all frames of `buffer` from `offset` (a multiple of the page), with zeroes past the end of the device.
    fn read(
        &self,
        offset: u64,
        buffer: FrameBuf,
    ) -> BackendFuture<'_, (FrameBuf, Result<(), Errno>)>;

    /// Writes all of `data` at `offset`. The offset is a multiple of the page; the length too, except where the device
    /// ends.
    fn write(&self, offset: u64, data: FrameRefs) -> BackendFuture<'_, Result<(), Errno>>;

    /// Makes durable everything that completed before this call.
    fn sync(&self) -> BackendFuture<'_, Result<(), Errno>>;

    /// Says that a FLUSH, or a FUA of these bytes, is about to succeed: everything that completed in `range` before the
    /// last sync counts as promised. A store that is durable after a sync has nothing to do, which is the default.
    ///
    /// # Errors
    /// What keeps the promise from being kept: the FLUSH fails with it.
    fn cover(&self, _range: Range<u64>) -> BackendFuture<'_, Result<(), Errno>> {
        Box::pin(async { Ok(()) })
    }

    /// Makes `range` read as zeroes without transferring data. `ENOTSUP` by default.
    fn write_zeroes(
        &self,
        _range: Range<u64>,
        _mode: ZeroMode,
    ) -> BackendFuture<'_, Result<(), Errno>> {
        unsupported()
    }

    /// Gives the space of `range` back; it reads as zeroes afterwards. `ENOTSUP` by default.
    fn discard(&self, _range: Range<u64>) -> BackendFuture<'_, Result<(), Errno>> {
        unsupported()
    }

    /// What `range` holds: adjacent, in order, covering the range from its start; may stop early after `most` extents.
    /// Nothing is said of what lies past the end, where `range` may reach if the device has just become smaller. By
    /// default all of it counts as data.
    fn extents(
        &self,
        range: Range<u64>,
        _most: usize,
    ) -> BackendFuture<'_, Result<Vec<BackendExtent>, Errno>> {
        Box::pin(async { Ok(all_data(range)) })
    }

    /// Changes the size; what is added reads as zeroes. `ENOTSUP` by default.
    fn resize(&self, _size: u64) -> BackendFuture<'_, Result<(), Errno>> {
        unsupported()
    }

    /// Inserts `length` zero bytes at `offset`, moving what follows; the device grows. `ENOTSUP` by default.
    fn insert_range(&self, _offset: u64, _length: u64) -> BackendFuture<'_, Result<(), Errno>> {
        unsupported()
    }

    /// Removes `length` bytes at `offset`, moving what follows; the device shrinks. `ENOTSUP` by default.
    fn collapse_range(&self, _offset: u64, _length: u64) -> BackendFuture<'_, Result<(), Errno>> {
        unsupported()
    }

    /// Hands over what was asked for and is kept back, so that it can be handed over together with more.
    ///
    /// A store that keeps something back hands it over by itself soon; this says that nothing more is to come just now.
    /// By default nothing is kept back.
    fn submit(&self) {}

    /// Ends its use: nothing is called afterwards. Does not sync. By default there is nothing to end.
    fn close(&self) -> BackendFuture<'_, Result<(), Errno>> {
        Box::pin(async { Ok(()) })
    }
}

fn unsupported<'a>() -> BackendFuture<'a, Result<(), Errno>> {
    Box::pin(async { Err(Errno::ENOTSUP) })
}

/// What is known of `range` where holes are not known.
fn all_data(range: Range<u64>) -> Vec<BackendExtent> {
    if range.is_empty() {
        return Vec::new();
    }
    vec![BackendExtent {
        range,
        kind: ExtentKind::Data,
    }]
}
