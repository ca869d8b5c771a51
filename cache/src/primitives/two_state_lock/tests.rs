//! The lock, polled by hand: which waiters are admitted when, in which order, and what cancelled waiters leave behind.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;

use proptest::prelude::*;

use super::*;

/// Counts how often it is woken.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A waiter with its own count of wake-ups.
struct Waiter<'a> {
    acquire: Acquire<'a>,
    woken: Arc<Woken>,
}

impl<'a> Waiter<'a> {
    fn new(lock: &'a TwoStateLock, side: Side) -> Self {
        Self {
            acquire: lock.lock(side),
            woken: Arc::default(),
        }
    }

    /// Polled once already, and found waiting.
    fn queued(lock: &'a TwoStateLock, side: Side) -> Self {
        let mut waiter = Self::new(lock, side);
        assert!(waiter.poll().is_none(), "{side:?} has to wait");
        waiter
    }

    fn poll(&mut self) -> Option<TwoStateGuard<'a>> {
        let waker = Waker::from(Arc::clone(&self.woken));
        match Pin::new(&mut self.acquire).poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(guard) => Some(guard),
            Poll::Pending => None,
        }
    }

    fn wakes(&self) -> usize {
        self.woken.0.load(Ordering::Relaxed)
    }
}

fn assert_idle(lock: &TwoStateLock) {
    assert_eq!(lock.holders(), None);
    assert!(!lock.is_contended());
    assert_eq!((lock.waiters(Side::Add), lock.waiters(Side::Block)), (0, 0));
}

#[test]
fn sides_share_and_exclude() {
    let lock = TwoStateLock::new();
    for side in [Side::Add, Side::Block] {
        let one = lock.try_lock(side).unwrap();
        let two = lock.try_lock(side).unwrap();
        assert_eq!(one.side(), side);
        assert_eq!(lock.holders(), Some((side, 2)));
        assert!(lock.try_lock(side.opponent()).is_none());
        drop(one);
        assert!(lock.try_lock(side.opponent()).is_none());
        drop(two);
        assert_idle(&lock);
    }
}

#[test]
fn an_unpolled_future_does_nothing() {
    let lock = TwoStateLock::new();
    drop(lock.lock(Side::Add));
    assert_idle(&lock);
    let block = lock.try_lock(Side::Block).unwrap();
    drop(lock.lock(Side::Add));
    assert!(!lock.is_contended());
    drop(block);
    assert_idle(&lock);
}

#[test]
fn the_last_holder_admits_all_of_the_next_phase_together() {
    let lock = TwoStateLock::new();
    let adds = [
        lock.try_lock(Side::Add).unwrap(),
        lock.try_lock(Side::Add).unwrap(),
    ];
    let mut blocks = [
        Waiter::queued(&lock, Side::Block),
        Waiter::queued(&lock, Side::Block),
    ];
    assert_eq!(lock.waiters(Side::Block), 2);

    let [first, last] = adds;
    drop(first);
    assert!(blocks.iter().all(|block| block.wakes() == 0));
    drop(last);
    assert_eq!(lock.holders(), Some((Side::Block, 2)));
    assert!(blocks.iter().all(|block| block.wakes() == 1));
    let guards: Vec<_> = blocks
        .iter_mut()
        .map(|block| block.poll().unwrap())
        .collect();
    drop(guards);
    assert_idle(&lock);
}

#[test]
fn newcomers_of_the_holding_state_queue_behind_an_opponent() {
    let lock = TwoStateLock::new();
    let add = lock.try_lock(Side::Add).unwrap();
    let mut block = Waiter::queued(&lock, Side::Block);
    assert!(lock.try_lock(Side::Add).is_none(), "an opponent waits");
    let mut late_add = Waiter::queued(&lock, Side::Add);

    drop(add);
    assert!(late_add.poll().is_none(), "the opposing phase comes first");
    let block = block.poll().unwrap();
    assert!(
        lock.try_lock(Side::Block).is_none(),
        "an opponent of this phase waits too"
    );
    drop(block);
    drop(late_add.poll().unwrap());
    assert_idle(&lock);
}

