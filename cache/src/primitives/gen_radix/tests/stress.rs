//! Real threads, bounded in number and in rounds: growth, occupation and tags all at once.

use std::sync::Barrier;
use std::sync::atomic::AtomicBool;
use std::thread;

use crossbeam_epoch as epoch;

use super::super::*;
use super::{LEAF, Slot, borders};

const THREADS: usize = 4;
const ROUNDS: u64 = 300;

#[test]
fn threads_that_grow_the_array_together_share_one() {
    for _ in 0..ROUNDS / 10 {
        let array = GenRadix::<Slot>::new();
        let start = Barrier::new(THREADS);
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    start.wait();
                    for index in borders() {
                        let pin = epoch::pin();
                        array.get_or_create(index, &pin).unwrap()[0]
                            .fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        let pin = epoch::pin();
        for index in borders() {
            assert_eq!(
                array.get(index, &pin).unwrap()[0].load(Ordering::Relaxed),
                THREADS as u64
            );
        }
        let nodes = array.bytes();
        drop(pin);
        let alone = GenRadix::<Slot>::new();
        for index in borders() {
            alone.get_or_create(index, &epoch::pin()).unwrap();
        }
        assert_eq!(nodes, alone.bytes(), "what losers allocated isn't counted");
    }
}

/// Each thread occupies entries of the same few leaves, which come and go under it.
#[test]
fn what_is_occupied_stays_until_it_is_vacated() {
    let array = GenRadix::<Slot>::new();
    let start = Barrier::new(THREADS);
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (array, start) = (&array, &start);
            scope.spawn(move || {
                start.wait();
                for round in 0..ROUNDS * 20 {
                    let index = (round % 3) * 1_000 * LEAF + thread as u64;
                    let value = round + 1;
                    let pin = epoch::pin();
                    let slot = array.occupy(index, &pin).unwrap();
                    assert_eq!(slot[0].swap(value, Ordering::Relaxed), 0, "left zero");
                    drop(pin);
                    let pin = epoch::pin();
                    let slot = array.get(index, &pin).expect("occupied");
                    assert_eq!(slot[0].swap(0, Ordering::Relaxed), value);
                    array.vacate(index, &pin);
                }
            });
        }
    });
    let pin = epoch::pin();
    assert_eq!(
        array
            .entries(0..u64::MAX, &pin)
            .filter(|(index, _)| *index >= LEAF)
            .count(),
        0
    );
}

/// Race: the tidier sees an empty leaf, a writer tags it, the tidier clears the tag above. Scans wait for the tidier to
/// end, as they must; every tag set before a scan began is found by it.
#[test]
fn tags_set_while_a_tidier_runs_are_found_afterwards() {
    let array = GenRadix::<Slot>::new();
    let indexes: Vec<u64> = (0..THREADS as u64)
        .map(|thread| thread * 700 * LEAF)
        .collect();
    for index in &indexes {
        array.occupy(*index, &epoch::pin()).unwrap();
    }
    let round_starts = Barrier::new(THREADS + 1);
    let round_ends = Barrier::new(THREADS + 1);
    let finished = AtomicBool::new(false);
    thread::scope(|scope| {
        for index in &indexes {
            let (array, round_starts, round_ends, finished) =
                (&array, &round_starts, &round_ends, &finished);
            scope.spawn(move || {
                while {
                    round_starts.wait();
                    !finished.load(Ordering::Relaxed)
                } {
                    array.set_tag(*index, Tag::Dirty, &epoch::pin());
                    round_ends.wait();
                }
            });
        }
        for _ in 0..ROUNDS * 10 {
            let pin = epoch::pin();
            for index in &indexes {
                array.clear_tag(*index, Tag::Dirty, &pin);
            }
            round_starts.wait();
            array.tidy_tags(0..u64::MAX, Tag::Dirty, &pin);
            round_ends.wait();
            let found: Vec<u64> = array.tagged(0..u64::MAX, Tag::Dirty, &pin).collect();
            assert_eq!(found, indexes);
        }
        finished.store(true, Ordering::Relaxed);
        round_starts.wait();
    });
}
