//! The three modes against each other, and what happens at the borders of regions and pages.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use tokio::task::{JoinHandle, yield_now};

use super::*;

mod ranges;

const PAGE_SHIFT: u32 = 12;
const PAGE: u64 = 1 << PAGE_SHIFT;

fn new_lock() -> Arc<AddLock> {
    Arc::new(AddLock::with_shards(PAGE_SHIFT, 4))
}

/// The one page at the start of a region.
fn page_of(region: u64) -> Range<u64> {
    region * REGION_BYTES..region * REGION_BYTES + PAGE
}

/// Polls once, and expects to wait.
fn assert_waits<F: Future + ?Sized>(future: std::pin::Pin<&mut F>) {
    assert!(
        future
            .poll(&mut Context::from_waker(Waker::noop()))
            .is_pending()
    );
}

/// Polls once, and expects to be done.
fn now<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("has to wait"),
    }
}

fn assert_idle(lock: &Arc<AddLock>) {
    drop(now(lock.exclusive()));
    for region in 0..4 {
        drop(lock.try_add(page_of(region)).expect("nobody is left"));
        drop(lock.try_block(page_of(region)).expect("nobody is left"));
        let counts = lock.region_of(region).lock.counts();
        assert_eq!(counts, (0, 0, false), "region {region}");
    }
}

#[test]
fn adders_share_and_blockers_share() {
    let lock = new_lock();
    let adds = (lock.try_add(0..1).unwrap(), lock.try_add(0..PAGE).unwrap());
    assert!(lock.try_block(page_of(0)).is_none());
    drop(adds);
    let blocks = (
        lock.try_block(page_of(0)).unwrap(),
        now(lock.block(page_of(0))),
    );
    assert!(lock.try_add(PAGE - 1..6 * PAGE).is_none());
    drop(blocks);
    assert_idle(&lock);
}

#[test]
fn regions_do_not_know_each_other() {
    let lock = new_lock();
    let add = lock.try_add(page_of(0)).unwrap();
    let block = lock.try_block(page_of(1)).unwrap();
    let far = lock.try_add(u64::MAX - 2..u64::MAX - 1).unwrap();
    drop((add, block, far));
    assert_idle(&lock);
}

#[test]
fn a_range_is_cut_at_the_borders_of_regions() {
    let cut = |range| AddLock::regions(range).collect::<Vec<_>>();
    assert_eq!(cut(7..7), []);
    assert!(
        cut(0..REGION_BYTES)
            .into_iter()
            .eq(std::iter::once(0..REGION_BYTES))
    );
    assert_eq!(
        cut(REGION_BYTES - 1..2 * REGION_BYTES + 1),
        [
            REGION_BYTES - 1..REGION_BYTES,
            REGION_BYTES..2 * REGION_BYTES,
            2 * REGION_BYTES..2 * REGION_BYTES + 1
        ]
    );
    let last = u64::MAX - 1..u64::MAX;
    assert!(cut(last.clone()).into_iter().eq(std::iter::once(last)));
    for piece in cut(1..u64::MAX / (1 << 30)) {
        region_number(&piece);
    }
}

#[test]
fn wholes_share_and_keep_regions_out() {
    let lock = new_lock();
    let whole = now(lock.block_whole(0..u64::MAX));
    let other = now(lock.block_whole(page_of(9)));
    assert!(lock.try_add(page_of(3)).is_none());
    assert!(lock.try_block(page_of(3)).is_none());
    drop(whole);
    assert!(lock.try_add(page_of(3)).is_none());
    drop(other);
    assert_idle(&lock);
}

#[test]
fn an_exclusive_one_is_alone_and_blocks_everything() {
    let lock = new_lock();
    let exclusive = now(lock.exclusive());
    exclusive.as_block().assert_covers(0..u64::MAX);
    assert!(lock.try_add(page_of(0)).is_none());
    {
        let mut whole = pin!(lock.block_whole(page_of(0)));
        let mut other = pin!(lock.exclusive());
        assert_waits(whole.as_mut());
        assert_waits(other.as_mut());
        drop(exclusive);
        drop(now(whole));
        drop(now(other));
    }
    assert_idle(&lock);
}

#[test]
fn an_exclusive_one_waits_for_wholes_and_goes_before_later_ones() {
    let lock = new_lock();
    let whole = now(lock.block_whole(page_of(0)));
    let mut exclusive = Box::pin(lock.exclusive());
    assert_waits(exclusive.as_mut());
    let mut late = Box::pin(lock.block_whole(page_of(0)));
    assert_waits(late.as_mut());
    drop(whole);
    let held = now(exclusive.as_mut());
    assert_waits(late.as_mut());
    drop(held);
    drop(now(late.as_mut()));
    drop((exclusive, late));
    assert_idle(&lock);
}

