//! The table of pages: finds a page's slot, reads it without the lock, or locks it.
//!
//! # What goes with a slot's state
//! Code that changes a state doesn't keep anything else in step by hand. A [`PageGuard`] does that when it is dropped,
//! or in the transition:
//!
//! - **Tags.** An entry of the array is tagged `Dirty` while its slot has `DIRTY`, and `Present` while the slot isn't
//!   empty. The tags change under the slot's lock. A tag that is set before the state shows is only set too early for a
//!   moment.
//! - **Population.** A leaf of the array counts its slots that are not empty. A slot is counted before it is filled,
//!   because a counted leaf can't be reclaimed under the slot. The count is given back after the slot was emptied.
//! - **References.** A slot that is `PRESENT` or `HELD` has one reference to its frame. A transition that takes the
//!   frame away unlocks the slot and then gives the reference back. In the other order the frame might be used again
//!   while the slot still names it, and a hit would take another page's data.
//! - **Owners.** The owner of a published frame is its page: reclaim finds the slot by it.

use std::ops::Range;
use std::sync::Arc;

use crossbeam_epoch as epoch;
use weir_faults::{ArmedPoints, Errno, FaultContext, race_fault};

use super::counts::Counts;
use super::frame::{FrameId, FramePool, PrivateFrame, TakenRef};
use super::locked::LockedPage;
use super::slot::PageSlot;
use super::state::{DIRTY, FILLING, PRESENT, PageState};
use crate::gen_radix::{GenRadix, Tag};

/// What is known of the pages of one device, and where their data is.
#[derive(Debug)]
pub(crate) struct PageTable {
    slots: GenRadix<PageSlot>,
    counts: Counts,
    pool: Arc<FramePool>,
    faults: FaultContext,
}

impl PageTable {
    /// An empty table, whose pages will be in frames of `pool`.
    pub(crate) fn new(pool: Arc<FramePool>, faults: FaultContext) -> Self {
        Self {
            slots: GenRadix::with_faults(faults.clone()),
            counts: Counts::default(),
            pool,
            faults,
        }
    }

    /// How many pages have each state bit.
    #[inline]
    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// What the array of slots takes.
    pub(crate) fn bytes(&self) -> usize {
        self.slots.bytes()
    }

    /// The state of `page` at this moment, without the lock; `None` if it has no slot.
    #[inline]
    pub(crate) fn state(&self, page: u64, pin: &epoch::Guard) -> Option<PageState> {
        self.slots.get(page, pin).map(PageSlot::load)
    }

    /// Takes a reference to the frame of `page`, if it is present. Takes no lock.
    #[inline]
    pub(crate) fn take_present(
        &self,
        page: u64,
        pin: &epoch::Guard,
    ) -> Option<(FrameId, TakenRef)> {
        let slot = self.slots.get(page, pin)?;
        let mut armed = self.faults.armed();
        let mut state = slot.load();
        while state.has(PRESENT) {
            #[cfg(test)]
            crate::testing::interleave::at("hit:looked");
            let taken = self.pool.try_ref(state.frame(), armed);
            let now = slot.load();
            match taken {
                Some(taken) if now.same_page(state) && !race_fault!(armed) => {
                    return Some((state.frame(), taken));
                }
                Some(_) => _ = self.pool.unref(state.frame()),
                None => {}
            }
            armed = ArmedPoints::NONE;
            state = now;
        }
        None
    }

    /// The first of `pages` whose slot is not empty.
    pub(crate) fn next_known(&self, pages: &Range<u64>, pin: &epoch::Guard) -> Option<u64> {
        self.next_tagged(pages, Tag::Present, pin)
    }

    /// The first of `pages` that is dirty.
    pub(crate) fn next_dirty(&self, pages: &Range<u64>, pin: &epoch::Guard) -> Option<u64> {
        self.next_tagged(pages, Tag::Dirty, pin)
    }

