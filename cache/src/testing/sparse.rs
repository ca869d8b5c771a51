//! A backend for tests of large devices: pages in a map, and what was asked of it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use weir_faults::Errno;

use crate::backend::{
    Backend, BackendExtent, BackendFuture, Capabilities, ExtentKind, Geometry, ZeroMode,
};
use crate::frame::{FrameBuf, FrameRefs, PAGE_BYTES, PAGE_SIZE};

/// A device of any size, of which only pages that are not zero take memory.
#[derive(Debug)]
pub(crate) struct SparseBackend {
    size: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    pages: BTreeMap<u64, Vec<u8>>,
    discards: Vec<Range<u64>>,
    discard_takes: Duration,
    discards_fail: bool,
}

impl SparseBackend {
    pub(crate) fn new(size: u64) -> Self {
        Self {
            size,
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// What was discarded, call by call.
    pub(crate) fn discards(&self) -> Vec<Range<u64>> {
        self.state().discards.clone()
    }

    /// Each discard takes this long from now on.
    pub(crate) fn slow_discards(&self, takes: Duration) {
        self.state().discard_takes = takes;
    }

    /// Discards fail from now on.
    pub(crate) fn fail_discards(&self) {
        self.state().discards_fail = true;
    }

    fn clear(&self, range: Range<u64>) -> Result<(), Errno> {
        let mut state = self.state();
        if state.discards_fail {
            return Err(Errno::EIO);
        }
        let pages = range.start / PAGE_BYTES..range.end.div_ceil(PAGE_BYTES);
        state.pages.retain(|page, _| !pages.contains(page));
        state.discards.push(range);
        Ok(())
    }
}

impl Backend for SparseBackend {
    fn geometry(&self) -> Geometry {
        Geometry {
            size: self.size,
            allocation_unit: 4096,
            rotational: false,
        }
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            discard: true,
            zero_punch: true,
            extents: true,
            ..Capabilities::default()
        }
    }

    fn read(
        &self,
        offset: u64,
        mut buffer: FrameBuf,
    ) -> BackendFuture<'_, (FrameBuf, Result<(), Errno>)> {
        Box::pin(async move {
            let state = self.state();
            for i in 0..buffer.len() {
                let page = buffer.page_mut(i);
                match state.pages.get(&(offset / PAGE_BYTES + i as u64)) {
                    Some(data) => page.copy_from_slice(data),
                    None => page.fill(0),
                }
            }
            drop(state);
            (buffer, Ok(()))
        })
    }

    fn write(&self, offset: u64, data: FrameRefs) -> BackendFuture<'_, Result<(), Errno>> {
        Box::pin(async move {
            let mut bytes = vec![0; data.bytes()];
            data.copy_to(&mut bytes);
            let mut state = self.state();
            for (page, chunk) in (offset / PAGE_BYTES..).zip(bytes.chunks(PAGE_SIZE)) {
                let mut chunk = chunk.to_vec();
                chunk.resize(PAGE_SIZE, 0);
                state.pages.insert(page, chunk);
            }
            Ok(())
        })
    }

    fn write_zeroes(
        &self,
        range: Range<u64>,
        _mode: ZeroMode,
    ) -> BackendFuture<'_, Result<(), Errno>> {
        self.discard(range)
    }

    fn discard(&self, range: Range<u64>) -> BackendFuture<'_, Result<(), Errno>> {
        Box::pin(async move {
            let takes = self.state().discard_takes;
            tokio::time::sleep(takes).await;
            self.clear(range)
        })
    }

    fn extents(
        &self,
        range: Range<u64>,
        _most: usize,
    ) -> BackendFuture<'_, Result<Vec<BackendExtent>, Errno>> {
        Box::pin(async move {
            let state = self.state();
            let mut extents: Vec<BackendExtent> = Vec::new();
            let mut push = |range: Range<u64>, kind| match extents.last_mut() {
                _ if range.is_empty() => {}
                Some(last) if last.kind == kind => last.range.end = range.end,
                _ => extents.push(BackendExtent { range, kind }),
            };
            let mut at = range.start;
            let pages = range.start / PAGE_BYTES..range.end.div_ceil(PAGE_BYTES);
            for page in state.pages.range(pages).map(|(page, _)| *page) {
                let data = (page * PAGE_BYTES).max(at)..((page + 1) * PAGE_BYTES).min(range.end);
                push(at..data.start, ExtentKind::Hole);
                at = data.end;
                push(data, ExtentKind::Data);
            }
            push(at..range.end, ExtentKind::Hole);
            Ok(extents)
        })
    }

    fn sync(&self) -> BackendFuture<'_, Result<(), Errno>> {
        Box::pin(async { Ok(()) })
    }
}
