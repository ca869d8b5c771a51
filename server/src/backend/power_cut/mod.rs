#![doc = include_str!("README.md")]
//!
//! # How
//! Data that isn't covered lives in a [`PowerCut`]. Covered data ([`Backend::cover`]) is applied to the store, which is
//! synced and told so. Reads and extents lay the rest over what the store returns.
//!
//! # A cut
//! 1. [`PowerCutBackend::switch_off`]: every call fails with `EIO` from here on. The caller then releases requests that
//!    wait for an injected fault, and closes the connections.
//! 2. [`PowerCutBackend::cut`]: waits for a sync that is being applied, which counts; a sync that waits for its turn
//!    doesn't. It chooses the survivors and raises the incarnation: a call that began before changes nothing any more.
//! 3. [`PowerCutBackend::switch_on`].
//!
//! The last two happen while the cache is still and has dropped every page, dirty ones too: they were volatile memory
//! ([`PageCache::lose_power`](weir_cache::PageCache::lose_power)). So nothing that began before is under way, except a
//! sync whose client has gone, which `cut` waits for.
//!
//! # The turn
//! Batches are applied one at a time, in the order in which they were completed, and each to its end. A store may go on
//! with a write whose caller has gone, and its older data would overwrite a batch that passed it by. So the caller that
//! has the turn gives it to a task together with the batch, and merely waits for the task (`turn.rs`).
//!
//! # What costs
//! Data is copied once on its way in, and syncs are as large as what they cover. This layer is for tests, not for
//! speed.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use weir_cache::{
    Backend, BackendExtent, BackendFuture, Errno, ExtentKind, Filter, FrameBuf, FrameRefs,
    PAGE_BYTES, ZeroMode,
};
use weir_faults::{
    Batch, Content, FaultContext, Mutation, Piece, PowerCut, PowerCutOptions, Stale,
    error_injectable,
};

use self::turn::{Store, Turn};

mod turn;

/// The amount of written data in memory beyond which a write syncs first: the volatile cache of a large disk. The cache
/// above syncs long before, unless the same pages are written over and over.
const HELD_BYTES_MAX: u64 = 256 << 20;

/// A store with a volatile cache of its own, which a power cut empties.
#[derive(Debug)]
pub struct PowerCutBackend {
    next: Arc<dyn Backend>,
    /// Shared with the task that applies a batch.
    state: Arc<Mutex<State>>,
    store: Arc<Store>,
    /// Of this layer's own points.
    context: FaultContext,
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
    /// Puts a volatile cache before `next`. `context` reaches the points of this layer.
    ///
    /// # Errors
    /// The system has no address space.
    pub fn new(next: Arc<dyn Backend>, context: FaultContext) -> std::io::Result<Self> {
        Ok(Self {
            store: Arc::new(Store::new(Arc::clone(&next))?),
            next,
            state: Arc::default(),
            context,
        })
    }

    /// How often the power was cut.
    ///
    /// # Errors
    /// `EIO` while the power is off.
    pub fn incarnation(&self) -> Result<u64, Errno> {
        Ok(self.lock().powered()?.incarnation())
    }

    /// Makes every call fail with `EIO`; says whether the power was on.
    pub fn switch_off(&self) -> bool {
        !std::mem::replace(&mut self.lock().off, true)
    }

    /// Lets calls succeed again.
    pub fn switch_on(&self) {
        self.lock().off = false;
    }

