#![doc = include_str!("README.md")]
//!
//! # How
//! This store has a size and nothing else. A mutation has nothing to change, so each is done at once.
//!
//! This store breaks one promise of [`Backend`] on purpose: later reads don't see a completed write. Weir itself
//! doesn't rely on that promise. It is handed on to clients, and README.md tells them what they get instead.
//!
//! Reading is still work, because pages are filled. Every few pages it is charged to the budget that the runtime gives
//! a task, so a task that asks for much lets others have their turn.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::task::coop::consume_budget as yield_if_due;
use weir_cache::{
    Backend, BackendExtent, BackendFuture, Capabilities, Errno, ExtentKind, FrameBuf, FrameRefs,
    Geometry, ZeroMode,
};

use crate::backend::scheme::{OpenStore, Scheme, SizedSource};
use crate::limits::DEVICE_BYTES_MAX;

/// The page: there is no space that could be given back in smaller pieces.
const ALLOCATION_UNIT: u32 = 4096;

/// Pages that are filled for one unit of a task's budget, which has 128 units: a poll takes some hundred microseconds.
const PAGES_PER_UNIT: usize = 8;

/// For a user that starts it with data in mind.
const NOTHING_IS_KEPT: &str =
    "nothing is kept: what is written reads back while it is cached, and as zeroes afterwards";

/// `zero:SIZE`
pub static SCHEME: Scheme = Scheme {
    name: "zero",
    form: "zero:SIZE",
    about: "zeroes; what is written is lost (for measuring and trying out)",
    parse: |rest| {
        SizedSource::parse(&SCHEME, rest, |size| {
            let mut store = OpenStore::from(ZeroBackend::new(size));
            store.remarks.push(NOTHING_IS_KEPT.to_owned());
            store
        })
    },
};

/// A device of zeroes.
#[derive(Debug)]
pub struct ZeroBackend {
    size: AtomicU64,
}

impl ZeroBackend {
    /// A device of `size` bytes.
    #[must_use]
    pub fn new(size: u64) -> Self {
        assert!(size <= DEVICE_BYTES_MAX, "a device of {size} bytes");
        Self {
            size: AtomicU64::new(size),
        }
    }

    fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }
}

fn done<'a>() -> BackendFuture<'a, Result<(), Errno>> {
    Box::pin(async { Ok(()) })
}

impl Backend for ZeroBackend {
    fn geometry(&self) -> Geometry {
        Geometry {
            size: self.size(),
            allocation_unit: ALLOCATION_UNIT,
            rotational: false,
        }
    }

    fn capabilities(&self) -> Capabilities {
        // There is no `zero_keep`: `extents` says that nothing is ever allocated.
        Capabilities {
            discard: true,
            zero_keep: false,
            zero_punch: true,
            resize: true,
            extents: true,
            shift: false,
        }
    }

    fn read(
        &self,
        _offset: u64,
        mut buffer: FrameBuf,
    ) -> BackendFuture<'_, (FrameBuf, Result<(), Errno>)> {
        Box::pin(async move {
            for index in 0..buffer.len() {
                if index.is_multiple_of(PAGES_PER_UNIT) {
                    yield_if_due().await;
                }
                buffer.page_mut(index).fill(0);
            }
            (buffer, Ok(()))
        })
    }

    fn write(&self, _offset: u64, _data: FrameRefs) -> BackendFuture<'_, Result<(), Errno>> {
        done()
    }

    fn sync(&self) -> BackendFuture<'_, Result<(), Errno>> {
        done()
    }

    fn write_zeroes(
        &self,
        _range: Range<u64>,
        mode: ZeroMode,
    ) -> BackendFuture<'_, Result<(), Errno>> {
        match mode {
            ZeroMode::MayPunch => done(),
            ZeroMode::KeepAllocated => Box::pin(async { Err(Errno::ENOTSUP) }),
        }
    }

    fn discard(&self, _range: Range<u64>) -> BackendFuture<'_, Result<(), Errno>> {
        done()
    }

    fn extents(
        &self,
        range: Range<u64>,
        most: usize,
    ) -> BackendFuture<'_, Result<Vec<BackendExtent>, Errno>> {
        let range = range.start..range.end.min(self.size());
        let hole = BackendExtent {
            range,
            kind: ExtentKind::Hole,
        };
        let found = (most > 0 && !hole.range.is_empty()).then_some(hole);
        Box::pin(async { Ok(found.into_iter().collect()) })
    }

    fn resize(&self, size: u64) -> BackendFuture<'_, Result<(), Errno>> {
        Box::pin(async move {
            if size > DEVICE_BYTES_MAX {
                return Err(Errno::EFBIG);
            }
            self.size.store(size, Ordering::Release);
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests;
