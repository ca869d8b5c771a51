//! A backend that can lose its power: `--power-cut`.
//!
//! A decorator between the cache and the store. Everything written, zeroed or trimmed that no FLUSH or FUA has covered lives in
//! a [`PowerCut`] in memory and nowhere else; what is covered ([`Backend::cover`]) is applied to the store; reads and extents lay
//! the rest over what the store says. So what a cut loses was never in the store, and there is nothing to be undone. Weir's
//! own syncs cover nothing: what was written back early, or beside a FUA in its page, is lost like the rest.
//!
//! # A cut
//! 1. [`PowerCutBackend::switch_off`]: every call fails with `EIO` from here on. The caller then lets go whoever waits for
//!    an injected fault, and closes the connections.
//! 2. [`PowerCutBackend::cut`]: a sync that is being applied is waited for, and counts; one that waits for its turn does
//!    not. The survivors are chosen, the incarnation is raised: a call that began before changes nothing any more.
//! 3. [`PowerCutBackend::switch_on`].
//!
//! The last two happen while the cache is still and has dropped every page, dirty ones too: they were volatile memory
//! ([`PageCache::lose_power`](weir_cache::PageCache::lose_power)). So nothing is under way that began before.
//!
//! # What costs
//! Data is copied once on its way in, and syncs are as large as what they cover. It is there to be tested against, not to
//! be fast.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use weir_cache::{
    Backend, BackendExtent, BackendFuture, Capabilities, ExtentKind, FrameBuf, FrameRefs, Geometry,
    PAGE_BYTES, ZeroMode,
};
use weir_faults::{
    Content, Errno, FaultContext, Mutation, Piece, PowerCut, PowerCutOptions, Stale,
    error_injectable,
};

use super::bytes::ByteAccess;

/// Written data held in memory beyond which a write syncs first: the volatile cache of a large disk. The cache behind
/// syncs long before, unless the same pages are written over and over.
const HELD_BYTES_MAX: u64 = 256 << 20;

/// A store with a volatile cache of its own, which a power cut empties.
#[derive(Debug)]
pub struct PowerCutBackend {
    inner: Arc<dyn Backend>,
    state: Mutex<State>,
    /// Held while a batch is applied: one at a time, in the order in which they were completed.
    turn: tokio::sync::Mutex<()>,
    bytes: ByteAccess,
}

#[derive(Debug, Default)]
struct State {
    volatile: PowerCut,
    off: bool,
}

impl State {
    fn powered(&mut self) -> Result<&mut PowerCut, Errno> {
        if self.off {
            Err(Errno::EIO)
        } else {
            Ok(&mut self.volatile)
        }
    }
}

impl PowerCutBackend {
    /// Puts a volatile cache before `inner`.
    ///
    /// # Errors
    /// The system has no address space.
    pub fn new(inner: Arc<dyn Backend>) -> std::io::Result<Self> {
        Ok(Self {
            inner,
            state: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
            bytes: ByteAccess::new()?,
        })
    }

    /// How often the power was cut.
    ///
    /// # Errors
    /// `EIO` while it is off.
    pub fn incarnation(&self) -> Result<u64, Errno> {
        Ok(self.lock().powered()?.incarnation())
    }

    /// Makes every call fail with `EIO`; says whether it was on.
    pub fn switch_off(&self) -> bool {
        !std::mem::replace(&mut self.lock().off, true)
    }

    /// Ends that.
    pub fn switch_on(&self) {
        self.lock().off = false;
    }