    /// Loses what the options say. Must be called while the power is off. Waits for the sync that is being applied, if
    /// there is one. `newest` is what the page cache had not yet handed over: versions of those sectors that may
    /// survive like any other. Cancel safe: if it is dropped, either it has not cut yet, or the survivors are still
    /// brought to the store.
    pub async fn cut(&self, options: PowerCutOptions, newest: Vec<(u64, FrameRefs)>) {
        let turn = self.store.turn().await;
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
        // If applying fails, reads still see the data, and the next sync tries again.
        if let Err(errno) = self.apply(turn, batch).await {
            tracing::warn!(%errno, "what survived the power cut isn't in the store yet");
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn record(&self, offset: u64, mutation: Mutation) -> Result<(), Errno> {
        let mut state = self.lock();
        let volatile = state.powered()?;
        let incarnation = volatile.incarnation();
        volatile
            .record(incarnation, offset, mutation)
            .map_err(stale)
    }

    #[error_injectable(ctx = self.context, errors(EIO, ENOSPC))]
    async fn write(&self, offset: u64, data: FrameRefs) -> Result<(), Errno> {
        let begun = self.incarnation()?;
        let size = self.next.geometry().size;
        if offset
            .checked_add(data.bytes() as u64)
            .is_none_or(|end| end > size)
        {
            return Err(Errno::ENOSPC);
        }
        if self.lock().volatile.held_bytes() > HELD_BYTES_MAX {
            self.cover_range(0..u64::MAX).await?;
        }
        let mut bytes = vec![0; data.bytes()];
        data.copy_to(&mut bytes);
        let mut state = self.lock();
        let volatile = state.powered()?;
        volatile
            .record(begun, offset, Mutation::Write(bytes.into()))
            .map_err(stale)
    }

    async fn read_laid_over(&self, offset: u64, buffer: FrameBuf) -> (FrameBuf, Result<(), Errno>) {
        let length = buffer.len() as u64 * PAGE_BYTES;
        // The pieces here are read before the store, so a sync that applies and forgets pieces in between does no harm.
        let (begun, pieces) = match self.lock().powered() {
            Ok(volatile) => (volatile.incarnation(), volatile.overlay(offset, length)),
            Err(errno) => return (buffer, Err(errno)),
        };
        let (mut buffer, outcome) = self.next.read(offset, buffer).await;
        for piece in &pieces {
            lay_over(piece, offset, &mut buffer);
        }
        // Data read before a cut may be data that the cut has lost.
        let outcome = outcome.and_then(|()| match self.incarnation()? {
            now if now == begun => Ok(()),
            _ => Err(Errno::EIO),
        });
        (buffer, outcome)
    }

    #[error_injectable(ctx = self.context, errors(EIO, ENOSPC, EDQUOT))]
    async fn cover_range(&self, range: Range<u64>) -> Result<(), Errno> {
        let token = {
            let mut state = self.lock();
            let volatile = state.powered()?;
            volatile.begin_sync(volatile.incarnation()).map_err(stale)?
        };
        let turn = self.store.turn().await;
        let batch = {
            let mut state = self.lock();
            state
                .powered()?
                .complete_sync(token, range)
                .map_err(stale)?
        };
        self.apply(turn, batch).await
    }

    /// Brings a batch into the store, durably, and forgets it here. Cancel safe: the work is finished in any case.
    async fn apply(&self, turn: Turn, batch: Batch) -> Result<(), Errno> {
        let state = Arc::clone(&self.state);
        let applied = move |batch: &Batch| lock(&state).volatile.applied(batch);
        turn.apply(batch, applied).await
    }

    async fn extents_laid_over(
        &self,
        range: Range<u64>,
        most: usize,
    ) -> Result<Vec<BackendExtent>, Errno> {
        let length = range.end - range.start;
        let pieces = self.lock().powered()?.overlay(range.start, length);
        let below = self.next.extents(range, most).await?;
        Ok(merged(&below, &pieces, most))
    }

    /// For calls whose effect can't be kept in memory: everything goes to the store first. The cache runs nothing else
    /// meanwhile.
    async fn bring_all_to_the_store(&self) -> Result<(), Errno> {
        self.cover_range(0..u64::MAX).await?;
        self.lock().powered().map(|_| ())
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The work belongs to a time before a cut.
fn stale(_: Stale) -> Errno {
    Errno::EIO
}

/// Copies a piece over the pages in `buffer`, which holds what lies at `offset`.
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

impl Filter for PowerCutBackend {
    fn next(&self) -> &dyn Backend {
        &*self.next
    }

    fn read(
        &self,
        offset: u64,
        buffer: FrameBuf,
    ) -> BackendFuture<'_, (FrameBuf, Result<(), Errno>)> {
        Box::pin(self.read_laid_over(offset, buffer))
    }

    fn write(&self, offset: u64, data: FrameRefs) -> BackendFuture<'_, Result<(), Errno>> {
        Box::pin(Self::write(self, offset, data))
    }

    fn write_zeroes(
        &self,
        range: Range<u64>,
        mode: ZeroMode,
    ) -> BackendFuture<'_, Result<(), Errno>> {
        let can = self.next.capabilities();
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

    fn discard(&self, range: Range<u64>) -> BackendFuture<'_, Result<(), Errno>> {
        Box::pin(async move {
            if !self.next.capabilities().discard {
                return Err(Errno::ENOTSUP);
            }
            self.record(range.start, Mutation::Trim(range.end - range.start))
        })
    }

    fn extents(
        &self,
        range: Range<u64>,
        most: usize,
    ) -> BackendFuture<'_, Result<Vec<BackendExtent>, Errno>> {
        Box::pin(self.extents_laid_over(range, most))
    }

    fn sync(&self) -> BackendFuture<'_, Result<(), Errno>> {
        // The cache's own syncs promise nothing to clients; what a FLUSH or FUA promises comes with `cover`.
        Box::pin(async { self.lock().powered().map(|_| ()) })
    }

    fn cover(&self, range: Range<u64>) -> BackendFuture<'_, Result<(), Errno>> {
        Box::pin(self.cover_range(range))
    }

    fn resize(&self, size: u64) -> BackendFuture<'_, Result<(), Errno>> {
        Box::pin(async move {
            self.bring_all_to_the_store().await?;
            self.next.resize(size).await
        })
    }

    fn insert_range(&self, offset: u64, length: u64) -> BackendFuture<'_, Result<(), Errno>> {
        Box::pin(async move {
            self.bring_all_to_the_store().await?;
            self.next.insert_range(offset, length).await
        })
    }

    fn collapse_range(&self, offset: u64, length: u64) -> BackendFuture<'_, Result<(), Errno>> {
        Box::pin(async move {
            self.bring_all_to_the_store().await?;
            self.next.collapse_range(offset, length).await
        })
    }

    fn close(&self) -> BackendFuture<'_, Result<(), Errno>> {
        Box::pin(async move {
            // Nothing is called on a closed store: an abandoned batch is applied first.
            let _turn = self.store.turn().await;
            self.next.close().await
        })
    }
}

#[cfg(test)]
mod tests;