/// Race 24: a slow fill in one region, a whole-device trim waits for it. Others wait for these two only: not for the
/// next trim, however many follow.
#[test]
fn behind_a_slow_fill_and_a_whole_trim_other_regions_go_on_within_the_bound() {
    let lock = new_lock();
    let slow_fill = lock.try_add(page_of(0)).unwrap();
    let mut trim = Box::pin(lock.block_whole(page_of(2)));
    assert_waits(trim.as_mut());
    let mut next_trim = Box::pin(lock.block_whole(page_of(2)));
    assert_waits(next_trim.as_mut());
    let mut request = Box::pin(lock.add(page_of(1)));
    assert_waits(request.as_mut());

    drop(slow_fill);
    let held = now(trim.as_mut());
    assert_waits(next_trim.as_mut());
    assert_waits(request.as_mut());
    drop(held);
    assert_waits(next_trim.as_mut());
    let add = now(request.as_mut());
    assert_waits(next_trim.as_mut());
    drop(add);
    drop(now(next_trim.as_mut()));
    drop((trim, next_trim, request));
    assert_idle(&lock);
}

#[test]
fn a_future_dropped_at_any_await_leaves_no_trace() {
    let lock = new_lock();
    type Hold = fn(&Arc<AddLock>) -> Box<dyn std::any::Any>;
    let holders: [Hold; 4] = [
        |lock| Box::new(lock.try_add(page_of(0)).unwrap()),
        |lock| Box::new(lock.try_block(page_of(0)).unwrap()),
        |lock| Box::new(now(lock.block_whole(page_of(0)))),
        |lock| Box::new(now(lock.exclusive())),
    ];
    for hold in holders {
        for polls in 0..3 {
            for granted in [false, true] {
                let mut held = Some(hold(&lock));
                let mut add = Box::pin(lock.add(page_of(0)));
                let mut block = Box::pin(lock.block(page_of(0)));
                let mut whole = Box::pin(lock.block_whole(page_of(0)));
                let mut exclusive = Box::pin(lock.exclusive());
                let mut context = Context::from_waker(Waker::noop());
                let mut guards: Vec<Box<dyn std::any::Any>> = Vec::new();
                for _ in 0..polls {
                    if let Poll::Ready(guard) = exclusive.as_mut().poll(&mut context) {
                        guards.push(Box::new(guard));
                        break;
                    }
                    if let Poll::Ready(guard) = whole.as_mut().poll(&mut context) {
                        guards.push(Box::new(guard));
                        break;
                    }
                    if let Poll::Ready(guard) = add.as_mut().poll(&mut context) {
                        guards.push(Box::new(guard));
                        break;
                    }
                    if let Poll::Ready(guard) = block.as_mut().poll(&mut context) {
                        guards.push(Box::new(guard));
                        break;
                    }
                    if granted {
                        held = None;
                    }
                }
                drop((add, block, whole, exclusive));
                drop((guards, held));
                assert_idle(&lock);
            }
        }
    }
}

#[test]
fn waits_are_counted() {
    let lock = new_lock();
    let block = lock.try_block(page_of(0)).unwrap();
    let add = Box::pin(lock.add(page_of(0)));
    let mut add = add;
    assert_waits(add.as_mut());
    drop(block);
    drop(now(add.as_mut()));
    drop(now(lock.block_whole(page_of(0))));
    let stats = lock.stats();
    assert_eq!(
        (
            stats.waits,
            stats.add_waits,
            stats.block_waits,
            stats.gate_waits
        ),
        (1, 1, 0, 0)
    );
    assert_eq!((stats.wholes, stats.exclusives), (1, 0));
}

#[test]
fn memory_is_bounded_whatever_is_touched() {
    let lock = new_lock();
    let bare = lock.bytes();
    drop(lock.try_add(page_of(0)));
    let one = lock.bytes();
    assert!((1..=256).contains(&(one - bare)), "{} bytes", one - bare);
    drop(lock.try_add(page_of(0)));
    assert_eq!(lock.bytes(), one);
    // A page in each of many regions, all over 8 EiB.
    const REGIONS: u64 = (1 << 63) / REGION_BYTES;
    let regions = || (0..REGIONS).step_by(usize::try_from(REGIONS / 10_000).unwrap());
    for region in regions() {
        drop(lock.try_add_briefly(page_of(region)).unwrap());
    }
    assert!(lock.bytes() <= 28 << 10, "{} bytes", lock.bytes());
    for region in regions() {
        drop(lock.try_add(page_of(region)).unwrap());
    }
    assert!(lock.bytes() <= 52 << 10, "{} bytes", lock.bytes());
}

