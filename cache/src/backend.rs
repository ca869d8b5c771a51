//! The store behind the cache, as the cache sees it.
//!
//! # The contract
//! - Calls may run in parallel. Completed mutations are not ordered among themselves until [`Backend::sync`]; a sync covers
//!   the mutations that completed before it was submitted; a failed sync leaves those unknown.
//! - Offsets and lengths of reads are whole pages. The last page of a device whose size is no multiple of the page reads as
//!   zeroes past the end; writes are cut at the device's size by the cache.
//! - A backend that can't do a thing says so in its [`Capabilities`] and answers `ENOTSUP`; nothing is emulated silently.
//! - Buffers are owned by the call for as long as it runs, so a caller that goes away frees nothing under a running
//!   transfer. The cache never drops a call that changes the store half-way, and no sync: a task goes on with it when its
//!   client is gone. [`Backend::cover`], reads and extents it may drop: a backend to which `cover` means work finishes that by
//!   itself, in the order in which it was begun.
//! - Cache hits never reach a backend, so a boxed future per call is affordable.

use std::future::Future;
use std::ops::Range;
use std::pin::Pin;

use weir_faults::{Errno, FaultContext};

use crate::frame::{FrameBuf, FrameRefs};

/// What a backend call returns.
pub type BackendFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Size and shape of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Bytes.
    pub size: u64,
    /// The unit in which space is allocated and given back, in bytes, a power of two.
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
    /// [`Backend::extents`] knows holes.
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

/// A store of bytes: a file, a block device, memory, a remote device.
///
/// Errors are the system's error numbers. Every call gets the fault context of what it is done for.
pub trait Backend: Send + Sync + std::fmt::Debug + 'static {
    /// Size and shape now; the size changes only by [`Backend::resize`].
    fn geometry(&self) -> Geometry;

    /// What this backend can do.
    fn capabilities(&self) -> Capabilities;

    /// Fills all frames of `buffer` from `offset` (a multiple of the page), zeroes past the end of the device.
    fn read_vectored_at<'a>(
        &'a self,
        context: &'a FaultContext,
        offset: u64,
        buffer: FrameBuf,
    ) -> BackendFuture<'a, (FrameBuf, Result<(), Errno>)>;

    /// Writes all of `data` at `offset`. The offset is a multiple of the page; the length too, except where the device ends.
    fn write_vectored_at<'a>(
        &'a self,
        context: &'a FaultContext,
        offset: u64,
        data: FrameRefs,
    ) -> BackendFuture<'a, Result<(), Errno>>;

    /// Makes `range` read as zeroes without transferring data. `ENOTSUP` where that isn't possible.
    fn write_zeroes<'a>(
        &'a self,
        context: &'a FaultContext,
        range: Range<u64>,
        mode: ZeroMode,
    ) -> BackendFuture<'a, Result<(), Errno>>;

    /// Gives the space of `range` back; it reads as zeroes afterwards. `ENOTSUP` where that isn't possible.
    fn discard<'a>(
        &'a self,
        context: &'a FaultContext,
        range: Range<u64>,
    ) -> BackendFuture<'a, Result<(), Errno>>;

    /// What `range` holds: adjacent, in order, covering the range from its start; may stop early after `most` extents.
    fn extents<'a>(
        &'a self,
        context: &'a FaultContext,
        range: Range<u64>,
        most: usize,
    ) -> BackendFuture<'a, Result<Vec<BackendExtent>, Errno>>;

    /// Makes durable everything that completed before this call.
    fn sync<'a>(&'a self, context: &'a FaultContext) -> BackendFuture<'a, Result<(), Errno>>;

    /// Says that a FLUSH, or a FUA of these bytes, is about to succeed: everything that completed in `range` before the last sync
    /// counts as promised. A store that is durable after a sync has nothing to do. Cancel safe.
    ///
    /// # Errors
    /// What keeps the promise from being kept: the FLUSH fails with it.
    fn cover<'a>(
        &'a self,
        _context: &'a FaultContext,
        _range: Range<u64>,
    ) -> BackendFuture<'a, Result<(), Errno>> {
        Box::pin(async { Ok(()) })
    }

    /// Changes the size; what is added reads as zeroes. `ENOTSUP` where that isn't possible.
    fn resize<'a>(
        &'a self,
        context: &'a FaultContext,
        size: u64,
    ) -> BackendFuture<'a, Result<(), Errno>>;

    /// Inserts `length` zero bytes at `offset`, moving what follows; the device grows. `ENOTSUP` by default.
    fn insert_range<'a>(
        &'a self,
        _context: &'a FaultContext,
        _offset: u64,
        _length: u64,
    ) -> BackendFuture<'a, Result<(), Errno>> {
        Box::pin(async { Err(Errno::ENOTSUP) })
    }

    /// Removes `length` bytes at `offset`, moving what follows; the device shrinks. `ENOTSUP` by default.
    fn collapse_range<'a>(
        &'a self,
        _context: &'a FaultContext,
        _offset: u64,
        _length: u64,
    ) -> BackendFuture<'a, Result<(), Errno>> {
        Box::pin(async { Err(Errno::ENOTSUP) })
    }

    /// Hands over what was asked for and is kept back, so that it can be handed over together with more.
    ///
    /// A backend that keeps something back hands it over by itself soon; this says that nothing more is to come just now.
    fn submit(&self) {}

    /// Ends its use: nothing is called afterwards. Does not sync.
    fn close(&self) -> BackendFuture<'_, Result<(), Errno>>;
}
