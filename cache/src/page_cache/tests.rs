use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use weir_faults::{Errno, FaultContext, Faults, RequestKinds};

use crate::backend::ZeroMode;
use crate::frame::{FrameRefs, PAGE_BYTES};
use crate::options::{CacheOptions, MIN_CACHE_BYTES};
use crate::page_cache::PageCache;
use crate::testing::{Behaviour, TestBackend, read, write};

mod lost_races;
mod model;
mod refusals;
mod rounds;

/// A cache of the smallest size over a test backend.
struct Bench {
    backend: Arc<TestBackend>,
    cache: Arc<PageCache>,
    context: FaultContext,
}

impl Bench {
    fn new(size: usize) -> Self {
        Self::under(size, &Faults::new())
    }

    fn under(size: usize, faults: &Faults) -> Self {
        let backend = Arc::new(TestBackend::new(size, 1));
        let options = CacheOptions {
            cache_bytes: MIN_CACHE_BYTES,
            ..CacheOptions::default()
        };
        let cache = PageCache::open(Arc::clone(&backend) as _, &options, faults).unwrap();
        Self {
            backend,
            cache,
            context: faults.context(RequestKinds::READ),
        }
    }

    async fn write(&self, offset: u64, data: &[u8]) -> Result<(), Errno> {
        write(&self.cache, &self.context, offset, data).await
    }

