//! Blockers of many regions work in slices: row 24, with the cache around the locks.

use super::*;
use crate::options::{WHOLE_REGIONS, WHOLE_SLICE_BYTES};
use crate::testing::sparse::SparseBackend;

const GIB: u64 = 1 << 30;
const POINT: &str = "cache:discard:submit";

/// A cache over a device of `size` bytes.
struct Large {
    backend: Arc<SparseBackend>,
    faults: Faults,
    cache: Arc<PageCache>,
}

impl Large {
    fn new(size: u64) -> Self {
        let options = CacheOptions {
            cache_bytes: MIN_CACHE_BYTES,
            ..CacheOptions::default()
        };
        let backend = Arc::new(SparseBackend::new(size));
        let faults = Faults::new();
        let cache = PageCache::open(Arc::clone(&backend) as _, &options, &faults).unwrap();
        Self {
            backend,
            faults,
            cache,
        }
    }

    fn trim(&self, range: Range<u64>) -> Running<()> {
        let (cache, context) = (
            Arc::clone(&self.cache),
            self.faults.context(RequestKinds::TRIM),
        );
        tokio::spawn(async move { cache.trim(&context, range).await })
    }

    fn read(&self, offset: u64) -> Running<Vec<u8>> {
        let (cache, context) = (
            Arc::clone(&self.cache),
            self.faults.context(RequestKinds::READ),
        );
        tokio::spawn(async move { read(&cache, &context, offset..offset + PAGE).await })
    }

    async fn write(&self, offset: u64, byte: u8) {
        let context = self.faults.context(RequestKinds::WRITE);
        let data = [byte; PAGE_SIZE];
        write(&self.cache, &context, offset, &data).await.unwrap();
    }

    /// Every trim waits before each call of the backend.
    fn stop_slices(&self) {
        let query = format!("class {POINT} pause");
        self.faults.set_points(&query).unwrap();
    }

    async fn stopped(&self) {
        let query = format!("class {POINT}");
        let stopped = tokio::time::timeout(settle_time(), self.faults.paused(&query)).await;
        assert_eq!(stopped.expect("there is another slice"), Ok(1));
    }

    fn go(&self) {
        assert_eq!(self.faults.release(&format!("class {POINT}")), Ok(1));
    }
}

#[tokio::test(start_paused = true)]
async fn race_24_a_request_elsewhere_gets_in_between_two_slices_of_a_large_trim() {
    let large = Large::new(64 * GIB);
    large.stop_slices();
    let trim = large.trim(0..48 * GIB);
    for slice in 0..3 {
        large.stopped().await;
        let reader = large.read((50 + slice) * GIB);
        waits(&reader, "a miss under a block of the whole device").await;
        large.go();
        // The next slice is about to be trimmed, and has waited for the reader.
        large.stopped().await;
        assert!(
            reader.is_finished(),
            "slice {slice}: a request waits for more than the slice that it met"
        );
        done(reader).await;
    }
    large.faults.reset_points();
    done(trim).await;
}

#[tokio::test(start_paused = true)]
async fn a_large_trim_that_fails_half_way_puts_back_what_its_slice_held() {
    let large = Large::new(64 * GIB);
    let places = [0, WHOLE_SLICE_BYTES, 5 * GIB];
    for (place, byte) in places.into_iter().zip(1..) {
        large.write(place, byte).await;
    }
    large.stop_slices();
    let trim = large.trim(0..8 * GIB);
    large.stopped().await;
    assert_eq!(large.cache.stats().held_pages, 1, "one slice at a time");
    large.go();
    large.stopped().await;
    assert_eq!(large.cache.stats().held_pages, 1, "one slice at a time");
    large.backend.fail_discards();
    large.faults.reset_points();
    assert_eq!(outcome(trim).await, Err(Errno::EIO));
    let mut found = Vec::new();
    for place in places {
        found.push(uniform(&done(large.read(place)).await).unwrap());
    }
    assert_eq!(found, [0, 2, 3]);
    assert_eq!(large.cache.stats().dirty_pages, 2);
}

#[tokio::test(start_paused = true)]
async fn slices_grow_as_long_as_they_are_quick() {
    const DEVICE: u64 = 1 << 60;
    let large = Large::new(DEVICE);
    let adjacent = |discards: &[Range<u64>]| {
        let pairs = discards.windows(2);
        pairs.into_iter().all(|pair| pair[0].end == pair[1].start)
    };
    // The last region is not whole.
    let range = PAGE..DEVICE - PAGE;
    done(large.trim(range.clone())).await;
    let quick = large.backend.discards();
    assert!(quick.len() <= 12, "{} slices", quick.len());
    assert!(quick[0].start == range.start && quick.last().unwrap().end == range.end);
    assert!(adjacent(&quick));

    large.backend.slow_discards(Duration::from_secs(1));
    done(large.trim(0..4 * GIB)).await;
    let slow = large.backend.discards().split_off(quick.len());
    assert_eq!(slow.len() as u64, 4 * GIB / WHOLE_SLICE_BYTES);
    assert!(adjacent(&slow));

    // As many regions as are taken one by one.
    let regions = WHOLE_REGIONS as u64;
    done(large.trim(0..WHOLE_SLICE_BYTES)).await;
    let single = large.backend.discards().len() - quick.len() - slow.len();
    assert_eq!(single as u64, regions);
}
