//! What can be refused on the way: memory, and the moment after a shoot-down.

use crossbeam_epoch as epoch;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use weir_faults::{Errno, Faults, RequestKinds};

use super::Bench;
use crate::backend::Backend;
use crate::frame::FramePool;
use crate::gen_radix::GenRadix;
use crate::options::{CacheOptions, MIN_CACHE_BYTES};
use crate::page_cache::{OpenError, PageCache};
use crate::testing::TestBackend;

#[test]
fn memory_that_is_refused_is_an_error_and_nothing_changes() {
    let faults = Faults::new();
    let context = faults.context(RequestKinds::WRITE);
    faults
        .set_points("class cache:pool:map oneshot")
        .expect("armed");
    let refused = FramePool::with_faults(8, context.clone()).expect_err("refused");
    let expected = std::io::Error::from(Errno::ENOMEM);
    assert_eq!(refused.raw_os_error(), expected.raw_os_error());
    FramePool::with_faults(8, context.clone()).expect("the point fires once");

    let array = GenRadix::<AtomicU64>::with_faults(context);
    let pin = epoch::pin();
    array.occupy(3, &pin).expect("memory");
    let bytes = array.bytes();
    faults
        .set_points("class cache:radix:allocate enable")
        .expect("armed");
    array.occupy(1 << 40, &pin).expect_err("refused");
    assert!(array.occupy(4, &pin).is_ok(), "needs no new node");
    assert_eq!(array.bytes(), bytes);
    faults.reset_points();
    array.occupy(1 << 40, &pin).expect("memory again");
}

#[tokio::test(start_paused = true)]
async fn a_cache_without_memory_is_not_opened() {
    let faults = Faults::new();
    faults
        .set_points("class cache:pool:map enable")
        .expect("armed");
    let backend: Arc<dyn Backend> = Arc::new(TestBackend::new(1 << 20, 1));
    let options = CacheOptions {
        cache_bytes: MIN_CACHE_BYTES,
        ..CacheOptions::default()
    };
    let opened = PageCache::open(backend, &options, &faults);
    assert!(matches!(opened, Err(OpenError::Memory { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_request_without_memory_for_a_node_fails_and_the_next_one_does_not() {
    let faults = Faults::new();
    let bench = Bench::under(4 << 20, &faults);
    bench.backend.fill(&vec![7; 4 << 20]);
    bench.write(0, &[1; 4096]).await.unwrap();
    faults
        .set_points("class cache:radix:allocate enable")
        .expect("armed");
    assert_eq!(bench.write(2 << 20, &[2; 4096]).await, Err(Errno::ENOMEM));
    assert_eq!(bench.write(3 << 20, &[2; 10]).await, Err(Errno::ENOMEM));
    assert_eq!(
        bench.read(2 << 20..(2 << 20) + 10).await,
        Err(Errno::ENOMEM)
    );
    assert_eq!(bench.read(0..4096).await.unwrap(), [1; 4096]);
    faults.reset_points();
    assert_eq!(bench.read(2 << 20..(2 << 20) + 10).await.unwrap(), [7; 10]);
    bench.write(2 << 20, &[2; 4096]).await.unwrap();
    bench.cache.flush(&bench.context).await.unwrap();
    assert_eq!(
        bench.backend.durable()[2 << 20..][..4097],
        [&[2; 4096][..], &[7]].concat()
    );
}

#[tokio::test(start_paused = true)]
async fn what_was_shot_down_in_vain_comes_back() {
    let faults = Faults::new();
    let bench = Bench::under(1 << 20, &faults);
    bench.write(4096, &[5; 8192]).await.unwrap();
    faults
        .set_points("class cache:shoot_down oneshot")
        .expect("armed");
    let trimmed = bench.cache.trim(&bench.context, 0..16_384).await;
    assert_eq!(trimmed, Err(Errno::EIO));
    assert_eq!(bench.read(4096..12_288).await.unwrap(), [5; 8192]);
    bench.cache.trim(&bench.context, 0..16_384).await.unwrap();
    assert_eq!(bench.read(4096..12_288).await.unwrap(), [0; 8192]);
}

#[tokio::test(start_paused = true)]
async fn an_interrupted_export_ends_the_pauses_of_its_own_work() {
    const CLASS: &str = "class cache:writeback:submit";
    let faults = Faults::new();
    let (device, other) = (faults.add_device("db"), faults.add_device("other"));
    let backend = Arc::new(TestBackend::new(1 << 20, 1));
    let options = CacheOptions {
        cache_bytes: MIN_CACHE_BYTES,
        device: Some(device.clone()),
        ..CacheOptions::default()
    };
    let cache = PageCache::open(Arc::clone(&backend) as _, &options, &faults).unwrap();
    faults
        .set_points(&format!("{CLASS} within writeback oneshot pause"))
        .expect("armed");
    let context = faults.context(RequestKinds::WRITE);
    crate::testing::write(&cache, &context, 0, &[5; 4096])
        .await
        .unwrap();
    // The background task, as the page grows old.
    assert_eq!(faults.paused(CLASS).await, Ok(1));
    other.interrupt();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(backend.writes().is_empty());
    device.interrupt();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(backend.writes(), vec![0..4096]);
}

#[tokio::test(start_paused = true)]
async fn memory_that_is_not_there_at_once_is_waited_for() {
    let faults = Faults::new();
    let bench = Bench::under(1 << 20, &faults);
    faults
        .set_points("class cache:race file payload.rs enable")
        .expect("armed");
    assert!(bench.cache.try_payload(0, 4096).is_none());
    assert_eq!(bench.cache.payload(0, 4096).await.len(), 4096);
}
