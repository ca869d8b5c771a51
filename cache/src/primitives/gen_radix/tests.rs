//! The array by example, at the borders of its nodes and of its index space, and from many threads.

mod growth;
mod model;
mod stress;

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64};

use crossbeam_epoch as epoch;

use super::node::LEVELS_MAX;
use super::*;

type Slot = [AtomicU64; 2];

/// Larger than a leaf: each leaf holds one entry, and the tree is as deep as it can be.
type Huge = [u64; 1024];

/// Not a power of two, so that some of each leaf is left over.
type Odd = [u8; 24];

const LEAF: u64 = GenRadix::<Slot>::LEAF_ENTRIES as u64;

fn store(array: &GenRadix<Slot>, index: u64, value: u64) {
    let pin = epoch::pin();
    array.occupy(index, &pin).unwrap()[1].store(value, Ordering::Relaxed);
}

fn load(array: &GenRadix<Slot>, index: u64) -> Option<u64> {
    let pin = epoch::pin();
    array
        .get(index, &pin)
        .map(|slot| slot[1].load(Ordering::Relaxed))
}

/// Indexes where something could go wrong.
fn borders() -> Vec<u64> {
    let mut indexes = vec![0, 1, u64::MAX - 1, u64::MAX / 2, u64::MAX / 2 + 1];
    for level in 0..LEVELS_MAX {
        if let Some(border) = LEAF
            .checked_shl(level * node::FANOUT_BITS)
            .filter(|border| *border >= LEAF)
        {
            indexes.extend([border - 1, border, border + 1]);
        }
    }
    indexes.sort_unstable();
    indexes.dedup();
    indexes
}

#[test]
fn leaves_hold_what_fits_whole() {
    assert_eq!(GenRadix::<Slot>::LEAF_ENTRIES, 256);
    assert_eq!(GenRadix::<AtomicU64>::LEAF_ENTRIES, 512);
    assert_eq!(GenRadix::<AtomicU8>::LEAF_ENTRIES, 512);
    assert_eq!(GenRadix::<Odd>::LEAF_ENTRIES, 4096 / 24);
    assert_eq!(GenRadix::<Huge>::LEAF_ENTRIES, 1);
}

#[test]
fn an_empty_array_has_nothing_and_takes_nothing() {
    let array = GenRadix::<Slot>::new();
    let pin = epoch::pin();
    for index in borders() {
        assert!(array.get(index, &pin).is_none());
        assert!(!array.has_tag(index, Tag::Dirty, &pin));
        array.clear_tag(index, Tag::Dirty, &pin);
    }
    assert_eq!(array.next_tagged(0, Tag::Dirty, &pin), None);
    assert_eq!(array.prev_tagged(u64::MAX, Tag::Dirty, &pin), None);
    assert_eq!(array.entries(0..u64::MAX, &pin).count(), 0);
    array.tidy_tags(0..u64::MAX, Tag::Dirty, &pin);
    assert_eq!(array.bytes(), 0);
}

#[test]
fn entries_begin_zero_and_keep_what_they_are_given() {
    for indexes in [borders(), borders().into_iter().rev().collect()] {
        let array = GenRadix::<Slot>::new();
        for &index in &indexes {
            assert!(
                load(&array, index).unwrap_or(0) == 0,
                "{index} was never stored"
            );
            store(&array, index, index + 1);
        }
        for &index in &indexes {
            assert_eq!(load(&array, index), Some(index + 1));
        }
    }
}

#[test]
fn entries_of_any_size_have_places_of_their_own() {
    fn check<T: Zeroable + Send + Sync + 'static>() {
        let array = GenRadix::<T>::new();
        let pin = epoch::pin();
        let count = 3 * GenRadix::<T>::LEAF_ENTRIES as u64 + 1;
        let places: Vec<usize> = (0..count)
            .map(|index| ptr::from_ref(array.get_or_create(index, &pin).unwrap()).addr())
            .collect();
        let mut sorted = places.clone();
        sorted.sort_unstable();
        assert!(
            sorted
                .windows(2)
                .all(|pair| pair[1] - pair[0] >= size_of::<T>())
        );
        assert!(places.iter().all(|place| place % align_of::<T>() == 0));
        let again: Vec<usize> = (0..count)
            .map(|index| ptr::from_ref(array.get(index, &pin).unwrap()).addr())
            .collect();
        assert_eq!(places, again);
    }
    check::<u8>();
    check::<Odd>();
    check::<u64>();
    check::<Slot>();
    check::<[[u8; 32]; 96]>();
    check::<Huge>();
}

#[test]
fn the_largest_indexes_of_the_largest_entries_have_a_place() {
    let array = GenRadix::<Huge>::new();
    let pin = epoch::pin();
    array.get_or_create(u64::MAX - 1, &pin).unwrap();
    assert!(array.get(u64::MAX - 1, &pin).is_some());
    assert!(array.get(u64::MAX - 2, &pin).is_none());
    array.get_or_create(0, &pin).unwrap();
    let indexes: Vec<u64> = array
        .entries(0..u64::MAX, &pin)
        .map(|(index, _)| index)
        .collect();
    assert_eq!(indexes, [0, u64::MAX - 1]);
}

