//! The books by themselves, without a cache.

use super::*;

fn space(units: u64) -> Quota {
    under(&Faults::new(), units)
}

fn under(faults: &Faults, units: u64) -> Quota {
    Quota::new(units * PAGE, 4096, faults.context(RequestKinds::WRITE))
}

#[test]
fn a_charge_takes_all_or_nothing() {
    let space = space(4);
    space.charge(&(0..3 * PAGE)).unwrap();
    assert_eq!(space.stats().charged, 3 * PAGE);
    assert_eq!(space.charge(&(2 * PAGE..6 * PAGE)), Err(Errno::ENOSPC));
    assert_eq!(
        space.stats().charged,
        3 * PAGE,
        "a refused charge took something"
    );
    space.charge(&(2 * PAGE..4 * PAGE)).unwrap();
    assert!(space.is_charged(&(0..4 * PAGE)) && !space.is_charged(&(0..5 * PAGE)));
    space.discharge(&(1..2));
    assert_eq!(space.stats().charged, 3 * PAGE);
    space.charge(&(10 * PAGE..11 * PAGE)).unwrap();
    assert_eq!(space.charge(&(11 * PAGE..12 * PAGE)), Err(Errno::ENOSPC));
}

#[test]
fn a_charge_without_memory_leaves_nothing_behind() {
    let faults = Faults::new();
    let space = under(&faults, 8);
    no_memory_for_a_second_leaf(&faults);
    let range = (LEAF_UNITS - 2) * PAGE..(LEAF_UNITS + 2) * PAGE;
    assert_eq!(space.charge(&range), Err(Errno::ENOMEM));
    assert_eq!(space.charged_units(), 0, "units that nobody owns");
    assert_eq!(space.stats().charged, 0);
    faults.set_points("reset").unwrap();
    space.charge(&range).unwrap();
    assert_eq!(space.charged_units(), 4);
    assert_eq!(space.stats().charged, 4 * PAGE);
}

/// Another charges the same unit between the look at the bits and the taking.
#[test]
fn a_unit_that_another_has_charged_meanwhile_needs_no_space() {
    for (quota, wanted) in [(1, 0..1), (16, 0..16)] {
        let space = Rc::new(space(quota));
        let beside = Rc::clone(&space);
        interleave::set("space:looked", move || {
            beside.charge(&(0..quota.div_ceil(2) * PAGE)).unwrap();
        });
        let charged = space.charge(&(wanted.start * PAGE..wanted.end * PAGE));
        interleave::clear();
        assert_eq!(charged, Ok(()), "{quota} units");
        assert_eq!(space.stats().charged, quota * PAGE);
        assert_eq!(space.charged_units(), quota);
    }
}

/// There is enough for all together, whichever thread asks first.
#[test]
fn charges_of_the_same_units_never_want_more_than_there_is() {
    const UNITS: u64 = 48;
    const THREADS: u64 = 4;
    let start = std::sync::Barrier::new(usize::try_from(THREADS).unwrap());
    let (space, refused) = (space(UNITS), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (space, start, refused) = (&space, &start, &refused);
            scope.spawn(move || {
                for _ in 0..300 {
                    start.wait();
                    for step in 0..UNITS / 8 {
                        // From another place each, so that the ranges overlap in part.
                        let first = (step * 8 + thread * 12) % UNITS;
                        let range = first * PAGE..(first + 16).min(UNITS) * PAGE;
                        // Reported at the end: a thread that stopped here would leave the others at the barrier.
                        refused
                            .fetch_add(u64::from(space.charge(&range).is_err()), Ordering::Relaxed);
                    }
                    if start.wait().is_leader() {
                        space.discharge(&(0..UNITS));
                    }
                }
            });
        }
    });
    assert_eq!(refused.into_inner(), 0, "charges refused");
    assert_eq!(space.stats().charged, 0);
}

#[test]
fn what_one_thread_gave_back_another_gets_before_it_hears_of_no_space() {
    let space = space(8);
    std::thread::scope(|scope| {
        scope
            .spawn(|| space.charge(&(0..8 * PAGE)).unwrap())
            .join()
            .unwrap();
        for unit in 0..8 {
            scope
                .spawn({
                    let space = &space;
                    move || space.discharge(&(unit..unit + 1))
                })
                .join()
                .unwrap();
        }
    });
    space.charge(&(100 * PAGE..108 * PAGE)).unwrap();
    assert_eq!(space.stats().charged, 8 * PAGE);
}
