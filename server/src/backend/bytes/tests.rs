use std::time::Duration;

use super::super::testing::lasting::LastingStore;
use super::super::testing::{Bench, pattern};
use super::*;

const SIZE: u64 = 3 * FRAMES as u64 * PAGE_BYTES;

/// Drops a call as soon as nothing moves any more.
async fn abandon(call: impl Future<Output = Result<(), Errno>>) {
    let nothing_moves = tokio::time::timeout(Duration::from_secs(1), call).await;
    assert!(nothing_moves.is_err(), "it is held up");
}

#[tokio::test(start_paused = true)]
async fn frames_of_calls_that_were_dropped_are_waited_for() {
    let store = Arc::new(LastingStore::new(SIZE));
    let bytes = ByteAccess::new().unwrap();
    let first = pattern(1, FRAMES as usize * PAGE_SIZE - 5);
    store.hold(true);
    abandon(bytes.write(&*store, 5, &first)).await;
    assert_eq!(store.held(), 1);
    // Another call that is dropped while it waits leaves nothing behind.
    abandon(bytes.write(&*store, 0, &[9])).await;
    assert_eq!(store.held(), 1);
    let second = pattern(2, 2 * FRAMES as usize * PAGE_SIZE);
    let offset = u64::from(FRAMES) * PAGE_BYTES;
    let (outcome, ()) = tokio::join!(bytes.write(&*store, offset, &second), async {
        store.hold(false);
        store.let_newest_go();
    });
    assert_eq!(outcome, Ok(()));
    let bench = Bench::over(store);
    let all = bench.read(0, 3 * FRAMES as usize).await.unwrap();
    assert_eq!(all[5..5 + first.len()], first);
    assert_eq!(all[index(offset)..], second);
    assert_eq!(all[..5], [0; 5]);
}

/// Each reads the page first and then writes it back. They must run one after the other, or one of the parts is lost.
#[tokio::test(start_paused = true)]
async fn calls_that_share_a_page_keep_each_others_parts() {
    let store = Arc::new(LastingStore::new(SIZE));
    let bytes = ByteAccess::new().unwrap();
    store.hold(true);
    let written = futures_util::future::join3(
        bytes.write(&*store, 0, &[1; 100]),
        bytes.write(&*store, 100, &[2; 100]),
        async {
            // Until nothing moves: every call that is to come has come.
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert_eq!(store.held(), 1, "the second waits for the first");
            store.hold(false);
            store.let_newest_go();
        },
    );
    let (first, second, ()) = written.await;
    assert_eq!((first, second), (Ok(()), Ok(())));
    let page = Bench::over(store).read(0, 1).await.unwrap();
    assert_eq!(page[..100], [1; 100]);
    assert_eq!(page[100..200], [2; 100]);
}