#[test]
fn the_index_past_the_last_overflows() {
    let array = GenRadix::<Slot>::new();
    let pin = epoch::pin();
    let overflow = GenRadixError::Overflow { index: u64::MAX };
    assert_eq!(array.get_or_create(u64::MAX, &pin).unwrap_err(), overflow);
    assert_eq!(array.occupy(u64::MAX, &pin).unwrap_err(), overflow);
    assert_eq!(array.bytes(), 0);
}

#[test]
fn growth_keeps_the_place_of_every_entry() {
    let array = GenRadix::<Slot>::new();
    let pin = epoch::pin();
    let first = ptr::from_ref(array.get_or_create(0, &pin).unwrap());
    for index in borders() {
        array.get_or_create(index, &pin).unwrap();
        assert_eq!(ptr::from_ref(array.get(0, &pin).unwrap()), first);
    }
}

#[test]
fn untouched_space_costs_nothing() {
    let array = GenRadix::<Slot>::new();
    store(&array, u64::MAX - 1, 1);
    // One leaf, and one interior node for each level.
    assert!(array.bytes() < 9 * 5000, "{} bytes", array.bytes());
}

#[test]
fn a_leaf_goes_with_its_last_occupant_and_the_way_to_it_too() {
    let array = GenRadix::<Slot>::new();
    let pin = epoch::pin();
    array.occupy(u64::MAX - 1, &pin).unwrap();
    array.vacate(u64::MAX - 1, &pin);
    let root_only = array.bytes();
    assert_eq!(root_only, node::bytes::<Slot>(1));

    store(&array, 1 << 40, 7);
    store(&array, (1 << 40) + 1, 8);
    array.occupy(1 << 40, &pin).unwrap();
    array.vacate(1 << 40, &pin);
    array.vacate((1 << 40) + 1, &pin);
    assert_eq!(
        load(&array, 1 << 40),
        Some(7),
        "occupied twice, vacated once"
    );
    array.vacate(1 << 40, &pin);
    assert_eq!(load(&array, 1 << 40), None);
    assert_eq!(array.bytes(), root_only);

    store(&array, 1 << 40, 0);
    assert_eq!(load(&array, 1 << 40), Some(0));
}

#[test]
#[should_panic(expected = "not occupied")]
fn vacating_what_was_never_occupied_is_noticed() {
    GenRadix::<Slot>::new().vacate(3, &epoch::pin());
}

#[test]
#[should_panic(expected = "more often than occupied")]
fn vacating_once_too_often_is_noticed() {
    let array = GenRadix::<Slot>::new();
    let pin = epoch::pin();
    array.get_or_create(3, &pin).unwrap();
    array.vacate(3, &pin);
}

#[test]
#[should_panic(expected = "not occupied")]
fn tagging_what_does_not_exist_is_noticed() {
    GenRadix::<Slot>::new().set_tag(3, Tag::Dirty, &epoch::pin());
}

#[test]
fn tags_are_found_both_ways_and_apart() {
    let array = GenRadix::<Slot>::new();
    let pin = epoch::pin();
    let indexes = borders();
    for (at, &index) in indexes.iter().enumerate() {
        array.occupy(index, &pin).unwrap();
        let tag = if at % 2 == 0 {
            Tag::Present
        } else {
            Tag::Dirty
        };
        array.set_tag(index, tag, &pin);
    }
    let upwards: Vec<u64> = array.tagged(0..u64::MAX, Tag::Present, &pin).collect();
    assert_eq!(
        upwards,
        indexes.iter().copied().step_by(2).collect::<Vec<_>>()
    );
    let mut downwards: Vec<u64> = array.tagged(0..u64::MAX, Tag::Dirty, &pin).rev().collect();
    downwards.reverse();
    assert_eq!(
        downwards,
        indexes
            .iter()
            .copied()
            .skip(1)
            .step_by(2)
            .collect::<Vec<_>>()
    );
}

#[test]
fn a_tag_below_a_later_root_is_found() {
    let array = GenRadix::<Slot>::new();
    let pin = epoch::pin();
    array.occupy(3, &pin).unwrap();
    array.set_tag(3, Tag::Dirty, &pin);
    array.occupy(u64::MAX - 1, &pin).unwrap();
    assert_eq!(array.next_tagged(0, Tag::Dirty, &pin), Some(3));
    assert_eq!(array.prev_tagged(u64::MAX, Tag::Dirty, &pin), Some(3));
}