    fn next_tagged(&self, pages: &Range<u64>, tag: Tag, pin: &epoch::Guard) -> Option<u64> {
        self.slots
            .next_tagged(pages.start, tag, pin)
            .filter(|page| *page < pages.end)
    }

    /// Those of `pages` whose slots are not empty, in order.
    pub(crate) fn known<'g>(
        &'g self,
        pages: Range<u64>,
        pin: &'g epoch::Guard,
    ) -> impl Iterator<Item = u64> + 'g {
        self.slots.tagged(pages, Tag::Present, pin)
    }

    /// Those of `pages` that are dirty, in order.
    pub(crate) fn dirty<'g>(
        &'g self,
        pages: Range<u64>,
        pin: &'g epoch::Guard,
    ) -> impl Iterator<Item = u64> + 'g {
        self.slots.tagged(pages, Tag::Dirty, pin)
    }

    /// Clears the tags that scans for dirty pages would look at in vain. The caller excludes such scans meanwhile.
    pub(crate) fn tidy_dirty(&self, pages: Range<u64>, pin: &epoch::Guard) {
        self.slots.tidy_tags(pages, Tag::Dirty, pin);
    }

    /// The slot itself.
    #[cfg(test)]
    pub(super) fn slot<'g>(&'g self, page: u64, pin: &'g epoch::Guard) -> Option<&'g PageSlot> {
        self.slots.get(page, pin)
    }

    /// Whether the tags of `page` say that it is known, and that it is dirty.
    #[cfg(test)]
    pub(crate) fn tags(&self, page: u64, pin: &epoch::Guard) -> [bool; 2] {
        [Tag::Present, Tag::Dirty].map(|tag| self.slots.has_tag(page, tag, pin))
    }

    /// Locks the slot of `page` if there is one.
    pub(crate) fn lock<'a>(&'a self, page: u64, pin: &'a epoch::Guard) -> Option<PageGuard<'a>> {
        let locked = self
            .slots
            .get(page, pin)?
            .lock(&self.counts, self.faults.armed());
        let counted = !locked.state().is_empty();
        Some(PageGuard::new(self, page, pin, locked, counted))
    }

    /// Locks the slot of `page`, creating it where there is none. The slot may be empty.
    ///
    /// # Errors
    /// `ENOMEM` when there is no memory for a node, or the index is past what the tree can hold.
    pub(crate) fn lock_or_create<'a>(
        &'a self,
        page: u64,
        pin: &'a epoch::Guard,
    ) -> Result<PageGuard<'a>, Errno> {
        let mut armed = self.faults.armed();
        loop {
            // Lost: as if there were no slot yet, and another thread makes it at the same time.
            if !race_fault!(armed)
                && let Some(guard) = self.lock(page, pin)
                && guard.counted
            {
                return Ok(guard);
            }
            armed = ArmedPoints::NONE;
            #[cfg(test)]
            crate::testing::interleave::at("slot:missing");
            // Counted before it is locked: a counted leaf can't be reclaimed under the slot.
            let slot = self.slots.occupy(page, pin).map_err(|_| Errno::ENOMEM)?;
            let locked = slot.lock(&self.counts, armed);
            if locked.state().is_empty() {
                return Ok(PageGuard::new(self, page, pin, locked, true));
            }
            drop(locked);
            self.slots.vacate(page, pin);
        }
    }
}

/// A locked page of the table. When it is dropped the page is unlocked, and the array agrees with the page's state.
#[derive(Debug)]
pub(crate) struct PageGuard<'a> {
    /// Taken only in `drop`.
    locked: Option<LockedPage<'a>>,
    table: &'a PageTable,
    page: u64,
    pin: &'a epoch::Guard,
    /// The leaf's population counts this slot.
    counted: bool,
    was_empty: bool,
    was_dirty: bool,
}

impl<'a> PageGuard<'a> {
    #[inline]
    fn new(
        table: &'a PageTable,
        page: u64,
        pin: &'a epoch::Guard,
        locked: LockedPage<'a>,
        counted: bool,
    ) -> Self {
        Self {
            was_empty: locked.state().is_empty(),
            was_dirty: locked.state().has(DIRTY),
            locked: Some(locked),
            table,
            page,
            pin,
            counted,
        }
    }

