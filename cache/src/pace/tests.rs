//! How much is done between two turns of the others, whatever a client or an operator asks for.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::task::{JoinHandle, yield_now};
use weir_faults::{Errno, FaultContext, Faults, RequestKinds};

use super::*;
use crate::backend::ExtentKind;
use crate::frame::{PAGE_BYTES, PAGE_SIZE};
use crate::options::CacheOptions;
use crate::page_cache::PageCache;
use crate::testing::{Behaviour, TestBackend, interleave, read, write};

/// Far more than may be done in one turn, and less than what starts writeback by amount in a cache of 1 GiB.
const PAGES: u64 = 24_000;

/// What a poll may come to: a step may touch a page twice.
const MOST: usize = 2 * STEPS_PER_POLL + STEPS_AT_ONCE;

struct Bench {
    backend: Arc<TestBackend>,
    cache: Arc<PageCache>,
    context: FaultContext,
    faults: Faults,
}

impl Bench {
    fn new() -> Self {
        Self::with(&CacheOptions {
            cache_bytes: 1 << 30,
            ..CacheOptions::default()
        })
    }

    fn with(options: &CacheOptions) -> Self {
        let backend = Arc::new(TestBackend::new(
            usize::try_from(PAGES).unwrap() * PAGE_SIZE,
            1,
        ));
        let faults = Faults::new();
        let cache = PageCache::open(Arc::clone(&backend) as _, options, &faults).unwrap();
        Self {
            backend,
            cache,
            context: faults.context(RequestKinds::TRIM),
            faults,
        }
    }

    fn size(&self) -> u64 {
        self.cache.size()
    }

    async fn read_all(&self) {
        for at in (0..self.size()).step_by(1 << 20) {
            let end = (at + (1 << 20)).min(self.size());
            read(&self.cache, &self.context, at..end).await.unwrap();
        }
    }

    async fn write_all(&self) {
        let data = vec![7; 1 << 20];
        for at in (0..self.size()).step_by(data.len()) {
            let some = usize::try_from(self.size() - at).unwrap().min(data.len());
            let written = write(&self.cache, &self.context, at, &data[..some]).await;
            written.unwrap();
        }
        assert_eq!(self.cache.stats().dirty_pages, PAGES);
    }

    /// Writes every page, and writes all of them back.
    async fn write_all_and_sync_nothing(&self) {
        self.write_all().await;
        self.faults
            .set_points("class cache:flush:sync error EIO")
            .unwrap();
        self.cache.flush(&self.context).await.unwrap_err();
        self.faults.set_points("reset").unwrap();
    }
}

/// Does `work`; the most times that it came by `place` between two turns of others.
async fn longest_turn<T>(place: &'static str, work: impl Future<Output = T>) -> (usize, T) {
    let (steps, longest) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&steps);
    interleave::set(place, move || _ = count.fetch_add(1, Ordering::Relaxed));
    let neighbour = tokio::spawn({
        let (steps, longest) = (Arc::clone(&steps), Arc::clone(&longest));
        async move {
            loop {
                longest.fetch_max(steps.swap(0, Ordering::Relaxed), Ordering::Relaxed);
                yield_now().await;
            }
        }
    });
    let outcome = work.await;
    interleave::clear();
    neighbour.abort();
    longest.fetch_max(steps.load(Ordering::Relaxed), Ordering::Relaxed);
    (longest.load(Ordering::Relaxed), outcome)
}

/// As [`longest_turn`], in pages that were locked: says that there were enough to tell, and not too many at a time.
async fn work_in_turns<T>(most: usize, work: impl Future<Output = T>) -> T {
    let (longest, outcome) = longest_turn("page:unlocked", work).await;
    assert!(
        longest >= STEPS_AT_ONCE / 2,
        "only {longest} pages at a time: nothing was seen"
    );
    assert!(longest <= most, "{longest} pages in one turn");
    outcome
}

#[tokio::test(start_paused = true)]
async fn a_trim_of_dirty_pages_lets_others_go_on() {
    let bench = Bench::new();
    bench.write_all().await;
    let trim = bench.cache.trim(&bench.context, 0..bench.size());
    work_in_turns(MOST, trim).await.unwrap();
    assert_eq!(bench.cache.stats().dirty_pages, 0);
}