#[test]
fn phases_alternate_for_as_long_as_anyone_waits() {
    let lock = TwoStateLock::new();
    let mut held = lock.try_lock(Side::Add).unwrap();
    let mut waiters: VecDeque<Waiter<'_>> = VecDeque::from([
        Waiter::queued(&lock, Side::Block),
        Waiter::queued(&lock, Side::Add),
    ]);
    for _ in 0..100 {
        let mut next = waiters.pop_front().unwrap();
        assert_eq!(next.wakes(), 0);
        let left = held.side();
        drop(held);
        held = next.poll().expect("the phase of the first in line");
        assert_eq!(held.side(), left.opponent());
        waiters.push_back(Waiter::queued(&lock, held.side()));
    }
    drop(waiters);
    drop(held);
    assert_idle(&lock);
}

#[test]
fn a_cancelled_opponent_frees_those_behind_it() {
    let lock = TwoStateLock::new();
    let add = lock.try_lock(Side::Add).unwrap();
    let first = Waiter::queued(&lock, Side::Block);
    let second = Waiter::queued(&lock, Side::Block);
    let mut behind = [
        Waiter::queued(&lock, Side::Add),
        Waiter::queued(&lock, Side::Add),
    ];

    drop(first);
    assert!(behind[0].poll().is_none(), "another opponent still waits");
    drop(second);
    assert!(behind.iter().all(|waiter| waiter.wakes() == 1));
    assert_eq!(lock.holders(), Some((Side::Add, 3)));
    assert!(!lock.is_contended());
    drop((behind[0].poll().unwrap(), behind[1].poll().unwrap(), add));
    assert_idle(&lock);
}

#[test]
fn a_cancelled_waiter_of_the_phase_itself_changes_nothing() {
    let lock = TwoStateLock::new();
    let add = lock.try_lock(Side::Add).unwrap();
    let mut block = Waiter::queued(&lock, Side::Block);
    drop(Waiter::queued(&lock, Side::Add));
    assert!(lock.is_contended());
    drop(add);
    drop(block.poll().unwrap());
    assert_idle(&lock);
}

#[test]
fn a_grant_that_is_never_polled_passes_on() {
    let lock = TwoStateLock::new();
    let add = lock.try_lock(Side::Add).unwrap();
    let granted = Waiter::queued(&lock, Side::Block);
    let mut next = Waiter::queued(&lock, Side::Add);
    drop(add);
    assert_eq!(lock.holders(), Some((Side::Block, 1)));
    drop(granted);
    assert_eq!(next.wakes(), 1);
    drop(next.poll().unwrap());
    assert_idle(&lock);
}

#[test]
fn the_latest_waker_is_woken() {
    let lock = TwoStateLock::new();
    let add = lock.try_lock(Side::Add).unwrap();
    let mut waiter = Waiter::queued(&lock, Side::Block);
    let old = std::mem::take(&mut waiter.woken);
    assert!(waiter.poll().is_none());
    drop(add);
    assert_eq!((old.0.load(Ordering::Relaxed), waiter.wakes()), (0, 1));
    drop(waiter.poll());
    assert_idle(&lock);
}

#[test]
#[should_panic(expected = "which nobody holds")]
fn releasing_what_nobody_holds_is_noticed() {
    let lock = TwoStateLock::new();
    let _block = std::mem::ManuallyDrop::new(lock.try_lock(Side::Block));
    lock.release(Side::Add, &Points::NONE);
}

#[test]
#[should_panic(expected = "polled after it was ready")]
fn polling_a_finished_future_is_noticed() {
    let lock = TwoStateLock::new();
    let mut waiter = Waiter::new(&lock, Side::Add);
    drop(waiter.poll().unwrap());
    drop(waiter.poll());
}

#[derive(Clone, Debug)]
enum Step {
    Try(Side),
    Lock(Side),
    Poll(prop::sample::Index),
    CancelOrRelease(prop::sample::Index),
}

fn any_step() -> impl Strategy<Value = Step> {
    let side = prop_oneof![Just(Side::Add), Just(Side::Block)];
    prop_oneof![
        side.clone().prop_map(Step::Try),
        side.prop_map(Step::Lock),
        any::<prop::sample::Index>().prop_map(Step::Poll),
        any::<prop::sample::Index>().prop_map(Step::CancelOrRelease),
    ]
}

