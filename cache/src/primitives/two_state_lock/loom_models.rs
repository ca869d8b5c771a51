//! Every interleaving of small uses of the lock. A waiter that is never woken is a deadlock, which loom reports.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};

use loom::future::block_on;
use loom::sync::atomic::{AtomicBool, AtomicI64};
use loom::thread;

use super::*;
use crate::primitives::sync::model;

/// The lock, and the holders that are inside, as they count themselves.
#[derive(Default)]
struct Room {
    lock: TwoStateLock,
    inside: AtomicI64,
}

impl Room {
    fn visit(&self, side: Side) {
        let guard = block_on(self.lock.lock(side));
        self.stay(guard);
    }

    fn stay(&self, guard: TwoStateGuard<'_>) {
        let step = if guard.side() == Side::Add { 1 } else { -1 };
        let before = self.inside.fetch_add(step, Ordering::Relaxed);
        assert!(
            before * step >= 0,
            "{:?} met {before} of the others",
            guard.side()
        );
        self.inside.fetch_sub(step, Ordering::Relaxed);
        drop(guard);
    }

    fn assert_idle(&self) {
        assert_eq!(self.lock.holders(), None);
        assert!(!self.lock.is_contended());
        assert_eq!(
            self.lock.waiters(Side::Add) + self.lock.waiters(Side::Block),
            0
        );
    }
}

fn spawn(room: &Arc<Room>, visit: impl FnOnce(&Room) + 'static) -> thread::JoinHandle<()> {
    let room = Arc::clone(room);
    thread::spawn(move || visit(&room))
}

fn poll_once<'a>(acquire: &mut Acquire<'a>) -> Poll<TwoStateGuard<'a>> {
    Pin::new(acquire).poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn loom_sides_exclude_each_other_and_everyone_gets_in() {
    model(3, || {
        let room = Arc::new(Room::default());
        let others =
            [Side::Block, Side::Add].map(|side| spawn(&room, move |room| room.visit(side)));
        room.visit(Side::Add);
        others.into_iter().for_each(|other| other.join().unwrap());
        room.assert_idle();
    });
}

#[test]
fn loom_two_rounds_of_either_side() {
    model(3, || {
        let room = Arc::new(Room::default());
        let other = spawn(&room, |room| {
            room.visit(Side::Block);
            room.visit(Side::Block);
        });
        room.visit(Side::Add);
        room.visit(Side::Add);
        other.join().unwrap();
        room.assert_idle();
    });
}

#[test]
fn loom_try_lock_never_lets_the_wrong_side_in() {
    model(3, || {
        let room = Arc::new(Room::default());
        let others = [Side::Block, Side::Add].map(|side| {
            spawn(&room, move |room| {
                if let Some(guard) = room.lock.try_lock(side) {
                    room.stay(guard);
                }
            })
        });
        room.visit(Side::Block);
        others.into_iter().for_each(|other| other.join().unwrap());
        room.assert_idle();
    });
}

/// What a holder did is visible to the other side's next holder: relaxed accesses, ordered by the lock alone.
#[test]
fn loom_a_phase_sees_what_the_one_before_did() {
    model(3, || {
        let room = Arc::new(Room::default());
        let written = Arc::new([AtomicI64::new(0), AtomicI64::new(0)]);
        let adders: Vec<_> = (0..2)
            .map(|number| {
                let written = Arc::clone(&written);
                spawn(&room, move |room| {
                    let guard = block_on(room.lock.lock(Side::Add));
                    written[number].store(1, Ordering::Relaxed);
                    written[number].store(2, Ordering::Relaxed);
                    drop(guard);
                })
            })
            .collect();
        let guard = block_on(room.lock.lock(Side::Block));
        for value in &*written {
            assert_ne!(
                value.load(Ordering::Relaxed),
                1,
                "half of what an adder did"
            );
        }
        drop(guard);
        adders.into_iter().for_each(|adder| adder.join().unwrap());
    });
}

/// Once an opponent waits, a newcomer of the holding state gets in only after it.
#[test]
fn loom_a_newcomer_stays_behind_a_waiting_opponent() {
    model(3, || {
        let room = Arc::new(Room::default());
        let was_in = Arc::new(AtomicBool::new(false));
        let held = room.lock.try_lock(Side::Add).unwrap();
        let mut block = room.lock.lock(Side::Block);
        assert!(poll_once(&mut block).is_pending());
        let newcomer = {
            let was_in = Arc::clone(&was_in);
            spawn(&room, move |room| {
                let guard = block_on(room.lock.lock(Side::Add));
                assert!(
                    was_in.load(Ordering::Relaxed),
                    "overtook a waiting opponent"
                );
                drop(guard);
            })
        };
        drop(held);
        let guard = block_on(block);
        was_in.store(true, Ordering::Relaxed);
        drop(guard);
        newcomer.join().unwrap();
        room.assert_idle();
    });
}

/// Two waiters for the same phase enter it together: each stays until it has met the other.
#[test]
fn loom_all_waiters_of_a_phase_are_admitted_together() {
    model(3, || {
        let room = Arc::new(Room::default());
        let held = room.lock.try_lock(Side::Add).unwrap();
        let mut first = room.lock.lock(Side::Block);
        let mut second = room.lock.lock(Side::Block);
        assert!(poll_once(&mut first).is_pending());
        assert!(poll_once(&mut second).is_pending());
        let newcomer = spawn(&room, |room| room.visit(Side::Add));
        drop(held);
        let first = block_on(first);
        let second = block_on(second);
        drop((first, second));
        newcomer.join().unwrap();
        room.assert_idle();
    });
}

/// A waiter is dropped while its turn comes: it is still queued, or admitted already and never polled again.
#[test]
fn loom_a_cancelled_waiter_leaves_no_trace() {
    model(3, || {
        let room = Arc::new(Room::default());
        let held = room.lock.try_lock(Side::Add).unwrap();
        let canceller = spawn(&room, |room| {
            let mut block = room.lock.lock(Side::Block);
            drop(poll_once(&mut block));
        });
        let behind = spawn(&room, |room| room.visit(Side::Add));
        room.stay(held);
        canceller.join().unwrap();
        behind.join().unwrap();
        room.assert_idle();
    });
}

/// The only opponent goes while the holder stays: the waiters behind it must get in although nothing is released.
#[test]
fn loom_a_cancelled_opponent_frees_those_behind_it() {
    model(3, || {
        let room = Arc::new(Room::default());
        let held = room.lock.try_lock(Side::Add).unwrap();
        let mut block = room.lock.lock(Side::Block);
        assert!(poll_once(&mut block).is_pending());
        let behind = spawn(&room, |room| room.visit(Side::Add));
        drop(block);
        behind.join().unwrap();
        drop(held);
        room.assert_idle();
    });
}

/// A grant, its cancellation and a leaver that was about to begin the same phase, all at once.
#[test]
fn loom_an_unpolled_grant_passes_on() {
    model(3, || {
        let room = Arc::new(Room::default());
        let held = room.lock.try_lock(Side::Add).unwrap();
        let mut block = room.lock.lock(Side::Block);
        assert!(poll_once(&mut block).is_pending());
        let mut behind = room.lock.lock(Side::Add);
        assert!(poll_once(&mut behind).is_pending());
        let other = spawn(&room, |room| room.visit(Side::Block));
        drop(held);
        drop(block);
        let guard = block_on(behind);
        room.stay(guard);
        other.join().unwrap();
        room.assert_idle();
    });
}
