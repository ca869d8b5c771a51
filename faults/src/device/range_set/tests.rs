use proptest::prelude::*;

use super::RangeSet;

const SPACE: u64 = 48;

proptest! {
    /// Against a bool per number.
    #[test]
    fn behaves_like_a_flat_set(steps in prop::collection::vec((any::<bool>(), 0..SPACE, 0..SPACE), 1..40)) {
        let (mut set, mut flat) = (RangeSet::default(), vec![false; 48]);
        for (add, a, b) in steps {
            let range = a.min(b)..a.max(b);
            for number in range.clone() {
                flat[usize::try_from(number).unwrap()] = add;
            }
            if add { set.insert(range) } else { set.remove(range) }
            let ranges = set.ranges();
            prop_assert!(ranges.windows(2).all(|pair| pair[0].end < pair[1].start), "{ranges:?}");
            for (number, expected) in (0..SPACE).zip(&flat) {
                prop_assert_eq!(set.overlaps(&(number..number + 1)), *expected);
            }
            let expected = (a..a + 5).any(|number| flat.get(usize::try_from(number).unwrap()) == Some(&true));
            prop_assert_eq!(set.overlaps(&(a..a + 5)), expected);
            prop_assert!(!set.overlaps(&(a..a)));
        }
    }
}
