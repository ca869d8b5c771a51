//! A backend for tests: memory with two images, one volatile and one durable, that can fail and delay on purpose.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use weir_faults::{Errno, FaultContext, rng::Rng};

use crate::backend::{
    Backend, BackendExtent, BackendFuture, Capabilities, ExtentKind, Geometry, ZeroMode,
};
use crate::frame::{FrameBuf, FrameRefs, PAGE_SIZE};
use crate::page_cache::PageCache;

pub(crate) mod sparse;

/// How a test backend misbehaves.
#[derive(Debug, Default)]
pub(crate) struct Behaviour {
    /// Each call takes a random time up to this long (paused tokio time).
    pub(crate) delay_max: Option<Duration>,
    /// How many out of a thousand calls fail, by operation.
    pub(crate) failures_per_mille: BTreeMap<&'static str, u64>,
    /// Writes that touch these bytes fail.
    pub(crate) bad: Range<u64>,
    /// A read takes the first half of each page, waits for this long, and takes the second half: no store promises more
    /// while a page is written.
    pub(crate) halves_apart: Option<Duration>,
    /// A sync that fails loses some of the pages that it was to cover, and later syncs succeed without these pages, as
    /// on Linux.
    pub(crate) forgets: bool,
}

#[derive(Debug)]
struct Store {
    /// What reads return.
    volatile: Vec<u8>,
    /// What would survive a power cut if nothing unsynced did.
    durable: Vec<u8>,
    rng: Rng,
    behaviour: Behaviour,
    writes: Vec<Range<u64>>,
    syncs: u64,
    allocation_unit: u32,
}

impl Store {
    /// What changes the shape of a file is in its file system's journal, and so durable before the data is.
    fn each(&mut self, change: impl Fn(&mut Vec<u8>)) {
        change(&mut self.volatile);
        change(&mut self.durable);
    }

    /// After a sync of `image` has failed.
    fn forget(&mut self, image: &[u8]) {
        if !self.behaviour.forgets {
            return;
        }
        let known = self.volatile.len().min(image.len()).min(self.durable.len());
        for start in (0..known).step_by(PAGE_SIZE) {
            let page = start..(start + PAGE_SIZE).min(known);
            // What was written since stays: it is dirty in the system's cache.
            if self.volatile[page.clone()] == image[page.clone()] && self.rng.below(2) == 0 {
                self.volatile[page.clone()].copy_from_slice(&self.durable[page]);
            }
        }
    }
}

/// Memory that behaves as told.
#[derive(Debug)]
pub(crate) struct TestBackend(Mutex<Store>);

impl TestBackend {
    pub(crate) fn new(size: usize, seed: u64) -> Self {
        Self(Mutex::new(Store {
            volatile: vec![0; size],
            durable: vec![0; size],
            rng: Rng::new(seed),
            behaviour: Behaviour::default(),
            writes: Vec::new(),
            syncs: 0,
            allocation_unit: 4096,
        }))
    }

