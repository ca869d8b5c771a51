//! Writers that are stopped: what makes room for them, and when they are told that nothing does.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use weir_faults::{FaultContext, Faults, RequestKinds};

use super::*;
use crate::backend::ZeroMode;
use crate::frame::{PAGE_BYTES, PAGE_SIZE};
use crate::options::{CacheOptions, MIN_CACHE_BYTES};
use crate::testing::{Behaviour, TestBackend, write};

const SIZE: u64 = 4 << 20;
/// The writers write before this offset; everything else is done behind it.
const HALF: u64 = SIZE / 2;
/// A stopped writer has been told by then. Its pauses before it was stopped are short.
const TOLD: Duration = Duration::from_secs(40);

struct Bench {
    backend: Arc<TestBackend>,
    faults: Faults,
    cache: Arc<PageCache>,
    context: FaultContext,
}

impl Bench {
    fn new(behaviour: Behaviour) -> Self {
        let backend = Arc::new(TestBackend::new(usize::try_from(SIZE).unwrap(), 1));
        backend.behave(behaviour);
        let faults = Faults::new();
        let options = CacheOptions {
            cache_bytes: MIN_CACHE_BYTES,
            ..CacheOptions::default()
        };
        let cache = PageCache::open(Arc::clone(&backend) as _, &options, &faults).unwrap();
        let context = faults.context(RequestKinds::WRITE);
        Self {
            backend,
            faults,
            cache,
            context,
        }
    }

    /// Writes page after page until that fails, or up to [`HALF`].
    fn writer(&self) -> JoinHandle<Result<(), Errno>> {
        self.writer_of_every(1)
    }

    /// As [`Bench::writer`], every so many pages: then each is a run of its own.
    fn writer_of_every(&self, stride: usize) -> JoinHandle<Result<(), Errno>> {
        let (cache, context) = (Arc::clone(&self.cache), self.context.clone());
        tokio::spawn(async move {
            for page in (0..HALF / PAGE_BYTES).step_by(stride) {
                write(&cache, &context, page * PAGE_BYTES, &[7; PAGE_SIZE]).await?;
            }
            Ok(())
        })
    }

    /// Waits until the writer is stopped.
    async fn stopped(&self) {
        while self.cache.unclean_pages() < self.cache.limits.dirty_stop {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Zeroes a page with FUA, again and again: each is a change, and a sync that covers it.
    fn zeroes(&self) -> JoinHandle<()> {
        let (cache, context) = (Arc::clone(&self.cache), self.context.clone());
        tokio::spawn(async move {
            loop {
                let range = HALF..HALF + PAGE_BYTES;
                cache
                    .zero(&context, range.clone(), ZeroMode::MayPunch, false)
                    .await
                    .unwrap();
                cache.persist(&context, range).await.unwrap();
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        })
    }
}

fn failing(operation: &'static str) -> Behaviour {
    Behaviour {
        failures_per_mille: [(operation, 1000)].into(),
        ..Behaviour::default()
    }
}

#[tokio::test(start_paused = true)]
async fn a_stopped_writer_is_told_though_others_syncs_succeed() {
    let bench = Bench::new(failing("write"));
    let zeroes = bench.zeroes();
    let writer = bench.writer();
    let told = tokio::time::timeout(TOLD, writer).await;
    assert_eq!(told.expect("it is told").unwrap(), Err(Errno::EIO));
    assert!(!zeroes.is_finished(), "and the syncs did succeed");
    zeroes.abort();
}

/// Every run succeeds, and is void after the sync that is to cover it has failed.
#[tokio::test(start_paused = true)]
async fn a_stopped_writer_is_told_when_syncs_alone_fail() {
    let bench = Bench::new(failing("sync"));
    let told = tokio::time::timeout(TOLD, bench.writer()).await;
    assert_eq!(told.expect("it is told").unwrap(), Err(Errno::EIO));
    assert!(bench.backend.writes().len() > 10, "and the runs succeeded");
}

/// As when the system's own writeback fails and it says so once: the sync of what was written fails, the next one, of
/// something else, succeeds.
#[tokio::test(start_paused = true)]
async fn a_stopped_writer_is_told_though_only_syncs_of_pages_fail() {
    let bench = Bench::new(failing("write"));
    let writer = bench.writer();
    bench.stopped().await;
    // Now every run succeeds and its sync fails, now a sync succeeds that covers no run.
    let fails = async {
        loop {
            bench.backend.behave(failing("sync"));
            tokio::time::sleep(Duration::from_secs(7)).await;
            bench.backend.behave(failing("write"));
            let page = HALF..HALF + PAGE_BYTES;
            bench.cache.trim(&bench.context, page).await.unwrap();
            bench.cache.sync(&bench.context).await.unwrap();
        }
    };
    let told = tokio::select! {
        told = tokio::time::timeout(TOLD, writer) => told,
        () = fails => unreachable!(),
    };
    assert_eq!(told.expect("it is told").unwrap(), Err(Errno::EIO));
}

/// Nothing fails, and everything takes nearly as long as is allowed.
#[tokio::test(start_paused = true)]
async fn a_stopped_writer_waits_for_a_slow_store() {
    let bench = Bench::new(Behaviour {
        delay_max: Some(STALL_LIMIT),
        ..Behaviour::default()
    });
    bench.writer().await.unwrap().unwrap();
}

/// The sync takes longer than that, but runs that are written meanwhile show that the store is alive.
#[tokio::test(start_paused = true)]
async fn a_stopped_writer_waits_while_runs_are_written() {
    let (run, sync) = ("class cache:writeback:submit", "class cache:sync:submit");
    let bench = Bench::new(Behaviour::default());
    for point in [run, sync] {
        bench.faults.set_points(&format!("{point} pause")).unwrap();
    }
    let writer = bench.writer_of_every(2);
    bench.stopped().await;
    // Twice, as all that is dirty is more than may be under way at a time.
    for _ in 0..2 {
        tokio::time::sleep(STALL_LIMIT * 2 / 3).await;
        assert!(bench.faults.release(run).unwrap() > 0);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(bench.cache.stats().syncs, 0);
    assert!(!writer.is_finished(), "told while runs were written");
    bench.faults.set_points("reset").unwrap();
    writer.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stopped_writer_goes_on_where_a_trim_makes_room() {
    let bench = Bench::new(failing("write"));
    let writer = bench.writer();
    bench.stopped().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = bench.cache.stats().dirty_pages;
    bench.cache.trim(&bench.context, 0..HALF).await.unwrap();
    // Sooner than anything that fails is tried again.
    tokio::time::sleep(Duration::from_millis(1)).await;
    let after = bench.cache.stats().dirty_pages;
    assert!((1..before).contains(&after), "{after} dirty pages");
    writer.abort();
}
