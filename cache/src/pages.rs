//! Pages: what the cache knows of each page of the device, and the memory that holds its data.
//!
//! *Fill*, *run*, *blocker*, *adder* and *guard* are explained in [`page_cache`](crate::page_cache). A blocker *shoots
//! down* the pages of its range: it takes them out of the cache. Those that are not clean are held until its outcome is
//! known.
//!
//! # Parts
//! - [`PageTable`] has the slots, the counts and the frames. It finds a slot by the number of its page and locks it. It
//!   works without a cache, and so do its tests.
//! - [`PageSlot`] is what is known of one page: 16 bytes in the [`GenRadix`](crate::gen_radix::GenRadix). It has a
//!   state word (the number of a frame and six independent bits) and a detail word. A hit loads the state word and
//!   takes no lock.
//! - [`LockedPage`] is a slot that its holder may change, by [`Transition`](locked::Transition)s and in no other way.
//!   The lock is one bit of the state word, a spin lock. It is held for a handful of instructions and at most one 4 KiB
//!   copy, never across an await.
//! - [`PageGuard`] is a locked page of the table. It keeps what goes with the state in step with it: the tags by which
//!   the array finds pages of a state, the number of pages in its leaf, the reference that a slot has to its frame, and
//!   the frame's owner.
//! - [`frame`] is the memory.
//!
//! # State bits
//!
//! | bit | meaning | set by | cleared by | counter |
//! | --- | --- | --- | --- | --- |
//! | `PRESENT` | the frame is published and readable | `fill_landed` `publish` `put_back` `put_back_cut` | `hold` `evict` | `present` |
//! | `FILLING` | a read from the backend is under way; the frame number is the filler's private frame and so its token | `begin_fill` | `fill_landed` `fill_failed` `publish` | none |
//! | `DIRTY` | newer than what was ever submitted to the backend | `publish` `write_failed` `sync_failed` `put_back` `put_back_cut` | `submit` `hold` | `dirty` `unclean` |
//! | `IN_FLIGHT` | submitted to the backend, not completed | `submit` | `completed` `write_failed` | `in_flight` `unclean` |
//! | `UNSTABLE` | written to the backend, not yet covered by a sync | `completed` | `publish` `synced` `sync_failed` `hold` | `unstable` `unclean` |
//! | `HELD` | shot down while not clean, kept for the blocker's outcome | `hold` | `release` `put_back` `put_back_cut` | `held` `unclean` |
//!
//! Not every set of bits is a state. `FILLING` stands alone. `HELD` stands alone or with `IN_FLIGHT`. All other bits
//! need `PRESENT`, and `UNSTABLE` goes with neither `DIRTY` nor `IN_FLIGHT`. So there are nine states, the empty one
//! included. A page is *clean* when it is `PRESENT` and nothing else; only such a page may be evicted.
//!
//! # Transitions
//!
//! | transition | needs | by whom, holding what |
//! | --- | --- | --- |
//! | `begin_fill` | nothing is known of the page | read miss, readahead, write of a part: an add guard |
//! | `fill_landed` | `FILLING`, and the token is the fill's own | the fill: its add guard |
//! | `fill_failed` | `FILLING`, and the token is the fill's own | the fill: its add guard |
//! | `publish` | not `HELD` | write: an add guard |
//! | `submit` | `DIRTY`, not `IN_FLIGHT` | writeback: the scan lock |
//! | `completed` | `IN_FLIGHT` | writeback: the ledger of generations |
//! | `write_failed` | `IN_FLIGHT` | writeback: the ledger of generations |
//! | `synced` | `UNSTABLE` since the generation that the sync covers, else nothing changes | sync: the turn to sync |
//! | `sync_failed` | that, or `DIRTY`, else no bit changes | sync: the turn to sync |
//! | `hold` | any of `DIRTY`, `IN_FLIGHT`, `UNSTABLE`, not `HELD` | shoot-down: a block guard and a range lock, or the gate |
//! | `release` | `HELD`, not `IN_FLIGHT` | the blocker, which has succeeded |
//! | `put_back` | `HELD`, not `IN_FLIGHT` | the blocker, which has failed |
//! | `put_back_cut` | `HELD`, not `IN_FLIGHT` | resize, for the page that the new end cuts: the gate |
//! | `evict` | clean | reclaim: nothing; shoot-down, drop caches: a block guard |
//!
//! What a transition needs is asserted, in release builds too. Both tables are compared with the code by a test, which
//! tries each transition in each state.
//!
//! # The detail word
//! One field. The state says what it means, and it is read and written under the lock only.
//!
//! - `DIRTY`, and `IN_FLIGHT` as long as the page isn't written again ([`DirtySince`]): the flush epoch of the first
//!   write since the last submission, and whether the page has failed to be stored.
//! - `UNSTABLE`: the generation of the completed write. Epochs and generations are explained in
//!   [`flush`](crate::durability::flush).
//! - `FILLING`: the number of the fill.
//!
//! # Counters
//! [`Counts`](counts::Counts) has one counter per bit, and one for pages that are not clean. They are changed in one
//! place, when a locked slot is stored back, by comparing the old with the new word, so they can't drift from the bits.

mod counts;
pub(crate) mod frame;
mod locked;
mod since;
mod slot;
mod state;
mod table;

pub(crate) use locked::LockedPage;
pub(crate) use since::{DirtySince, OLDEST_EPOCH};
pub(crate) use slot::PageSlot;
pub(crate) use state::{DIRTY, FILLING, HELD, IN_FLIGHT, PRESENT, UNCLEAN};
pub(crate) use table::{PageGuard, PageTable};

#[cfg(test)]
mod tests;
