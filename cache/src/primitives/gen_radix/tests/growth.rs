//! Growth together with reclaim: one thread has walked from a root, and another empties it and takes it out below a
//! newer one.

use std::sync::atomic::AtomicUsize;
use std::thread;

use crossbeam_epoch as epoch;

use super::super::node::FANOUT_BITS;
use super::super::*;
use super::{LEAF, Slot};

/// Without the care that is tested here, a few thousand rounds failed on two processors.
const ROUNDS: usize = 20_000;
/// Arrays that exist at once.
const BATCH: usize = 500;
/// Looks at the other's progress before the thread gives its processor away.
const SPINS_BEFORE_YIELD: usize = 200;

/// Comes level with the other thread.
fn meet(mine: &AtomicUsize, other: &AtomicUsize, round: usize) {
    mine.store(round, Ordering::Release);
    let mut spins = 0;
    while other.load(Ordering::Acquire) < round {
        spins += 1;
        if spins % SPINS_BEFORE_YIELD == 0 {
            thread::yield_now();
        } else {
            std::hint::spin_loop();
        }
    }
}

/// One thread occupies `other` while its rival occupies `far`, which takes a new root, and vacates `first`, the last
/// occupant below the old one.
fn race(first: u64, far: u64, other: u64) {
    for _ in 0..ROUNDS / BATCH {
        let arrays: Vec<GenRadix<Slot>> = (0..BATCH).map(|_| GenRadix::new()).collect();
        for array in &arrays {
            array.occupy(first, &epoch::pin()).unwrap();
        }
        let progress = [AtomicUsize::new(0), AtomicUsize::new(0)];
        thread::scope(|scope| {
            scope.spawn(|| {
                for (i, array) in arrays.iter().enumerate() {
                    meet(&progress[0], &progress[1], i + 1);
                    let pin = epoch::pin();
                    array.occupy(far, &pin).unwrap();
                    array.vacate(first, &pin);
                }
            });
            for (i, array) in arrays.iter().enumerate() {
                meet(&progress[1], &progress[0], i + 1);
                // So that the two meet in every way.
                for _ in 0..i % 200 {
                    std::hint::spin_loop();
                }
                let pin = epoch::pin();
                array.occupy(other, &pin).unwrap()[0].store(7, Ordering::Relaxed);
            }
        });
        for array in &arrays {
            check(array, far, other);
        }
    }
}

/// Both are occupied; and once they are vacated nothing is left but the root, and perhaps what was the root before.
fn check(array: &GenRadix<Slot>, far: u64, other: u64) {
    let pin = epoch::pin();
    let slot = array.get(other, &pin).expect("occupied");
    assert_eq!(slot[0].load(Ordering::Relaxed), 7);
    assert!(array.get(far, &pin).is_some());
    array.vacate(other, &pin);
    array.vacate(far, &pin);
    let left = array.bytes() - node::bytes::<Slot>(array.load_root().level());
    assert!(left <= node::bytes::<Slot>(0).max(node::bytes::<Slot>(1)));
}

#[test]
fn a_leaf_that_was_the_root_dies_while_another_occupies_in_it() {
    race(0, LEAF, 1);
}

#[test]
fn an_interior_node_that_was_the_root_dies_while_another_occupies_below_it() {
    race(LEAF, LEAF << FANOUT_BITS, 0);
}
