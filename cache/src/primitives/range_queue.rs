//! Ranges in the order of their arrival: which overlap, which came first, which waits for which.
//!
//! It is what [`AddLock`](crate::add_lock) and [`RangeLock`](crate::primitives::range_lock) have in common. It is plain
//! data behind a mutex of its owner: it knows no atomics and never waits.
//!
//! # The rule
//! A request enters with a range, a [`Side`] and the next *ticket*, and stays until it leaves. It has its range when no
//! *opponent* that overlaps it and has a smaller ticket is left. The owner of the queue says which side opposes.
//!
//! - A request in the queue has no state of "waiting" or "holding" that would have to be kept true. Later opponents
//!   wait for it in both cases, and it leaves in the same way. So a future that is dropped leaves no trace, and nothing
//!   is ever granted to a future that isn't polled again.
//! - A request that has to wait looks for the *latest* opponent before it, and is woken when that one leaves. Then it
//!   looks again. That is one entry for each waiter, however many are before it. Requests that pile up over one page
//!   form a chain, each behind the one before, and a departure wakes the next and not all.
//! - Tickets only grow, and a request waits for smaller ones alone: waits have no cycle.
//!
//! # Cost
//! All of it is done under the owner's mutex. So it must be little for the next request, whatever others have piled up.
//!
//! - The first [`SLOTS`] ranges lie in an array with a bit each. Entering and leaving is a few instructions without a
//!   search, and a look compares with the ranges of the other side. A disk's queue is not deeper.
//! - What comes on top goes into a balanced tree for each side (see [`tree`]). Entering, leaving and a look at a range
//!   that nothing overlaps take O(log n). A look at a range that k overlap takes O(k log n) at worst.
//!
//! # Memory
//! The array grows with the requests in it and keeps room for [`SLOTS_KEPT`] when they have gone. Trees and waiters go
//! when they are empty. [`RangeQueue::kept_bytes`] is what stays.

use std::collections::BTreeMap;
use std::mem;
use std::ops::Range;
use std::task::Waker;

use crate::two_state_lock::Side;

mod tree;

use tree::RangeTree;

#[cfg(all(test, not(loom)))]
mod tests;

/// Ranges that are kept without an order: as many as a word has bits, and more than a disk works on at a time.
const SLOTS: u32 = u64::BITS;
/// Room for so many is kept when the last one leaves: a burst of 32 requests, as clients send them, allocates nothing
/// then.
const SLOTS_KEPT: usize = 32;

/// A number that is no one's ticket: for whoever waits for something that has no place in the queue.
pub(crate) const NO_TICKET: u64 = 0;

/// No one's ticket either: for a place that waits for nothing.
const NOBODY: u64 = u64::MAX;

/// The queue; see the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct RangeQueue {
    last_ticket: u64,
    /// By side: which slots are taken. None is by both.
    taken: [u64; 2],
    slots: Vec<Entry>,
    /// There while it isn't empty.
    crowd: Option<Box<Crowd>>,
}

/// What only a queue with many in it, or with waiters, needs.
#[derive(Debug, Default)]
struct Crowd {
    /// By side: those that found no slot.
    trees: [RangeTree; 2],
    /// By the ticket of whom they wait for, then by their own.
    waiting: BTreeMap<u64, BTreeMap<u64, Waker>>,
}

impl Crowd {
    fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.trees.iter().all(RangeTree::is_empty)
    }
}

#[derive(Clone, Debug)]
struct Entry {
    range: Range<u64>,
    ticket: u64,
}

/// A place in a queue. Its owner keeps it together with its range and gives both back with [`RangeQueue::leave`].
#[derive(Debug)]
#[must_use = "a place is to be given back"]
pub(crate) struct Place {
    ticket: u64,
    side: Side,
    /// `SLOTS` for one in the tree.
    slot: u32,
    /// Whom it has asked to be woken by; that one may have left since. Else `NOBODY`.
    ahead: u64,
}

impl Place {
    pub(crate) const fn side(&self) -> Side {
        self.side
    }
}

/// Whoever waited for what has happened, to be woken when the mutex is free again.
#[derive(Debug, Default)]
#[must_use = "they wait to be woken"]
pub(crate) struct Woken {
    waiters: BTreeMap<u64, Waker>,
    /// A waker that nobody needs any more. Dropping it may run code that takes the mutex.
    _unneeded: Option<Waker>,
}

impl Woken {
    /// Wakes them, in the order of their tickets.
    pub(crate) fn wake(self) {
        self.waiters.into_values().for_each(Waker::wake);
    }
}

const fn index(side: Side) -> usize {
    match side {
        Side::Add => 0,
        Side::Block => 1,
    }
}

impl RangeQueue {
    /// Enters behind everyone who is there.
    #[inline]
    pub(crate) fn enter(&mut self, side: Side, range: &Range<u64>) -> Place {
        self.last_ticket += 1;
        let entry = Entry {
            range: range.clone(),
            ticket: self.last_ticket,
        };
        let ticket = entry.ticket;
        let slot = (!(self.taken[0] | self.taken[1])).trailing_zeros();
        if slot == SLOTS {
            self.crowd().trees[index(side)].insert(entry);
        } else {
            self.taken[index(side)] |= 1 << slot;
            match self.slots.get_mut(slot as usize) {
                Some(free) => *free = entry,
                // The lowest free one: there is none before it.
                None => self.slots.push(entry),
            }
        }
        Place {
            ticket,
            side,
            slot,
            ahead: NOBODY,
        }
    }

