use std::sync::Arc;

use proptest::prelude::*;
use weir_cache::{CacheMode, CacheOptions, PAGE_BYTES, PAGE_SIZE, PageCache};
use weir_faults::{FaultContext, Faults};

use super::*;
use crate::backend::file::Engine;
use crate::backend::scheme::StoreOptions;
use crate::backend::testing::{Bench, Step, pattern, run_model, steps};
use crate::size::Size;
use crate::source::Source;

/// The smallest cache.
const CACHE_BYTES: u64 = 1 << 20;
const DEVICE_BYTES: u64 = 8 << 20;

fn options(size: Option<u64>) -> StoreOptions {
    StoreOptions {
        size: size.map(Size),
        create_size: None,
        read_only: false,
        engine: Engine::default(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    /// Only writes tell it from a flat vector.
    #[test]
    fn behaves_as_a_flat_vector_that_nobody_writes(mut steps in steps(300)) {
        steps.retain(|step| !matches!(step, Step::Write { .. }));
        let size = 300 * PAGE_BYTES - 1000;
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(run_model(&Bench::new(ZeroBackend::new(size)), size, &steps));
    }
}

#[tokio::test]
async fn what_is_written_is_lost() {
    let bench = Bench::new(ZeroBackend::new(1 << 40));
    bench.write(0, &pattern(1, 3 * PAGE_SIZE)).await.unwrap();
    bench.sync().await.unwrap();
    assert_eq!(bench.read(0, 20).await.unwrap(), vec![0; 20 * PAGE_SIZE]);
    let hole = |range| BackendExtent {
        range,
        kind: ExtentKind::Hole,
    };
    let found = bench.extents(0..1 << 40, usize::MAX).await.unwrap();
    assert_eq!(found, [hole(0..1 << 40)]);
    let found = bench.extents(100..200, 1).await.unwrap();
    assert_eq!(found, [hole(100..200)]);
    // About bytes past the end, nothing is said.
    let found = bench.extents(100..1 << 41, 2).await.unwrap();
    assert_eq!(found, [hole(100..1 << 40)]);
    assert_eq!(bench.extents(1 << 40..1 << 41, 2).await.unwrap(), []);
    assert_eq!(bench.extents(0..100, 0).await.unwrap(), []);
}

#[tokio::test]
async fn it_says_what_it_cannot_do() {
    let bench = Bench::new(ZeroBackend::new(PAGE_BYTES));
    let able = bench.backend.capabilities();
    assert!(!able.zero_keep && !able.shift);
    let kept = bench.zero(0..PAGE_BYTES, ZeroMode::KeepAllocated).await;
    assert_eq!(kept, Err(Errno::ENOTSUP));
    let inserted = bench.backend.insert_range(0, PAGE_BYTES).await;
    assert_eq!(inserted, Err(Errno::ENOTSUP));
    let resized = bench.resize(DEVICE_BYTES_MAX + 1).await;
    assert_eq!(resized, Err(Errno::EFBIG));
    assert_eq!(bench.backend.geometry().size, PAGE_BYTES);
}

#[tokio::test]
async fn its_source_opens_it_and_says_that_it_keeps_nothing() {
    let source: Source = "zero:1024k".parse().unwrap();
    assert_eq!(source.to_string(), "zero:1M");
    assert_eq!(source.known_size(&options(None)), Some(1 << 20));
    let store = source.open(&options(None)).await.unwrap();
    assert_eq!(store.backend.geometry().size, 1 << 20);
    let [remark] = &*store.remarks else {
        panic!("{:?}", store.remarks);
    };
    assert!(remark.contains("kept"), "{remark}");
}

#[tokio::test]
async fn sizes_that_cannot_be_are_refused() {
    for (text, size, words) in [
        ("zero:0", None, "from one byte"),
        ("zero:1M", Some(1 << 21), "contradict"),
    ] {
        let source: Source = text.parse().unwrap();
        let checked = source.check(&options(size)).unwrap_err().to_string();
        let opened = source.open(&options(size)).await.unwrap_err().to_string();
        assert!(
            checked.contains(words) && checked.contains(text),
            "{checked}"
        );
        assert_eq!(opened, checked);
    }
    for text in ["zero:", "zero:much"] {
        let refused = text.parse::<Source>().unwrap_err().to_string();
        assert!(refused.starts_with("zero:SIZE: "), "{refused}");
    }
}

/// A cache over zeroes, asked as a session asks it.
struct Cached {
    cache: Arc<PageCache>,
    faults: FaultContext,
}

impl Cached {
    fn new(mode: CacheMode) -> Self {
        let options = CacheOptions {
            cache_bytes: CACHE_BYTES,
            mode,
            ..CacheOptions::default()
        };
        let faults = Faults::new();
        let backend = Arc::new(ZeroBackend::new(DEVICE_BYTES));
        let cache = PageCache::open(backend, &options, &faults).expect("a cache");
        let faults = faults.context(weir_faults::RequestKinds::READ);
        Self { cache, faults }
    }

    async fn write(&self, offset: u64, bytes: &[u8]) {
        let mut payload = self.cache.payload(offset, bytes.len()).await;
        assert_eq!(payload.copy_from(bytes), bytes.len());
        let written = if self.cache.is_direct(bytes.len() as u64) {
            self.cache.write_direct(&self.faults, payload).await
        } else {
            self.cache.write(&self.faults, payload).await
        };
        written.unwrap();
    }

    async fn read(&self, offset: u64) -> Vec<u8> {
        let read = if self.cache.is_direct(PAGE_BYTES) {
            let read = self.cache.read_direct(&self.faults, offset, PAGE_SIZE);
            read.await
        } else {
            self.cache.read(&self.faults, offset, PAGE_SIZE).await
        };
        let pages = read.unwrap();
        pages.io_slices().flat_map(|slice| slice.to_vec()).collect()
    }
}

#[tokio::test]
async fn what_is_written_reads_back_until_the_cache_gives_it_up() {
    let cached = Cached::new(CacheMode::Writeback);
    let written = pattern(1, PAGE_SIZE);
    cached.write(0, &written).await;
    assert_eq!(cached.read(0).await, written);
    cached.cache.flush(&cached.faults).await.unwrap();
    assert_eq!(cached.read(0).await, written);
    for offset in (PAGE_BYTES..DEVICE_BYTES).step_by(PAGE_SIZE) {
        assert_eq!(cached.read(offset).await, [0; PAGE_SIZE]);
    }
    assert_eq!(cached.read(0).await, [0; PAGE_SIZE]);
}

#[tokio::test]
async fn past_the_cache_what_is_written_is_lost_at_once() {
    let cached = Cached::new(CacheMode::None);
    cached.write(0, &pattern(1, PAGE_SIZE)).await;
    assert_eq!(cached.read(0).await, [0; PAGE_SIZE]);
}