    fn store(&self) -> std::sync::MutexGuard<'_, Store> {
        self.0.lock().unwrap()
    }

    /// To be called before the cache is opened.
    pub(crate) fn set_allocation_unit(&self, bytes: u32) {
        self.store().allocation_unit = bytes;
    }

    pub(crate) fn behave(&self, behaviour: Behaviour) {
        self.store().behaviour = behaviour;
    }

    /// Overwrites both images, without a request.
    pub(crate) fn fill(&self, bytes: &[u8]) {
        let mut store = self.store();
        store.volatile.copy_from_slice(bytes);
        store.durable.copy_from_slice(bytes);
    }

    /// The power fails: what no sync has covered is lost.
    pub(crate) fn lose_power(&self) {
        let mut store = self.store();
        store.volatile = store.durable.clone();
    }

    pub(crate) fn volatile(&self) -> Vec<u8> {
        self.store().volatile.clone()
    }

    pub(crate) fn durable(&self) -> Vec<u8> {
        self.store().durable.clone()
    }

    /// The writes so far, in order of completion.
    pub(crate) fn writes(&self) -> Vec<Range<u64>> {
        self.store().writes.clone()
    }

    pub(crate) fn syncs(&self) -> u64 {
        self.store().syncs
    }

    /// Half of the delay lies before the work and half behind it, so that completions overtake each other.
    async fn pause(&self) {
        let delay = {
            let mut store = self.store();
            store.behaviour.delay_max.map(|most| {
                let micros = u64::try_from(most.as_micros()).unwrap();
                Duration::from_micros(store.rng.below(micros + 1) / 2)
            })
        };
        if let Some(delay) = delay {
            tokio::time::sleep(delay).await;
        }
    }

    fn fails(&self, operation: &'static str) -> Result<(), Errno> {
        let mut store = self.store();
        let share = store
            .behaviour
            .failures_per_mille
            .get(operation)
            .copied()
            .unwrap_or(0);
        if share > 0 && store.rng.below(1000) < share {
            Err(Errno::EIO)
        } else {
            Ok(())
        }
    }

    /// Reads the bytes `part` of each page; past the end there are zeroes.
    fn copy_halves(&self, offset: u64, buffer: &mut FrameBuf, part: Range<usize>) {
        let store = self.store();
        for i in 0..buffer.len() {
            let start = usize::try_from(offset).unwrap() + i * PAGE_SIZE + part.start;
            let start = start.min(store.volatile.len());
            let end = (start + part.len()).min(store.volatile.len());
            let bytes = &mut buffer.page_mut(i)[part.clone()];
            bytes.fill(0);
            bytes[..end - start].copy_from_slice(&store.volatile[start..end]);
        }
    }

    async fn clear(&self, operation: &'static str, range: Range<u64>) -> Result<(), Errno> {
        self.pause().await;
        self.fails(operation)?;
        self.store().volatile[span(&range)].fill(0);
        self.pause().await;
        Ok(())
    }
}

fn span(range: &Range<u64>) -> Range<usize> {
    usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()
}

impl Backend for TestBackend {
    fn geometry(&self) -> Geometry {
        let store = self.store();
        Geometry {
            size: store.volatile.len() as u64,
            allocation_unit: store.allocation_unit,
            rotational: false,
        }
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            discard: true,
            zero_keep: true,
            zero_punch: true,
            resize: true,
            extents: true,
            shift: true,
        }
    }

    fn read(
        &self,
        offset: u64,
        mut buffer: FrameBuf,
    ) -> BackendFuture<'_, (FrameBuf, Result<(), Errno>)> {
        Box::pin(async move {
            self.pause().await;
            if let Err(errno) = self.fails("read") {
                return (buffer, Err(errno));
            }
            let halves_apart = self.store().behaviour.halves_apart;
            self.copy_halves(offset, &mut buffer, 0..PAGE_SIZE / 2);
            if let Some(time) = halves_apart {
                tokio::time::sleep(time).await;
            }
            self.copy_halves(offset, &mut buffer, PAGE_SIZE / 2..PAGE_SIZE);
            self.pause().await;
            (buffer, Ok(()))
        })
    }

    fn write(&self, offset: u64, data: FrameRefs) -> BackendFuture<'_, Result<(), Errno>> {
        Box::pin(async move {
            self.pause().await;
            self.fails("write")?;
            {
                let mut store = self.store();
                let range = offset..offset + data.bytes() as u64;
                let bad = &store.behaviour.bad;
                if range.start < bad.end && bad.start < range.end {
                    return Err(Errno::EIO);
                }
                data.copy_to(&mut store.volatile[span(&range)]);
                store.writes.push(range);
            }
            self.pause().await;
            Ok(())
        })
    }

    fn write_zeroes(
        &self,
        range: Range<u64>,
        _mode: ZeroMode,
    ) -> BackendFuture<'_, Result<(), Errno>> {
        Box::pin(self.clear("zero", range))
    }

    fn discard(&self, range: Range<u64>) -> BackendFuture<'_, Result<(), Errno>> {
        Box::pin(self.clear("discard", range))
    }

    fn extents(
        &self,
        range: Range<u64>,
        _most: usize,
    ) -> BackendFuture<'_, Result<Vec<BackendExtent>, Errno>> {
        Box::pin(async move {
            self.fails("extents")?;
            let store = self.store();
            let mut extents: Vec<BackendExtent> = Vec::new();
            let mut at = range.start;
            // The device may have been cut meanwhile.
            let known = range.end.min(store.volatile.len() as u64);
            while at < known {
                let end = ((at / PAGE_SIZE as u64 + 1) * PAGE_SIZE as u64).min(known);
                let zero = store.volatile[span(&(at..end))]
                    .iter()
                    .all(|byte| *byte == 0);
                let kind = if zero {
                    ExtentKind::Hole
                } else {
                    ExtentKind::Data
                };
                match extents.last_mut() {
                    Some(last) if last.kind == kind => last.range.end = end,
                    _ => extents.push(BackendExtent {
                        range: at..end,
                        kind,
                    }),
                }
                at = end;
            }
            Ok(extents)
        })
    }

    fn sync(&self) -> BackendFuture<'_, Result<(), Errno>> {
        Box::pin(async move {
            // Covers what completed before it was submitted, nothing more.
            let image = self.volatile();
            self.pause().await;
            if let Err(errno) = self.fails("sync") {
                self.store().forget(&image);
                return Err(errno);
            }
            let mut store = self.store();
            store.durable = image;
            store.syncs += 1;
            Ok(())
        })
    }

    fn resize(&self, size: u64) -> BackendFuture<'_, Result<(), Errno>> {
        Box::pin(async move {
            self.fails("resize")?;
            self.store().each(|image| {
                image.resize(usize::try_from(size).unwrap(), 0);
            });
            self.pause().await;
            Ok(())
        })
    }

    fn insert_range(&self, offset: u64, length: u64) -> BackendFuture<'_, Result<(), Errno>> {
        Box::pin(async move {
            self.fails("shift")?;
            let range = span(&(offset..offset + length));
            let at = range.start;
            self.store().each(|image| {
                image.splice(at..at, std::iter::repeat_n(0, range.len()));
            });
            self.pause().await;
            Ok(())
        })
    }

    fn collapse_range(&self, offset: u64, length: u64) -> BackendFuture<'_, Result<(), Errno>> {
        Box::pin(async move {
            self.fails("shift")?;
            self.store().each(|image| {
                image.drain(span(&(offset..offset + length)));
            });
            self.pause().await;
            Ok(())
        })
    }
}

