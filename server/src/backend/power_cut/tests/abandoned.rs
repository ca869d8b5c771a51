//! A FLUSH whose client goes away while it is applied, over a store that continues what it was given.

use std::time::Duration;

use tokio::task::JoinHandle;

use super::*;

/// So large that each of its transfers takes all frames.
const LARGE_PAGES: usize = 600;

struct Abandoned {
    store: Arc<LastingStore>,
    setup: Setup,
}

fn over_lasting_store(size: u64) -> Abandoned {
    let store = Arc::new(LastingStore::new(size));
    Abandoned {
        setup: over(Arc::clone(&store) as _),
        store,
    }
}

/// Until no task can run.
async fn idle() {
    tokio::time::sleep(Duration::from_secs(1)).await;
}

impl Abandoned {
    /// A FLUSH in a task of its own, which goes on until something holds it up.
    async fn flush(&self) -> JoinHandle<Result<(), Errno>> {
        let backend = Arc::clone(&self.setup.power);
        let flush = tokio::spawn(async move { Filter::cover(&*backend, 0..u64::MAX).await });
        idle().await;
        assert!(!flush.is_finished(), "something holds it up");
        flush
    }

    /// Writes, and begins to bring the data to the store for a client that goes away meanwhile.
    async fn abandon_flush_of(&self, bytes: &[u8]) {
        self.setup.bench.write(0, bytes).await.unwrap();
        self.store.hold(true);
        let flush = self.flush().await;
        assert_eq!(self.store.held(), 1);
        flush.abort();
        assert!(flush.await.unwrap_err().is_cancelled());
    }

    /// Releases what is held up, the newest first, until nothing is held up any more.
    async fn let_go(&self) {
        while self.store.held() > 0 {
            self.store.let_newest_go();
            idle().await;
        }
        self.store.hold(false);
    }

