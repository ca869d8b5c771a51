//! Iteration, ordered, both ways, seekable: over all entries that exist, and over the tagged ones.

use std::ops::Range;

use bytemuck::Zeroable;
use crossbeam_epoch::Guard;

use super::node::Leaf;
use super::scan::{Direction, Found};
use super::{GenRadix, GenRadixError, Tag};

impl<T: Zeroable + Send + Sync> GenRadix<T> {
    /// The entries of the range whose leaves exist, with their indexes, empty ones too.
    ///
    /// ```
    /// # use crossbeam_epoch as epoch;
    /// # use std::sync::atomic::AtomicU64;
    /// # use weir_cache::gen_radix::GenRadix;
    /// # let array = GenRadix::<AtomicU64>::new();
    /// # let pin = epoch::pin();
    /// array.get_or_create(1 << 40, &pin)?;
    /// let indexes: Vec<u64> = array.entries(0..(1 << 40) + 3, &pin).map(|(index, _)| index).collect();
    /// assert_eq!(indexes, [1 << 40, (1 << 40) + 1, (1 << 40) + 2]);
    /// # Ok::<(), weir_cache::gen_radix::GenRadixError>(())
    /// ```
    pub fn entries<'g>(&'g self, range: Range<u64>, pin: &'g Guard) -> Entries<'g, T> {
        Entries {
            array: self,
            pin,
            range,
            front: None,
            back: None,
        }
    }

    /// The indexes of the range that have the tag.
    ///
    /// ```
    /// # use crossbeam_epoch as epoch;
    /// # use std::sync::atomic::AtomicU64;
    /// # use weir_cache::gen_radix::{GenRadix, Tag};
    /// # let array = GenRadix::<AtomicU64>::new();
    /// # let pin = epoch::pin();
    /// for index in [1, 70_000, 1 << 40] {
    ///     array.occupy(index, &pin)?;
    ///     array.set_tag(index, Tag::Dirty, &pin);
    /// }
    /// let downwards: Vec<u64> = array.tagged(2..u64::MAX, Tag::Dirty, &pin).rev().collect();
    /// assert_eq!(downwards, [1 << 40, 70_000]);
    /// # Ok::<(), weir_cache::gen_radix::GenRadixError>(())
    /// ```
    pub fn tagged<'g>(&'g self, range: Range<u64>, tag: Tag, pin: &'g Guard) -> Tagged<'g, T> {
        Tagged {
            array: self,
            pin,
            range,
            tag,
        }
    }

    /// Makes the leaves of all entries of the range, so that [`get`](Self::get) finds them.
    ///
    /// # Errors
    /// [`GenRadixError`]; what was made before stays.
    ///
    /// ```
    /// # use crossbeam_epoch as epoch;
    /// # use std::sync::atomic::AtomicU64;
    /// # use weir_cache::gen_radix::GenRadix;
    /// # let array = GenRadix::<AtomicU64>::new();
    /// # let pin = epoch::pin();
    /// array.preallocate(1_000..9_000, &pin)?;
    /// assert!(array.get(5_000, &pin).is_some());
    /// # Ok::<(), weir_cache::gen_radix::GenRadixError>(())
    /// ```
    pub fn preallocate(&self, range: Range<u64>, pin: &Guard) -> Result<(), GenRadixError> {
        if range.is_empty() {
            return Ok(());
        }
        let (first, _) = Self::split(range.start);
        let (last, _) = Self::split(range.end - 1);
        for leaf_number in first..=last {
            self.get_or_create(Self::join(leaf_number, 0), pin)?;
        }
        Ok(())
    }
}

/// The iterator of [`GenRadix::entries`].
pub struct Entries<'g, T: Zeroable + Send + Sync + 'static> {
    array: &'g GenRadix<T>,
    pin: &'g Guard,
    range: Range<u64>,
    /// The leaf that the front is in, so that it is looked up once; likewise the back.
    front: Option<Found<'g, T>>,
    back: Option<Found<'g, T>>,
}

impl<T: Zeroable + Send + Sync> Entries<'_, T> {
    /// Goes on, upwards, from `index`, or from where it is if that is further.
    pub fn seek(&mut self, index: u64) {
        self.range.start = self.range.start.max(index);
    }

    /// Goes on, downwards, from the last entry before `end`, or from where it is if that is further.
    pub fn seek_back(&mut self, end: u64) {
        self.range.end = self.range.end.min(end);
    }
}

impl<'g, T: Zeroable + Send + Sync> Iterator for Entries<'g, T> {
    type Item = (u64, &'g T);

    fn next(&mut self) -> Option<Self::Item> {
        if self.range.is_empty() {
            return None;
        }
        let (wanted, slot) = GenRadix::<T>::split(self.range.start);
        let (leaf_number, leaf) = match self.front {
            Some(front) if front.0 == wanted => front,
            _ => self
                .array
                .find_leaf(wanted, Direction::Up, None, self.pin)?,
        };
        let slot = if leaf_number == wanted { slot } else { 0 };
        self.front = Some((leaf_number, leaf));
        let index = GenRadix::<T>::join(leaf_number, slot);
        if index >= self.range.end {
            self.range.start = self.range.end;
            return None;
        }
        self.range.start = index + 1;
        Some((index, leaf.entry(slot)))
    }
}

impl<T: Zeroable + Send + Sync> DoubleEndedIterator for Entries<'_, T> {
    fn next_back(&mut self) -> Option<Self::Item> {
        if self.range.is_empty() {
            return None;
        }
        let (wanted, slot) = GenRadix::<T>::split(self.range.end - 1);
        let (leaf_number, leaf) = match self.back {
            Some(back) if back.0 == wanted => back,
            _ => self
                .array
                .find_leaf(wanted, Direction::Down, None, self.pin)?,
        };
        let slot = if leaf_number == wanted {
            slot
        } else {
            Leaf::<T>::ENTRIES - 1
        };
        self.back = Some((leaf_number, leaf));
        let index = GenRadix::<T>::join(leaf_number, slot);
        if index < self.range.start {
            self.range.end = self.range.start;
            return None;
        }
        self.range.end = index;
        Some((index, leaf.entry(slot)))
    }
}

/// The iterator of [`GenRadix::tagged`].
pub struct Tagged<'g, T: Zeroable + Send + Sync + 'static> {
    array: &'g GenRadix<T>,
    pin: &'g Guard,
    range: Range<u64>,
    tag: Tag,
}

impl<T: Zeroable + Send + Sync> Tagged<'_, T> {
    /// Goes on, upwards, from `index`, or from where it is if that is further.
    pub fn seek(&mut self, index: u64) {
        self.range.start = self.range.start.max(index);
    }

    /// Goes on, downwards, from the last index before `end`, or from where it is if that is further.
    pub fn seek_back(&mut self, end: u64) {
        self.range.end = self.range.end.min(end);
    }
}

impl<T: Zeroable + Send + Sync> Iterator for Tagged<'_, T> {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        if self.range.is_empty() {
            return None;
        }
        let found = self.array.next_tagged(self.range.start, self.tag, self.pin);
        let found = found.filter(|index| *index < self.range.end);
        self.range.start = found.map_or(self.range.end, |index| index + 1);
        found
    }
}

impl<T: Zeroable + Send + Sync> DoubleEndedIterator for Tagged<'_, T> {
    fn next_back(&mut self) -> Option<u64> {
        if self.range.is_empty() {
            return None;
        }
        let found = self
            .array
            .prev_tagged(self.range.end - 1, self.tag, self.pin);
        let found = found.filter(|index| *index >= self.range.start);
        self.range.end = found.unwrap_or(self.range.start);
        found
    }
}
