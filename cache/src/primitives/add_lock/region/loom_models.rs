//! Every interleaving of small uses of a region's lock: of the word with the queue. The models of three threads take
//! two preemptions at most: three would take minutes.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use loom::future::block_on;
use loom::sync::atomic::AtomicI64;
use loom::thread;

use super::*;
use crate::primitives::sync::model;

static MEMORY: AtomicUsize = AtomicUsize::new(0);

/// The lock, and the holders that are inside either of two pages, as they count themselves.
struct Room {
    lock: RegionLock,
    inside: [AtomicI64; 2],
}

impl Room {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            lock: RegionLock::new(),
            inside: [AtomicI64::new(0), AtomicI64::new(0)],
        })
    }

    fn visit(&self, side: Side, range: Range<u64>) {
        let place = self.enter(side, &range);
        self.stay(side, &range);
        self.lock.leave(place, &range, &MEMORY);
    }

    fn enter(&self, side: Side, range: &Range<u64>) -> Place {
        let (mut place, is_free) = self.lock.enter(side, range, &MEMORY);
        if !is_free {
            block_on(poll_fn(|context| self.poll(&mut place, range, context)));
        }
        place
    }

    fn poll(&self, place: &mut Place, range: &Range<u64>, context: &Context<'_>) -> Poll<()> {
        match self.lock.poll(place, range, context.waker()) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }

    /// As [`AddLock::try_add_briefly`](crate::add_lock::AddLock::try_add_briefly).
    fn visit_briefly(&self, range: Range<u64>) {
        if self.lock.try_enter_briefly(ArmedPoints::NONE) {
            self.stay(Side::Add, &range);
            self.lock.leave_briefly();
        } else if let Some(place) = self.lock.try_enter(Side::Add, &range, &MEMORY) {
            self.stay(Side::Add, &range);
            self.lock.leave(place, &range, &MEMORY);
        }
    }

    fn stay(&self, side: Side, range: &Range<u64>) {
        let step = if side == Side::Add { 1 } else { -1 };
        let pages = usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
        for page in &self.inside[pages.clone()] {
            let before = page.fetch_add(step, Ordering::Relaxed);
            assert!(before * step >= 0, "{side:?} met {before} of the others");
        }
        for page in &self.inside[pages] {
            page.fetch_sub(step, Ordering::Relaxed);
        }
    }

    fn assert_idle(&self) {
        assert_eq!(self.lock.counts(), (0, 0, false));
    }
}

fn spawn(room: &Arc<Room>, visit: impl FnOnce(&Room) + 'static) -> thread::JoinHandle<()> {
    let room = Arc::clone(room);
    thread::spawn(move || visit(&room))
}

#[test]
fn loom_brief_adders_and_a_blocker_exclude_each_other() {
    model(2, || {
        let room = Room::new();
        let others = [(); 2].map(|()| spawn(&room, |room| room.visit_briefly(0..1)));
        room.visit(Side::Block, 0..1);
        others.into_iter().for_each(|other| other.join().unwrap());
        room.assert_idle();
    });
}

#[test]
fn loom_all_kinds_exclude_each_other_and_everyone_gets_in() {
    model(2, || {
        let room = Room::new();
        let others = [
            spawn(&room, |room| room.visit_briefly(0..1)),
            spawn(&room, |room| room.visit(Side::Add, 0..2)),
        ];
        room.visit(Side::Block, 0..1);
        others.into_iter().for_each(|other| other.join().unwrap());
        room.assert_idle();
    });
}

/// The one that leaves first must not open the region under the other.
#[test]
fn loom_two_blockers_beside_each_other_and_a_brief_adder() {
    model(2, || {
        let room = Room::new();
        let others = [
            spawn(&room, |room| room.visit(Side::Block, 1..2)),
            spawn(&room, |room| room.visit_briefly(0..1)),
        ];
        room.visit(Side::Block, 0..1);
        others.into_iter().for_each(|other| other.join().unwrap());
        room.assert_idle();
    });
}

#[test]
fn loom_two_rounds_of_a_blocker_and_brief_adders() {
    model(3, || {
        let room = Room::new();
        let other = spawn(&room, |room| {
            room.visit_briefly(0..1);
            room.visit_briefly(0..1);
        });
        room.visit(Side::Block, 0..1);
        room.visit(Side::Block, 0..1);
        other.join().unwrap();
        room.assert_idle();
    });
}

/// What a holder did is visible to the opponent that comes next: relaxed accesses, ordered by the lock alone.
#[test]
fn loom_who_comes_next_sees_what_was_done() {
    model(3, || {
        let room = Room::new();
        let written = Arc::new(AtomicI64::new(0));
        let adder = {
            let written = Arc::clone(&written);
            spawn(&room, move |room| {
                if room.lock.try_enter_briefly(ArmedPoints::NONE) {
                    // What the blocker did is complete, and what this adder does must be complete for the next blocker.
                    assert_ne!(written.load(Ordering::Relaxed), 3, "half of it");
                    written.store(1, Ordering::Relaxed);
                    written.store(2, Ordering::Relaxed);
                    room.lock.leave_briefly();
                }
            })
        };
        let place = room.enter(Side::Block, &(0..1));
        assert_ne!(written.load(Ordering::Relaxed), 1, "half of it");
        written.store(3, Ordering::Relaxed);
        written.store(4, Ordering::Relaxed);
        room.lock.leave(place, &(0..1), &MEMORY);
        adder.join().unwrap();
        room.assert_idle();
    });
}

/// A blocker goes while it waits for a brief adder or has just been let in, never polled again; and others wait for it.
#[test]
fn loom_a_cancelled_blocker_leaves_no_trace() {
    model(2, || {
        let room = Room::new();
        let canceller = spawn(&room, |room| {
            let (mut place, is_free) = room.lock.enter(Side::Block, &(0..1), &MEMORY);
            if !is_free {
                let context = Context::from_waker(Waker::noop());
                _ = room.poll(&mut place, &(0..1), &context);
            }
            room.lock.leave(place, &(0..1), &MEMORY);
        });
        let adder = spawn(&room, |room| room.visit(Side::Add, 0..1));
        room.visit_briefly(0..1);
        canceller.join().unwrap();
        adder.join().unwrap();
        room.assert_idle();
    });
}

/// A try that fails closes the region for a moment: it must open again, and no waiter may be forgotten.
#[test]
fn loom_a_blocker_that_tries_leaves_no_trace() {
    model(2, || {
        let room = Room::new();
        let tries = spawn(&room, |room| {
            if let Some(place) = room.lock.try_enter(Side::Block, &(0..1), &MEMORY) {
                room.stay(Side::Block, &(0..1));
                room.lock.leave(place, &(0..1), &MEMORY);
            }
        });
        let adder = spawn(&room, |room| room.visit(Side::Add, 0..1));
        room.visit_briefly(0..1);
        tries.join().unwrap();
        adder.join().unwrap();
        room.assert_idle();
    });
}
