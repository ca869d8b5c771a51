//! A locked slot, and all the ways in which it can change.
//!
//! The state and the detail word of a slot change here and nowhere else. Each change has a name, [`Transition`], and
//! each transition has a rule that says in which states it may be made. The tables in the [module above](super) say
//! what makes it.

use super::counts::Counts;
use super::frame::FrameId;
use super::since::{DirtySince, OLDEST_EPOCH};
use super::slot::PageSlot;
use super::state::{DIRTY, FILLING, HELD, IN_FLIGHT, PRESENT, PageState, UNCLEAN, UNSTABLE};

/// What can become of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Transition {
    BeginFill,
    FillLanded,
    FillFailed,
    Publish,
    Submit,
    Completed,
    WriteFailed,
    Synced,
    SyncFailed,
    Hold,
    Release,
    PutBack,
    PutBackCut,
    Evict,
}

impl Transition {
    /// Whether it may be made in `state`.
    #[inline]
    const fn is_allowed(self, state: PageState) -> bool {
        match self {
            Self::BeginFill => state.is_empty(),
            Self::FillLanded | Self::FillFailed => state.has(FILLING),
            Self::Publish => !state.has(HELD),
            Self::Submit => state.has(DIRTY) && !state.has(IN_FLIGHT),
            Self::Completed | Self::WriteFailed => state.has(IN_FLIGHT),
            Self::Synced => state.has(UNSTABLE),
            Self::SyncFailed => state.has(UNSTABLE | DIRTY),
            Self::Hold => state.has(UNCLEAN) && !state.has(HELD),
            Self::Release | Self::PutBack | Self::PutBackCut => {
                state.has(HELD) && !state.has(IN_FLIGHT)
            }
            Self::Evict => state.is_clean(),
        }
    }
}

/// A locked slot; stored back and unlocked when dropped.
#[derive(Debug)]
pub(crate) struct LockedPage<'a> {
    slot: &'a PageSlot,
    counts: &'a Counts,
    before: PageState,
    /// The state that the slot will have.
    state: PageState,
}

impl<'a> LockedPage<'a> {
    /// For a slot whose lock bit the caller has just set; the state was `state`.
    #[inline]
    pub(super) fn new(slot: &'a PageSlot, counts: &'a Counts, state: PageState) -> Self {
        Self {
            slot,
            counts,
            before: state,
            state,
        }
    }

    /// The state, with what was changed since it was locked.
    #[inline]
    pub(crate) fn state(&self) -> PageState {
        self.state
    }

    /// The number of the fill that reads the page.
    pub(crate) fn fill_id(&self) -> u64 {
        assert!(self.state.has(FILLING), "{:?} has no fill", self.state);
        self.slot.detail()
    }

    /// Since when the page is dirty. For a page in flight that was not written again, it is what was submitted.
    pub(crate) fn dirty_since(&self) -> DirtySince {
        assert!(
            self.state.has(DIRTY | IN_FLIGHT),
            "{:?} is not dirty",
            self.state
        );
        DirtySince::of(self.slot.detail())
    }

    /// The only place that changes a state.
    #[inline]
    fn change(&mut self, transition: Transition, to: PageState) {
        assert!(
            transition.is_allowed(self.state),
            "{transition:?} of a page that is {:?}",
            self.state
        );
        self.state = to;
    }

    /// Fill number `id` reads the page, into its private frame `token`.
    pub(crate) fn begin_fill(&mut self, token: FrameId, id: u64) {
        self.change(Transition::BeginFill, PageState::new(token, FILLING));
        self.slot.set_detail(id);
    }

    /// The page was read. The slot needs a reference to `token`.
    pub(super) fn fill_landed(&mut self, token: FrameId) {
        self.end_fill(
            Transition::FillLanded,
            token,
            PageState::new(token, PRESENT),
        );
    }

    /// The page could not be read, or is not to be kept.
    pub(crate) fn fill_failed(&mut self, token: FrameId) {
        self.end_fill(Transition::FillFailed, token, PageState::EMPTY);
    }

    fn end_fill(&mut self, transition: Transition, token: FrameId, to: PageState) {
        assert!(
            self.state.frame() == token,
            "the fill into frame {token} ended in {:?}",
            self.state
        );
        self.change(transition, to);
    }

    /// `frame` is the page's newest version, written in flush epoch `epoch`. Returns the frame that was published
    /// before: its reference is the caller's.
    #[inline]
    pub(super) fn publish(&mut self, frame: FrameId, epoch: u64) -> Option<FrameId> {
        let old = self.state;
        let in_flight = old.bits() & IN_FLIGHT;
        self.change(
            Transition::Publish,
            PageState::new(frame, PRESENT | DIRTY | in_flight),
        );
        if !old.has(DIRTY) {
            // Of the *first* write since the last submission: a later one must not make an earlier FLUSH skip the page.
            self.slot.set_detail(DirtySince::written(epoch).detail());
        }
        old.has(PRESENT).then(|| old.frame())
    }