/// A queue is as long as its waiters need; the memory that is kept for it is counted.
#[test]
fn memory_of_a_crowd_is_given_back() {
    let lock = new_lock();
    drop(lock.try_add(page_of(0)));
    let one = lock.bytes();
    let crowd: Vec<_> = (0..1000).map(|_| lock.try_add(page_of(0))).collect();
    assert!(lock.bytes() > one + 32 * size_of::<Range<u64>>());
    drop(crowd);
    assert!(lock.bytes() <= one + (1 << 10), "{} bytes", lock.bytes());
}

#[test]
fn neighbours_do_not_share_a_lock() {
    let locks_of = |first: u64, step: u64| {
        let regions = (first..).step_by(usize::try_from(step).unwrap());
        let locks: std::collections::BTreeSet<_> = regions.take(LOCKS).map(lock_number).collect();
        locks.len()
    };
    assert_eq!(locks_of(0, 1), LOCKS);
    assert_eq!(locks_of(7 * LOCKS as u64, 1), LOCKS);
    // Allocation groups of 16 GiB, 256 GiB and 1 TiB.
    for step in [256, 4096, 16_384] {
        assert!(locks_of(0, step) >= LOCKS / 16, "every {step} regions");
    }
}

#[test]
fn regions_that_share_a_lock_do_not_know_each_other() {
    let lock = new_lock();
    let other = (1..)
        .find(|region| lock_number(*region) == lock_number(0))
        .unwrap();
    let add = lock.try_add(page_of(0)).unwrap();
    let block = lock.try_block(page_of(other)).unwrap();
    assert!(lock.try_add(page_of(other)).is_none());
    let also = lock.try_add_briefly(page_of(0)).unwrap();
    drop((add, block, also));
    assert_idle(&lock);
}

#[test]
#[should_panic(expected = "does not cover")]
fn a_guard_covers_no_more_than_its_range() {
    new_lock().try_add(10..20).unwrap().assert_covers(10..21);
}

#[test]
#[should_panic(expected = "crosses a border")]
fn a_range_over_a_border_is_refused() {
    new_lock().try_add(REGION_BYTES - 1..REGION_BYTES + 1);
}

#[test]
#[should_panic(expected = "cuts a page")]
fn a_block_of_half_a_page_is_refused() {
    new_lock().try_block(0..PAGE / 2);
}

#[test]
#[should_panic(expected = "is empty")]
fn an_empty_range_is_refused() {
    new_lock().try_add(3..3);
}

/// Guards that live in tasks, on several threads, in all modes: each page's count shows which holders are there.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn tasks_in_all_modes_exclude_each_other() {
    const ROUNDS: usize = 300;
    let lock = new_lock();
    // Adders count up, blockers down; by region.
    let inside: Arc<[std::sync::atomic::AtomicI64; 2]> = Arc::default();
    let enter = |cells: &[std::sync::atomic::AtomicI64], step: i64| {
        for cell in cells {
            let before = cell.fetch_add(step, Ordering::Relaxed);
            assert!(before * step >= 0, "met {before}");
        }
    };
    let tasks: Vec<JoinHandle<()>> = (0..8_usize)
        .map(|task| {
            let (lock, inside) = (Arc::clone(&lock), Arc::clone(&inside));
            tokio::spawn(async move {
                for round in 0..ROUNDS {
                    let at = task / 2 % 2;
                    let region = at as u64;
                    let (cells, step, guard): (_, _, Box<dyn std::any::Any + Send>) =
                        match (task, round % 16) {
                            (0, 0) => (&inside[..], -1, Box::new(lock.exclusive().await)),
                            (1, 0..2) => (
                                &inside[..],
                                -1,
                                Box::new(lock.block_whole(0..u64::MAX).await),
                            ),
                            (_, round) if (task + round) % 3 == 0 => (
                                &inside[at..=at],
                                -1,
                                Box::new(lock.block(page_of(region)).await),
                            ),
                            _ => (
                                &inside[at..=at],
                                1,
                                Box::new(lock.add(page_of(region)).await),
                            ),
                        };
                    enter(cells, step);
                    yield_now().await;
                    for cell in cells {
                        cell.fetch_sub(step, Ordering::Relaxed);
                    }
                    drop(guard);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_idle(&lock);
}
