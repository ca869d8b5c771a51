use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use weir_faults::rng::Rng;
use weir_faults::{Errno, FaultContext, Faults, RequestKinds};

use crate::backend::ZeroMode;
use crate::frame::{FrameRefs, PAGE_BYTES};
use crate::options::{CacheOptions, MIN_CACHE_BYTES};
use crate::page_cache::{CloseError, PageCache};
use crate::testing::{Behaviour, TestBackend, read, write};

mod lost_races;
mod model;
mod refusals;

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

/// One round's operation on a range that no other operation of the round touches.
#[derive(Clone, Debug)]
enum Step {
    Read,
    Write(u8),
    Zero(ZeroMode),
    Trim,
    Prefetch,
    Flush,
}

fn pick(rng: &mut Rng) -> Step {
    match rng.below(100) {
        0..30 => Step::Read,
        30..70 => Step::Write(u8::try_from(rng.below(255) + 1).unwrap()),
        70..78 => Step::Zero(ZeroMode::MayPunch),
        78..82 => Step::Zero(ZeroMode::KeepAllocated),
        82..92 => Step::Trim,
        92..96 => Step::Prefetch,
        _ => Step::Flush,
    }
}

/// Disjoint byte ranges, unaligned, so that neighbours share pages.
fn cut(rng: &mut Rng, size: u64) -> Vec<Range<u64>> {
    let mut marks: Vec<u64> = (0..12)
        .map(|_| {
            let at = rng.below(size + 1);
            if rng.below(2) == 0 {
                at - at % PAGE_BYTES
            } else {
                at
            }
        })
        .collect();
    marks.sort_unstable();
    let close = |pair: &[u64]| pair[0]..pair[1].min(pair[0] + 300_000);
    marks
        .windows(2)
        .map(close)
        .filter(|range| !range.is_empty())
        .collect()
}

/// Runs rounds of concurrent operations on disjoint ranges against a flat model.
async fn model_run(seed: u64, failing: bool) {
    model_run_under(&Faults::new(), seed, failing).await;
}