#[tokio::test(start_paused = true)]
async fn a_trim_that_fails_puts_pages_back_in_turns() {
    let bench = Bench::new();
    bench.write_all().await;
    bench.backend.behave(Behaviour {
        failures_per_mille: [("discard", 1000)].into(),
        ..Behaviour::default()
    });
    let trim = bench.cache.trim(&bench.context, 0..bench.size());
    assert_eq!(work_in_turns(MOST, trim).await, Err(Errno::EIO));
    assert_eq!(bench.cache.stats().dirty_pages, PAGES);
}

#[tokio::test(start_paused = true)]
async fn a_flush_lets_others_go_on() {
    let bench = Bench::new();
    bench.write_all().await;
    let flush = bench.cache.flush(&bench.context);
    work_in_turns(MOST, flush).await.unwrap();
    assert_eq!(bench.cache.stats().unstable_pages, 0);
}

#[tokio::test(start_paused = true)]
async fn a_sync_settles_pages_in_turns() {
    for failures in [0, 1000] {
        let bench = Bench::new();
        bench.write_all_and_sync_nothing().await;
        assert_eq!(bench.cache.stats().unstable_pages, PAGES);
        bench.backend.behave(Behaviour {
            failures_per_mille: [("sync", failures)].into(),
            ..Behaviour::default()
        });
        let sync = bench.cache.sync(&bench.context);
        let outcome = work_in_turns(MOST, sync).await;
        assert_eq!(outcome.is_err(), failures > 0);
        assert_eq!(bench.cache.stats().unstable_pages, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_shrink_lets_others_go_on() {
    let bench = Bench::new();
    bench.write_all().await;
    work_in_turns(MOST, bench.cache.resize(PAGE_BYTES))
        .await
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_power_cut_lets_others_go_on() {
    let bench = Bench::new();
    bench.write_all().await;
    let cut = bench.cache.lose_power(async |newest: Vec<_>| newest.len());
    assert_eq!(work_in_turns(MOST, cut).await as u64, PAGES);
}

#[tokio::test(start_paused = true)]
async fn dropping_the_cache_lets_others_go_on() {
    let bench = Bench::new();
    bench.read_all().await;
    work_in_turns(MOST, bench.cache.drop_clean()).await.unwrap();
    assert_eq!(bench.cache.stats().resident_pages, 0);
}

#[tokio::test(start_paused = true)]
async fn a_search_for_memory_among_dirty_pages_lets_others_go_on() {
    // Half of the frames are dirty, and one page that is read comes and goes.
    let bench = Bench::with(&CacheOptions {
        cache_bytes: 90 << 20,
        ..CacheOptions::default()
    });
    bench.read_all().await;
    let frames = usize::try_from(bench.cache.stats().resident_pages).unwrap();
    // All visited: the hand goes round once before it finds any.
    bench.read_all().await;
    let evict = bench.cache.evict_in_turns(usize::MAX);
    let evicted = work_in_turns(MOST, evict).await;
    assert_eq!(evicted, frames);
}

/// Does `work` that goes over all pages; says that others had their turns, as often as that takes polls.
async fn with_turns_of_others(work: impl Future<Output = ()>) {
    let turns = Arc::new(AtomicUsize::new(0));
    let neighbour = tokio::spawn({
        let turns = Arc::clone(&turns);
        async move {
            loop {
                turns.fetch_add(1, Ordering::Relaxed);
                yield_now().await;
            }
        }
    });
    work.await;
    neighbour.abort();
    let turns = turns.load(Ordering::Relaxed);
    let polls = usize::try_from(PAGES).unwrap() / STEPS_PER_POLL;
    assert!(turns >= polls, "{turns} turns of others");
}

/// A request that others wait for is in the same task as long ones.
#[tokio::test(start_paused = true)]
async fn what_others_wait_for_goes_on_beside_long_work_of_its_own_task() {
    const WALKS: usize = 64;
    const MISSED: std::ops::Range<u64> = 0..1 << 20;
    let bench = Bench::new();
    bench.read_all().await;
    bench.cache.trim(&bench.context, MISSED).await.unwrap();
    let walked = Arc::new(AtomicUsize::new(0));
    let misses = bench.cache.stats().misses;
    let session = tokio::spawn({
        let (cache, context, walked) = (
            Arc::clone(&bench.cache),
            bench.context.clone(),
            Arc::clone(&walked),
        );
        async move {
            let mut requests: FuturesUnordered<Pin<Box<dyn Future<Output = ()> + Send>>> =
                FuturesUnordered::new();
            for i in 0..WALKS {
                // In the middle: neither those that are woken first nor those that are woken last are before it.
                if i == WALKS / 2 {
                    let (cache, context) = (Arc::clone(&cache), context.clone());
                    requests.push(Box::pin(async move {
                        read(&cache, &context, MISSED).await.unwrap();
                    }));
                }
                let (cache, walked) = (Arc::clone(&cache), Arc::clone(&walked));
                requests.push(Box::pin(async move {
                    cache.residency(0..cache.size(), usize::MAX).await;
                    walked.fetch_add(1, Ordering::Relaxed);
                }));
            }
            while requests.next().await.is_some() {}
        }
    });
    while bench.cache.stats().misses == misses {
        assert!(!session.is_finished(), "nothing was missed");
        yield_now().await;
    }
    // It joins the fill that the other task carries.
    read(&bench.cache, &bench.context, MISSED).await.unwrap();
    let walked = walked.load(Ordering::Relaxed);
    assert!(walked < WALKS / 4, "{walked} long requests went first");
    session.await.unwrap();
}

/// All pages are written and not synced, and a sync fails: as soon as some of them are dirty again, and not all. The
/// store has forgotten half of them.
async fn fail_a_sync(bench: &Bench) -> JoinHandle<Result<(), Errno>> {
    bench.write_all_and_sync_nothing().await;
    bench.backend.behave(Behaviour {
        failures_per_mille: [("sync", 1000)].into(),
        forgets: true,
        ..Behaviour::default()
    });
    let (cache, context) = (Arc::clone(&bench.cache), bench.context.clone());
    let sync = tokio::spawn(async move { cache.sync(&context).await });
    while bench.cache.stats().unstable_pages == PAGES {
        yield_now().await;
    }
    assert!(bench.cache.stats().unstable_pages > 0, "all at once");
    sync
}

#[tokio::test(start_paused = true)]
async fn a_direct_read_waits_until_a_failed_sync_is_settled() {
    const LAST: usize = 64 * PAGE_SIZE;
    let bench = Bench::new();
    let sync = fail_a_sync(&bench).await;
    let start = bench.size() - LAST as u64;
    let data = bench.cache.read_direct(&bench.context, start, LAST).await;
    let mut bytes = vec![0; LAST];
    data.unwrap().copy_to(&mut bytes);
    assert!(
        bytes.iter().all(|byte| *byte == 7),
        "what was written is not read"
    );
    sync.await.unwrap().unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn a_look_for_holes_waits_until_a_failed_sync_is_settled() {
    let bench = Bench::new();
    let sync = fail_a_sync(&bench).await;
    let last = bench.size() - 64 * PAGE_BYTES..bench.size();
    let found = bench.cache.allocation(&bench.context, last, 64).await;
    let found = found.unwrap();
    assert!(
        found.iter().all(|extent| extent.kind == ExtentKind::Data),
        "what was written is told as a hole: {found:?}"
    );
    sync.await.unwrap().unwrap_err();
}

/// Walks over what is there already wait for nothing.
#[tokio::test(start_paused = true)]
async fn a_prefetch_of_what_is_cached_lets_others_go_on() {
    let bench = Bench::new();
    bench.read_all().await;
    with_turns_of_others(bench.cache.prefetch(&bench.context, 0..bench.size())).await;
}

/// A session's requests are all in one task: each of them is short, together they aren't.
#[tokio::test(start_paused = true)]
async fn reads_of_what_is_cached_let_others_go_on() {
    let bench = Bench::new();
    bench.read_all().await;
    with_turns_of_others(bench.read_all()).await;
}
