//! Every interleaving of the gate's modes, with two shards and threads that name theirs. The models of three parties
//! and all shards take two preemptions at most: three would take minutes.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};

use loom::future::block_on;
use loom::sync::atomic::AtomicI64;
use loom::thread;
use weir_faults::ArmedPoints;

use super::gate::{Gate, Pass};
use crate::primitives::sync::model;

/// The holders that are inside, by weight: the modes exclude each other where the sum would show two of them.
const REGION: i64 = 1;
const WHOLE: i64 = 100;
const EXCLUSIVE: i64 = 10_000;

struct Room {
    gate: Gate,
    inside: AtomicI64,
}

impl Room {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            gate: Gate::new(2),
            inside: AtomicI64::new(0),
        })
    }

    fn region(&self, shard: usize) {
        block_on(self.gate.region(shard)).leak();
        self.stay(Pass::Region { shard }, REGION);
    }

    fn whole(&self) {
        let pass = block_on(self.gate.whole());
        self.stay(pass, WHOLE);
    }

    fn exclusive(&self) {
        let pass = block_on(self.gate.exclusive());
        self.stay(pass, EXCLUSIVE);
    }

    fn stay(&self, pass: Pass, weight: i64) {
        let before = self.inside.fetch_add(weight, Ordering::Relaxed);
        match weight {
            REGION => assert!(before < WHOLE, "a region met {before}"),
            WHOLE => assert!(
                before % WHOLE == 0 && before < EXCLUSIVE,
                "a whole met {before}"
            ),
            _ => assert_eq!(before, 0, "an exclusive one met others"),
        }
        self.inside.fetch_sub(weight, Ordering::Relaxed);
        self.gate.leave(pass);
    }

    /// No holder has left anything behind: all modes pass at once.
    fn assert_idle(&self) {
        self.exclusive();
        for shard in 0..self.gate.shards() {
            let passed = self.gate.try_region(shard, ArmedPoints::NONE);
            drop(passed.expect("an idle gate is open"));
        }
    }
}

fn spawn(room: &Arc<Room>, visit: impl FnOnce(&Room) + 'static) -> thread::JoinHandle<()> {
    let room = Arc::clone(room);
    thread::spawn(move || visit(&room))
}

/// Polls all of them, first in this order.
fn block_on_all(mut futures: Vec<Pin<Box<dyn Future<Output = ()> + '_>>>) {
    block_on(poll_fn(|context| {
        futures.retain_mut(|future| future.as_mut().poll(context).is_pending());
        if futures.is_empty() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }));
}

#[test]
fn loom_a_whole_excludes_regions_of_every_shard() {
    model(2, || {
        let room = Room::new();
        let regions = [0, 1].map(|shard| spawn(&room, move |room| room.region(shard)));
        room.whole();
        regions
            .into_iter()
            .for_each(|region| region.join().unwrap());
        room.assert_idle();
    });
}

/// Without the turnstile, or if it is left before all shards are held, each whole could hold the shard that the other
/// queues for, behind a region that waits for the holder. One thread asks for all of that in the worst order, while the
/// other is a whole that may stop anywhere.
#[test]
fn loom_a_whole_waits_until_another_has_entered() {
    model(3, || {
        let room = Room::new();
        let other = spawn(&room, Room::whole);
        let region = async |shard| {
            room.gate.region(shard).await.leak();
            room.stay(Pass::Region { shard }, REGION);
        };
        let whole = async || {
            let pass = room.gate.whole().await;
            room.stay(pass, WHOLE);
        };
        block_on_all(vec![
            Box::pin(region(0)),
            Box::pin(whole()),
            Box::pin(region(1)),
        ]);
        other.join().unwrap();
        room.assert_idle();
    });
}

/// The same with a thread for each.
#[test]
fn loom_two_wholes_and_regions_of_both_shards_do_not_deadlock() {
    model(1, || {
        let room = Room::new();
        let regions = [0, 1].map(|shard| spawn(&room, move |room| room.region(shard)));
        let whole = spawn(&room, Room::whole);
        room.whole();
        whole.join().unwrap();
        regions
            .into_iter()
            .for_each(|region| region.join().unwrap());
        room.assert_idle();
    });
}

#[test]
fn loom_an_exclusive_excludes_wholes_and_its_like() {
    model(3, || {
        let room = Room::new();
        let whole = spawn(&room, Room::whole);
        let exclusive = spawn(&room, Room::exclusive);
        room.exclusive();
        whole.join().unwrap();
        exclusive.join().unwrap();
        room.assert_idle();
    });
}

#[test]
fn loom_an_exclusive_excludes_regions() {
    model(3, || {
        let room = Room::new();
        let region = spawn(&room, |room| room.region(1));
        room.exclusive();
        region.join().unwrap();
        room.assert_idle();
    });
}

/// Dropped at whichever of its awaits it has come to, as others leave and come.
#[test]
fn loom_a_cancelled_whole_or_exclusive_leaves_no_trace() {
    for is_exclusive in [false, true] {
        model(2, move || {
            let room = Room::new();
            let canceller = spawn(&room, move |room| {
                let mut context = Context::from_waker(Waker::noop());
                // Once or twice, so that it comes past its first await, too.
                if is_exclusive {
                    let mut entering = pin!(room.gate.exclusive());
                    for _ in 0..2 {
                        if let Poll::Ready(pass) = entering.as_mut().poll(&mut context) {
                            return room.gate.leave(pass);
                        }
                    }
                } else {
                    let mut entering = pin!(room.gate.whole());
                    for _ in 0..2 {
                        if let Poll::Ready(pass) = entering.as_mut().poll(&mut context) {
                            return room.gate.leave(pass);
                        }
                    }
                }
            });
            let region = spawn(&room, |room| room.region(1));
            room.whole();
            canceller.join().unwrap();
            region.join().unwrap();
            room.assert_idle();
        });
    }
}
