use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use proptest::prelude::*;

use super::*;
use crate::backend::testing::{Bench, assert_well_formed, pattern, run_model, steps};

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

fn pages_held(backend: &MemoryBackend) -> usize {
    backend
        .shards
        .iter()
        .map(|shard| shard.lock().unwrap().len())
        .sum()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn behaves_as_a_flat_vector(steps in steps(300)) {
        let size = 300 * PAGE_BYTES - 1000;
        runtime().block_on(run_model(&Bench::new(MemoryBackend::new(size)), size, &steps));
    }
}

#[tokio::test]
async fn extents_are_exact_and_may_stop_early() {
    let size = 1 << 40;
    let bench = Bench::new(MemoryBackend::new(size));
    // Across a region's end, and far away.
    let (a, b) = (254 * PAGE_BYTES, size - PAGE_BYTES);
    bench.write(a, &pattern(1, 5 * PAGE_SIZE)).await.unwrap();
    bench.write(b, &pattern(2, PAGE_SIZE)).await.unwrap();
    let extents = bench.extents(0..size, usize::MAX).await.unwrap();
    assert_well_formed(&extents, &(0..size));
    let kinds: Vec<_> = extents
        .iter()
        .map(|extent| (extent.range.end, extent.kind))
        .collect();
    let end = a + 5 * PAGE_BYTES;
    assert_eq!(
        kinds,
        [
            (a, ExtentKind::Hole),
            (end, ExtentKind::Data),
            (b, ExtentKind::Hole),
            (size, ExtentKind::Data)
        ]
    );
    assert_eq!(bench.extents(0..size, 2).await.unwrap(), extents[..2]);
    let inside = bench.extents(a + 100..a + 200, usize::MAX).await.unwrap();
    assert_eq!(
        inside,
        [BackendExtent {
            range: a + 100..a + 200,
            kind: ExtentKind::Data
        }]
    );
}

#[tokio::test]
async fn discarded_pages_are_given_back() {
    let backend = MemoryBackend::new(1 << 60);
    let bench = Bench::new(MemoryBackend::new(1));
    for offset in [0, 1 << 30, 1 << 59] {
        backend
            .write_pages(offset, &bench.refs(&pattern(3, 3 * PAGE_SIZE)))
            .await
            .unwrap();
    }
    assert_eq!(pages_held(&backend), 9);
    backend.clear(&(PAGE_BYTES..(1 << 59) + 1)).await;
    assert_eq!(pages_held(&backend), 1 + 3);
    backend.clear(&(0..1 << 60)).await;
    assert_eq!(pages_held(&backend), 0);
}

#[tokio::test]
async fn a_write_past_the_end_changes_nothing() {
    let bench = Bench::new(MemoryBackend::new(PAGE_BYTES + 1));
    assert_eq!(bench.write(PAGE_BYTES, &[1; 2]).await, Err(Errno::ENOSPC));
    assert_eq!(
        bench
            .write(u64::MAX - PAGE_BYTES + 1, &[1; PAGE_SIZE])
            .await,
        Err(Errno::ENOSPC)
    );
    assert_eq!(bench.read(0, 2).await.unwrap(), vec![0; 2 * PAGE_SIZE]);
}

#[tokio::test]
async fn memory_that_stays_allocated_is_not_offered() {
    let bench = Bench::new(MemoryBackend::new(PAGE_BYTES));
    assert!(!bench.backend.capabilities().zero_keep);
    assert_eq!(
        bench.zero(0..PAGE_BYTES, ZeroMode::KeepAllocated).await,
        Err(Errno::ENOTSUP)
    );
}

/// How often another task has a turn while `work` goes on.
async fn turns_of_others(work: impl Future<Output = ()>) -> usize {
    let turns = Arc::new(AtomicUsize::new(0));
    let others = tokio::spawn({
        let turns = Arc::clone(&turns);
        async move {
            loop {
                turns.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        }
    });
    work.await;
    others.abort();
    turns.load(Ordering::Relaxed)
}

#[tokio::test]
async fn much_at_once_lets_others_have_their_turn() {
    // Twice what a poll does, and only every second page, so that there are as many extents.
    const PAGES: u64 = 2048;
    let polls = 2;
    let backend = Arc::new(MemoryBackend::new(PAGES * PAGE_BYTES));
    let bench = Bench::over(Arc::clone(&backend) as _);
    let written = turns_of_others(async {
        for page in (0..PAGES).step_by(2) {
            let data = pattern(1, PAGE_SIZE);
            bench.write(page * PAGE_BYTES, &data).await.unwrap();
        }
    });
    assert!(written.await >= polls);
    let range = 0..PAGES * PAGE_BYTES;
    let asked = turns_of_others(async {
        assert_eq!(
            bench
                .extents(range.clone(), usize::MAX)
                .await
                .unwrap()
                .len() as u64,
            PAGES
        );
    });
    assert!(asked.await >= polls);
    let read = turns_of_others(async {
        _ = bench.read(0, 2048).await.unwrap();
    });
    assert!(read.await >= polls);
    let trimmed = turns_of_others(async { bench.discard(range.clone()).await.unwrap() });
    assert!(trimmed.await >= polls);
    assert_eq!(pages_held(&backend), 0);
}
