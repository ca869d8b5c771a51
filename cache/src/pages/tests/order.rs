//! What goes with a state and when, as seen by another thread at that moment.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;

use bytemuck::Zeroable;
use crossbeam_epoch as epoch;
use weir_faults::{Faults, RequestKinds};

use super::transitions::{Bench, PAGE, all, allowed, reachable};
use crate::pages::counts::Counts;
use crate::pages::frame::{FramePool, PrivateFrame};
use crate::pages::locked::LockedPage;
use crate::pages::state::PageState;
use crate::pages::*;
use crate::testing::interleave;

/// Makes each transition that is allowed, and looks at the page at `place` meanwhile.
fn look_at(place: &'static str, look: fn(&Bench, PageState)) {
    for (from, steps) in reachable() {
        for transition in all() {
            if !allowed(transition).iter().any(|line| line.0 == from) {
                continue;
            }
            let bench = Rc::new(Bench::after(&steps));
            let (before, looks) = (bench.state(), Rc::new(Cell::new(0)));
            interleave::set(place, {
                let (bench, looks) = (Rc::clone(&bench), Rc::clone(&looks));
                move || {
                    look(&bench, before);
                    looks.set(looks.get() + 1);
                }
            });
            bench.make(transition);
            interleave::clear();
            assert_ne!(looks.get(), 0, "{transition:?} after {steps:?}");
        }
    }
}

/// Otherwise a flush that comes at this moment misses a dirty page, or a leaf is reclaimed under a slot.
#[test]
fn the_array_agrees_with_a_page_before_it_is_unlocked() {
    look_at("slot:unlocked", |bench, before| {
        let (pin, state) = (epoch::pin(), bench.state());
        let tags = [!state.is_empty(), state.has(DIRTY)];
        assert_eq!(
            bench.table.tags(PAGE, &pin),
            tags,
            "{before:?} to {state:?}"
        );
        assert!(
            bench.table.slot(PAGE, &pin).is_some(),
            "its leaf is counted"
        );
    });
}

/// Otherwise the frame is another page's already while a hit on this page still takes it for this page's.
#[test]
fn a_frame_is_not_given_back_before_its_slot_is_unlocked() {
    look_at("page:unlocked", |bench, before| {
        if before.has(PRESENT | HELD) {
            let count = bench.pool.count(before.frame());
            assert_ne!(count, 0, "the frame of {before:?} is free");
        }
    });
}

#[test]
fn no_frame_is_published_without_its_reference() {
    look_at("slot:unlocked", |bench, before| {
        let state = bench.state();
        if state.has(PRESENT | HELD) {
            let count = bench.pool.count(state.frame());
            assert_ne!(count, 0, "the frame of {state:?}, {before:?} before");
            assert_eq!(bench.pool.owner(state.frame()), PAGE, "of {state:?}");
        }
    });
}

/// A look that doesn't create a slot finds one in a leaf that exists because of other pages, and that is not counted.
#[test]
fn nothing_is_put_into_a_slot_that_is_not_counted() {
    let pool = FramePool::new(2).expect("memory");
    let faults = Faults::new().context(RequestKinds::WRITEBACK);
    let table = PageTable::new(Arc::clone(&pool), faults);
    let pin = epoch::pin();
    drop(table.lock_or_create(0, &pin).expect("memory"));
    let put = catch_unwind(AssertUnwindSafe(|| {
        let frame = PrivateFrame::alloc(&pool).expect("a frame");
        let slot = table.lock(1, &pin).expect("the first leaf stays");
        slot.publish(frame, 1, |_, _| ());
    }));
    assert!(put.is_err());
}

#[test]
#[cfg(debug_assertions)]
fn what_is_no_state_is_never_stored() {
    for bits in (0..64_u64).map(|set| set << 32) {
        let (slot, counts) = (PageSlot::zeroed(), Counts::default());
        let state = PageState::new(0, bits);
        let page = LockedPage::new(&slot, &counts, state);
        let stored = catch_unwind(AssertUnwindSafe(|| drop(page)));
        assert_eq!(stored.is_ok(), state.is_valid(), "{state:?}");
    }
}
