mod charges;
mod shifts;

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use weir_faults::rng::Rng;
use weir_faults::{Errno, FaultContext, Faults, RequestKinds};

use super::*;
use crate::backend::ZeroMode;
use crate::options::{CacheOptions, MIN_CACHE_BYTES};
use crate::testing::sparse::SparseBackend;
use crate::testing::{Behaviour, TestBackend, interleave, write};

const PAGE: u64 = PAGE_BYTES;
const DEVICE: u64 = 256 * PAGE;

/// Units whose bits are in one leaf of the array.
const LEAF_UNITS: u64 = 512 * 64;
const PETABYTE: u64 = 1 << 50;

/// Makes the second leaf of bits fail, whichever charge needs it.
fn no_memory_for_a_second_leaf(faults: &Faults) {
    faults
        .set_points("class cache:radix:allocate after 1 error ENOMEM")
        .unwrap();
}

struct Bench {
    backend: Arc<TestBackend>,
    cache: Arc<PageCache>,
    faults: Faults,
    context: FaultContext,
}

impl Bench {
    async fn new(quota_pages: u64, filled: usize) -> Self {
        let backend = Arc::new(TestBackend::new(usize::try_from(DEVICE).unwrap(), 1));
        let mut image = vec![0; usize::try_from(DEVICE).unwrap()];
        image[..filled * 4096].fill(1);
        backend.fill(&image);
        let faults = Faults::new();
        let options = CacheOptions {
            cache_bytes: MIN_CACHE_BYTES,
            quota: Some(quota_pages * PAGE),
            ..CacheOptions::default()
        };
        let cache = PageCache::open(Arc::clone(&backend) as _, &options, &faults).unwrap();
        cache.count_space().await.unwrap();
        let context = faults.context(RequestKinds::WRITE);
        Self {
            backend,
            cache,
            faults,
            context,
        }
    }

    async fn write(&self, pages: Range<u64>) -> Result<(), Errno> {
        let length = usize::try_from((pages.end - pages.start) * PAGE).unwrap();
        let mut payload = self.cache.payload(pages.start * PAGE, length).await;
        payload.copy_from(&vec![7; length]);
        self.cache.write(&self.context, payload).await
    }

    fn charged(&self) -> u64 {
        self.cache.quota().unwrap().charged / PAGE
    }