/// Steps of a test between two steps of code that has no await between them.
pub(crate) mod interleave {
    use std::cell::RefCell;

    type Step = (&'static str, Box<dyn Fn()>);

    thread_local! {
        static STEP: RefCell<Option<Step>> = const { RefCell::new(None) };
    }

    /// Runs `step` whenever this thread comes to `place`, until [`clear`].
    pub(crate) fn set(place: &'static str, step: impl Fn() + 'static) {
        STEP.set(Some((place, Box::new(step))));
    }

    /// Forgets the step.
    pub(crate) fn clear() {
        STEP.set(None);
    }

    /// The code under test is at `place`. What it does inside the step is not interrupted again.
    pub(crate) fn at(place: &'static str) {
        let Some(step) = STEP.take() else { return };
        if step.0 == place {
            step.1();
        }
        STEP.set(Some(step));
    }
}

/// Writes `data` at `offset`, slice by slice, as a session does.
pub(crate) async fn write(
    cache: &Arc<PageCache>,
    context: &FaultContext,
    offset: u64,
    data: &[u8],
) -> Result<(), Errno> {
    let mut at = 0;
    while at < data.len() {
        let start = offset + at as u64;
        let length = cache.slice_at(start, (data.len() - at) as u64);
        let mut payload = cache.payload(start, length).await;
        assert_eq!(payload.copy_from(&data[at..]), length);
        cache.write(context, payload).await?;
        at += length;
    }
    Ok(())
}

/// Reads `range`, slice by slice, as a session does.
pub(crate) async fn read(
    cache: &Arc<PageCache>,
    context: &FaultContext,
    range: Range<u64>,
) -> Result<Vec<u8>, Errno> {
    let mut data = Vec::new();
    let mut at = range.start;
    while at < range.end {
        let length = cache.slice_at(at, range.end - at);
        let refs = cache.read(context, at, length).await?;
        let start = data.len();
        data.resize(start + length, 0xee);
        refs.copy_to(&mut data[start..]);
        at += length as u64;
    }
    Ok(data)
}
