//! What the tests of every backend share: frames with contents, and a flat model.

use std::ops::Range;
use std::sync::Arc;

use weir_cache::{
    Backend, BackendExtent, Errno, ExtentKind, FrameBuf, FramePool, FrameRefs, PAGE_SIZE, ZeroMode,
};

pub(crate) mod lasting;

/// Frames that one test may hold at a time.
const FRAMES: u32 = 4096;

/// A backend with a pool of frames, called as the cache calls it.
pub(crate) struct Bench {
    pub(crate) backend: Arc<dyn Backend>,
    pool: Arc<FramePool>,
}

impl Bench {
    pub(crate) fn new(backend: impl Backend) -> Self {
        Self::over(Arc::new(backend))
    }

    pub(crate) fn over(backend: Arc<dyn Backend>) -> Self {
        let pool = FramePool::new(FRAMES).expect("address space");
        Self { backend, pool }
    }

    pub(crate) fn frames(&self, pages: usize) -> FrameBuf {
        let mut buffer = FrameBuf::new(Arc::clone(&self.pool));
        assert!(buffer.grow_to(pages), "out of frames");
        buffer
    }

    pub(crate) fn refs(&self, bytes: &[u8]) -> FrameRefs {
        let mut buffer = self.frames(bytes.len().div_ceil(PAGE_SIZE));
        for (index, chunk) in bytes.chunks(PAGE_SIZE).enumerate() {
            buffer.page_mut(index)[..chunk.len()].copy_from_slice(chunk);
        }
        buffer.freeze(bytes.len())
    }

    pub(crate) async fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), Errno> {
        self.backend.write(offset, self.refs(bytes)).await
    }

    /// `pages` pages from `offset`, into frames that held something else.
    pub(crate) async fn read(&self, offset: u64, pages: usize) -> Result<Vec<u8>, Errno> {
        let mut buffer = self.frames(pages);
        for index in 0..pages {
            buffer.page_mut(index).fill(0xEE);
        }
        let (buffer, outcome) = self.backend.read(offset, buffer).await;
        outcome?;
        let mut bytes = Vec::with_capacity(pages * PAGE_SIZE);
        for index in 0..pages {
            bytes.extend_from_slice(buffer.page(index));
        }
        Ok(bytes)
    }

    pub(crate) async fn discard(&self, range: Range<u64>) -> Result<(), Errno> {
        self.backend.discard(range).await
    }

    pub(crate) async fn zero(&self, range: Range<u64>, mode: ZeroMode) -> Result<(), Errno> {
        self.backend.write_zeroes(range, mode).await
    }

    pub(crate) async fn resize(&self, size: u64) -> Result<(), Errno> {
        self.backend.resize(size).await
    }

    /// As a FLUSH does.
    pub(crate) async fn sync(&self) -> Result<(), Errno> {
        self.backend.sync().await?;
        self.backend.cover(0..u64::MAX).await
    }

    pub(crate) async fn extents(
        &self,
        range: Range<u64>,
        most: usize,
    ) -> Result<Vec<BackendExtent>, Errno> {
        self.backend.extents(range, most).await
    }
}

/// Bytes that tell their place and the write that they came from.
pub(crate) fn pattern(seed: u8, length: usize) -> Vec<u8> {
    (0..length)
        .map(|at| seed.wrapping_add((at / 7 % 251).to_le_bytes()[0]) | 1)
        .collect()
}

/// Extents cover the range from its start without gaps, none is empty, and neighbours differ.
pub(crate) fn assert_well_formed(extents: &[BackendExtent], range: &Range<u64>) {
    let mut at = range.start;
    for extent in extents {
        assert_eq!(extent.range.start, at, "{extents:?}");
        assert!(
            extent.range.end > at && extent.range.end <= range.end,
            "{extents:?} in {range:?}"
        );
        at = extent.range.end;
    }
}

/// What a model test does to a backend.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Write { page: u64, pages: usize, seed: u8 },
    Discard { start: u64, length: u64 },
    Zero { page: u64, pages: u64 },
    Resize { size: u64 },
}

/// Runs `steps` on a backend of `size` bytes and on a flat vector, and compares contents and extents after each. Every
/// step has to succeed: a store that can't do one leaves it out of `steps`.
pub(crate) async fn run_model(bench: &Bench, size: u64, steps: &[Step]) {
    let mut model = vec![0_u8; usize::try_from(size).expect("small")];
    for step in steps {
        let length = model.len() as u64;
        match *step {
            Step::Write { page, pages, seed } => {
                let start = page * PAGE_SIZE as u64;
                let end = (start + (pages * PAGE_SIZE) as u64).min(length);
                if start < end {
                    let bytes = pattern(seed, usize::try_from(end - start).expect("small"));
                    bench
                        .write(start, &bytes)
                        .await
                        .expect("a write inside the device");
                    model[index(start)..index(end)].copy_from_slice(&bytes);
                }
            }
            Step::Discard {
                start,
                length: bytes,
            } => {
                let range = start.min(length)..(start + bytes).min(length);
                bench.discard(range.clone()).await.expect("a discard");
                model[index(range.start)..index(range.end)].fill(0);
            }
            Step::Zero { page, pages } => {
                let start = (page * PAGE_SIZE as u64).min(length);
                let end = (start + pages * PAGE_SIZE as u64).min(length);
                bench
                    .zero(start..end, ZeroMode::MayPunch)
                    .await
                    .expect("zeroes");
                model[index(start)..index(end)].fill(0);
            }
            Step::Resize { size } => {
                bench.resize(size).await.expect("a resize");
                model.resize(index(size), 0);
            }
        }
        compare(bench, &model, step).await;
    }
}

async fn compare(bench: &Bench, model: &[u8], step: &Step) {
    let length = model.len() as u64;
    assert_eq!(bench.backend.geometry().size, length);
    let pages = model.len().div_ceil(PAGE_SIZE);
    let mut expected = model.to_vec();
    expected.resize(pages * PAGE_SIZE, 0);
    assert!(
        bench.read(0, pages).await.expect("a read") == expected,
        "contents differ after {step:?}"
    );
    let extents = bench.extents(0..length, usize::MAX).await.expect("extents");
    assert_well_formed(&extents, &(0..length));
    assert_eq!(extents.last().map_or(0, |extent| extent.range.end), length);
    for extent in extents
        .iter()
        .filter(|extent| extent.kind == ExtentKind::Hole)
    {
        let bytes = &model[index(extent.range.start)..index(extent.range.end)];
        assert!(
            bytes.iter().all(|byte| *byte == 0),
            "data in a hole after {step:?}: {extent:?}"
        );
    }
}

fn index(at: u64) -> usize {
    usize::try_from(at).expect("small")
}

/// Steps for a device of about `pages` pages, its end often inside a page.
pub(crate) fn steps(pages: u64) -> impl proptest::strategy::Strategy<Value = Vec<Step>> {
    use proptest::prelude::*;
    let bytes = pages * PAGE_SIZE as u64;
    let step = prop_oneof![
        4 => (0..pages, 1..20_usize, any::<u8>()).prop_map(|(page, pages, seed)| Step::Write { page, pages, seed }),
        2 => (0..bytes, 0..bytes).prop_map(|(start, length)| Step::Discard { start, length }),
        2 => (0..pages, 1..20_u64).prop_map(|(page, pages)| Step::Zero { page, pages }),
        1 => (1..bytes).prop_map(|size| Step::Resize { size }),
    ];
    proptest::collection::vec(step, 1..24)
}
