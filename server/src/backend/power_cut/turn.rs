//! The turn to bring a batch into the store, and the work itself.
//!
//! # Why a task
//! A client may go away while its FLUSH is being applied, and the store may go on with the write that it was given
//! (io_uring and threads do). If the turn passed on at that moment, the next batch would run beside that write, and the
//! older of the two might land last. Then data that a FLUSH has covered would read back old. So the turn, the batch and
//! the frames belong to a task that runs to its end; the caller only waits for the task.

use std::ops::Range;
use std::sync::Arc;

use tokio::sync::{Mutex, OwnedMutexGuard};
use weir_cache::{Backend, Errno, Geometry, PAGE_BYTES, ZeroMode};
use weir_faults::{Batch, Content, Piece};

use crate::backend::bytes::ByteAccess;

/// The store below a volatile cache.
#[derive(Debug)]
pub(super) struct Store {
    next: Arc<dyn Backend>,
    bytes: ByteAccess,
    turn: Arc<Mutex<()>>,
}

/// The right to bring one batch into the store; others wait for it in order.
#[derive(Debug)]
pub(super) struct Turn {
    store: Arc<Store>,
    guard: OwnedMutexGuard<()>,
}

impl Store {
    /// # Errors
    /// The system has no address space.
    pub(super) fn new(next: Arc<dyn Backend>) -> std::io::Result<Self> {
        Ok(Self {
            next,
            bytes: ByteAccess::new()?,
            turn: Arc::default(),
        })
    }

    /// Waits for the turn. Cancel safe.
    pub(super) async fn turn(self: &Arc<Self>) -> Turn {
        Turn {
            store: Arc::clone(self),
            guard: Arc::clone(&self.turn).lock_owned().await,
        }
    }

    /// Brings pieces into the store, durably.
    async fn apply(&self, pieces: &[Piece]) -> Result<(), Errno> {
        let store = &*self.next;
        for piece in pieces {
            let range = piece.offset..piece.offset + piece.length;
            match &piece.content {
                Content::Data { .. } => {
                    let data = piece.data().expect("it is data");
                    self.bytes.write(store, piece.offset, data).await?;
                }
                Content::Zero => {
                    let mode = ZeroMode::KeepAllocated;
                    self.bytes.zero(store, range, mode).await?;
                }
                Content::Trim => self.trim(range).await?,
            }
        }
        store.sync().await?;
        // What is applied is what a client is about to be told of.
        store.cover(0..u64::MAX).await
    }

    /// Gives back the whole allocation units of `range`, and zeroes what lies around them.
    async fn trim(&self, range: Range<u64>) -> Result<(), Errno> {
        let store = &*self.next;
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
        let can = store.capabilities().discard && !whole.is_empty();
        let discarded = match can {
            true => store.discard(whole.clone()).await,
            false => Err(Errno::ENOTSUP),
        };
        if discarded == Err(Errno::ENOTSUP) {
            let mode = ZeroMode::MayPunch;
            return self.bytes.zero(store, range, mode).await;
        }
        discarded?;
        for edge in [range.start..whole.start, whole.end..range.end] {
            let mode = ZeroMode::KeepAllocated;
            self.bytes.zero(store, edge, mode).await?;
        }
        Ok(())
    }
}

impl Turn {
    /// Brings a batch into the store, durably, and then says so to `applied`. Cancel safe: once begun it runs to its
    /// end, and only then passes the turn on.
    pub(super) async fn apply(
        self,
        batch: Batch,
        applied: impl FnOnce(&Batch) + Send + 'static,
    ) -> Result<(), Errno> {
        let task = tokio::spawn(async move {
            let Self { store, guard } = self;
            let outcome = store.apply(&batch.pieces).await;
            if outcome.is_ok() {
                applied(&batch);
            }
            drop(guard);
            outcome
        });
        task.await.expect("a panic aborts the process")
    }
}
