use bytemuck::Zeroable;
use weir_faults::ArmedPoints;

use super::counts::Counts;
use super::state::{PageState, UNSTABLE};
use super::*;

mod order;
mod tables;
mod transitions;

#[test]
fn a_zeroed_slot_is_empty() {
    assert!(PageSlot::zeroed().load().is_empty());
}

#[test]
fn only_present_alone_is_clean() {
    assert!(PageState::new(0, PRESENT).is_clean());
    for bits in [DIRTY, IN_FLIGHT, UNSTABLE] {
        assert!(!PageState::new(3, PRESENT | bits).is_clean());
    }
    assert!(!PageState::new(3, FILLING).is_clean());
    assert!(!PageState::EMPTY.with(HELD).is_clean());
}

#[test]
fn counters_follow_the_bits() {
    let (slot, counts) = (PageSlot::zeroed(), Counts::default());
    slot.lock(&counts, ArmedPoints::NONE).publish(7, 1);
    assert_eq!(
        (counts.present(), counts.dirty(), counts.unclean()),
        (1, 1, 1)
    );
    slot.lock(&counts, ArmedPoints::NONE).submit();
    assert_eq!(
        (counts.dirty(), counts.in_flight(), counts.unclean()),
        (0, 1, 1)
    );
    slot.lock(&counts, ArmedPoints::NONE).completed(9);
    assert_eq!(
        (counts.in_flight(), counts.unstable(), counts.unclean()),
        (0, 1, 1)
    );
    let mut page = slot.lock(&counts, ArmedPoints::NONE);
    page.synced(9);
    page.evict();
    drop(page);
    assert_eq!(
        [
            counts.present(),
            counts.dirty(),
            counts.in_flight(),
            counts.held(),
            counts.unstable(),
            counts.unclean(),
        ],
        [0; 6]
    );
}

#[test]
fn the_lock_excludes() {
    let (slot, counts) = (PageSlot::zeroed(), Counts::default());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..10_000 {
                    let page = slot.lock(&counts, ArmedPoints::NONE);
                    slot.set_detail(slot.detail() + 1);
                    drop(page);
                }
            });
        }
    });
    assert_eq!(slot.detail(), 40_000);
}

/// No other state is valid: all sets of bits are tried.
#[test]
fn nine_sets_of_bits_are_states() {
    let all = state::BITS.iter().fold(0, |all, (bit, _)| all | bit);
    let sets = (0..64_u64).map(|set| set << 32);
    assert_eq!(all, 63 << 32, "the bits are neighbours");
    let valid: Vec<_> = sets
        .map(|bits| PageState::new(0, bits))
        .filter(|state| state.is_valid())
        .collect();
    let mut states = transitions::STATES.map(|bits| PageState::new(0, bits));
    states.sort_by_key(|state| state.bits());
    assert_eq!(valid, states);
    assert!(!PageState::new(5, 0).is_valid(), "no state names a frame");
}
