use super::*;

fn value(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

#[test]
fn a_zeroed_slot_is_empty() {
    assert!(PageSlot::zeroed().load().is_empty());
}

#[test]
fn only_present_alone_is_clean() {
    assert!(PageState::present(0, 0).is_clean());
    for bits in [DIRTY, IN_FLIGHT, UNSTABLE] {
        assert!(!PageState::present(3, bits).is_clean());
    }
    assert!(!PageState::filling(3).is_clean());
    assert!(!PageState::EMPTY.with(HELD).is_clean());
}

#[test]
fn counters_follow_the_bits() {
    let (slot, counts) = (PageSlot::zeroed(), Counts::default());
    slot.lock(&counts, ArmedPoints::NONE).state = PageState::present(7, DIRTY);
    assert_eq!(
        (
            value(&counts.present),
            value(&counts.dirty),
            value(&counts.unclean)
        ),
        (1, 1, 1)
    );
    {
        let mut page = slot.lock(&counts, ArmedPoints::NONE);
        page.state = page.state.without(DIRTY).with(IN_FLIGHT);
    }
    assert_eq!(
        (
            value(&counts.dirty),
            value(&counts.in_flight),
            value(&counts.unclean)
        ),
        (0, 1, 1)
    );
    {
        let mut page = slot.lock(&counts, ArmedPoints::NONE);
        page.state = page.state.without(IN_FLIGHT).with(UNSTABLE);
    }
    assert_eq!(
        (
            value(&counts.in_flight),
            value(&counts.unstable),
            value(&counts.unclean)
        ),
        (0, 1, 1)
    );
    slot.lock(&counts, ArmedPoints::NONE).state = PageState::EMPTY;
    let all = [
        &counts.present,
        &counts.dirty,
        &counts.in_flight,
        &counts.held,
        &counts.unstable,
        &counts.unclean,
    ];
    assert!(all.into_iter().all(|counter| value(counter) == 0));
}

#[test]
fn the_lock_excludes() {
    let (slot, counts) = (PageSlot::zeroed(), Counts::default());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..10_000 {
                    let mut page = slot.lock(&counts, ArmedPoints::NONE);
                    let next = page.detail() + 1;
                    page.set_detail(next);
                }
            });
        }
    });
    assert_eq!(slot.lock(&counts, ArmedPoints::NONE).detail(), 40_000);
}
