//! The races that must be impossible, each driven by paused fault points, and what must hold afterwards.
//!
//! A test is named after its row of the design's list, `race_NN_...`. It stops one party at the worst moment, lets the
//! other do what it can, lets the first go on, and checks the result. [`idle`] is how a test knows that the other party
//! can't go on: with paused tokio time a sleep ends only when no task can run.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_epoch as epoch;
use tokio::task::JoinHandle;
use weir_faults::{Errno, FaultContext, Faults, RequestKinds};

use crate::backend::ZeroMode;
use crate::frame::{FrameRefs, PAGE_BYTES, PAGE_SIZE};
use crate::options::{CacheOptions, MIN_CACHE_BYTES};
use crate::page_cache::{PageCache, bytes_of};
use crate::pages::{DIRTY, PRESENT};
use crate::pressure::memory::Budget;
use crate::testing::{TestBackend, read, write};

mod background;
mod beside;
mod cancelled;
mod device;
mod durability;
mod fills;
mod holds;
mod locks;
mod looks;
mod losses;
mod memory;
mod order;
mod others;
mod power;
mod slices;

/// Bytes of a page, as the tests count.
const PAGE: u64 = PAGE_BYTES;

/// A request under way: what it will return.
type Running<T> = JoinHandle<Result<T, Errno>>;

/// A cache of the smallest size over a test backend, and the faults that stop it.
struct Race {
    backend: Arc<TestBackend>,
    faults: Faults,
    cache: Arc<PageCache>,
}

impl Race {
    /// A device of `pages` pages, each full of `byte`.
    fn new(pages: u64, byte: u8) -> Self {
        Self::sized(pages * PAGE, byte)
    }

    fn sized(bytes: u64, byte: u8) -> Self {
        let options = CacheOptions {
            cache_bytes: MIN_CACHE_BYTES,
            ..CacheOptions::default()
        };
        Self::with(bytes, byte, &options)
    }

    fn with(bytes: u64, byte: u8, options: &CacheOptions) -> Self {
        let size = usize::try_from(bytes).unwrap();
        let backend = Arc::new(TestBackend::new(size, 1));
        backend.fill(&vec![byte; size]);
        let faults = Faults::new();
        let cache = PageCache::open(Arc::clone(&backend) as _, options, &faults).unwrap();
        Self {
            backend,
            faults,
            cache,
        }
    }

    fn context(&self, kind: RequestKinds) -> FaultContext {
        self.faults.context(kind)
    }

    /// The next request that comes to `point` waits there.
    fn stop_next(&self, point: &str) {
        self.faults
            .set_points(&format!("class {point} oneshot pause"))
            .unwrap_or_else(|error| panic!("{point}: {error}"));
    }

    /// Waits until a request is stopped at `point`.
    async fn stopped(&self, point: &str) {
        let class = format!("class {point}");
        let stopped = tokio::time::timeout(settle_time(), self.faults.paused(&class)).await;
        assert_eq!(stopped.expect("someone comes by"), Ok(1), "at {point}");
    }

    /// Lets the request that is stopped at `point` go on.
    fn go(&self, point: &str) {
        assert_eq!(self.faults.release(&format!("class {point}")), Ok(1));
    }

    fn read(&self, range: Range<u64>) -> Running<Vec<u8>> {
        let (cache, context) = (Arc::clone(&self.cache), self.context(RequestKinds::READ));
        tokio::spawn(async move { read(&cache, &context, range).await })
    }

    fn write(&self, offset: u64, data: &[u8]) -> Running<()> {
        let (cache, context) = (Arc::clone(&self.cache), self.context(RequestKinds::WRITE));
        let data = data.to_vec();
        tokio::spawn(async move { write(&cache, &context, offset, &data).await })
    }

    fn zero(&self, range: Range<u64>) -> Running<()> {
        let (cache, context) = (Arc::clone(&self.cache), self.context(RequestKinds::ZERO));
        tokio::spawn(async move { cache.zero(&context, range, ZeroMode::MayPunch, false).await })
    }

    fn trim(&self, range: Range<u64>) -> Running<()> {
        let (cache, context) = (Arc::clone(&self.cache), self.context(RequestKinds::TRIM));
        tokio::spawn(async move { cache.trim(&context, range).await })
    }

    fn flush(&self) -> Running<()> {
        let (cache, context) = (Arc::clone(&self.cache), self.context(RequestKinds::FLUSH));
        tokio::spawn(async move { cache.flush(&context).await })
    }

    fn persist(&self, range: Range<u64>) -> Running<()> {
        let (cache, context) = (Arc::clone(&self.cache), self.context(RequestKinds::WRITE));
        tokio::spawn(async move { cache.persist(&context, range).await })
    }

    /// A hit: what the cache holds of `range`, if it holds all of it.
    fn cached(&self, range: Range<u64>) -> Option<Vec<u8>> {
        let mut out = FrameRefs::new(Arc::clone(self.cache.pool()));
        let length = usize::try_from(range.end - range.start).unwrap();
        self.cache.try_read(range.start, length, &mut out).then(|| {
            let mut data = vec![0; length];
            out.copy_to(&mut data);
            data
        })
    }

    /// The last byte that a client would be given of each page of `pages`, which hold one value each.
    async fn bytes(&self, pages: Range<u64>) -> Vec<u8> {
        let data = done(self.read(bytes_of(&pages))).await;
        data.chunks(PAGE_SIZE)
            .map(|page| uniform(page).expect("one value per page"))
            .collect()
    }