/// The same on a cache of that registry.
async fn model_run_under(faults: &Faults, seed: u64, failing: bool) {
    const SIZE: usize = (3 << 19) + 1234;
    const ROUNDS: usize = 40;
    let mut rng = Rng::new(seed);
    let bench = Bench::under(SIZE, faults);
    let delays = |failures: &[(&'static str, u64)]| Behaviour {
        delay_max: Some(Duration::from_millis(5)),
        failures_per_mille: failures.iter().copied().collect(),
        ..Behaviour::default()
    };
    let rough = [
        ("read", 50),
        ("write", 100),
        ("zero", 200),
        ("discard", 200),
        ("sync", 100),
    ];
    let mut model = vec![0_u8; SIZE];
    for round in 0..ROUNDS {
        bench
            .backend
            .behave(delays(if failing { &rough } else { &[] }));
        let mut running = Vec::new();
        for range in cut(&mut rng, SIZE as u64) {
            let step = pick(&mut rng);
            let (cache, context, kept) = (
                Arc::clone(&bench.cache),
                bench.context.clone(),
                range.clone(),
            );
            let task = tokio::spawn({
                let step = step.clone();
                async move {
                    match step {
                        Step::Read => return read_any_way(&cache, &context, range).await.map(Some),
                        Step::Write(byte) => {
                            let data =
                                vec![byte; usize::try_from(range.end - range.start).unwrap()];
                            write_any_way(&cache, &context, range.start, &data).await
                        }
                        Step::Zero(mode) => cache.zero(&context, range, mode, false).await,
                        Step::Trim => cache.trim(&context, range).await,
                        Step::Prefetch => {
                            cache.prefetch(&context, range).await;
                            Ok(())
                        }
                        Step::Flush => cache.flush(&context).await,
                    }
                    .map(|()| None)
                }
            });
            running.push((step, kept, task));
        }
        for (step, range, task) in running {
            let outcome = task.await.unwrap();
            settle(&bench, &mut model, &step, &range, outcome, (seed, round)).await;
        }
        bench.backend.behave(delays(&[]));
        if rng.below(4) == 0 {
            bench.cache.flush(&bench.context).await.unwrap();
            assert!(
                bench.backend.durable() == model,
                "seed {seed} round {round}: a flush left something behind"
            );
        }
    }
    let read = bench.read(0..SIZE as u64).await.unwrap();
    assert!(
        read == model,
        "seed {seed}: the cache differs from the model at the end"
    );
    let closed = bench.cache.close(Duration::from_secs(60)).await;
    // Who fails syncs after zeroes is told so, by whatever this backend has kept.
    assert!(
        matches!(closed, Ok(())) || failing && matches!(closed, Err(CloseError::Lost(_))),
        "seed {seed}: {closed:?}"
    );
    assert!(
        bench.backend.durable() == model,
        "seed {seed}: the backend differs from the model at the end"
    );
    let stats = bench.cache.stats();
    assert_eq!(
        (
            stats.dirty_pages,
            stats.in_flight_pages,
            stats.held_pages,
            stats.unstable_pages
        ),
        (0, 0, 0, 0),
        "seed {seed}: {stats:?}"
    );
}

/// Reads as a session does: at once, if all of it is there.
async fn read_any_way(
    cache: &Arc<PageCache>,
    context: &FaultContext,
    range: Range<u64>,
) -> Result<Vec<u8>, Errno> {
    let length = usize::try_from(range.end - range.start).unwrap();
    let mut out = FrameRefs::new(Arc::clone(cache.pool()));
    if !cache.try_read(range.start, length, &mut out) {
        return read(cache, context, range).await;
    }
    let mut data = vec![0xee; length];
    out.copy_to(&mut data);
    Ok(data)
}

/// Writes as a session does: at once, if it is little and nothing is in the way.
async fn write_any_way(
    cache: &Arc<PageCache>,
    context: &FaultContext,
    offset: u64,
    data: &[u8],
) -> Result<(), Errno> {
    if cache.slice_at(offset, data.len() as u64) < data.len() {
        return write(cache, context, offset, data).await;
    }
    if cache.try_write(context, offset, data) {
        return Ok(());
    }
    let Some(mut payload) = cache.try_payload(offset, data.len()) else {
        return write(cache, context, offset, data).await;
    };
    payload.copy_from(data);
    match cache.try_install(context, payload) {
        Ok(()) => Ok(()),
        Err(payload) => cache.write(context, payload).await,
    }
}

/// Checks one operation's outcome and carries it over to the model.
async fn settle(
    bench: &Bench,
    model: &mut [u8],
    step: &Step,
    range: &Range<u64>,
    outcome: Result<Option<Vec<u8>>, Errno>,
    place: (u64, usize),
) {
    let span = usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
    let after = match step {
        Step::Write(byte) => vec![*byte; span.len()],
        Step::Zero(_) => vec![0; span.len()],
        Step::Trim => {
            let mut after = model[span.clone()].to_vec();
            let start = span.start.next_multiple_of(4096);
            let end = if span.end == model.len() {
                span.end
            } else {
                span.end / 4096 * 4096
            };
            if start < end {
                after[start - span.start..end - span.start].fill(0);
            }
            after
        }
        Step::Read | Step::Prefetch | Step::Flush => model[span.clone()].to_vec(),
    };
    match outcome {
        Ok(Some(read)) => assert!(
            read == model[span],
            "{place:?}: {step:?} of {range:?} returned something else"
        ),
        Ok(None) => model[span].copy_from_slice(&after),
        Err(_) => {
            // Refused half-way: each byte is the old or the new one.
            bench.backend.behave(Behaviour::default());
            let now = bench.read(range.clone()).await.unwrap();
            for (i, byte) in now.iter().enumerate() {
                let (old, new) = (model[span.start + i], after[i]);
                assert!(
                    *byte == old || *byte == new,
                    "{place:?}: failed {step:?} of {range:?} left {byte} at {i}"
                );
            }
            model[span].copy_from_slice(&now);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn model() {
    for seed in 0..20 {
        model_run(seed, false).await;
    }
}

#[tokio::test(start_paused = true)]
async fn model_with_a_failing_backend() {
    for seed in 100..120 {
        model_run(seed, true).await;
    }
}