#[test]
fn tidying_clears_what_is_stale_and_nothing_else() {
    let array = GenRadix::<Slot>::new();
    let pin = epoch::pin();
    let (stale, kept) = (5 * LEAF, 700 * LEAF);
    for index in [stale, kept] {
        array.occupy(index, &pin).unwrap();
        array.set_tag(index, Tag::Dirty, &pin);
    }
    array.clear_tag(stale, Tag::Dirty, &pin);
    let marked = |index: u64| {
        let path = array.path(index / LEAF, &pin).unwrap();
        (1..=path.root.level())
            .map(|level| {
                // SAFETY: the nodes of a path above its leaf are interior ones, kept by the pin.
                let node = unsafe { Interior::from_raw(path.nodes[level as usize]) };
                node.header.tags(Tag::Dirty).is_set(path.slot(level))
            })
            .collect::<Vec<bool>>()
    };
    assert_eq!(
        (marked(stale), marked(kept)),
        (vec![true, true], vec![true, true])
    );
    array.tidy_tags(stale + 1..stale + 1, Tag::Dirty, &pin);
    array.tidy_tags(0..stale, Tag::Dirty, &pin);
    array.tidy_tags(0..u64::MAX, Tag::Present, &pin);
    assert_eq!(
        marked(stale),
        [true, true],
        "outside of the range, or another tag"
    );
    array.tidy_tags(stale..kept + 1, Tag::Dirty, &pin);
    assert_eq!(
        (marked(stale), marked(kept)),
        (vec![false, false], vec![true, true])
    );
    assert_eq!(array.next_tagged(0, Tag::Dirty, &pin), Some(kept));
}

#[test]
fn iteration_seeks_and_meets_in_the_middle() {
    let array = GenRadix::<Slot>::new();
    let pin = epoch::pin();
    array.preallocate(0..LEAF, &pin).unwrap();
    array.preallocate(10 * LEAF..11 * LEAF, &pin).unwrap();
    let mut entries = array.entries(2..11 * LEAF - 2, &pin);
    assert_eq!(entries.next().unwrap().0, 2);
    assert_eq!(entries.next_back().unwrap().0, 11 * LEAF - 3);
    entries.seek(LEAF - 1);
    assert_eq!(entries.next().unwrap().0, LEAF - 1);
    assert_eq!(entries.next().unwrap().0, 10 * LEAF);
    entries.seek(3);
    entries.seek_back(10 * LEAF + 2);
    assert_eq!(entries.next_back().unwrap().0, 10 * LEAF + 1);
    assert!(entries.next().is_none() && entries.next_back().is_none());

    for index in [0, 5, 10 * LEAF] {
        array.set_tag(index, Tag::Dirty, &pin);
    }
    let mut tagged = array.tagged(0..u64::MAX, Tag::Dirty, &pin);
    tagged.seek(1);
    tagged.seek_back(10 * LEAF);
    assert_eq!(
        (tagged.next_back(), tagged.next(), tagged.next_back()),
        (Some(5), None, None)
    );
}

#[test]
fn clearing_a_range_frees_whole_leaves_and_empties_the_others() {
    let mut array = GenRadix::<Slot>::new();
    for index in [1, 2, 3 * LEAF, 5 * LEAF, 5 * LEAF + 9] {
        store(&array, index, index);
        array.set_tag(index, Tag::Dirty, &epoch::pin());
    }
    let before = array.bytes();
    array.clear_range(2..5 * LEAF + 1);
    assert_eq!(before - array.bytes(), node::bytes::<Slot>(0));
    assert_eq!(
        [1, 2, 3 * LEAF].map(|index| load(&array, index)),
        [Some(1), Some(0), None]
    );
    assert_eq!(
        [5 * LEAF, 5 * LEAF + 9].map(|index| load(&array, index)),
        [Some(0), Some(5 * LEAF + 9)]
    );
    let pin = epoch::pin();
    let tagged: Vec<u64> = array.tagged(0..u64::MAX, Tag::Dirty, &pin).collect();
    assert_eq!(tagged, [1, 5 * LEAF + 9]);
    array.vacate(2, &pin);
    drop(pin);
    array.clear_range(0..u64::MAX);
    assert_eq!(array.bytes(), 0);
}

#[test]
fn entries_are_dropped_with_their_leaves() {
    let value = Arc::new(());
    let fill = |array: &GenRadix<OnceArc<()>>, index| {
        let pin = epoch::pin();
        array
            .occupy(index, &pin)
            .unwrap()
            .get_or_init(|| Arc::clone(&value));
    };
    let mut array = GenRadix::new();
    for index in [0, 1, 1 << 20, u64::MAX - 1] {
        fill(&array, index);
    }
    assert_eq!(Arc::strong_count(&value), 5);
    array.clear_range(1..2);
    assert_eq!(Arc::strong_count(&value), 4);
    array.clear_range(2..u64::MAX - 1);
    assert_eq!(Arc::strong_count(&value), 3);
    drop(array);
    assert_eq!(Arc::strong_count(&value), 1);
}

#[test]
fn an_immortal_array_needs_no_pin() {
    let array = ImmortalRadix::<AtomicU64>::new();
    for index in [0, 1 << 30, u64::MAX - 1] {
        assert!(array.get(index).is_none());
        array
            .get_or_create(index)
            .unwrap()
            .store(index, Ordering::Relaxed);
        assert_eq!(array.get(index).unwrap().load(Ordering::Relaxed), index);
    }
    assert!(array.get_or_create(u64::MAX).is_err());
}

#[test]
#[should_panic(expected = "other than the default one")]
fn a_pin_that_would_keep_nothing_is_refused() {
    let other = epoch::Collector::new().register();
    let (array, pin) = (GenRadix::<Slot>::new(), other.pin());
    array.get(0, &pin);
}
