//! Access to any bytes at any offset of a backend that takes whole pages. Layers need it if they store something other
//! than what the cache has handed them.
//!
//! A page that is stored in part is read first. One call runs at a time: frames are few, and of two calls that share a
//! page one would lose its part.
//!
//! A transfer owns its frames, so a call that was dropped leaves them to the store until that is done with them. The
//! next call waits for them: it isn't an error if that memory is still on its way back. The caller is responsible for
//! the order of two calls to the same bytes, and keeps it by dropping none half-way: the store may go on with a
//! transfer whose caller has gone.

use std::ops::Range;
use std::sync::Arc;

use tokio::sync::Mutex;
use weir_cache::{Backend, Errno, FrameBuf, FramePool, PAGE_BYTES, PAGE_SIZE, ZeroMode};

/// Frames of one accessor, and so the pages of one transfer: as many as one slice of the cache has.
const FRAMES: u32 = 256;

/// Access to single bytes of one backend.
#[derive(Debug)]
pub(super) struct ByteAccess {
    /// Taken for the duration of a call.
    pool: Mutex<Arc<FramePool>>,
}

impl ByteAccess {
    /// This needs address space only; memory is used from the first call on.
    ///
    /// # Errors
    /// The system has no address space.
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self {
            pool: Mutex::new(FramePool::new(FRAMES)?),
        })
    }

    /// Stores `data` at `offset`; bytes beyond the end of the device are dropped.
    pub(super) async fn write(
        &self,
        backend: &dyn Backend,
        offset: u64,
        data: &[u8],
    ) -> Result<(), Errno> {
        let end = offset.saturating_add(data.len() as u64);
        self.fill(backend, offset..end, Some(data)).await
    }

    /// Makes `range` read as zeroes, without transferring data where the backend can do so; bytes beyond the end of the
    /// device are dropped.
    pub(super) async fn zero(
        &self,
        backend: &dyn Backend,
        range: Range<u64>,
        mode: ZeroMode,
    ) -> Result<(), Errno> {
        let size = backend.geometry().size;
        let whole_end = if range.end >= size {
            size
        } else {
            range.end - range.end % PAGE_BYTES
        };
        let whole = range.start.next_multiple_of(PAGE_BYTES)..whole_end;
        if whole.is_empty() {
            return self.fill(backend, range, None).await;
        }
        match backend.write_zeroes(whole.clone(), mode).await {
            Err(Errno::ENOTSUP) => return self.fill(backend, range, None).await,
            outcome => outcome?,
        }
        let head = range.start..whole.start;
        self.fill(backend, head, None).await?;
        self.fill(backend, whole.end..range.end, None).await
    }

    /// Stores `data`, or zeroes, in `range`, as far as the device goes.
    async fn fill(
        &self,
        backend: &dyn Backend,
        range: Range<u64>,
        data: Option<&[u8]>,
    ) -> Result<(), Errno> {
        let size = backend.geometry().size;
        let end = range.end.min(size);
        let pool = self.pool.lock().await;
        let mut at = range.start;
        while at < end {
            let first = at - at % PAGE_BYTES;
            let stop = end.min(first + u64::from(FRAMES) * PAGE_BYTES);
            let pages = index((stop - first).div_ceil(PAGE_BYTES));
            // This call is the only taker: it has the lock.
            let mut buffer = FrameBuf::filled(&pool, pages).await;
            // What lies beyond the device's end needn't be read, because it isn't written.
            let partial =
                !at.is_multiple_of(PAGE_BYTES) || (!stop.is_multiple_of(PAGE_BYTES) && stop < size);
            if partial {
                let outcome;
                (buffer, outcome) = backend.read(first, buffer).await;
                outcome?;
            }
            for page in 0..pages {
                let page_start = first + page as u64 * PAGE_BYTES;
                let (from, to) = (at.max(page_start), stop.min(page_start + PAGE_BYTES));
                let target =
                    &mut buffer.page_mut(page)[index(from - page_start)..index(to - page_start)];
                match data {
                    Some(data) => target
                        .copy_from_slice(&data[index(from - range.start)..index(to - range.start)]),
                    None => target.fill(0),
                }
            }
            let length = (first + (pages * PAGE_SIZE) as u64).min(size) - first;
            let data = buffer.freeze(index(length));
            backend.write(first, data).await?;
            at = stop;
        }
        Ok(())
    }
}

/// A distance inside a buffer in memory.
fn index(distance: u64) -> usize {
    usize::try_from(distance).expect("inside a buffer in memory")
}

#[cfg(test)]
mod tests;