    async fn read(&self, range: Range<u64>) -> Result<Vec<u8>, Errno> {
        read(&self.cache, &self.context, range).await
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_written_is_read() {
    let bench = Bench::new(1 << 20);
    bench.write(100, b"hello").await.unwrap();
    assert_eq!(bench.read(99..106).await.unwrap(), b"\0hello\0");
    assert_eq!(
        bench.backend.volatile()[100..105],
        [0; 5],
        "a cached write reached the backend at once"
    );
    bench.cache.flush(&bench.context).await.unwrap();
    assert_eq!(bench.backend.durable()[100..105], *b"hello");
    let stats = bench.cache.stats();
    assert_eq!(
        (
            stats.dirty_pages,
            stats.unstable_pages,
            stats.in_flight_pages
        ),
        (0, 0, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn a_hit_needs_no_backend() {
    let bench = Bench::new(1 << 20);
    bench.backend.fill(&vec![7; 1 << 20]);
    let mut out = FrameRefs::new(Arc::clone(bench.cache.pool()));
    assert!(!bench.cache.try_read(0, 10, &mut out));
    assert_eq!(bench.read(0..8192).await.unwrap(), [7; 8192]);
    bench.backend.fill(&vec![8; 1 << 20]);
    assert!(bench.cache.try_read(4000, 200, &mut out));
    let mut data = [0; 200];
    out.copy_to(&mut data);
    assert_eq!(data, [7; 200]);
    assert!(
        !bench.cache.try_read(8000, 100_000, &mut out),
        "beyond what is cached"
    );
    assert_eq!(out.bytes(), 200, "a miss left something behind");
}

#[tokio::test(start_paused = true)]
async fn small_writes_go_inline() {
    let bench = Bench::new(10_000);
    assert!(
        bench.cache.try_write(&bench.context, 4096, &[1; 4096]),
        "a whole absent page"
    );
    assert!(
        bench.cache.try_write(&bench.context, 5000, &[2; 10]),
        "part of a present page"
    );
    assert!(
        !bench.cache.try_write(&bench.context, 10, &[3; 10]),
        "part of an absent page"
    );
    assert!(
        bench
            .cache
            .try_write(&bench.context, 8192, &[4; 10_000 - 8192]),
        "the whole short tail"
    );
    bench.cache.flush(&bench.context).await.unwrap();
    let durable = bench.backend.durable();
    assert_eq!(durable[5000..5010], [2; 10]);
    assert_eq!(durable[4096..5000], [1; 904]);
    assert_eq!(durable[8192..], [4; 10_000 - 8192]);
    assert_eq!(durable[..4096], [0; 4096]);
}

#[tokio::test(start_paused = true)]
async fn zero_and_trim_reach_cache_and_backend() {
    let bench = Bench::new(1 << 20);
    bench.write(0, &[9; 40_000]).await.unwrap();
    bench
        .cache
        .zero(&bench.context, 1000..20_000, ZeroMode::MayPunch, false)
        .await
        .unwrap();
    let read = bench.read(0..40_000).await.unwrap();
    assert!(
        read[..1000].iter().all(|byte| *byte == 9) && read[20_000..].iter().all(|byte| *byte == 9)
    );
    assert_eq!(read[1000..20_000], [0; 19_000]);
    bench
        .cache
        .trim(&bench.context, 24_000..36_864)
        .await
        .unwrap();
    let read = bench.read(20_000..40_000).await.unwrap();
    assert_eq!(read[..24_576 - 20_000], [9; 4576], "a trim drops its edges");
    assert_eq!(read[24_576 - 20_000..36_864 - 20_000], [0; 12_288]);
    bench.cache.flush(&bench.context).await.unwrap();
    assert_eq!(
        bench.backend.durable()[..40_000],
        bench.read(0..40_000).await.unwrap()
    );
}

#[tokio::test(start_paused = true)]
async fn failed_writeback_keeps_the_data_and_tells_flush() {
    let bench = Bench::new(1 << 20);
    bench.write(0, &[5; 8192]).await.unwrap();
    bench.backend.behave(Behaviour {
        failures_per_mille: BTreeMap::from([("write", 1000)]),
        ..Behaviour::default()
    });
    assert_eq!(bench.cache.flush(&bench.context).await, Err(Errno::EIO));
    bench.backend.behave(Behaviour {
        failures_per_mille: BTreeMap::from([("sync", 1000)]),
        ..Behaviour::default()
    });
    assert_eq!(bench.cache.flush(&bench.context).await, Err(Errno::EIO));
    assert_eq!(
        bench.cache.stats().dirty_pages,
        2,
        "a failed sync leaves its pages dirty"
    );
    bench.backend.behave(Behaviour::default());
    bench.cache.flush(&bench.context).await.unwrap();
    assert_eq!(bench.backend.durable()[..8192], [5; 8192]);
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_read_is_not_kept() {
    let bench = Bench::new(1 << 20);
    bench.backend.fill(&vec![7; 1 << 20]);
    bench.backend.behave(Behaviour {
        failures_per_mille: BTreeMap::from([("read", 1000)]),
        ..Behaviour::default()
    });
    assert_eq!(bench.read(0..8192).await, Err(Errno::EIO));
    assert_eq!(bench.write(8192 + 5, &[9]).await, Err(Errno::EIO));
    assert_eq!(bench.cache.stats().resident_pages, 0);
    let mut out = FrameRefs::new(Arc::clone(bench.cache.pool()));
    assert!(!bench.cache.try_read(0, 1, &mut out), "a hit on nothing");
    bench.backend.behave(Behaviour::default());
    assert_eq!(bench.read(0..12_288).await.unwrap(), [7; 12_288]);
}

#[tokio::test(start_paused = true)]
async fn an_idle_flush_does_not_sync_but_the_first_one() {
    let bench = Bench::new(1 << 20);
    bench.cache.flush(&bench.context).await.unwrap();
    assert_eq!(
        bench.backend.syncs(),
        1,
        "others may have changed the backend"
    );
    bench.cache.flush(&bench.context).await.unwrap();
    assert_eq!(bench.backend.syncs(), 1);
    bench.cache.trim(&bench.context, 0..4096).await.unwrap();
    bench.cache.flush(&bench.context).await.unwrap();
    assert_eq!(bench.backend.syncs(), 2, "a trim changed the backend");
    bench.cache.flush(&bench.context).await.unwrap();
    assert_eq!(bench.backend.syncs(), 2);
}

#[tokio::test(start_paused = true)]
async fn old_pages_are_written_back_unasked() {
    let bench = Bench::new(1 << 20);
    bench.write(0, &[5; 4096]).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(bench.backend.writes().is_empty());
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(bench.backend.writes(), vec![0..4096]);
}

#[tokio::test(start_paused = true)]
async fn a_small_cache_takes_a_large_device() {
    let bench = Bench::new(8 << 20);
    let data: Vec<u8> = (0..8 << 20).map(|i: u32| (i / 4096 % 251) as u8).collect();
    bench.write(0, &data).await.unwrap();
    assert!(bench.read(0..8 << 20).await.unwrap() == data);
    bench.cache.flush(&bench.context).await.unwrap();
    assert!(bench.backend.durable() == data);
    let stats = bench.cache.stats();
    assert!(stats.evictions > 1500, "{stats:?}");
    assert_eq!(
        stats.resident_pages + stats.free_frames,
        stats.frames - withheld(&stats),
        "{stats:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_hit_that_fails_half_way_keeps_its_stream_going() {
    let bench = Bench::new(2 << 20);
    // The second one continues the first: what follows is read ahead, with a marker in its middle.
    bench.read(0..PAGE_BYTES).await.unwrap();
    bench.read(PAGE_BYTES..2 * PAGE_BYTES).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1)).await;
    let ahead = bench.cache.stats().readahead_pages;
    assert!(ahead > 4);
    let mut out = FrameRefs::new(Arc::clone(bench.cache.pool()));
    let length = usize::try_from((ahead + 1) * PAGE_BYTES).unwrap();
    assert!(
        !bench.cache.try_read(2 * PAGE_BYTES, length, &mut out),
        "beyond what was read ahead"
    );
    let now = bench.cache.stats().readahead_pages;
    assert!(now > ahead, "the marker is lost");
}

#[tokio::test(start_paused = true)]
async fn pages_that_were_read_ahead_in_vain_are_counted_when_they_go() {
    let bench = Bench::new(1 << 20);
    for page in 0..8 {
        let start = page * PAGE_BYTES;
        bench.read(start..start + PAGE_BYTES).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    while bench.cache.evict(usize::MAX) > 0 {}
    let stats = bench.cache.stats();
    assert_eq!(stats.resident_pages, 0);
    assert_ne!(stats.readahead_wasted, 0);
    assert_eq!(
        stats.readahead_used + stats.readahead_wasted,
        stats.readahead_pages
    );
}

#[tokio::test(start_paused = true)]
async fn a_prefetch_waits_for_what_it_started_and_reads_nothing_twice() {
    let bench = Bench::new(2 << 20);
    bench.backend.behave(Behaviour {
        delay_max: Some(Duration::from_millis(5)),
        ..Behaviour::default()
    });
    let range = 100..40 * PAGE_BYTES + 100;
    bench.cache.prefetch(&bench.context, range).await;
    let stats = bench.cache.stats();
    assert_eq!((stats.readahead_pages, stats.resident_pages), (41, 41));
    assert_eq!((stats.hits, stats.misses), (0, 0));
}

fn withheld(stats: &crate::stats::CacheStats) -> u64 {
    stats
        .metadata_bytes
        .saturating_sub(stats.frames * 16)
        .div_ceil(PAGE_BYTES)
}