    /// The page is on its way to the backend.
    pub(crate) fn submit(&mut self) {
        // The detail word stays: if the page fails and was not written again, it tells when it became dirty.
        let to = self.state.without(DIRTY).with(IN_FLIGHT);
        self.change(Transition::Submit, to);
    }

    /// The backend has what was submitted, as mutation `generation`.
    pub(crate) fn completed(&mut self, generation: u64) {
        let landed = self.state.without(IN_FLIGHT);
        // A page that was written again has yet to be submitted, and its blocker decides about a page that is held.
        let superseded = landed.has(DIRTY | HELD);
        let to = if superseded {
            landed
        } else {
            landed.with(UNSTABLE)
        };
        self.change(Transition::Completed, to);
        if !superseded {
            self.slot.set_detail(generation);
        }
    }

    /// The backend doesn't have what was submitted. Returns the epoch since which the page is dirty again, unless the
    /// page is held: then its blocker puts it back as dirty if the change fails.
    pub(crate) fn write_failed(&mut self) -> Option<u64> {
        let before = self.state;
        let landed = before.without(IN_FLIGHT);
        if before.has(HELD) {
            self.change(Transition::WriteFailed, landed);
            return None;
        }
        self.change(Transition::WriteFailed, landed.with(DIRTY));
        let epoch = if before.has(DIRTY) {
            // Written again since: when it first became dirty is forgotten.
            OLDEST_EPOCH
        } else {
            DirtySince::of(self.slot.detail()).epoch()
        };
        self.slot
            .set_detail(DirtySince::failed_since(epoch).detail());
        Some(epoch)
    }

    /// Whether the page is what was written as mutation `generation`, and waits for a sync. If not, it was submitted
    /// again or shot down since, and is no longer what that sync is about.
    fn waits_for_sync(&self, generation: u64) -> bool {
        self.state.has(UNSTABLE) && self.slot.detail() == generation
    }

    /// A sync has covered mutation `generation`.
    pub(crate) fn synced(&mut self, generation: u64) {
        if self.waits_for_sync(generation) {
            self.change(Transition::Synced, self.state.without(UNSTABLE));
        }
    }

    /// The sync that was to cover mutation `generation` has failed.
    ///
    /// A page that is dirty, in flight or held was written again since, or is about to be changed. What was there
    /// before may be gone, and earlier FLUSHes cover that. None of them may pass the page by for being younger, or end
    /// before it is stored.
    pub(crate) fn sync_failed(&mut self, generation: u64) {
        if self.waits_for_sync(generation) || self.state.has(DIRTY) {
            let to = self.state.without(UNSTABLE).with(DIRTY);
            self.change(Transition::SyncFailed, to);
            self.slot
                .set_detail(DirtySince::failed_since(OLDEST_EPOCH).detail());
        } else if self.state.has(IN_FLIGHT) {
            self.slot
                .set_detail(DirtySince::written(OLDEST_EPOCH).detail());
        }
    }

    /// The page is shot down, and kept for the outcome of what changes the backend.
    pub(crate) fn hold(&mut self) {
        let in_flight = self.state.bits() & IN_FLIGHT;
        let to = PageState::new(self.state.frame(), HELD | in_flight);
        self.change(Transition::Hold, to);
    }

    /// What the page was held for has made it void. Returns its frame: the reference is the caller's.
    pub(super) fn release(&mut self) -> FrameId {
        let frame = self.state.frame();
        self.change(Transition::Release, PageState::EMPTY);
        frame
    }

    /// What the page was held for has failed: it is back.
    pub(crate) fn put_back(&mut self) {
        let frame = self.state.frame();
        self.restore(Transition::PutBack, frame);
    }

    /// The page is back, as `frame`. Returns the frame that was held: its reference is the caller's.
    pub(super) fn put_back_cut(&mut self, frame: FrameId) -> FrameId {
        let old = self.state.frame();
        self.restore(Transition::PutBackCut, frame);
        old
    }

    fn restore(&mut self, transition: Transition, frame: FrameId) {
        self.change(transition, PageState::new(frame, PRESENT | DIRTY));
        // It is not known what the store has of it: every FLUSH under way must write it.
        self.slot
            .set_detail(DirtySince::written(OLDEST_EPOCH).detail());
    }

    /// The clean page is given up. Returns its frame: the reference is the caller's.
    pub(super) fn evict(&mut self) -> FrameId {
        let frame = self.state.frame();
        self.change(Transition::Evict, PageState::EMPTY);
        frame
    }
}

impl Drop for LockedPage<'_> {
    #[inline]
    fn drop(&mut self) {
        debug_assert!(self.state.is_valid(), "{:?}", self.state);
        self.counts.transition(self.before, self.state);
        self.slot.unlock(self.state);
        #[cfg(test)]
        crate::testing::interleave::at("slot:unlocked");
    }
}
