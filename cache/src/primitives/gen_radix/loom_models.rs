//! Every interleaving of growth, tags and reclaim, on nodes of 16 children and leaves of 2 entries.
//!
//! Entries are std's atomics here, which loom doesn't see: the models ask where they are, not when their values arrive.
//! Reclaimed nodes are kept until the array goes (loom knows no epochs), so what an epoch guarantees is assumed: that
//! no node is freed, and no address reused, under a pin.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crossbeam_epoch as epoch;
use loom::thread;

use super::*;
use crate::primitives::sync::model;

type Array = GenRadix<AtomicU64>;

/// Entries of a leaf.
const LEAF: u64 = Array::LEAF_ENTRIES as u64;
/// The first index that needs an interior node of level 2.
const FAR: u64 = LEAF << node::FANOUT_BITS;

fn spawn<R: 'static>(
    array: &Arc<Array>,
    run: impl FnOnce(&Array) -> R + 'static,
) -> thread::JoinHandle<R> {
    let array = Arc::clone(array);
    thread::spawn(move || run(&array))
}

fn store(array: &Array, index: u64, value: u64) {
    let pin = epoch::pin();
    array
        .occupy(index, &pin)
        .unwrap()
        .store(value, Ordering::Relaxed);
}

fn load(array: &Array, index: u64) -> Option<u64> {
    let pin = epoch::pin();
    array
        .get(index, &pin)
        .map(|entry| entry.load(Ordering::Relaxed))
}

fn set(array: &Array, index: u64) {
    array.set_tag(index, Tag::Dirty, &epoch::pin());
}

fn tidy(array: &Array) {
    array.tidy_tags(0..u64::MAX, Tag::Dirty, &epoch::pin());
}

fn tagged(array: &Array) -> Vec<u64> {
    let pin = epoch::pin();
    let upwards: Vec<u64> = array.tagged(0..u64::MAX, Tag::Dirty, &pin).collect();
    let mut downwards: Vec<u64> = array.tagged(0..u64::MAX, Tag::Dirty, &pin).rev().collect();
    downwards.reverse();
    assert_eq!(upwards, downwards);
    upwards
}

/// Occupied entries, with the bits that a tag that was set and cleared has left above them.
fn with_stale_tags(indexes: &[u64]) -> Arc<Array> {
    let array = Arc::new(Array::new());
    for &index in indexes {
        store(&array, index, 1);
        set(&array, index);
        array.clear_tag(index, Tag::Dirty, &epoch::pin());
    }
    array
}

#[test]
fn loom_growing_together_loses_nothing() {
    model(3, || {
        let array = Arc::new(Array::new());
        let other = spawn(&array, |array| store(array, 0, 7));
        store(&array, FAR, 8);
        other.join().unwrap();
        assert_eq!((load(&array, 0), load(&array, FAR)), (Some(7), Some(8)));
        // A root, two interior nodes, two leaves; or, if the low index came first, the nodes that it grew from.
        let nodes = array.bytes();
        let interiors = (nodes - 2 * node::bytes::<AtomicU64>(0)) / node::bytes::<AtomicU64>(1);
        assert_eq!(
            interiors, 3,
            "a loser's node is counted, or a winner's is not"
        );
    });
}

#[test]
fn loom_creating_the_same_leaf_together_makes_one() {
    model(3, || {
        let array = Arc::new(Array::new());
        let place = |array: &Array, index| {
            let pin = epoch::pin();
            ptr::from_ref(array.occupy(index, &pin).unwrap()).addr()
        };
        let other = spawn(&array, move |array| place(array, FAR));
        let mine = place(&array, FAR + 1);
        assert_eq!(mine - other.join().unwrap(), size_of::<AtomicU64>());
    });
}

/// A setter has walked to what was the root when it began.
#[test]
fn loom_a_tag_set_while_the_root_grows_is_found() {
    model(3, || {
        let array = with_stale_tags(&[0]);
        let setter = spawn(&array, |array| set(array, 0));
        let grower = spawn(&array, |array| store(array, FAR, 1));
        grower.join().unwrap();
        tidy(&array);
        setter.join().unwrap();
        assert_eq!(tagged(&array), [0]);
    });
}

#[test]
fn loom_a_tag_set_while_a_tidier_runs_is_found() {
    model(4, || {
        let array = with_stale_tags(&[FAR]);
        let setter = spawn(&array, |array| set(array, FAR));
        tidy(&array);
        setter.join().unwrap();
        assert_eq!(tagged(&array), [FAR]);
    });
}

/// Two setters that meet on the way up, under a tidier.
#[test]
fn loom_tags_set_by_two_while_a_tidier_runs_are_found() {
    model(2, || {
        let array = with_stale_tags(&[FAR, FAR + 1]);
        let setters = [FAR, FAR + 1].map(|index| spawn(&array, move |array| set(array, index)));
        tidy(&array);
        setters
            .into_iter()
            .for_each(|setter| setter.join().unwrap());
        assert_eq!(tagged(&array), [FAR, FAR + 1]);
    });
}

