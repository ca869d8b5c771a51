//! Growth: nodes are linked by compare-and-swap, and the loser frees its own.

use std::ptr;

use bytemuck::Zeroable;
use crossbeam_epoch::Guard;
use weir_faults::{ArmedPoints, fault_point, race_fault};

use crate::primitives::sync::atomic::Ordering;

use super::node::{self, Header, Interior, Leaf};
use super::path::{Path, Root, level_for};
use super::{GenRadix, GenRadixError, Tag, check_pin};

impl<T: Zeroable + Send + Sync> GenRadix<T> {
    /// The entry, in a leaf that `accept` takes, which is one that isn't dead.
    pub(super) fn create<'g>(
        &'g self,
        index: u64,
        pin: &'g Guard,
        accept: impl Fn(Leaf<'g, T>) -> bool,
    ) -> Result<&'g T, GenRadixError> {
        check_pin(pin);
        if index == u64::MAX {
            return Err(GenRadixError::Overflow { index });
        }
        let (leaf_number, slot) = Self::split(index);
        // Each further turn follows another call's reclaim, or helps it along.
        loop {
            let Some(path) = self.create_path(leaf_number, pin)? else {
                continue;
            };
            // SAFETY: level 0 is a leaf of this array's type, and the pin keeps it.
            let leaf = unsafe { Leaf::from_raw(path.nodes[0]) };
            if accept(leaf) {
                return Ok(leaf.entry(slot));
            }
            self.bury(&path, 0, pin);
        }
    }

    /// The path to a leaf, made where it doesn't exist; none if a node on it was dead, and is now unlinked.
    fn create_path(&self, leaf_number: u64, pin: &Guard) -> Result<Option<Path>, GenRadixError> {
        let root = self.root_reaching(leaf_number)?;
        let mut path = Path::new(root, leaf_number);
        for level in (1..=root.level()).rev() {
            // SAFETY: a node above level 0 is an interior one, and the pin keeps it.
            let interior = unsafe { Interior::from_raw(path.nodes[level as usize]) };
            let mut child = interior.child(path.slot(level)).load(Ordering::Acquire);
            if child.is_null() {
                let Some(added) = self.add_child(&path, level, pin)? else {
                    return Ok(None);
                };
                child = added;
            }
            path.nodes[level as usize - 1] = child;
        }
        Ok(Some(path))
    }

    /// Makes the child of the path's node at `level`, unless another call does so first; none if that node is dead.
    fn add_child(
        &self,
        path: &Path,
        level: u32,
        pin: &Guard,
    ) -> Result<Option<*mut Header>, GenRadixError> {
        if race_fault!(self.armed()) {
            // As if a rival's child came first.
            self.link_child(path, level, pin)?;
        }
        self.link_child(path, level, pin)
    }

    fn link_child(
        &self,
        path: &Path,
        level: u32,
        pin: &Guard,
    ) -> Result<Option<*mut Header>, GenRadixError> {
        // SAFETY: a node above level 0 is an interior one, and the pin keeps it.
        let interior = unsafe { Interior::from_raw(path.nodes[level as usize]) };
        let child = self.allocate(level - 1)?;
        // Counted before it is linked: a parent that counts nothing may die at any time.
        if !interior.header.population.occupy(self.armed()) {
            // SAFETY: allocated above, never linked.
            unsafe { node::free::<T>(child, level - 1) };
            self.bury(path, level, pin);
            return Ok(None);
        }
        let linked = interior.child(path.slot(level)).compare_exchange(
            ptr::null_mut(),
            child,
            Ordering::AcqRel,
            Ordering::Acquire,
        );
        match linked {
            Ok(_) => {
                self.count_bytes(level - 1);
                Ok(Some(child))
            }
            Err(other) => {
                // SAFETY: allocated above, never linked.
                unsafe { node::free::<T>(child, level - 1) };
                self.release(path, level, pin);
                Ok(Some(other))
            }
        }
    }

    /// A root that has a place for the leaf, grown as far as need be.
    fn root_reaching(&self, leaf_number: u64) -> Result<Root, GenRadixError> {
        let mut root = self.load_root();
        while !root.reaches(leaf_number) {
            if race_fault!(self.armed()) {
                // As if a rival grew it first.
                self.grow(root, leaf_number)?;
            }
            root = self.grow(root, leaf_number)?;
        }
        Ok(root)
    }

    /// Puts a root above this one, unless another call does so first. Returns the root that there is then.
    fn grow(&self, root: Root, leaf_number: u64) -> Result<Root, GenRadixError> {
        let level = if root.is_null() {
            level_for(leaf_number)
        } else {
            root.level() + 1
        };
        let node = self.allocate(level)?;
        if !root.is_null() {
            // SAFETY: allocated above, for a level above 0.
            let interior = unsafe { Interior::from_raw(node) };
            interior.child(0).store(root.node(), Ordering::Relaxed);
            interior.header.population.occupy(ArmedPoints::NONE);
            // Perhaps stale, never missing: see the module's documentation.
            interior.header.tags(Tag::Present).set(0);
            interior.header.tags(Tag::Dirty).set(0);
        }
        let grown = Root::new(node, level);
        match self
            .root
            .compare_exchange(root.0, grown.0, Ordering::AcqRel, Ordering::Acquire)
        {
            Ok(_) => {
                self.count_bytes(level);
                Ok(grown)
            }
            Err(current) => {
                // SAFETY: allocated above, never linked; the child is the old root, which stays.
                unsafe { node::free::<T>(node, level) };
                Ok(Root(current))
            }
        }
    }

    /// An empty node, not yet linked.
    fn allocate(&self, level: u32) -> Result<*mut Header, GenRadixError> {
        if fault_point!(self.armed(), "cache:radix:allocate", [ENOMEM]).is_err() {
            return Err(GenRadixError::OutOfMemory {
                bytes: node::bytes::<T>(level),
            });
        }
        node::allocate::<T>(level)
    }

    fn count_bytes(&self, level: u32) {
        self.bytes
            .fetch_add(node::bytes::<T>(level), Ordering::Relaxed);
    }
}