    /// Evicts whatever may be evicted.
    fn evict_all(&self) {
        // Once for the visited bits of pages that were used.
        self.cache.evict(usize::MAX);
        self.cache.evict(usize::MAX);
    }

    /// Flushes, then checks that nothing is left over: counters, locks, operations, slots, tags, frames and contents.
    async fn check_quiescent(&self) {
        self.faults.reset_points();
        others_have_run().await;
        done(self.flush()).await;
        check_quiescent(self).await;
    }
}

/// Waits until no task can run: every task waits for something that only the test can end.
async fn idle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

/// As [`idle`], and everything that ends by itself has ended.
async fn others_have_run() {
    tokio::time::sleep(settle_time()).await;
}

/// Longer than all that ends by itself takes, less than the background task's tick.
const fn settle_time() -> Duration {
    Duration::from_millis(500)
}

/// The outcome of a request that nothing keeps from succeeding.
async fn done<T>(running: Running<T>) -> T {
    outcome(running).await.expect("the request succeeds")
}

/// The outcome of a request that nothing keeps from ending.
async fn outcome<T>(running: Running<T>) -> Result<T, Errno> {
    tokio::time::timeout(Duration::from_secs(600), running)
        .await
        .expect("the request ends")
        .expect("the request does not panic")
}

/// Asserts that a request waits, and for nothing that ends by itself.
async fn waits<T>(running: &Running<T>, what: &str) {
    idle().await;
    assert!(!running.is_finished(), "{what} did not wait");
}

fn uniform(bytes: &[u8]) -> Option<u8> {
    bytes.iter().all(|byte| *byte == bytes[0]).then(|| bytes[0])
}

/// What must hold when no request runs and all is flushed.
async fn check_quiescent(race: &Race) {
    let cache = &race.cache;
    let stats = cache.stats();
    let left = (
        stats.dirty_pages,
        stats.in_flight_pages,
        stats.held_pages,
        stats.unstable_pages,
        cache.unclean_pages(),
    );
    assert_eq!(left, (0, 0, 0, 0, 0), "unclean pages after a flush");
    assert!(
        cache.writeback.under_way(&(0..u64::MAX)).is_empty(),
        "an operation is still listed"
    );
    assert_eq!(cache.pool().waiting(), 0, "someone waits for memory");
    for (budget, frames) in [
        (Budget::Arrived, cache.limits.payload_frames),
        (Budget::Ahead, cache.limits.payload_ahead_frames),
    ] {
        assert!(
            cache.try_payload_permit(budget, frames).is_some(),
            "part of the payloads' budget is gone: {budget:?}"
        );
    }
    let alone = tokio::time::timeout(Duration::from_secs(1), cache.add_lock.exclusive()).await;
    drop(alone.expect("someone still holds the add lock"));
    assert!(
        race.backend.durable() == race.backend.volatile(),
        "a flush left something volatile behind"
    );
    check_slots(race);
}

/// Every slot is empty or clean, agrees with its tags, and holds what the backend holds; every frame is accounted for.
fn check_slots(race: &Race) {
    let cache = &race.cache;
    let pool = cache.pool();
    let image = race.backend.volatile();
    let mut frames = std::collections::BTreeSet::new();
    for page in 0..cache.size().div_ceil(PAGE) {
        let pin = epoch::pin();
        let Some(state) = cache.table.state(page, &pin) else {
            continue;
        };
        let tags = cache.table.tags(page, &pin);
        assert_eq!(
            tags,
            [!state.is_empty(), state.has(DIRTY)],
            "the tags of page {page}, which is {state:?}"
        );
        if state.is_empty() {
            continue;
        }
        assert!(state.is_clean(), "page {page} is left as {state:?}");
        assert!(state.has(PRESENT));
        let frame = state.frame();
        assert!(frames.insert(frame), "frame {frame} is in two slots");
        assert_eq!(pool.count(frame), 1, "references to page {page}");
        assert_eq!(pool.owner(frame), page, "the owner of frame {frame}");
        // Not with a read: that might start readahead.
        let (frame, _) = cache.table.take_present(page, &pin).expect("it is present");
        let mut refs = FrameRefs::new(Arc::clone(pool));
        refs.push(frame, 0, PAGE_SIZE, false);
        let mut data = [0; PAGE_SIZE];
        refs.copy_to(&mut data);
        let start = usize::try_from(page).unwrap() * PAGE_SIZE;
        let end = image.len().min(start + PAGE_SIZE);
        assert!(
            data[..end - start] == image[start..end],
            "clean page {page} is not what the backend holds"
        );
        assert!(
            data[end - start..].iter().all(|byte| *byte == 0),
            "page {page} is not zero past the end of the device"
        );
    }
    let stats = cache.stats();
    assert_eq!(
        stats.resident_pages,
        frames.len() as u64,
        "pages present by count and by slot"
    );
    let withheld = stats.frames - stats.resident_pages - stats.free_frames;
    let nodes = stats
        .metadata_bytes
        .saturating_sub(stats.frames * 16)
        .div_ceil(PAGE);
    assert!(
        withheld <= nodes,
        "{withheld} frames are lost (the tree has {nodes} pages): {stats:?}"
    );
}
