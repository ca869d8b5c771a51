//! The way to a leaf: the root pointer with its level, the slots that lead to the leaf, and the nodes on the way.

use std::ptr;

use bytemuck::Zeroable;
use crossbeam_epoch::Guard;

use crate::primitives::sync::atomic::Ordering;

use super::GenRadix;
use super::node::{FANOUT, FANOUT_BITS, Header, Interior, LEVEL_MASK, LEVELS_MAX};

/// A node and its level, as the root pointer keeps them together.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Root(pub(super) *mut Header);

impl Root {
    pub(super) fn new(node: *mut Header, level: u32) -> Self {
        Self(node.map_addr(|address| address | level as usize))
    }

    pub(super) fn node(self) -> *mut Header {
        self.0.map_addr(|address| address & !LEVEL_MASK)
    }

    pub(super) fn level(self) -> u32 {
        const { assert!(LEVEL_MASK < u8::MAX as usize) };
        u32::from((self.0.addr() & LEVEL_MASK).to_le_bytes()[0])
    }

    pub(super) fn is_null(self) -> bool {
        self.0.is_null()
    }

    /// Whether the tree below this root has a place for the leaf.
    pub(super) fn reaches(self, leaf_number: u64) -> bool {
        !self.is_null()
            && leaf_number
                .checked_shr(self.level() * FANOUT_BITS)
                .unwrap_or(0)
                == 0
    }
}

/// The nodes from the root to a leaf, by level.
pub(super) struct Path {
    pub(super) nodes: [*mut Header; LEVELS_MAX as usize + 1],
    pub(super) root: Root,
    leaf_number: u64,
}

impl Path {
    pub(super) fn new(root: Root, leaf_number: u64) -> Self {
        let mut nodes = [ptr::null_mut(); LEVELS_MAX as usize + 1];
        nodes[root.level() as usize] = root.node();
        Self {
            nodes,
            root,
            leaf_number,
        }
    }

    pub(super) fn slot(&self, level: u32) -> usize {
        slot_of(self.leaf_number, level)
    }
}

/// Which slot of an interior node of this level leads to the leaf.
pub(super) fn slot_of(leaf_number: u64, level: u32) -> usize {
    let below = leaf_number
        .checked_shr((level - 1) * FANOUT_BITS)
        .unwrap_or(0);
    slot_number(below % FANOUT as u64)
}

/// A slot's number, which is below [`FANOUT`].
#[expect(clippy::cast_possible_truncation, reason = "slots are few")]
pub(super) const fn slot_number(number: u64) -> usize {
    number as usize
}

/// The smallest level whose node has a place for the leaf.
pub(super) fn level_for(leaf_number: u64) -> u32 {
    (u64::BITS - leaf_number.leading_zeros()).div_ceil(FANOUT_BITS)
}

impl<T: Zeroable + Send + Sync> GenRadix<T> {
    /// The path to a leaf that exists.
    pub(super) fn path(&self, leaf_number: u64, _pin: &Guard) -> Option<Path> {
        let root = self.load_root();
        if !root.reaches(leaf_number) {
            return None;
        }
        let mut path = Path::new(root, leaf_number);
        for level in (1..=root.level()).rev() {
            // SAFETY: a node above level 0 is an interior one, and the pin keeps it.
            let interior = unsafe { Interior::from_raw(path.nodes[level as usize]) };
            let child = interior.child(path.slot(level)).load(Ordering::Acquire);
            if child.is_null() {
                return None;
            }
            path.nodes[level as usize - 1] = child;
        }
        Some(path)
    }
}