/// One of the parties: a holder, or a waiter with its count of wake-ups.
enum Party<'a> {
    Holding(TwoStateGuard<'a>),
    Waiting(Waiter<'a>, Side),
}

proptest! {
    /// In any order of events the sides exclude each other, every waiter has an opponent to wait for or behind, and at
    /// the end nothing is left.
    #[test]
    fn any_sequence_keeps_the_invariants(steps in prop::collection::vec(any_step(), 1..80)) {
        let lock = TwoStateLock::new();
        let mut parties: Vec<Party<'_>> = Vec::new();
        for step in steps {
            match step {
                Step::Try(side) => parties.extend(lock.try_lock(side).map(Party::Holding)),
                Step::Lock(side) => {
                    let mut waiter = Waiter::new(&lock, side);
                    parties.push(match waiter.poll() {
                        Some(guard) => Party::Holding(guard),
                        None => Party::Waiting(waiter, side),
                    });
                }
                Step::Poll(index) if !parties.is_empty() => {
                    let index = index.index(parties.len());
                    if let Party::Waiting(waiter, _) = &mut parties[index] {
                        let woken = waiter.wakes() > 0;
                        let guard = waiter.poll();
                        prop_assert_eq!(guard.is_some(), woken, "admitted is woken, and woken is admitted");
                        if let Some(guard) = guard {
                            parties[index] = Party::Holding(guard);
                        }
                    }
                }
                Step::CancelOrRelease(index) if !parties.is_empty() => {
                    drop(parties.swap_remove(index.index(parties.len())));
                }
                Step::Poll(_) | Step::CancelOrRelease(_) => {}
            }
            check(&lock, &parties)?;
        }
        parties.clear();
        assert_idle(&lock);
    }
}

fn check(lock: &TwoStateLock, parties: &[Party<'_>]) -> Result<(), TestCaseError> {
    let count = |wanted: Side| {
        parties
            .iter()
            .filter(|party| match party {
                Party::Holding(guard) => guard.side() == wanted,
                Party::Waiting(waiter, side) => *side == wanted && waiter.wakes() > 0,
            })
            .count()
    };
    let (adds, blocks) = (count(Side::Add), count(Side::Block));
    prop_assert!(adds == 0 || blocks == 0, "{adds} add while {blocks} block");
    let expected = match (adds, blocks) {
        (0, 0) => None,
        (adds, 0) => Some((Side::Add, adds as u64)),
        (_, blocks) => Some((Side::Block, blocks as u64)),
    };
    prop_assert_eq!(lock.holders(), expected);
    let waiting = lock.waiters(Side::Add) + lock.waiters(Side::Block);
    prop_assert_eq!(lock.is_contended(), waiting > 0);
    if let Some((phase, _)) = expected {
        prop_assert_eq!(
            lock.waiters(phase.opponent()) > 0,
            waiting > 0,
            "someone waits for nobody"
        );
    } else {
        prop_assert_eq!(waiting, 0, "someone waits for a free lock");
    }
    Ok(())
}

/// Blocks the thread until the future is ready.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => thread::park(),
        }
    }
}

#[test]
fn threads_of_both_sides_all_get_in() {
    const ROUNDS: usize = 2_000;
    let lock = TwoStateLock::new();
    let inside = AtomicI64::new(0);
    thread::scope(|scope| {
        for side in [Side::Add, Side::Block, Side::Add, Side::Block] {
            let (lock, inside) = (&lock, &inside);
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    if round % 3 == 0 {
                        // Cancelled at some point of its wait.
                        let mut waiter = Waiter::new(lock, side);
                        drop(waiter.poll());
                    }
                    let guard = block_on(lock.lock(side));
                    let step = if side == Side::Add { 1 } else { -1 };
                    let before = inside.fetch_add(step, Ordering::Relaxed);
                    assert!(before * step >= 0, "{side:?} met {before} of the others");
                    inside.fetch_sub(step, Ordering::Relaxed);
                    drop(guard);
                }
            });
        }
    });
    assert_idle(&lock);
}
