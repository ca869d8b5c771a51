//! A balanced tree of ranges that finds the latest of those that overlap another.
//!
//! An AVL tree (Adel'son-Vel'skii and Landis, 1962) in one array, ordered by start and ticket. As in an interval tree
//! (Cormen et al., chapter 14), each node knows the furthest end and the span of tickets of all that is below it. So a
//! search leaves out what ends too early, came too late, or came before the best range found. The tree is balanced by
//! height rather than by chance: clients choose the ranges, and no choice must make the tree deep.

use std::cmp::Ordering;
use std::ops::Range;

use super::{Entry, NO_TICKET, overlap};

/// No node.
const NONE: u32 = u32::MAX;

/// The tree; see the module's documentation.
#[derive(Debug)]
pub(super) struct RangeTree {
    nodes: Vec<Node>,
    /// Nodes that are free again.
    free: Vec<u32>,
    root: u32,
}

#[derive(Debug)]
struct Node {
    entry: Entry,
    left: u32,
    right: u32,
    /// Of the longest path down.
    height: u32,
    /// Of the node and all below it.
    end_max: u64,
    ticket_min: u64,
    ticket_max: u64,
}

impl Node {
    const fn leaf(entry: Entry) -> Self {
        Self {
            left: NONE,
            right: NONE,
            height: 1,
            end_max: entry.range.end,
            ticket_min: entry.ticket,
            ticket_max: entry.ticket,
            entry,
        }
    }

    const fn key(&self) -> (u64, u64) {
        (self.entry.range.start, self.entry.ticket)
    }
}

impl Default for RangeTree {
    fn default() -> Self {
        Self {
            nodes: Vec::new(),
            free: Vec::new(),
            root: NONE,
        }
    }
}

impl RangeTree {
    pub(super) const fn is_empty(&self) -> bool {
        self.root == NONE
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.nodes.len() - self.free.len()
    }

    pub(super) fn insert(&mut self, entry: Entry) {
        let node = Node::leaf(entry);
        let new = match self.free.pop() {
            Some(free) => {
                self.nodes[free as usize] = node;
                free
            }
            None => {
                self.nodes.push(node);
                u32::try_from(self.nodes.len() - 1).expect("fewer than 2^32 requests at a time")
            }
        };
        self.root = self.insert_below(self.root, new);
    }

    /// Takes out the range with that start and ticket, which is there.
    pub(super) fn remove(&mut self, start: u64, ticket: u64) {
        self.root = self.remove_below(self.root, (start, ticket));
        if self.is_empty() {
            *self = Self::default();
        }
    }

    /// The largest ticket less than `before` of the ranges that overlap `range`, or `latest` if that is larger.
    pub(super) fn latest(&self, range: &Range<u64>, before: u64, latest: u64) -> u64 {
        self.latest_below(self.root, range, before, latest)
    }

    fn latest_below(&self, root: u32, range: &Range<u64>, before: u64, latest: u64) -> u64 {
        let Some(node) = self.nodes.get(root as usize) else {
            return latest;
        };
        #[cfg(all(test, not(loom)))]
        crate::testing::interleave::at("tree:looked");
        if node.end_max <= range.start || node.ticket_min >= before || node.ticket_max <= latest {
            return latest;
        }
        let mut latest = latest;
        if node.entry.ticket < before && overlap(&node.entry.range, range) {
            latest = latest.max(node.entry.ticket);
        }
        if node.entry.range.start >= range.end {
            return self.latest_below(node.left, range, before, latest);
        }
        // Where the later ones are first: the other half may be left out then.
        let (mut first, mut second) = (node.left, node.right);
        if self.ticket_max(first) < self.ticket_max(second) {
            (first, second) = (second, first);
        }
        latest = self.latest_below(first, range, before, latest);
        self.latest_below(second, range, before, latest)
    }

    fn insert_below(&mut self, root: u32, new: u32) -> u32 {
        if root == NONE {
            return new;
        }
        if self.at(new).key() < self.at(root).key() {
            let left = self.insert_below(self.at(root).left, new);
            self.at_mut(root).left = left;
        } else {
            let right = self.insert_below(self.at(root).right, new);
            self.at_mut(root).right = right;
        }
        self.balanced(root)
    }