    /// As [`LockedPage::fill_landed`]; the fill keeps its own reference to `token`.
    pub(crate) fn fill_landed(&mut self, token: FrameId) {
        let table = self.table;
        table.pool.set_owner(token, self.page);
        (**self).fill_landed(token);
        table.pool.add_ref(token);
    }

    /// Publishes `frame`, written in flush epoch `epoch`, as the page's newest version, and unlocks the page.
    ///
    /// If a fill reads the page, `taken_over` is called first, under the lock, with the fill's number and the frame.
    #[inline]
    pub(crate) fn publish(
        mut self,
        frame: PrivateFrame<'_>,
        epoch: u64,
        taken_over: impl FnOnce(u64, FrameId),
    ) {
        let (table, frame) = (self.table, frame.into_id());
        table.pool.set_owner(frame, self.page);
        if self.state().has(FILLING) {
            taken_over(self.fill_id(), frame);
        }
        let old = (*self).publish(frame, epoch);
        drop(self);
        if let Some(old) = old {
            table.pool.unref(old);
        }
    }

    /// Gives a clean page up and unlocks it.
    pub(crate) fn evict(mut self) -> SlotRef<'a> {
        let (pool, frame) = (&*self.table.pool, (*self).evict());
        drop(self);
        SlotRef { pool, frame }
    }

    /// Drops a held page: what it was held for has made it void.
    pub(crate) fn release(mut self) {
        let (pool, frame) = (&*self.table.pool, (*self).release());
        drop(self);
        pool.unref(frame);
    }

    /// Puts a held page back as `frame`: the version that the new end of the device leaves of it.
    pub(crate) fn put_back_cut(mut self, frame: PrivateFrame<'_>) {
        let (pool, frame) = (&*self.table.pool, frame.into_id());
        pool.set_owner(frame, self.page);
        let old = (*self).put_back_cut(frame);
        drop(self);
        pool.unref(old);
    }
}

impl<'a> std::ops::Deref for PageGuard<'a> {
    type Target = LockedPage<'a>;

    fn deref(&self) -> &Self::Target {
        self.locked.as_ref().expect("taken in drop only")
    }
}

impl std::ops::DerefMut for PageGuard<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        self.locked.as_mut().expect("taken in drop only")
    }
}

impl Drop for PageGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        let locked = self.locked.take().expect("taken here only");
        let (slots, page, pin) = (&self.table.slots, self.page, self.pin);
        let (dirty, empty) = (locked.state().has(DIRTY), locked.state().is_empty());
        assert!(
            self.counted || empty,
            "page {page} became {:?} without being counted",
            locked.state()
        );
        if dirty != self.was_dirty {
            if dirty {
                slots.set_tag(page, Tag::Dirty, pin)
            } else {
                slots.clear_tag(page, Tag::Dirty, pin)
            }
        }
        if empty != self.was_empty {
            if empty {
                slots.clear_tag(page, Tag::Present, pin)
            } else {
                slots.set_tag(page, Tag::Present, pin)
            }
        }
        drop(locked);
        if self.counted && empty {
            slots.vacate(page, pin);
        }
        #[cfg(test)]
        crate::testing::interleave::at("page:unlocked");
    }
}

/// The reference that a slot had to its frame, to be given back when this is dropped: the slot is unlocked already.
#[derive(Debug)]
pub(crate) struct SlotRef<'a> {
    pool: &'a FramePool,
    frame: FrameId,
}

impl SlotRef<'_> {
    /// Whether the page was read ahead and never asked for.
    pub(crate) fn is_unused_prefetch(&self) -> bool {
        self.pool.is_unused_prefetch(self.frame)
    }
}

impl Drop for SlotRef<'_> {
    fn drop(&mut self) {
        self.pool.unref(self.frame);
    }
}
