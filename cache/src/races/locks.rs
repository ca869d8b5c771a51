//! The locks alone: rows 16 and 24.

use std::sync::Arc;

use super::{PAGE, idle};
use crate::add_lock::{AddLock, REGION_BYTES};
use crate::frame::PAGE_SHIFT;

fn lock() -> Arc<AddLock> {
    Arc::new(AddLock::new(PAGE_SHIFT))
}

const PAGES: std::ops::Range<u64> = 0..PAGE;
const ROUNDS: usize = 100;

#[tokio::test(start_paused = true)]
async fn race_16_endless_adders_let_a_blocker_in() {
    let lock = lock();
    let mut holder = lock.add(PAGES).await;
    for _ in 0..ROUNDS {
        let blocker = tokio::spawn({
            let lock = Arc::clone(&lock);
            async move { lock.block(PAGES).await }
        });
        idle().await;
        assert!(lock.try_add(PAGES).is_none(), "an adder overtook a blocker");
        // It would hold the lock for ever if it could: it asks again before the holder leaves.
        let next = tokio::spawn({
            let lock = Arc::clone(&lock);
            async move { lock.add(PAGES).await }
        });
        idle().await;
        assert!(!blocker.is_finished() && !next.is_finished());
        drop(holder);
        idle().await;
        assert!(
            blocker.is_finished(),
            "the blocker waits for more than the phase that it met"
        );
        assert!(!next.is_finished(), "an adder shares with a blocker");
        drop(blocker.await.unwrap());
        holder = next.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn race_16_endless_blockers_let_an_adder_in() {
    let lock = lock();
    let mut holder = lock.block(PAGES).await;
    for _ in 0..ROUNDS {
        let adder = tokio::spawn({
            let lock = Arc::clone(&lock);
            async move { lock.add(PAGES).await }
        });
        idle().await;
        assert!(
            lock.try_block(PAGES).is_none(),
            "a blocker overtook an adder"
        );
        let next = tokio::spawn({
            let lock = Arc::clone(&lock);
            async move { lock.block(PAGES).await }
        });
        idle().await;
        assert!(!adder.is_finished() && !next.is_finished());
        drop(holder);
        idle().await;
        assert!(adder.is_finished(), "the adder starves");
        assert!(!next.is_finished(), "a blocker shares with an adder");
        drop(adder.await.unwrap());
        holder = next.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn race_24_other_regions_go_on_between_whole_device_blocks() {
    let lock = lock();
    let elsewhere = 5 * REGION_BYTES..5 * REGION_BYTES + PAGE;
    let mut slow = Some(lock.add(PAGES).await);
    let whole = || {
        let lock = Arc::clone(&lock);
        tokio::spawn(async move { lock.block_whole(0..1 << 60).await })
    };
    for _ in 0..ROUNDS {
        let first = whole();
        idle().await;
        let request = tokio::spawn({
            let (lock, elsewhere) = (Arc::clone(&lock), elsewhere.clone());
            async move { lock.add(elsewhere).await }
        });
        idle().await;
        // It would go on for ever if it could.
        let second = whole();
        idle().await;
        assert!(!first.is_finished() && !request.is_finished());
        // The bound: the slow holder that the first waiter met, and the first waiter.
        slow.take();
        idle().await;
        assert!(
            first.is_finished(),
            "the first waits for more than the slow one"
        );
        assert!(!request.is_finished(), "a request shares with a blocker");
        let first = first.await.unwrap();
        first.assert_covers(elsewhere.clone());
        drop(first);
        idle().await;
        assert!(
            request.is_finished() && !second.is_finished(),
            "a later block of the whole went before a request"
        );
        slow = Some(request.await.unwrap());
        second.abort();
        idle().await;
    }
}