/// A bit that a setter finds set may be that of another setter, whose walk isn't finished.
#[test]
fn loom_a_tag_is_found_as_soon_as_its_own_setter_is_done() {
    model(3, || {
        let array = Arc::new(Array::new());
        store(&array, FAR, 1);
        store(&array, FAR + 1, 1);
        let other = spawn(&array, |array| set(array, FAR));
        set(&array, FAR + 1);
        // Downwards, so that the other's tag isn't met first.
        assert_eq!(
            array.prev_tagged(u64::MAX, Tag::Dirty, &epoch::pin()),
            Some(FAR + 1)
        );
        other.join().unwrap();
        assert_eq!(tagged(&array), [FAR, FAR + 1]);
    });
}

#[test]
fn loom_an_entry_occupied_while_its_leaf_goes_is_kept() {
    model(3, || {
        let array = Arc::new(Array::new());
        store(&array, 0, 1);
        store(&array, FAR, 0);
        let vacater = spawn(&array, |array| array.vacate(FAR, &epoch::pin()));
        store(&array, FAR + 1, 7);
        assert_eq!(load(&array, FAR + 1), Some(7));
        vacater.join().unwrap();
        assert_eq!((load(&array, FAR + 1), load(&array, 0)), (Some(7), Some(1)));
        array.vacate(FAR + 1, &epoch::pin());
        assert_eq!(load(&array, FAR), None);
    });
}

/// The last two occupants leave together: one of them reclaims the leaf and the way to it, once.
#[test]
fn loom_the_last_two_to_leave_reclaim_once() {
    model(3, || {
        let array = Arc::new(Array::new());
        store(&array, 0, 1);
        let kept = array.bytes();
        store(&array, FAR, 0);
        store(&array, FAR + 1, 0);
        let grown = node::bytes::<AtomicU64>(2);
        let first_root = node::bytes::<AtomicU64>(1);
        let vacater = spawn(&array, |array| array.vacate(FAR, &epoch::pin()));
        array.vacate(FAR + 1, &epoch::pin());
        vacater.join().unwrap();
        // The low leaf was the root when it was made, so that the way to it has two nodes now.
        assert_eq!(array.bytes(), kept + grown + first_root);
        assert_eq!((load(&array, 0), load(&array, FAR)), (Some(1), None));
    });
}

/// Two calls occupy and vacate at the same time: a call that finds a dead node helps to unlink it, whichever call
/// killed it.
#[test]
fn loom_coming_and_going_together_leaves_nothing() {
    model(2, || {
        let array = Arc::new(Array::new());
        store(&array, 0, 1);
        store(&array, FAR, 0);
        array.vacate(FAR, &epoch::pin());
        let before = array.bytes();
        let come_and_go = |array: &Array, index, value| {
            store(array, index, value);
            assert_eq!(load(array, index), Some(value));
            array.vacate(index, &epoch::pin());
        };
        let other = spawn(&array, move |array| come_and_go(array, FAR, 7));
        come_and_go(&array, FAR + 1, 8);
        other.join().unwrap();
        assert_eq!(load(&array, FAR), None);
        assert_eq!(array.bytes(), before);
    });
}

/// One thread occupies below the node that was the root when its walk began. Another grows the tree above that node and
/// empties it: the node dies, and its parent is not on the first thread's path.
fn grow_above_and_empty(first: u64, far: u64, other: u64) {
    let array = Arc::new(Array::new());
    store(&array, first, 0);
    let rival = spawn(&array, move |array| {
        store(array, far, 8);
        array.vacate(first, &epoch::pin());
    });
    store(&array, other, 7);
    assert_eq!(load(&array, other), Some(7));
    rival.join().unwrap();
    assert_eq!((load(&array, other), load(&array, far)), (Some(7), Some(8)));
    // The path to the first leaf goes with its last occupant, whichever thread took the dead node out.
    array.vacate(other, &epoch::pin());
    array.vacate(far, &epoch::pin());
    let former_roots = array.bytes() - node::bytes::<AtomicU64>(array.load_root().level());
    let largest = node::bytes::<AtomicU64>(0).max(node::bytes::<AtomicU64>(1));
    assert!(former_roots <= largest, "{former_roots} bytes are left");
}

#[test]
fn loom_a_leaf_that_was_the_root_dies_under_an_occupant() {
    model(3, || grow_above_and_empty(0, LEAF, 1));
}

#[test]
fn loom_an_interior_node_that_was_the_root_dies_under_an_occupant() {
    model(3, || grow_above_and_empty(LEAF, FAR, 0));
}

/// The same root is emptied from below by a thread that walked from it while it was the root, and by a thread that
/// walked from the newer root.
#[test]
fn loom_a_former_root_is_emptied_by_two_who_know_different_roots() {
    model(3, || {
        let array = Arc::new(Array::new());
        store(&array, 0, 0);
        store(&array, LEAF, 0);
        let rival = spawn(&array, |array| {
            store(array, FAR, 8);
            array.vacate(0, &epoch::pin());
        });
        array.vacate(LEAF, &epoch::pin());
        rival.join().unwrap();
        assert_eq!(
            (load(&array, 0), load(&array, LEAF), load(&array, FAR)),
            (None, None, Some(8))
        );
        // Empty or gone, it serves again.
        store(&array, 1, 9);
        assert_eq!(load(&array, 1), Some(9));
        array.vacate(1, &epoch::pin());
        assert_eq!(load(&array, 1), None);
    });
}
