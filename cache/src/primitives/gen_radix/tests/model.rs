//! The array against a `BTreeMap`: any sequence of operations, at indexes close together and far apart.

use std::collections::BTreeMap;
use std::ops::Range;

use crossbeam_epoch as epoch;
use proptest::prelude::*;

use super::super::*;
use super::{Slot, borders};

#[derive(Clone, Debug)]
enum Step {
    Occupy(u64),
    Vacate(prop::sample::Index),
    SetTag(prop::sample::Index, Tag),
    ClearTag(prop::sample::Index, Tag),
    Tidy(u64, u64, Tag),
    Preallocate(u64),
    ClearRange(u64, u64),
    Look(u64, u64, Tag),
}

/// What is known of an occupied index.
#[derive(Default)]
struct Entry {
    occupied: u32,
    value: u64,
    tags: [bool; TAGS],
}

fn any_index() -> impl Strategy<Value = u64> {
    prop_oneof![
        0_u64..2_000,
        prop::sample::select(borders()),
        (0_u64..40).prop_map(|leaf| leaf * 256 * 300),
        any::<u64>(),
    ]
}

fn any_tag() -> impl Strategy<Value = Tag> {
    prop_oneof![Just(Tag::Present), Just(Tag::Dirty)]
}

fn any_step() -> impl Strategy<Value = Step> {
    let at = any::<prop::sample::Index>;
    prop_oneof![
        4 => any_index().prop_map(Step::Occupy),
        3 => at().prop_map(Step::Vacate),
        4 => (at(), any_tag()).prop_map(|(at, tag)| Step::SetTag(at, tag)),
        2 => (at(), any_tag()).prop_map(|(at, tag)| Step::ClearTag(at, tag)),
        1 => (any_index(), any_index(), any_tag()).prop_map(|(from, to, tag)| Step::Tidy(from, to, tag)),
        1 => any_index().prop_map(Step::Preallocate),
        1 => (any_index(), any_index()).prop_map(|(from, to)| Step::ClearRange(from, to)),
        4 => (any_index(), any_index(), any_tag()).prop_map(|(from, to, tag)| Step::Look(from, to, tag)),
    ]
}

#[derive(Default)]
struct Model {
    array: GenRadix<Slot>,
    entries: BTreeMap<u64, Entry>,
    stores: u64,
}

impl Model {
    fn pick(&self, at: prop::sample::Index) -> Option<u64> {
        (!self.entries.is_empty())
            .then(|| *at.get(&self.entries.keys().collect::<Vec<_>>()).to_owned())
    }

    fn apply(&mut self, step: &Step) -> Result<(), TestCaseError> {
        let pin = epoch::pin();
        match *step {
            Step::Occupy(u64::MAX) => {
                let overflow = GenRadixError::Overflow { index: u64::MAX };
                prop_assert_eq!(self.array.occupy(u64::MAX, &pin).unwrap_err(), overflow);
            }
            Step::Occupy(index) => {
                self.stores += 1;
                self.array.occupy(index, &pin).unwrap()[0].store(self.stores, Ordering::Relaxed);
                let entry = self.entries.entry(index).or_default();
                entry.occupied += 1;
                entry.value = self.stores;
            }
            Step::Vacate(at) => self.vacate(at, &pin),
            Step::SetTag(at, tag) => {
                if let Some(index) = self.pick(at) {
                    self.array.set_tag(index, tag, &pin);
                    self.entries.get_mut(&index).unwrap().tags[tag as usize] = true;
                }
            }
            Step::ClearTag(at, tag) => {
                if let Some(index) = self.pick(at) {
                    self.array.clear_tag(index, tag, &pin);
                    self.entries.get_mut(&index).unwrap().tags[tag as usize] = false;
                }
            }
            Step::Tidy(from, to, tag) => {
                self.array.tidy_tags(from.min(to)..from.max(to), tag, &pin)
            }
            Step::Preallocate(from) => {
                let range = from.min(u64::MAX - 1_000)..from.min(u64::MAX - 1_000) + 700;
                self.array.preallocate(range.clone(), &pin).unwrap();
                prop_assert!(
                    range
                        .clone()
                        .all(|index| self.array.get(index, &pin).is_some())
                );
            }
            Step::ClearRange(from, to) => {
                drop(pin);
                self.clear_leaves(from.min(to), from.max(to));
            }
            Step::Look(from, to, tag) => self.look(from.min(to)..from.max(to), tag, &pin)?,
        }
        Ok(())
    }

    fn vacate(&mut self, at: prop::sample::Index, pin: &Guard) {
        let Some(index) = self.pick(at) else { return };
        let entry = self.entries.get_mut(&index).unwrap();
        entry.occupied -= 1;
        if entry.occupied == 0 {
            self.entries.remove(&index);
            self.array.get(index, pin).unwrap()[0].store(0, Ordering::Relaxed);
            for tag in [Tag::Present, Tag::Dirty] {
                self.array.clear_tag(index, tag, pin);
            }
        }
        self.array.vacate(index, pin);
    }

    /// Clears whole leaves, with their occupants; the borders are tested by example.
    fn clear_leaves(&mut self, from: u64, to: u64) {
        let leaf = GenRadix::<Slot>::LEAF_ENTRIES as u64;
        let range = from / leaf * leaf..to / leaf * leaf;
        self.entries.retain(|index, _| !range.contains(index));
        self.array.clear_range(range);
    }

    fn look(&self, range: Range<u64>, tag: Tag, pin: &Guard) -> Result<(), TestCaseError> {
        let wanted: Vec<u64> = self
            .entries
            .range(range.clone())
            .filter(|(_, entry)| entry.tags[tag as usize])
            .map(|(index, _)| *index)
            .collect();
        let upwards: Vec<u64> = self.array.tagged(range.clone(), tag, pin).collect();
        prop_assert_eq!(&upwards, &wanted);
        let mut downwards: Vec<u64> = self.array.tagged(range.clone(), tag, pin).rev().collect();
        downwards.reverse();
        prop_assert_eq!(&downwards, &wanted);
        let next = self
            .array
            .next_tagged(range.start, tag, pin)
            .filter(|index| *index < range.end);
        prop_assert_eq!(next, wanted.first().copied());
        self.look_at_values(range, pin)
    }

    fn look_at_values(&self, range: Range<u64>, pin: &Guard) -> Result<(), TestCaseError> {
        let values = |(index, slot): (u64, &Slot)| {
            let value = slot[0].load(Ordering::Relaxed);
            (value != 0).then_some((index, value))
        };
        let wanted: Vec<(u64, u64)> = self
            .entries
            .range(range.clone())
            .map(|(index, entry)| (*index, entry.value))
            .collect();
        let upwards: Vec<_> = self
            .array
            .entries(range.clone(), pin)
            .filter_map(values)
            .collect();
        prop_assert_eq!(&upwards, &wanted);
        let mut downwards: Vec<_> = self
            .array
            .entries(range, pin)
            .rev()
            .filter_map(values)
            .collect();
        downwards.reverse();
        prop_assert_eq!(&downwards, &wanted);
        Ok(())
    }
}

proptest! {
    #[test]
    fn any_sequence_does_as_a_map_does(steps in prop::collection::vec(any_step(), 1..120)) {
        let mut model = Model::default();
        for step in steps {
            model.apply(&step)?;
        }
        let pin = epoch::pin();
        for tag in [Tag::Present, Tag::Dirty] {
            model.look(0..u64::MAX, tag, &pin)?;
            for (index, entry) in &model.entries {
                prop_assert_eq!(model.array.has_tag(*index, tag, &pin), entry.tags[tag as usize]);
            }
        }
    }
}
