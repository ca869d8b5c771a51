use std::cell::Cell;
use std::collections::BTreeSet;
use std::rc::Rc;

use weir_faults::rng::Rng;
use weir_faults::{Faults, RequestKinds};

use super::*;
use crate::gen_radix::GenRadix;
use crate::testing::interleave;

const LEAF_UNITS: u64 = GenRadix::<AtomicU64>::LEAF_ENTRIES as u64 * BITS;
const EVERYTHING: Range<u64> = 0..u64::MAX;

fn set() -> (UnitSet, Faults) {
    let faults = Faults::new();
    (UnitSet::new(faults.context(RequestKinds::WRITE)), faults)
}

#[test]
fn masks_cover_exactly_the_units() {
    for (start, end) in [(0, 0), (0, 1), (63, 65), (64, 128), (5, 200), (128, 129)] {
        let units = start..end;
        let all = words_of(&units).flat_map(|word| {
            let mask = mask(word, &units);
            (0..BITS)
                .filter(move |bit| mask & (1 << bit) != 0)
                .map(move |bit| word * BITS + bit)
        });
        assert!(all.eq(start..end), "{start}..{end}");
    }
}

/// Ranges near the borders of words and leaves.
#[test]
fn it_counts_as_a_set_does() {
    let (set, _) = set();
    let mut model = BTreeSet::new();
    let mut rng = Rng::new(1);
    for _ in 0..2000 {
        let border = [0, BITS, LEAF_UNITS, 3 * LEAF_UNITS][usize::try_from(rng.below(4)).unwrap()];
        let start = (border + rng.below(100)).saturating_sub(50);
        let units = start..start + rng.below(200);
        match rng.below(3) {
            0 => {
                let new = units.clone().filter(|unit| model.insert(*unit)).count();
                assert_eq!(set.insert(&units), Ok(new as u64), "{units:?}");
            }
            1 => {
                let old = units.clone().filter(|unit| model.remove(unit)).count();
                assert_eq!(set.remove(&units), old as u64, "{units:?}");
            }
            _ => {
                let there = units.clone().filter(|unit| model.contains(unit)).count();
                assert_eq!(set.count(&units), there as u64, "{units:?}");
            }
        }
        assert_eq!(set.count(&EVERYTHING), model.len() as u64);
        let mut ranges = Vec::new();
        assert_eq!(
            set.find_some(&units, &mut ranges),
            None,
            "few enough for one turn"
        );
        let borders = ranges.windows(2).all(|pair| pair[0].end < pair[1].start);
        assert!(borders, "neighbours are not one range: {ranges:?}");
        let there = model.range(units.clone()).copied();
        assert!(ranges.into_iter().flatten().eq(there), "{units:?}");
    }
}

#[test]
fn without_memory_for_all_none_is_put_in() {
    let (set, faults) = set();
    faults
        .set_points("class cache:radix:allocate after 1 error ENOMEM")
        .unwrap();
    set.insert(&(LEAF_UNITS - 2..LEAF_UNITS + 2)).unwrap_err();
    assert_eq!(set.count(&EVERYTHING), 0);
    faults.set_points("reset").unwrap();
    assert_eq!(set.insert(&(LEAF_UNITS - 2..LEAF_UNITS + 2)), Ok(4));
}

#[test]
fn a_walk_costs_what_was_put_in() {
    let (set, _) = set();
    for unit in [3, 1 << 40, 1 << 51] {
        set.insert(&(unit..unit + 1)).unwrap();
    }
    let visited = Rc::new(Cell::new(0));
    let count = Rc::clone(&visited);
    interleave::set("tree:visited", move || count.set(count.get() + 1));
    assert_eq!(set.count(&EVERYTHING), 3);
    assert_eq!(set.remove(&(4..u64::MAX)), 2);
    interleave::clear();
    assert!((1..100).contains(&visited.get()), "{visited:?}");
}
