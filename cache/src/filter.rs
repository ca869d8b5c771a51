//! A layer over a store.
//!
//! A [`Filter`] stands between the cache and a store, or another filter. It overrides what it is about. Everything else
//! it hands on to what is below it ([`Filter::next`]). What is above it sees one more [`Backend`]: one implementation
//! at the end of this file makes a backend of every filter.
//!
//! # What a filter must think of
//! - [`Filter::cover`] has no default. It says that a client is about to be told that its data is durable. A layer that
//!   holds something back has to hear of that, or it breaks the promise. A filter that holds nothing back says
//!   `self.next().cover(range)`, and says it on purpose.
//! - [`Filter::capabilities`] are those of the whole stack from here down. A filter that can't hand a call on
//!   faithfully takes the ability away.
//! - A filter that changes what a `write` stores thinks of `write_zeroes`, `discard`, `extents`, `resize`,
//!   `insert_range` and `collapse_range` too.
//! - The contract of [`backend`](crate::backend) holds above and below it: what may be dropped half-way, and what may
//!   not.
//!
//! A test puts a [`Spy`](crate::spy::Spy) under each filter and sees every method arrive there, so a method that is
//! added to [`Backend`] and forgotten here is found.
//!
//! # What it costs
//! A call that is handed on is one more virtual call, and no allocation: the future is that of the layer below.

use std::fmt;
use std::ops::Range;

use weir_faults::Errno;

use crate::backend::{Backend, BackendExtent, BackendFuture, Capabilities, Geometry, ZeroMode};
use crate::frame::{FrameBuf, FrameRefs};

/// A layer over a [`Backend`], which is one itself. Every method but two is handed on unless it is overridden.
pub trait Filter: Send + Sync + fmt::Debug + 'static {
    /// What is below.
    fn next(&self) -> &dyn Backend;

    /// [`Backend::cover`]: a promise to a client. To be thought of in each filter, so there is no default.
    fn cover(&self, range: Range<u64>) -> BackendFuture<'_, Result<(), Errno>>;

    /// [`Backend::geometry`]
    fn geometry(&self) -> Geometry {
        self.next().geometry()
    }

    /// [`Backend::capabilities`]
    fn capabilities(&self) -> Capabilities {
        self.next().capabilities()
    }

    /// [`Backend::read`]
    fn read(
        &self,
        offset: u64,
        buffer: FrameBuf,
    ) -> BackendFuture<'_, (FrameBuf, Result<(), Errno>)> {
        self.next().read(offset, buffer)
    }

    /// [`Backend::write`]
    fn write(&self, offset: u64, data: FrameRefs) -> BackendFuture<'_, Result<(), Errno>> {
        self.next().write(offset, data)
    }

    /// [`Backend::sync`]
    fn sync(&self) -> BackendFuture<'_, Result<(), Errno>> {
        self.next().sync()
    }

    /// [`Backend::write_zeroes`]
    fn write_zeroes(
        &self,
        range: Range<u64>,
        mode: ZeroMode,
    ) -> BackendFuture<'_, Result<(), Errno>> {
        self.next().write_zeroes(range, mode)
    }

    /// [`Backend::discard`]
    fn discard(&self, range: Range<u64>) -> BackendFuture<'_, Result<(), Errno>> {
        self.next().discard(range)
    }

    /// [`Backend::extents`]
    fn extents(
        &self,
        range: Range<u64>,
        most: usize,
    ) -> BackendFuture<'_, Result<Vec<BackendExtent>, Errno>> {
        self.next().extents(range, most)
    }

    /// [`Backend::resize`]
    fn resize(&self, size: u64) -> BackendFuture<'_, Result<(), Errno>> {
        self.next().resize(size)
    }

    /// [`Backend::insert_range`]
    fn insert_range(&self, offset: u64, length: u64) -> BackendFuture<'_, Result<(), Errno>> {
        self.next().insert_range(offset, length)
    }

    /// [`Backend::collapse_range`]
    fn collapse_range(&self, offset: u64, length: u64) -> BackendFuture<'_, Result<(), Errno>> {
        self.next().collapse_range(offset, length)
    }

    /// [`Backend::submit`]
    fn submit(&self) {
        self.next().submit();
    }

    /// [`Backend::close`]
    fn close(&self) -> BackendFuture<'_, Result<(), Errno>> {
        self.next().close()
    }
}

impl<F: Filter> Backend for F {
    fn geometry(&self) -> Geometry {
        Filter::geometry(self)
    }

    fn capabilities(&self) -> Capabilities {
        Filter::capabilities(self)
    }

    fn read(
        &self,
        offset: u64,
        buffer: FrameBuf,
    ) -> BackendFuture<'_, (FrameBuf, Result<(), Errno>)> {
        Filter::read(self, offset, buffer)
    }

    fn write(&self, offset: u64, data: FrameRefs) -> BackendFuture<'_, Result<(), Errno>> {
        Filter::write(self, offset, data)
    }

    fn sync(&self) -> BackendFuture<'_, Result<(), Errno>> {
        Filter::sync(self)
    }

    fn cover(&self, range: Range<u64>) -> BackendFuture<'_, Result<(), Errno>> {
        Filter::cover(self, range)
    }

    fn write_zeroes(
        &self,
        range: Range<u64>,
        mode: ZeroMode,
    ) -> BackendFuture<'_, Result<(), Errno>> {
        Filter::write_zeroes(self, range, mode)
    }

    fn discard(&self, range: Range<u64>) -> BackendFuture<'_, Result<(), Errno>> {
        Filter::discard(self, range)
    }

    fn extents(
        &self,
        range: Range<u64>,
        most: usize,
    ) -> BackendFuture<'_, Result<Vec<BackendExtent>, Errno>> {
        Filter::extents(self, range, most)
    }

    fn resize(&self, size: u64) -> BackendFuture<'_, Result<(), Errno>> {
        Filter::resize(self, size)
    }

    fn insert_range(&self, offset: u64, length: u64) -> BackendFuture<'_, Result<(), Errno>> {
        Filter::insert_range(self, offset, length)
    }

    fn collapse_range(&self, offset: u64, length: u64) -> BackendFuture<'_, Result<(), Errno>> {
        Filter::collapse_range(self, offset, length)
    }

    fn submit(&self) {
        Filter::submit(self);
    }

    fn close(&self) -> BackendFuture<'_, Result<(), Errno>> {
        Filter::close(self)
    }
}

#[cfg(test)]
mod tests;