    /// Loses what the options say. To be called while it is off; waits for the sync that is being applied. `newest` is what
    /// the page cache had not yet handed over: versions of those sectors that may survive like any other.
    pub async fn cut(
        &self,
        context: &FaultContext,
        options: PowerCutOptions,
        newest: Vec<(u64, FrameRefs)>,
    ) {
        let _turn = self.turn.lock().await;
        let batch = {
            let mut state = self.lock();
            for (offset, data) in newest {
                let mut bytes = vec![0; data.bytes()];
                data.copy_to(&mut bytes);
                let incarnation = state.volatile.incarnation();
                let recorded =
                    state
                        .volatile
                        .record(incarnation, offset, Mutation::Write(bytes.into()));
                recorded.expect("the present incarnation is not stale");
            }
            state.volatile.cut(options)
        };
        // What fails to be applied is still what reads see, and the next sync tries again.
        match self.apply(context, &batch.pieces).await {
            Ok(()) => self.lock().volatile.applied(&batch),
            Err(errno) => {
                tracing::warn!(%errno, "what survived the power cut isn't in the store yet")
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self, offset: u64, mutation: Mutation) -> Result<(), Errno> {
        let mut state = self.lock();
        let volatile = state.powered()?;
        let incarnation = volatile.incarnation();
        volatile
            .record(incarnation, offset, mutation)
            .map_err(stale)
    }

    #[error_injectable(ctx = context, errors(EIO, ENOSPC))]
    async fn write(
        &self,
        context: &FaultContext,
        offset: u64,
        data: FrameRefs,
    ) -> Result<(), Errno> {
        let begun = self.incarnation()?;
        let size = self.inner.geometry().size;
        if offset
            .checked_add(data.bytes() as u64)
            .is_none_or(|end| end > size)
        {
            return Err(Errno::ENOSPC);
        }
        if self.lock().volatile.held_bytes() > HELD_BYTES_MAX {
            self.cover_range(context, 0..u64::MAX).await?;
        }
        let mut bytes = vec![0; data.bytes()];
        data.copy_to(&mut bytes);
        let mut state = self.lock();
        let volatile = state.powered()?;
        volatile
            .record(begun, offset, Mutation::Write(bytes.into()))
            .map_err(stale)
    }

    async fn read(
        &self,
        context: &FaultContext,
        offset: u64,
        buffer: FrameBuf,
    ) -> (FrameBuf, Result<(), Errno>) {
        let length = buffer.len() as u64 * PAGE_BYTES;
        // First what is here, then the store: a sync that applies and forgets pieces in between does no harm.
        let (begun, pieces) = match self.lock().powered() {
            Ok(volatile) => (volatile.incarnation(), volatile.overlay(offset, length)),
            Err(errno) => return (buffer, Err(errno)),
        };
        let (mut buffer, outcome) = self.inner.read_vectored_at(context, offset, buffer).await;
        for piece in &pieces {
            lay_over(piece, offset, &mut buffer);
        }
        // What was read before a cut may be what the cut has lost.
        let outcome = outcome.and_then(|()| match self.incarnation()? {
            now if now == begun => Ok(()),
            _ => Err(Errno::EIO),
        });
        (buffer, outcome)
    }

    #[error_injectable(ctx = context, errors(EIO, ENOSPC, EDQUOT))]
    async fn cover_range(&self, context: &FaultContext, range: Range<u64>) -> Result<(), Errno> {
        let token = {
            let mut state = self.lock();
            let volatile = state.powered()?;
            volatile.begin_sync(volatile.incarnation()).map_err(stale)?
        };
        let _turn = self.turn.lock().await;
        let batch = {
            let mut state = self.lock();
            state
                .powered()?
                .complete_sync(token, range)
                .map_err(stale)?
        };
        self.apply(context, &batch.pieces).await?;
        self.lock().volatile.applied(&batch);
        Ok(())
    }

    /// Brings pieces into the store, durably. The caller has the turn.
    async fn apply(&self, context: &FaultContext, pieces: &[Piece]) -> Result<(), Errno> {
        let store = &*self.inner;
        for piece in pieces {
            let range = piece.offset..piece.offset + piece.length;
            match &piece.content {
                Content::Data { .. } => {
                    let data = piece.data().expect("it is data");
                    self.bytes.write(store, context, piece.offset, data).await?;
                }
                Content::Zero => {
                    let mode = ZeroMode::KeepAllocated;
                    self.bytes.zero(store, context, range, mode).await?;
                }
                Content::Trim => self.trim(context, range).await?,
            }
        }
        store.sync(context).await
    }

    /// Gives the whole allocation units of `range` back, and zeroes what lies around them.
    async fn trim(&self, context: &FaultContext, range: Range<u64>) -> Result<(), Errno> {
        let store = &*self.inner;
        let Geometry {
            size,
            allocation_unit,
            ..
        } = store.geometry();
        let unit = u64::from(allocation_unit).max(PAGE_BYTES);
        let end = if range.end >= size {
            size
        } else {
            range.end - range.end % unit
        };
        let whole = range.start.next_multiple_of(unit)..end;
        let discarded = match store.capabilities().discard && !whole.is_empty() {
            true => store.discard(context, whole.clone()).await,
            false => Err(Errno::ENOTSUP),
        };
        match discarded {
            Ok(()) => {}
            Err(Errno::ENOTSUP) => {
                let mode = ZeroMode::MayPunch;
                return self.bytes.zero(store, context, range, mode).await;
            }
            Err(errno) => return Err(errno),
        }
        for edge in [range.start..whole.start, whole.end..range.end] {
            let mode = ZeroMode::KeepAllocated;
            self.bytes.zero(store, context, edge, mode).await?;
        }
        Ok(())
    }

    async fn extents_laid_over(
        &self,
        context: &FaultContext,
        range: Range<u64>,
        most: usize,
    ) -> Result<Vec<BackendExtent>, Errno> {
        let length = range.end - range.start;
        let pieces = self.lock().powered()?.overlay(range.start, length);
        let below = self.inner.extents(context, range, most).await?;
        Ok(merged(&below, &pieces, most))
    }

    /// Before what can't live in memory: everything goes to the store. The cache lets nothing else run meanwhile.
    async fn settle(&self, context: &FaultContext) -> Result<(), Errno> {
        self.cover_range(context, 0..u64::MAX).await?;
        self.lock().powered().map(|_| ())
    }
}

/// The work belongs to a time before a cut.
fn stale(_: Stale) -> Errno {
    Errno::EIO
}

/// Copies a piece over the pages in `buffer`, which is what lies at `offset`.
fn lay_over(piece: &Piece, offset: u64, buffer: &mut FrameBuf) {
    let end = (piece.offset + piece.length).min(offset + buffer.len() as u64 * PAGE_BYTES);
    let first = piece.offset.max(offset) - offset;
    for page in first / PAGE_BYTES..(end - offset).div_ceil(PAGE_BYTES) {
        let index = usize::try_from(page).expect("a page of a buffer in memory");
        piece.copy_into(offset + page * PAGE_BYTES, buffer.page_mut(index));
    }
}

/// The store's extents with the pieces laid over them; ends where `below` ends, or after `most`.
fn merged(below: &[BackendExtent], pieces: &[Piece], most: usize) -> Vec<BackendExtent> {
    let mut merged: Vec<BackendExtent> = Vec::new();
    let mut push = |range: Range<u64>, kind: ExtentKind| match merged.last_mut() {
        _ if range.is_empty() => {}
        Some(last) if last.kind == kind && last.range.end == range.start => {
            last.range.end = range.end;
        }
        _ => merged.push(BackendExtent { range, kind }),
    };
    let mut pieces = pieces.iter().peekable();
    for extent in below {
        let mut at = extent.range.start;
        while at < extent.range.end {
            while pieces
                .next_if(|piece| piece.offset + piece.length <= at)
                .is_some()
            {}
            let (end, kind) = match pieces.peek() {
                Some(piece) if piece.offset <= at => {
                    (piece.offset + piece.length, kind_of(&piece.content))
                }
                Some(piece) => (piece.offset, extent.kind),
                None => (extent.range.end, extent.kind),
            };
            let end = end.min(extent.range.end);
            push(at..end, kind);
            at = end;
        }
    }
    merged.truncate(most.max(1));
    merged
}

fn kind_of(content: &Content) -> ExtentKind {
    match content {
        Content::Data { .. } => ExtentKind::Data,
        Content::Zero => ExtentKind::Zero,
        Content::Trim => ExtentKind::Hole,
    }
}

impl Backend for PowerCutBackend {
    fn geometry(&self) -> Geometry {
        self.inner.geometry()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn read_vectored_at<'a>(
        &'a self,
        context: &'a FaultContext,
        offset: u64,
        buffer: FrameBuf,
    ) -> BackendFuture<'a, (FrameBuf, Result<(), Errno>)> {
        Box::pin(self.read(context, offset, buffer))
    }

    fn write_vectored_at<'a>(
        &'a self,
        context: &'a FaultContext,
        offset: u64,
        data: FrameRefs,
    ) -> BackendFuture<'a, Result<(), Errno>> {
        Box::pin(self.write(context, offset, data))
    }

    fn write_zeroes<'a>(
        &'a self,
        _context: &'a FaultContext,
        range: Range<u64>,
        mode: ZeroMode,
    ) -> BackendFuture<'a, Result<(), Errno>> {
        let can = self.capabilities();
        let length = range.end - range.start;
        Box::pin(async move {
            let mutation = match mode {
                ZeroMode::MayPunch if can.zero_punch => Mutation::Trim(length),
                _ if can.zero_keep => Mutation::Zero(length),
                _ => return Err(Errno::ENOTSUP),
            };
            self.record(range.start, mutation)
        })
    }

    fn discard<'a>(
        &'a self,
        _context: &'a FaultContext,
        range: Range<u64>,
    ) -> BackendFuture<'a, Result<(), Errno>> {
        Box::pin(async move {
            if !self.capabilities().discard {
                return Err(Errno::ENOTSUP);
            }
            self.record(range.start, Mutation::Trim(range.end - range.start))
        })
    }

    fn extents<'a>(
        &'a self,
        context: &'a FaultContext,
        range: Range<u64>,
        most: usize,
    ) -> BackendFuture<'a, Result<Vec<BackendExtent>, Errno>> {
        Box::pin(self.extents_laid_over(context, range, most))
    }

    fn sync<'a>(&'a self, _context: &'a FaultContext) -> BackendFuture<'a, Result<(), Errno>> {
        // Weir's own syncs promise nothing to anybody; what a FLUSH or FUA promises comes with `cover`.
        Box::pin(async { self.lock().powered().map(|_| ()) })
    }

    fn submit(&self) {
        self.inner.submit();
    }

    fn cover<'a>(
        &'a self,
        context: &'a FaultContext,
        range: Range<u64>,
    ) -> BackendFuture<'a, Result<(), Errno>> {
        Box::pin(self.cover_range(context, range))
    }

    fn resize<'a>(
        &'a self,
        context: &'a FaultContext,
        size: u64,
    ) -> BackendFuture<'a, Result<(), Errno>> {
        Box::pin(async move {
            self.settle(context).await?;
            self.inner.resize(context, size).await
        })
    }

    fn insert_range<'a>(
        &'a self,
        context: &'a FaultContext,
        offset: u64,
        length: u64,
    ) -> BackendFuture<'a, Result<(), Errno>> {
        Box::pin(async move {
            self.settle(context).await?;
            self.inner.insert_range(context, offset, length).await
        })
    }

    fn collapse_range<'a>(
        &'a self,
        context: &'a FaultContext,
        offset: u64,
        length: u64,
    ) -> BackendFuture<'a, Result<(), Errno>> {
        Box::pin(async move {
            self.settle(context).await?;
            self.inner.collapse_range(context, offset, length).await
        })
    }

    fn close(&self) -> BackendFuture<'_, Result<(), Errno>> {
        self.inner.close()
    }
}

#[cfg(test)]
mod tests;