    /// Whether anyone of `side` overlaps `range`.
    #[inline]
    pub(crate) fn meets(&self, side: Side, range: &Range<u64>) -> bool {
        self.latest(side, range, u64::MAX).is_some()
    }

    /// The latest of `side` that overlaps `range` and came before `place`.
    pub(crate) fn latest_before(
        &self,
        side: Side,
        range: &Range<u64>,
        place: &Place,
    ) -> Option<u64> {
        self.latest(side, range, place.ticket)
    }

    #[inline]
    fn latest(&self, side: Side, range: &Range<u64>, before: u64) -> Option<u64> {
        let mut latest = NO_TICKET;
        let mut taken = self.taken[index(side)];
        while taken != 0 {
            let entry = &self.slots[taken.trailing_zeros() as usize];
            taken &= taken - 1;
            if overlap(&entry.range, range) && entry.ticket < before {
                latest = latest.max(entry.ticket);
            }
        }
        if let Some(crowd) = &self.crowd {
            latest = crowd.trees[index(side)].latest(range, before, latest);
        }
        (latest != NO_TICKET).then_some(latest)
    }

    /// Whether anyone of `side` is there.
    pub(crate) fn has(&self, side: Side) -> bool {
        let in_tree = |crowd: &Crowd| !crowd.trees[index(side)].is_empty();
        self.taken[index(side)] != 0 || self.crowd.as_deref().is_some_and(in_tree)
    }

    /// Has `waker` woken when `ahead` leaves, and by no one else any more.
    pub(crate) fn wait(&mut self, place: &mut Place, ahead: Option<u64>, waker: &Waker) -> Woken {
        let mut unneeded = None;
        let ahead = ahead.unwrap_or(NOBODY);
        if place.ahead != ahead {
            unneeded = self.stop_waiting(place);
            place.ahead = ahead;
        }
        if ahead != NOBODY {
            let waiters = self.crowd().waiting.entry(ahead).or_default();
            match waiters.get_mut(&place.ticket) {
                Some(queued) if queued.will_wake(waker) => {}
                Some(queued) => unneeded = Some(mem::replace(queued, waker.clone())),
                None => _ = waiters.insert(place.ticket, waker.clone()),
            }
        }
        Woken {
            waiters: BTreeMap::new(),
            _unneeded: unneeded,
        }
    }

    /// Leaves, with or without having had its range.
    #[inline]
    pub(crate) fn leave(&mut self, place: Place, range: &Range<u64>) -> Option<Woken> {
        if place.slot != SLOTS {
            let bit = 1 << place.slot;
            let taken = &mut self.taken[index(place.side)];
            assert!(*taken & bit != 0, "{place:?} was left before");
            *taken &= !bit;
            if self.slots.capacity() <= SLOTS_KEPT && self.crowd.is_none() {
                return None;
            }
        }
        Some(self.leave_crowd(place, range))
    }

    /// The rest of [`leave`](Self::leave), where there are others or have been.
    #[cold]
    fn leave_crowd(&mut self, mut place: Place, range: &Range<u64>) -> Woken {
        if place.slot == SLOTS {
            self.crowd().trees[index(place.side)].remove(range.start, place.ticket);
        }
        let woken = Woken {
            _unneeded: self.stop_waiting(&mut place),
            waiters: self.woken_by(place.ticket),
        };
        if self.taken == [0; 2] && self.slots.capacity() > SLOTS_KEPT && self.crowd.is_none() {
            self.slots = Vec::with_capacity(SLOTS_KEPT);
        }
        woken
    }

    /// Those who wait for what has no place.
    pub(crate) fn wake_unplaced(&mut self) -> Woken {
        Woken {
            waiters: self.woken_by(NO_TICKET),
            _unneeded: None,
        }
    }

    /// Memory that stays when everyone has left, and what the slots take above that now.
    pub(crate) fn kept_bytes(&self) -> usize {
        self.slots.capacity() * size_of::<Entry>()
    }

    /// How many are there, and how many of these have asked to be woken. For tests.
    #[cfg(test)]
    pub(crate) fn counts(&self) -> (usize, usize) {
        let slots = self.taken.iter().map(|taken| taken.count_ones() as usize);
        let slots: usize = slots.sum();
        self.crowd.as_ref().map_or((slots, 0), |crowd| {
            let trees: usize = crowd.trees.iter().map(RangeTree::len).sum();
            let waiting = crowd.waiting.values().map(BTreeMap::len).sum();
            (slots + trees, waiting)
        })
    }

    fn crowd(&mut self) -> &mut Crowd {
        self.crowd.get_or_insert_default()
    }

    fn woken_by(&mut self, ticket: u64) -> BTreeMap<u64, Waker> {
        let Some(crowd) = &mut self.crowd else {
            return BTreeMap::new();
        };
        let woken = crowd.waiting.remove(&ticket).unwrap_or_default();
        if crowd.is_empty() {
            self.crowd = None;
        }
        woken
    }

    /// Takes the waker of `place` back, unless it was used.
    fn stop_waiting(&mut self, place: &mut Place) -> Option<Waker> {
        let ahead = mem::replace(&mut place.ahead, NOBODY);
        let crowd = self.crowd.as_mut()?;
        let waiters = crowd.waiting.get_mut(&ahead)?;
        let waker = waiters.remove(&place.ticket);
        if waiters.is_empty() {
            crowd.waiting.remove(&ahead);
        }
        if crowd.is_empty() {
            self.crowd = None;
        }
        waker
    }
}

fn overlap(one: &Range<u64>, other: &Range<u64>) -> bool {
    one.start < other.end && other.start < one.end
}
