//! The cache's own handle to its store, with the fault points of the calls.
//!
//! Every call of the cache to its store passes here, so the points of these calls (`backend:write` and the like) are
//! here, once, whatever the store is and whatever layers are over it. The handle is no [`Backend`]: it also takes the
//! [`FaultContext`], which says why the call is made. Stores and filters aren't told that.
//!
//! A call passes its points before it reaches the store. With nothing armed each point costs one relaxed load.
//!
//! # Names
//! Classes and function names are what scripts say: a point keeps its class when the code moves, and the functions are
//! called [`FaultedBackend`]`::read`, `write`, `zero`, `trim`, `flush` and `status`, after the requests that rules
//! name.

use std::ops::Range;
use std::sync::Arc;

use weir_faults::{Errno, FaultContext, error_injectable, pause_point};

use crate::backend::{Backend, BackendExtent, Capabilities, Geometry, ZeroMode};
use crate::frame::{FrameBuf, FrameRefs};

/// The store as the cache calls it: each call has its purpose with it, and passes the points that can make it fail or
/// wait.
#[derive(Debug)]
pub struct FaultedBackend {
    store: Arc<dyn Backend>,
}

impl FaultedBackend {
    /// The handle to `store`.
    pub(crate) fn new(store: Arc<dyn Backend>) -> Self {
        Self { store }
    }

    /// [`Backend::geometry`]
    #[must_use]
    pub fn geometry(&self) -> Geometry {
        self.store.geometry()
    }

    /// [`Backend::capabilities`]
    #[must_use]
    pub fn capabilities(&self) -> Capabilities {
        self.store.capabilities()
    }

    /// [`Backend::read`]
    pub(crate) async fn read_into(
        &self,
        context: &FaultContext,
        offset: u64,
        buffer: FrameBuf,
    ) -> (FrameBuf, Result<(), Errno>) {
        // The frames come back whatever fails.
        match self.read(context).await {
            Ok(()) => self.store.read(offset, buffer).await,
            Err(errno) => (buffer, Err(errno)),
        }
    }

    #[error_injectable(ctx = context, errors(EIO, ENOMEM, ETIMEDOUT), class = "server:function")]
    async fn read(&self, context: &FaultContext) -> Result<(), Errno> {
        pause_point!(context, "backend:read", [EIO, ENOMEM, ETIMEDOUT]).await
    }

    /// [`Backend::write`]
    ///
    /// # Errors
    /// The store's, or an injected one.
    #[error_injectable(ctx = context, errors(EIO, ENOSPC, EDQUOT, EROFS, ETIMEDOUT), class = "server:function")]
    pub(crate) async fn write(
        &self,
        context: &FaultContext,
        offset: u64,
        data: FrameRefs,
    ) -> Result<(), Errno> {
        pause_point!(
            context,
            "backend:write",
            [EIO, ENOMEM, ENOSPC, EDQUOT, EROFS, ETIMEDOUT]
        )
        .await?;
        self.store.write(offset, data).await
    }

    /// [`Backend::write_zeroes`]
    ///
    /// # Errors
    /// The store's, or an injected one.
    #[error_injectable(ctx = context, errors(EIO, ENOSPC, ENOTSUP, EROFS), class = "server:function")]
    pub(crate) async fn zero(
        &self,
        context: &FaultContext,
        range: Range<u64>,
        mode: ZeroMode,
    ) -> Result<(), Errno> {
        pause_point!(context, "backend:zero", [EIO, ENOSPC, ENOTSUP, EROFS]).await?;
        self.store.write_zeroes(range, mode).await
    }

    /// [`Backend::discard`]
    ///
    /// # Errors
    /// The store's, or an injected one.
    #[error_injectable(ctx = context, errors(EIO, ENOTSUP, EROFS), class = "server:function")]
    pub(crate) async fn trim(
        &self,
        context: &FaultContext,
        range: Range<u64>,
    ) -> Result<(), Errno> {
        pause_point!(context, "backend:discard", [EIO, ENOTSUP, EROFS]).await?;
        self.store.discard(range).await
    }

    /// [`Backend::sync`]
    ///
    /// # Errors
    /// The store's, or an injected one.
    #[error_injectable(ctx = context, errors(EIO, ENOSPC, EDQUOT), class = "server:function")]
    pub(crate) async fn flush(&self, context: &FaultContext) -> Result<(), Errno> {
        pause_point!(context, "backend:sync", [EIO, ENOSPC, EDQUOT]).await?;
        self.store.sync().await
    }

    /// [`Backend::extents`]
    ///
    /// # Errors
    /// The store's, or an injected one.
    #[error_injectable(ctx = context, errors(EIO, ENOMEM), class = "server:function")]
    pub(crate) async fn status(
        &self,
        context: &FaultContext,
        range: Range<u64>,
        most: usize,
    ) -> Result<Vec<BackendExtent>, Errno> {
        pause_point!(context, "backend:extents", [EIO, ENOMEM]).await?;
        self.store.extents(range, most).await
    }

    /// [`Backend::cover`]. It has no point: the sync before it has.
    ///
    /// # Errors
    /// The store's.
    pub(crate) async fn cover(&self, range: Range<u64>) -> Result<(), Errno> {
        self.store.cover(range).await
    }

    /// [`Backend::resize`]
    ///
    /// # Errors
    /// The store's, or an injected one.
    pub(crate) async fn resize(&self, context: &FaultContext, size: u64) -> Result<(), Errno> {
        pause_point!(context, "backend:resize", [EIO, ENOSPC, EFBIG, ENOTSUP]).await?;
        self.store.resize(size).await
    }

    /// [`Backend::insert_range`]
    ///
    /// # Errors
    /// The store's, or an injected one.
    pub async fn insert_range(
        &self,
        context: &FaultContext,
        offset: u64,
        length: u64,
    ) -> Result<(), Errno> {
        pause_point!(context, "backend:resize", [EIO, ENOSPC, EFBIG, ENOTSUP]).await?;
        self.store.insert_range(offset, length).await
    }

    /// [`Backend::collapse_range`]
    ///
    /// # Errors
    /// The store's, or an injected one.
    pub async fn collapse_range(
        &self,
        context: &FaultContext,
        offset: u64,
        length: u64,
    ) -> Result<(), Errno> {
        pause_point!(context, "backend:resize", [EIO, ENOTSUP]).await?;
        self.store.collapse_range(offset, length).await
    }

    /// [`Backend::submit`]
    pub(crate) fn submit(&self) {
        self.store.submit();
    }

    /// [`Backend::close`]
    ///
    /// # Errors
    /// The store's.
    pub(crate) async fn close(&self) -> Result<(), Errno> {
        self.store.close().await
    }
}

#[cfg(test)]
mod tests;
