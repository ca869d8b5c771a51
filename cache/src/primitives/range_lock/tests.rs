use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use proptest::prelude::*;

use super::*;

fn poll<F: Future + ?Sized>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn overlapping_ranges_are_served_in_the_order_of_arrival() {
    let lock = RangeLock::default();
    let mut first = pin!(lock.lock(0..4));
    let Poll::Ready(guard) = poll(first.as_mut()) else {
        panic!("nobody is before it")
    };
    let mut second = pin!(lock.lock(3..6));
    let mut third = pin!(lock.lock(5..7));
    assert!(poll(second.as_mut()).is_pending());
    // It doesn't overlap the first, but it came after the second.
    assert!(poll(third.as_mut()).is_pending());
    drop(guard);
    assert!(poll(third.as_mut()).is_pending(), "it overtook the second");
    let Poll::Ready(guard) = poll(second.as_mut()) else {
        panic!("the first is over")
    };
    assert!(poll(third.as_mut()).is_pending());
    drop(guard);
    assert!(poll(third.as_mut()).is_ready());
}

#[test]
fn neighbours_and_strangers_dont_wait() {
    let lock = RangeLock::default();
    let mut guards = Vec::new();
    for pages in [4..8, 0..4, 8..9, 100..u64::MAX] {
        let mut next = pin!(lock.lock(pages.clone()));
        match poll(next.as_mut()) {
            Poll::Ready(guard) => guards.push(guard),
            Poll::Pending => panic!("{pages:?} waits"),
        };
    }
}

#[test]
fn who_gives_up_waiting_gives_its_place_up() {
    let lock = RangeLock::default();
    let mut first = pin!(lock.lock(0..2));
    let guard = poll(first.as_mut());
    assert!(guard.is_ready());
    let mut second = Box::pin(lock.lock(1..4));
    assert!(poll(second.as_mut()).is_pending());
    let mut third = pin!(lock.lock(2..4));
    assert!(poll(third.as_mut()).is_pending());
    drop(second);
    assert!(poll(third.as_mut()).is_ready());
    drop(guard);
}

/// A range, its future, and its guard once it has been served.
type Waiting = (
    Range<u64>,
    std::pin::Pin<Box<dyn Future<Output = RangeGuard>>>,
    Option<RangeGuard>,
);

proptest! {
    /// Against the plain definition: a range goes on exactly when nothing that came before it and is not over overlaps
    /// it.
    #[test]
    fn as_the_definition_says(steps in prop::collection::vec((0_u64..16, 1_u64..6, any::<prop::sample::Index>()), 1..40)) {
        let lock = RangeLock::default();
        let mut running: Vec<Waiting> = Vec::new();
        for (start, length, end) in steps {
            let (pages, lock) = (start..start + length, lock.clone());
            running.push((pages.clone(), Box::pin(async move { lock.lock(pages).await }), None));
            if running.len() > 6 {
                drop(running.remove(end.index(running.len())));
            }
            for i in 0..running.len() {
                let pages = running[i].0.clone();
                let free = running[..i].iter().all(|(earlier, ..)| earlier.end <= pages.start || pages.end <= earlier.start);
                let (_, future, guard) = &mut running[i];
                if guard.is_none() && let Poll::Ready(got) = poll(future.as_mut()) {
                    *guard = Some(got);
                }
                prop_assert_eq!(guard.is_some(), free, "{:?}", pages);
            }
        }
        drop(running);
        prop_assert_eq!(lock.len(), 0);
    }
}

/// Hundreds of clients may have hundreds of changes of one page under way each.
#[test]
fn who_waits_remembers_one_of_those_before_it() {
    const WAITERS: usize = 100;
    let lock = RangeLock::default();
    let mut waiting: Vec<_> = (0..WAITERS).map(|_| Box::pin(lock.lock(0..1))).collect();
    let first = poll(waiting[0].as_mut());
    for future in &mut waiting[1..] {
        assert!(poll(future.as_mut()).is_pending());
    }
    assert_eq!(lock.waiting(), WAITERS - 1);
    drop((first, waiting));
    assert_eq!(lock.len(), 0);
}