    async fn stored(&self, pages: usize) -> Vec<u8> {
        self.setup.store.read(0, pages).await.unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn no_sync_overtakes_one_whose_client_has_gone() {
    let abandoned = over_lasting_store(SIZE);
    abandoned.abandon_flush_of(&page_of(1)).await;
    abandoned.setup.bench.write(0, &page_of(2)).await.unwrap();
    let flush = abandoned.flush().await;
    abandoned.let_go().await;
    assert_eq!(flush.await.unwrap(), Ok(()));
    assert_eq!(abandoned.stored(1).await, page_of(2));
    assert_eq!(abandoned.setup.page(0).await, page_of(2));
}

#[tokio::test(start_paused = true)]
async fn a_power_cut_waits_for_a_sync_whose_client_has_gone() {
    for keep in ["keep=none", "keep=all"] {
        let abandoned = over_lasting_store(SIZE);
        abandoned.abandon_flush_of(&page_of(1)).await;
        abandoned.setup.bench.write(0, &page_of(2)).await.unwrap();
        let ((), ()) = tokio::join!(abandoned.setup.cut(keep), async {
            idle().await;
            assert!(abandoned.setup.power.incarnation().is_err(), "still off");
            abandoned.let_go().await;
        });
        let left = if keep == "keep=all" { 2 } else { 1 };
        assert_eq!(abandoned.stored(1).await, page_of(left), "{keep}");
        assert_eq!(abandoned.setup.page(0).await, page_of(left), "{keep}");
    }
}

/// If two batches were applied side by side, their pieces could be interleaved, and the older version of a page come
/// last.
#[tokio::test(start_paused = true)]
async fn no_piece_of_an_abandoned_sync_lands_after_a_power_cut() {
    let abandoned = over_lasting_store(SIZE);
    let bench = &abandoned.setup.bench;
    bench.write(PAGE_BYTES, &page_of(1)).await.unwrap();
    bench.sync().await.unwrap();
    bench.discard(PAGE_BYTES..2 * PAGE_BYTES).await.unwrap();
    abandoned.abandon_flush_of(&page_of(2)).await;
    bench.write(PAGE_BYTES, &page_of(3)).await.unwrap();
    let ((), ()) = tokio::join!(abandoned.setup.cut("keep=all"), async {
        idle().await;
        abandoned.let_go().await;
    });
    assert_eq!(abandoned.stored(2).await, [page_of(2), page_of(3)].concat());
}

#[tokio::test(start_paused = true)]
async fn large_syncs_whose_clients_have_gone_leave_frames_for_the_next() {
    let abandoned = over_lasting_store(LARGE_PAGES as u64 * PAGE_BYTES);
    let bytes = |seed| pattern(seed, LARGE_PAGES * PAGE_SIZE);
    abandoned.abandon_flush_of(&bytes(1)).await;
    for _ in 0..2 {
        let flush = abandoned.flush().await;
        flush.abort();
    }
    abandoned.setup.bench.write(0, &bytes(2)).await.unwrap();
    let flush = abandoned.flush().await;
    abandoned.let_go().await;
    assert_eq!(flush.await.unwrap(), Ok(()));
    assert_eq!(abandoned.stored(LARGE_PAGES).await, bytes(2));
}

#[tokio::test(start_paused = true)]
async fn a_cut_that_is_dropped_half_way_still_brings_the_survivors_to_the_store() {
    let abandoned = over_lasting_store(SIZE);
    abandoned.setup.bench.write(0, &page_of(1)).await.unwrap();
    abandoned.store.hold(true);
    let patience = Duration::from_secs(1);
    let cut = abandoned.setup.cut("keep=all");
    assert!(tokio::time::timeout(patience, cut).await.is_err());
    abandoned.setup.power.switch_on();
    abandoned.setup.bench.write(0, &page_of(2)).await.unwrap();
    let flush = abandoned.flush().await;
    abandoned.let_go().await;
    assert_eq!(flush.await.unwrap(), Ok(()));
    assert_eq!(abandoned.stored(1).await, page_of(2));
}

/// A store must not be closed while an abandoned batch is being applied.
#[tokio::test(start_paused = true)]
async fn closing_waits_for_a_sync_whose_client_has_gone() {
    let abandoned = over_lasting_store(SIZE);
    abandoned.abandon_flush_of(&page_of(1)).await;
    let patience = Duration::from_secs(1);
    let closed = tokio::time::timeout(patience, Filter::close(&*abandoned.setup.power)).await;
    assert!(closed.is_err(), "closed under a write");
    abandoned.let_go().await;
    assert_eq!(Filter::close(&*abandoned.setup.power).await, Ok(()));
    assert_eq!(abandoned.stored(1).await, page_of(1));
}

#[tokio::test]
async fn a_trim_that_fails_at_the_store_fails_the_sync_and_is_tried_again() {
    let abandoned = over_lasting_store(SIZE);
    let bench = &abandoned.setup.bench;
    bench.write(0, &page_of(1)).await.unwrap();
    bench.sync().await.unwrap();
    bench.zero(0..PAGE_BYTES, ZeroMode::MayPunch).await.unwrap();
    abandoned.store.fail_discards(Some(Errno::EIO));
    assert_eq!(bench.sync().await, Err(Errno::EIO));
    assert_eq!(abandoned.setup.page(0).await, vec![0; PAGE_SIZE]);
    abandoned.store.fail_discards(None);
    assert_eq!(bench.sync().await, Ok(()));
    assert_eq!(abandoned.stored(1).await, vec![0; PAGE_SIZE]);
}

/// What a FLUSH has covered also survives a power cut of the machine: the store is synced, but only once it has
/// everything.
#[tokio::test(start_paused = true)]
async fn a_flush_syncs_the_store_when_that_has_all() {
    let abandoned = over_lasting_store(SIZE);
    let bench = &abandoned.setup.bench;
    bench.write(0, &page_of(1)).await.unwrap();
    bench.discard(PAGE_BYTES..2 * PAGE_BYTES).await.unwrap();
    abandoned.store.hold(true);
    let flush = abandoned.flush().await;
    while abandoned.store.held() > 0 {
        assert_eq!(abandoned.store.syncs(), 0, "something is under way");
        abandoned.store.let_newest_go();
        idle().await;
    }
    assert_eq!(flush.await.unwrap(), Ok(()));
    assert_eq!(abandoned.store.syncs(), 1);
}