    fn remove_below(&mut self, root: u32, key: (u64, u64)) -> u32 {
        assert!(root != NONE, "{key:?} is not in the tree");
        let (left, right) = (self.at(root).left, self.at(root).right);
        match key.cmp(&self.at(root).key()) {
            Ordering::Less => self.at_mut(root).left = self.remove_below(left, key),
            Ordering::Greater => self.at_mut(root).right = self.remove_below(right, key),
            Ordering::Equal => {
                self.free.push(root);
                if right == NONE {
                    return left;
                }
                let (next, rest) = self.split_first(right);
                self.at_mut(next).left = left;
                self.at_mut(next).right = rest;
                return self.balanced(next);
            }
        }
        self.balanced(root)
    }

    /// The first node below `root`, and the root of the others.
    fn split_first(&mut self, root: u32) -> (u32, u32) {
        let left = self.at(root).left;
        if left == NONE {
            return (root, self.at(root).right);
        }
        let (first, rest) = self.split_first(left);
        self.at_mut(root).left = rest;
        (first, self.balanced(root))
    }

    /// The root of the same nodes, when what is below `root` is balanced and differs in height by two at most.
    fn balanced(&mut self, root: u32) -> u32 {
        let (left, right) = (self.at(root).left, self.at(root).right);
        if self.height(left) > self.height(right) + 1 {
            if self.height(self.at(left).left) < self.height(self.at(left).right) {
                self.at_mut(root).left = self.raise_right(left);
            }
            return self.raise_left(root);
        }
        if self.height(right) > self.height(left) + 1 {
            if self.height(self.at(right).right) < self.height(self.at(right).left) {
                self.at_mut(root).right = self.raise_left(right);
            }
            return self.raise_right(root);
        }
        self.sum_up(root);
        root
    }

    /// A rotation: the left child becomes the root.
    fn raise_left(&mut self, root: u32) -> u32 {
        let left = self.at(root).left;
        self.at_mut(root).left = self.at(left).right;
        self.at_mut(left).right = root;
        self.sum_up(root);
        self.sum_up(left);
        left
    }

    /// A rotation: the right child becomes the root.
    fn raise_right(&mut self, root: u32) -> u32 {
        let right = self.at(root).right;
        self.at_mut(root).right = self.at(right).left;
        self.at_mut(right).left = root;
        self.sum_up(root);
        self.sum_up(right);
        right
    }

    /// What a node knows of those below it, from its children.
    fn sum_up(&mut self, root: u32) {
        let node = self.at(root);
        let mut sum = Node::leaf(node.entry.clone());
        (sum.left, sum.right) = (node.left, node.right);
        for child in [node.left, node.right] {
            if let Some(child) = self.nodes.get(child as usize) {
                sum.height = sum.height.max(child.height + 1);
                sum.end_max = sum.end_max.max(child.end_max);
                sum.ticket_min = sum.ticket_min.min(child.ticket_min);
                sum.ticket_max = sum.ticket_max.max(child.ticket_max);
            }
        }
        *self.at_mut(root) = sum;
    }

    fn height(&self, root: u32) -> u32 {
        self.nodes.get(root as usize).map_or(0, |node| node.height)
    }

    fn ticket_max(&self, root: u32) -> u64 {
        let node = self.nodes.get(root as usize);
        node.map_or(NO_TICKET, |node| node.ticket_max)
    }

    fn at(&self, node: u32) -> &Node {
        &self.nodes[node as usize]
    }

    fn at_mut(&mut self, node: u32) -> &mut Node {
        &mut self.nodes[node as usize]
    }

    /// Asserts that the tree is in order and balanced, and that every node knows what is below it.
    #[cfg(all(test, not(loom)))]
    pub(super) fn check(&self) {
        let mut keys = Vec::new();
        self.check_below(self.root, &mut keys);
        assert!(keys.is_sorted(), "{keys:?}");
        assert_eq!(keys.len(), self.len());
    }

    #[cfg(all(test, not(loom)))]
    fn check_below(&self, root: u32, keys: &mut Vec<(u64, u64)>) -> Vec<Entry> {
        if root == NONE {
            return Vec::new();
        }
        let node = self.at(root);
        let mut entries = self.check_below(node.left, keys);
        keys.push(node.key());
        entries.push(node.entry.clone());
        entries.extend(self.check_below(node.right, keys));
        let heights = [node.left, node.right].map(|child| self.height(child));
        assert!(heights[0].abs_diff(heights[1]) <= 1, "{heights:?}");
        assert_eq!(node.height, heights[0].max(heights[1]) + 1);
        let ends = entries.iter().map(|entry| entry.range.end);
        let tickets = entries.iter().map(|entry| entry.ticket);
        assert_eq!(Some(node.end_max), ends.max());
        assert_eq!(Some(node.ticket_min), tickets.clone().min());
        assert_eq!(Some(node.ticket_max), tickets.max());
        entries
    }
}