    /// The invariant, counted bit by bit, and what the charges must be when everything is written back.
    fn check(&self) {
        let space = self.cache.quota.as_ref().unwrap();
        let bits = space.charged_units();
        assert_eq!(
            bits,
            self.charged(),
            "shards and bits don't add up to the quota"
        );
        let image = self.backend.volatile();
        for (page, bytes) in image.chunks(4096).enumerate() {
            let data = bytes.iter().any(|byte| *byte != 0);
            let at = page as u64 * PAGE;
            assert_eq!(space.is_charged(&(at..at + PAGE)), data, "page {page}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn no_space_is_told_at_the_write_and_never_at_the_flush() {
    let bench = Bench::new(10, 4).await;
    assert_eq!(bench.charged(), 4, "what was there from the start");
    bench.write(0..10).await.unwrap();
    assert_eq!(bench.write(10..11).await, Err(Errno::ENOSPC));
    assert!(!bench.cache.try_write(&bench.context, 20 * PAGE, &[1; 4096]));
    assert!(
        bench.cache.try_write(&bench.context, 9 * PAGE, &[1; 4096]),
        "its space is there"
    );
    bench.cache.flush(&bench.context).await.unwrap();
    bench.check();
}

#[tokio::test(start_paused = true)]
async fn trim_and_punched_zeroes_give_space_back_and_kept_ones_take_it() {
    let bench = Bench::new(10, 0).await;
    bench.write(0..10).await.unwrap();
    bench
        .cache
        .trim(&bench.context, 0..4 * PAGE + 100)
        .await
        .unwrap();
    assert_eq!(bench.charged(), 6);
    bench
        .cache
        .zero(
            &bench.context,
            4 * PAGE..6 * PAGE,
            ZeroMode::MayPunch,
            false,
        )
        .await
        .unwrap();
    assert_eq!(bench.charged(), 4);
    let keep = |range| {
        bench
            .cache
            .zero(&bench.context, range, ZeroMode::KeepAllocated, false)
    };
    keep(20 * PAGE..26 * PAGE).await.unwrap();
    assert_eq!(bench.charged(), 10);
    assert_eq!(keep(30 * PAGE..31 * PAGE).await, Err(Errno::ENOSPC));
    assert_eq!(bench.charged(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_write_that_fails_keeps_no_space() {
    let bench = Bench::new(10, 0).await;
    bench
        .faults
        .set_points("class cache:insert error EIO")
        .unwrap();
    assert_eq!(bench.write(0..5).await, Err(Errno::EIO));
    bench.faults.set_points("reset").unwrap();
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(bench.charged(), 0);
    bench.write(5..15).await.unwrap();
    bench.cache.flush(&bench.context).await.unwrap();
    bench.check();
}

#[tokio::test(start_paused = true)]
async fn direct_writes_are_charged_too() {
    let bench = Bench::new(4, 0).await;
    let direct = async |pages: Range<u64>| {
        let length = usize::try_from((pages.end - pages.start) * PAGE).unwrap();
        let mut payload = bench.cache.payload(pages.start * PAGE, length).await;
        payload.copy_from(&vec![7; length]);
        bench.cache.write_direct(&bench.context, payload).await
    };
    direct(0..4).await.unwrap();
    assert_eq!(direct(8..9).await, Err(Errno::ENOSPC));
    bench.cache.trim(&bench.context, 0..PAGE).await.unwrap();
    direct(8..9).await.unwrap();
    bench.check();
}

#[tokio::test(start_paused = true)]
async fn shrinking_gives_back_what_was_past_the_end() {
    let bench = Bench::new(10, 0).await;
    bench.write(0..10).await.unwrap();
    bench.cache.resize(4 * PAGE).await.unwrap();
    assert_eq!(bench.charged(), 4);
}

/// Row 11: a write sees "allocated" ‖ a trim deallocates ‖ it dirties without space.
#[tokio::test(start_paused = true)]
async fn race_11_a_trim_waits_for_the_write_whose_space_it_would_take() {
    let bench = Bench::new(1, 1).await;
    bench
        .faults
        .set_points("class cache:write:merge pause")
        .unwrap();
    // Part of an absent page, so that it pauses after its space was charged.
    let mut payload = bench.cache.payload(100, 10).await;
    payload.copy_from(&[9; 10]);
    let (cache, context) = (Arc::clone(&bench.cache), bench.context.clone());
    let write = tokio::spawn(async move { cache.write(&context, payload).await });
    bench
        .faults
        .paused_at_least("class cache:write:merge", 1)
        .await
        .unwrap();
    let (cache, context) = (Arc::clone(&bench.cache), bench.context.clone());
    let trim = tokio::spawn(async move { cache.trim(&context, 0..PAGE).await });
    // Paused time moves only when every task waits.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(
        !trim.is_finished(),
        "a trim took the space of a write under way"
    );
    bench.faults.set_points("reset").unwrap();
    write.await.unwrap().unwrap();
    trim.await.unwrap().unwrap();
    assert_eq!(bench.charged(), 0);
    bench.write(5..6).await.unwrap();
    bench.cache.flush(&bench.context).await.unwrap();
    bench.check();
}

/// It is counted again when nothing is left of its range: the store is not asked what lies past its end.
#[tokio::test(start_paused = true)]
async fn a_write_that_fails_because_the_device_was_cut_keeps_no_space() {
    let bench = Bench::new(8, 0).await;
    bench
        .faults
        .set_points("class cache:write:merge oneshot pause error EIO")
        .unwrap();
    let mut payload = bench.cache.payload(100 * PAGE + 10, 10).await;
    payload.copy_from(&[9; 10]);
    let (cache, context) = (Arc::clone(&bench.cache), bench.context.clone());
    let write = tokio::spawn(async move { cache.write(&context, payload).await });
    bench
        .faults
        .paused_at_least("class cache:write:merge", 1)
        .await
        .unwrap();
    // Goes first when the write gives its guard back, before the units that the write has charged are counted again.
    let cache = Arc::clone(&bench.cache);
    let shrink = tokio::spawn(async move { cache.resize(50 * PAGE + 5).await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    bench.faults.release("class cache:write:merge").unwrap();
    assert_eq!(write.await.unwrap(), Err(Errno::EIO));
    shrink.await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(bench.charged(), 0);
    // A store that is asked for a range past its end panics.
    bench.write(0..8).await.unwrap();
    bench.cache.flush(&bench.context).await.unwrap();
}

/// Both under block, which is shared: the trim's part at the backend is over, and the write's data stays.
#[tokio::test(start_paused = true)]
async fn a_trim_does_not_give_back_what_a_direct_write_has_just_taken() {
    let bench = Bench::new(4, 4).await;
    bench
        .faults
        .set_points("class cache:discard:complete oneshot pause")
        .unwrap();
    let (cache, context) = (Arc::clone(&bench.cache), bench.context.clone());
    let trim = tokio::spawn(async move { cache.trim(&context, 0..4 * PAGE).await });
    bench
        .faults
        .paused_at_least("class cache:discard:complete", 1)
        .await
        .unwrap();
    let mut payload = bench.cache.payload(0, 2 * 4096).await;
    payload.copy_from(&[9; 2 * 4096]);
    let (cache, context) = (Arc::clone(&bench.cache), bench.context.clone());
    let write = tokio::spawn(async move { cache.write_direct(&context, payload).await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    bench.faults.set_points("reset").unwrap();
    trim.await.unwrap().unwrap();
    write.await.unwrap().unwrap();
    assert_eq!(bench.charged(), 2);
    bench.check();
    // Two more, and not four.
    bench.write(10..12).await.unwrap();
    assert_eq!(bench.write(12..13).await, Err(Errno::ENOSPC));
}

/// Both under block, which is shared. What was seen before the trim is not charged after it.
#[tokio::test(start_paused = true)]
async fn a_trim_waits_until_its_range_is_counted() {
    let bench = Bench::new(8, 4).await;
    for query in [
        "class cache:discard:submit oneshot error EIO",
        "class cache:space:count oneshot pause",
    ] {
        bench.faults.set_points(query).unwrap();
    }
    let trim = |pages: Range<u64>| {
        let (cache, context) = (Arc::clone(&bench.cache), bench.context.clone());
        tokio::spawn(async move {
            cache
                .trim(&context, pages.start * PAGE..pages.end * PAGE)
                .await
        })
    };
    let failing = trim(2..8);
    bench
        .faults
        .paused_at_least("class cache:space:count", 1)
        .await
        .unwrap();
    let beside = trim(0..4);
    // Paused time moves only when every task waits.
    tokio::time::sleep(Duration::from_secs(1)).await;
    bench.faults.set_points("reset").unwrap();
    assert_eq!(failing.await.unwrap(), Err(Errno::EIO));
    beside.await.unwrap().unwrap();
    assert_eq!(bench.charged(), 0);
    bench.check();
}

#[tokio::test(start_paused = true)]
async fn a_trim_to_the_end_gives_the_short_last_unit_back() {
    let bench = Bench::new(8, 0).await;
    let end = DEVICE - 100;
    bench.cache.resize(end).await.unwrap();
    write(&bench.cache, &bench.context, end - 5000, &[7; 5000])
        .await
        .unwrap();
    assert_eq!(bench.charged(), 2);
    bench
        .cache
        .trim(&bench.context, 100 * PAGE..end)
        .await
        .unwrap();
    assert_eq!(bench.charged(), 0);
}

/// As with a trim that succeeds: what a failed trim leaves charged is counted again, to the device's end.
#[tokio::test(start_paused = true)]
async fn a_change_to_the_end_that_fails_has_the_short_last_unit_counted() {
    let backend = Arc::new(TestBackend::new(usize::try_from(DEVICE).unwrap(), 1));
    let faults = Faults::new();
    let options = CacheOptions {
        cache_bytes: MIN_CACHE_BYTES,
        quota: Some(64 * PAGE),
        ..CacheOptions::default()
    };
    // Units of 16 pages, and one of 10 at the end.
    backend.set_allocation_unit(16 * 4096);
    let cache = PageCache::open(Arc::clone(&backend) as _, &options, &faults).unwrap();
    let context = faults.context(RequestKinds::ZERO);
    cache.resize(DEVICE - 6 * PAGE).await.unwrap();
    let keep = || {
        cache.zero(
            &context,
            DEVICE - 16 * PAGE..DEVICE - 6 * PAGE,
            ZeroMode::KeepAllocated,
            false,
        )
    };
    faults
        .set_points("class cache:discard:submit error EIO")
        .unwrap();
    assert_eq!(keep().await, Err(Errno::EIO));
    assert_eq!(cache.quota().unwrap().charged, 0);
    faults.set_points("reset").unwrap();
    keep().await.unwrap();
    assert_eq!(cache.quota().unwrap().charged, 16 * PAGE);
}

/// What the store has allocated spans two leaves of bits, and there is memory for one.
#[tokio::test(start_paused = true)]
async fn a_count_without_memory_keeps_the_books() {
    let backend = Arc::new(SparseBackend::new(PETABYTE));
    let filler = open(&backend, None);
    let offset = (LEAF_UNITS - 2) * PAGE;
    let context = filler.1.context(RequestKinds::WRITE);
    write(&filler.0, &context, offset, &[7; 4 * 4096])
        .await
        .unwrap();
    filler.0.flush(&context).await.unwrap();
    let (cache, faults) = open(&backend, Some(100));
    no_memory_for_a_second_leaf(&faults);
    assert_eq!(cache.count_space().await, Err(Errno::ENOMEM));
    let space = cache.quota.as_ref().unwrap();
    assert_eq!(space.charged_units() * PAGE, space.stats().charged);
    faults.set_points("reset").unwrap();
    cache.count_space().await.unwrap();
    assert_eq!(space.charged_units(), 4);
    assert_eq!(space.stats().charged, 4 * PAGE);
}

fn open(backend: &Arc<SparseBackend>, quota_pages: Option<u64>) -> (Arc<PageCache>, Faults) {
    let faults = Faults::new();
    let options = CacheOptions {
        cache_bytes: MIN_CACHE_BYTES,
        quota: quota_pages.map(|pages| pages * PAGE),
        ..CacheOptions::default()
    };
    let cache = PageCache::open(Arc::clone(backend) as _, &options, &faults).unwrap();
    (cache, faults)
}

/// A quota over a petabyte costs what is charged, not what could be.
#[tokio::test(start_paused = true)]
async fn a_petabyte_is_trimmed_and_counted_by_what_is_charged() {
    let (cache, faults) = open(&Arc::new(SparseBackend::new(PETABYTE)), Some(100));
    let context = faults.context(RequestKinds::WRITE);
    let visited = Rc::new(Cell::new(0));
    let count = Rc::clone(&visited);
    interleave::set("tree:visited", move || count.set(count.get() + 1));
    let offsets = [0, PETABYTE / 2, PETABYTE - PAGE];
    for offset in offsets {
        write(&cache, &context, offset, &[7; 4096]).await.unwrap();
    }
    cache.flush(&context).await.unwrap();
    cache.count_space().await.unwrap();
    assert_eq!(cache.quota().unwrap().charged, 3 * PAGE);
    assert_eq!(cache.quota.as_ref().unwrap().charged_units(), 3);
    cache.trim(&context, PAGE..PETABYTE).await.unwrap();
    assert_eq!(cache.quota().unwrap().charged, PAGE);
    interleave::clear();
    let visited = visited.take();
    assert!((1..500).contains(&visited), "{visited} nodes");
}

/// Random writes, trims and zeroes over a backend that delays and fails: the charges stay true.
#[tokio::test(start_paused = true)]
async fn the_books_balance_whatever_fails() {
    for seed in 0..12 {
        let bench = Bench::new(100, 30).await;
        let mut rng = Rng::new(seed);
        let failures = [
            ("write", 100),
            ("zero", 200),
            ("discard", 200),
            ("read", 50),
        ];
        bench.backend.behave(Behaviour {
            delay_max: Some(Duration::from_millis(3)),
            failures_per_mille: failures.into(),
            ..Behaviour::default()
        });
        for _ in 0..30 {
            let mut running = tokio::task::JoinSet::new();
            for _ in 0..6 {
                let start = rng.below(DEVICE - 20 * PAGE);
                let length = 1 + rng.below(20 * PAGE);
                let kind = rng.below(4);
                let (cache, context) = (Arc::clone(&bench.cache), bench.context.clone());
                running.spawn(async move {
                    let range = start..start + length;
                    let _ = match kind {
                        0 => cache.trim(&context, range).await,
                        1 => cache.zero(&context, range, ZeroMode::MayPunch, false).await,
                        _ => {
                            let length = cache.slice_at(start, length);
                            let mut payload = cache.payload(start, length).await;
                            payload.copy_from(&vec![5; length]);
                            cache.write(&context, payload).await
                        }
                    };
                });
            }
            while running.join_next().await.is_some() {}
        }
        bench.backend.behave(Behaviour::default());
        bench.cache.flush(&bench.context).await.unwrap();
        // What a failed trim left charged is counted again.
        bench.cache.count_space().await.unwrap();
        bench.check();
        let stats = bench.cache.quota().unwrap();
        assert!(stats.charged <= stats.quota, "seed {seed}: {stats:?}");
    }
}
