//! The overlay: what it says, and what it costs.

use std::cell::Cell;
use std::rc::Rc;

use weir_faults::{Faults, RequestKinds};

use super::*;
use crate::frame::{PAGE_BYTES, PAGE_SIZE};
use crate::options::{CacheOptions, MIN_CACHE_BYTES};
use crate::testing::{TestBackend, interleave, read, write};

fn extent(range: Range<u64>, kind: ExtentKind) -> BackendExtent {
    BackendExtent { range, kind }
}

#[test]
fn dirty_ranges_lie_over_holes() {
    let below = [
        extent(0..100, ExtentKind::Hole),
        extent(100..200, ExtentKind::Data),
    ];
    let merged = lay_over(&below, &[10..20, 90..110]);
    assert_eq!(
        merged,
        [
            extent(0..10, ExtentKind::Hole),
            extent(10..20, ExtentKind::Data),
            extent(20..90, ExtentKind::Hole),
            extent(90..200, ExtentKind::Data),
        ]
    );
}

#[test]
fn nothing_dirty_changes_nothing() {
    let below = [
        extent(5..100, ExtentKind::Zero),
        extent(100..200, ExtentKind::Hole),
    ];
    assert_eq!(lay_over(&below, &[]), below);
}

#[test]
fn one_dirty_range_covers_many_extents() {
    let below = [
        extent(0..10, ExtentKind::Hole),
        extent(10..20, ExtentKind::Zero),
        extent(20..30, ExtentKind::Hole),
    ];
    assert_eq!(
        lay_over(&below, &std::iter::once(0..30).collect::<Vec<_>>()),
        [extent(0..30, ExtentKind::Data)]
    );
}

/// Nodes of the tree that the status of a device visits, and those that a FLUSH visits, with `clean` clean pages and
/// three dirty ones.
async fn visits(clean: u64) -> [u64; 2] {
    let options = CacheOptions {
        cache_bytes: 64 << 20,
        ..CacheOptions::default()
    };
    let size = 32 << 20;
    let backend = Arc::new(TestBackend::new(size, 1));
    let faults = Faults::new();
    let cache = PageCache::open(backend, &options, &faults).unwrap();
    let context = faults.context(RequestKinds::STATUS);
    read(&cache, &context, 0..clean * PAGE_BYTES).await.unwrap();
    for page in [1, 1000, 8000] {
        let data = [9; PAGE_SIZE];
        write(&cache, &context, page * PAGE_BYTES, &data)
            .await
            .unwrap();
    }
    let visited = Rc::new(Cell::new(0));
    let count = Rc::clone(&visited);
    interleave::set("tree:visited", move || count.set(count.get() + 1));
    let extents = cache.allocation(&context, 0..size as u64, 100).await;
    let status = visited.take();
    cache.flush(&context).await.unwrap();
    interleave::clear();
    let data = extents.unwrap().into_iter();
    let data = data.filter(|extent| extent.kind == ExtentKind::Data);
    let starts: Vec<u64> = data.map(|extent| extent.range.start / PAGE_BYTES).collect();
    assert_eq!(starts, [1, 1000, 8000]);
    [status, visited.take()]
}

#[tokio::test(start_paused = true)]
async fn status_and_flush_cost_what_is_dirty_however_much_is_cached() {
    let (few, many) = (visits(500).await, visits(8000).await);
    assert_eq!(few, many);
    assert!(few.iter().all(|visits| (1..50).contains(visits)), "{few:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_dirty_in_flight_or_held_is_no_hole() {
    let backend = TestBackend::new(64 * PAGE_SIZE, 1);
    let faults = Faults::new();
    let options = CacheOptions {
        cache_bytes: MIN_CACHE_BYTES,
        ..CacheOptions::default()
    };
    let cache = PageCache::open(Arc::new(backend), &options, &faults).unwrap();
    let context = faults.context(RequestKinds::STATUS);
    let dirty = async |page: u64| {
        let data = [9; PAGE_SIZE];
        write(&cache, &context, page * PAGE_BYTES, &data)
            .await
            .unwrap();
    };
    // In flight, and in flight with a newer version.
    dirty(1).await;
    dirty(3).await;
    let point = "class cache:writeback:submit";
    faults.set_points(&format!("{point} pause")).unwrap();
    let flush = tokio::spawn({
        let (cache, context) = (Arc::clone(&cache), context.clone());
        async move { cache.flush(&context).await }
    });
    faults.paused(point).await.unwrap();
    dirty(3).await;
    dirty(30).await;
    // Held.
    dirty(5).await;
    faults
        .set_points("class cache:discard:submit pause")
        .unwrap();
    let trim = tokio::spawn({
        let (cache, context) = (Arc::clone(&cache), context.clone());
        async move { cache.trim(&context, 5 * PAGE_BYTES..20 * PAGE_BYTES).await }
    });
    faults.paused("class cache:discard:submit").await.unwrap();
    let extents = cache
        .allocation(&context, 0..64 * PAGE_BYTES, 100)
        .await
        .unwrap();
    let data = extents
        .iter()
        .filter(|extent| extent.kind == ExtentKind::Data);
    let pages: Vec<_> = data
        .map(|extent| extent.range.start / PAGE_BYTES..extent.range.end / PAGE_BYTES)
        .collect();
    assert_eq!(pages, [1..2, 3..4, 5..6, 30..31]);
    faults.reset_points();
    flush.await.unwrap().unwrap();
    trim.await.unwrap().unwrap();
}

/// More is dirty than was asked for: what lies behind is not known, so it is not reported as a hole.
#[tokio::test(start_paused = true)]
async fn what_is_dirty_behind_the_last_extent_is_no_hole() {
    let backend = TestBackend::new(64 * PAGE_SIZE, 1);
    // Data below what is dirty first: it makes one extent of that.
    backend.fill(&[vec![7; 8 * PAGE_SIZE], vec![0; 56 * PAGE_SIZE]].concat());
    let faults = Faults::new();
    let options = CacheOptions {
        cache_bytes: MIN_CACHE_BYTES,
        ..CacheOptions::default()
    };
    let cache = PageCache::open(Arc::new(backend), &options, &faults).unwrap();
    let context = faults.context(RequestKinds::STATUS);
    for page in [0, 2, 20] {
        let data = [9; PAGE_SIZE];
        write(&cache, &context, page * PAGE_BYTES, &data)
            .await
            .unwrap();
    }
    let extents = cache.allocation(&context, 0..64 * PAGE_BYTES, 2).await;
    assert_eq!(
        extents.unwrap(),
        [
            extent(0..8 * PAGE_BYTES, ExtentKind::Data),
            extent(8 * PAGE_BYTES..20 * PAGE_BYTES, ExtentKind::Hole),
        ]
    );
}
