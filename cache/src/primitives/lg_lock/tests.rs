//! Shards: a thread keeps to its own, and the total sees them all.

use std::sync::Barrier;
use std::thread;

use super::*;

const THREADS: usize = 4;

#[test]
fn shards_are_made_from_their_numbers() {
    let lock = LgLock::with_shards(3, |shard| shard);
    assert_eq!(lock.global().iter().copied().collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(lock.shards(), 3);
}

#[test]
fn a_thread_keeps_to_its_shard() {
    let lock = LgLock::with_shards(8, |_| 0);
    for _ in 0..10 {
        *lock.local() += 1;
    }
    let mut counts: Vec<u32> = lock.global().iter().copied().collect();
    counts.sort_unstable();
    assert_eq!(counts, [0, 0, 0, 0, 0, 0, 0, 10]);
}

#[test]
fn the_total_is_exact_while_it_is_held() {
    const ROUNDS: u64 = 5_000;
    // Fewer shards than threads: some share one.
    let lock = LgLock::with_shards(3, |_| 0_u64);
    let start = Barrier::new(THREADS + 1);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                start.wait();
                for _ in 0..ROUNDS {
                    *lock.local() += 1;
                }
            });
        }
        start.wait();
        let mut drained = 0;
        for _ in 0..50 {
            let mut all = lock.global();
            let total: u64 = all.iter().sum();
            assert_eq!(total, all.iter().sum::<u64>());
            drained += all.drain().sum::<u64>();
            assert_eq!(all.iter().sum::<u64>(), 0);
        }
        *lock.local() += drained;
    });
    assert_eq!(lock.global().iter().sum::<u64>(), THREADS as u64 * ROUNDS);
}

#[test]
fn two_totals_at_once_do_not_deadlock() {
    let lock = LgLock::with_shards(4, |_| 0_u64);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for _ in 0..500 {
                    for value in lock.global().iter_mut() {
                        *value += 1;
                    }
                }
            });
        }
    });
    assert!(
        lock.global()
            .iter()
            .all(|value| *value == THREADS as u64 * 500)
    );
}

#[test]
#[should_panic(expected = "without shards")]
fn no_shards_is_refused() {
    let _ = LgLock::with_shards(0, |_| ());
}
